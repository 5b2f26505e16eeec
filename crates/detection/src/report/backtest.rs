//! Backtests: what rules would have raised among events of the past, with the program and the detector that live events
//! meet, and what is to be expected of them from now on.

use crate::AlertId;
use crate::engine::{Detector, Effect, Options};
use crate::event::{Owner, RawEvent};
use crate::program::Worker;
use crate::rules::RuleSet;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most alerts that are remembered to be taken back when they are superseded.
const ALERTS_MAX: usize = 1_000_000;
/// A time after all events: nothing of the past is ahead of it.
const NOW_MS: u64 = u64::MAX / 4;
const DAY_MS: f64 = 86_400_000.0;
/// Events of less than an hour are taken for an hour's.
const SPAN_MIN_MS: u64 = 3_600_000;

/// What rules matched.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Backtest {
    /// Events read.
    pub events: u64,
    /// Events that could not be read, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// From the first event to the last.
    pub span_ms: u64,
    /// Rules that matched, the most frequent first.
    pub rules: Vec<RuleHits>,
    /// Alerts by the ids of rules and correlations: how many, and how many are to be expected.
    pub alerts: BTreeMap<String, Forecast>,
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

/// How many alerts a rule raises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Alerts of the past.
    pub alerts: u64,
    /// Alerts a day, if it goes on so.
    pub per_day: f64,
    /// With a confidence of 99 %, there are no more than that a day on average, if they come independently.
    pub at_most_per_day: f64,
}

impl Forecast {
    /// What so many alerts in that time let expect.
    pub fn of(alerts: u64, span_ms: u64) -> Self {
        let days = span_ms.max(SPAN_MIN_MS) as f64 / DAY_MS;
        // The upper bound of a Poisson mean, as Wilson and Hilferty approximate it.
        let count = alerts as f64 + 1.0;
        let root = 1.0 - 1.0 / (9.0 * count) + 2.326 / (3.0 * count.sqrt());
        Self { alerts, per_day: alerts as f64 / days, at_most_per_day: count * root * root * root / days }
    }
}

impl Backtest {
    /// What is to be expected of each rule, for a rollout.
    pub fn forecast(&self) -> BTreeMap<Arc<str>, Forecast> {
        self.alerts.iter().map(|(rule, forecast)| (rule.as_str().into(), *forecast)).collect()
    }
}

/// Runs rules over events of the past that say themselves whose they are.
pub fn backtest(rules: &RuleSet, events: impl IntoIterator<Item = impl Borrow<RawEvent>>) -> Backtest {
    let mut run = Run::new(rules);
    events.into_iter().for_each(|event| run.take(event.borrow(), Owner::Itself));
    run.end()
}

/// A backtest that is going on.
pub struct Run<'a> {
    rules: &'a RuleSet,
    options: Options,
    worker: Worker,
    detector: Detector,
    report: Backtest,
    /// How often each rule matched, and when the first and the last of the events happened.
    hits: BTreeMap<usize, (u64, u64, u64)>,
    alerts: Alerts,
    effects: Vec<Effect>,
    first_ms: u64,
    last_ms: u64,
}

impl<'a> Run<'a> {
    /// One that has seen nothing.
    pub fn new(rules: &'a RuleSet) -> Self {
        // No event of the past is late.
        let options = Options { allowed_lateness_ms: u64::MAX / 8, ..Options::default() };
        Self {
            rules,
            worker: rules.program().worker(),
            detector: Detector::new(rules.clone(), options.clone()),
            options,
            report: Backtest::default(),
            hits: BTreeMap::new(),
            alerts: Alerts::default(),
            effects: Vec::new(),
            first_ms: u64::MAX,
            last_ms: 0,
        }
    }

    /// Takes the next event, and whose it is.
    pub fn take(&mut self, raw: &RawEvent, owner: Owner<'_>) {
        self.report.events += 1;
        let look = match self.rules.program().run_raw_for(&mut self.worker, raw, owner) {
            Ok(look) => look,
            Err(reject) => {
                *self.report.rejected.entry(reject.reason.label().to_owned()).or_default() += 1;
                return;
            }
        };
        // As live detection has it: a clock that was ahead is not believed.
        let time_ms = self.options.believed_ms(look.time_ms, raw.received_ms);
        (self.first_ms, self.last_ms) = (self.first_ms.min(time_ms), self.last_ms.max(time_ms));
        for rule in self.worker.hits() {
            let (count, first_ms, last_ms) = self.hits.entry(rule).or_insert((0, u64::MAX, 0));
            *count += 1;
            *first_ms = time_ms.min(*first_ms);
            *last_ms = time_ms.max(*last_ms);
        }
        if self.worker.hits().len() > 0 && self.detector.raw_for(NOW_MS, raw, owner, &mut self.effects).is_ok() {
            self.alerts.take(&mut self.effects);
        }
    }

    /// What came of it.
    pub fn end(mut self) -> Backtest {
        self.detector.finish(NOW_MS, &mut self.effects);
        self.alerts.take(&mut self.effects);
        let mut counts = self.alerts.counts;
        for (rule, shadow) in self.detector.shadows() {
            *counts.entry(rule.clone()).or_default() += shadow.alerts;
        }
        let span_ms = self.last_ms.saturating_sub(self.first_ms);
        let alerts = counts.iter().map(|(rule, count)| (rule.to_string(), Forecast::of(*count, span_ms))).collect();
        let of_rule = |(place, (hits, first_ms, last_ms)): (usize, (u64, u64, u64))| {
            let reference = &self.rules.rules()[place].header.reference;
            let (rule, title) = (reference.id.to_string(), reference.title.to_string());
            RuleHits { rule, title, hits, first_ms, last_ms, alerts: self.rules.raises_alerts(place) }
        };
        let mut rules: Vec<RuleHits> = self.hits.into_iter().map(of_rule).collect();
        rules.sort_by(|a, b| b.hits.cmp(&a.hits).then_with(|| a.rule.cmp(&b.rule)));
        Backtest { span_ms, rules, alerts, ..self.report }
    }
}

/// Alerts that stand, by rule.
#[derive(Default)]
struct Alerts {
    counts: BTreeMap<Arc<str>, u64>,
    rules: BTreeMap<AlertId, Arc<str>>,
}

impl Alerts {
    fn take(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Alert(alert) => {
                    *self.counts.entry(alert.rule.id.clone()).or_default() += 1;
                    if self.rules.len() < ALERTS_MAX {
                        self.rules.insert(alert.id, alert.rule.id.clone());
                    }
                }
                Effect::Superseded { old, .. } => {
                    if let Some(count) = self.rules.remove(&old).and_then(|rule| self.counts.get_mut(&rule)) {
                        *count = count.saturating_sub(1);
                    }
                }
                Effect::Extended { .. } => {}
            }
        }
    }
}
