//! What new rules cost while events come: reading and compiling them, then the moment in which they take over
//! the state. Both halves of the events must come to what they come to undisturbed.

use super::{RawEvent, feed, thread_seconds};
use anyhow::{Result, bail, ensure};
use detection::engine::{Detector, Effect, Options};
use detection::rules::RuleSet;
use detection::sigma::RuleError;
use serde::Serialize;
use std::collections::BTreeMap;

/// One change of rules, to the same ones.
#[derive(Clone, Debug, Serialize)]
pub struct Reload {
    /// What kind of events came.
    pub kind: &'static str,
    /// Rules and correlations.
    pub rules: usize,
    /// Processor time to read and compile the rules; events are judged meanwhile by the old ones.
    pub load_ms: f64,
    /// Processor time in which no event is judged: the new rules take over the state.
    pub pause_ms: f64,
    /// Keys of correlations that went on with their state.
    pub keys: usize,
    /// Alerts that are missing, or too many, because of the change.
    pub lost: usize,
}

/// Feeds half of the events, changes the rules, feeds the rest.
pub(super) fn run(
    kind: &'static str,
    raws: &[RawEvent],
    load: impl Fn() -> Result<(RuleSet, Vec<RuleError>)>,
) -> Result<Reload> {
    let mut undisturbed = BTreeMap::new();
    let mut detector = Detector::new(load()?.0, Options::default());
    feed(&mut detector, raws, &mut |effect| count(effect, &mut undisturbed))?;

    let (first, second) = raws.split_at(raws.len() / 2);
    let mut changed = BTreeMap::new();
    let mut detector = Detector::new(load()?.0, Options::default());
    feed(&mut detector, first, &mut |effect| count(effect, &mut changed))?;
    let begun = thread_seconds();
    let (rules, errors) = load()?;
    let load_ms = (thread_seconds() - begun) * 1e3;
    if let Some(error) = errors.first() {
        bail!("{error}");
    }
    let count_of_rules = rules.rules().len() + rules.correlations().len();
    let begun = thread_seconds();
    let reloaded = detector.reload(rules);
    let pause_ms = (thread_seconds() - begun) * 1e3;
    ensure!(reloaded.begun + reloaded.dropped == 0, "{kind}: state was lost: {reloaded:?}");
    feed(&mut detector, second, &mut |effect| count(effect, &mut changed))?;
    let lost = apart(&undisturbed, &changed);
    Ok(Reload { kind, rules: count_of_rules, load_ms, pause_ms, keys: reloaded.keys, lost })
}

/// How often each effect was told.
fn count(effect: &Effect, told: &mut BTreeMap<String, usize>) {
    let name = match effect {
        Effect::Alert(alert) => format!("alert {:?}", alert.id),
        other => format!("{other:?}"),
    };
    *told.entry(name).or_default() += 1;
}

/// How many effects one has that the other has not.
fn apart(one: &BTreeMap<String, usize>, other: &BTreeMap<String, usize>) -> usize {
    let of = |counts: &BTreeMap<String, usize>, name: &str| counts.get(name).copied().unwrap_or(0);
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().map(|name| of(one, name).abs_diff(of(other, name))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_that_is_missing_or_told_twice_counts() {
        let of = |names: &[&str]| {
            let mut counts = BTreeMap::new();
            names.iter().for_each(|name| *counts.entry((*name).to_owned()).or_default() += 1);
            counts
        };
        assert_eq!(apart(&of(&["a", "b"]), &of(&["b", "a"])), 0);
        assert_eq!(apart(&of(&["a", "b"]), &of(&["a", "a", "c"])), 3);
    }
}
