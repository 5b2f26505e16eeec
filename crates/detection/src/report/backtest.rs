//! Backtests: what rules would have matched among events of the past, with the program that live events meet.

use crate::event::RawEvent;
use crate::rules::RuleSet;
use serde::Serialize;
use std::collections::BTreeMap;

/// What rules matched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Backtest {
    /// Events read.
    pub events: u64,
    /// Events that could not be read, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Rules that matched, the most frequent first.
    pub rules: Vec<RuleHits>,
}

/// How often a rule matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleHits {
    /// Its id.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// How often.
    pub hits: u64,
    /// When the first of the events happened.
    pub first_ms: u64,
    /// When the last of them happened.
    pub last_ms: u64,
    /// Whether each of them would be an alert, and not only feed correlations.
    pub alerts: bool,
}

/// Runs the rules on single events over events of the past.
pub fn backtest<'a>(rules: &RuleSet, events: impl IntoIterator<Item = &'a RawEvent>) -> Backtest {
    let program = rules.program();
    let mut worker = program.worker();
    let mut report = Backtest::default();
    let mut hits: BTreeMap<usize, (u64, u64, u64)> = BTreeMap::new();
    for raw in events {
        report.events += 1;
        match program.run_raw(&mut worker, raw) {
            Ok(look) => {
                for rule in worker.hits() {
                    let (count, first_ms, last_ms) = hits.entry(rule).or_insert((0, u64::MAX, 0));
                    *count += 1;
                    *first_ms = look.time_ms.min(*first_ms);
                    *last_ms = look.time_ms.max(*last_ms);
                }
            }
            Err(reject) => *report.rejected.entry(reject.reason.label().to_owned()).or_default() += 1,
        }
    }
    report.rules = hits
        .into_iter()
        .map(|(place, (hits, first_ms, last_ms))| {
            let reference = &rules.rules()[place].header.reference;
            let (rule, title) = (reference.id.to_string(), reference.title.to_string());
            RuleHits { rule, title, hits, first_ms, last_ms, alerts: rules.raises_alerts(place) }
        })
        .collect();
    report.rules.sort_by(|a, b| b.hits.cmp(&a.hits).then_with(|| a.rule.cmp(&b.rule)));
    report
}
