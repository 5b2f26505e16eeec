//! Whether two engines match the same rules on the same events: a second opinion on correctness.

use super::{RawEvent, feed};
use anyhow::{Result, ensure};
use detection::engine::{Detector, Effect, Options};
use detection::rules::RuleSet;
use serde::Serialize;
use std::collections::BTreeSet;

/// Ids of the rules that match an event.
pub(super) type Matched = BTreeSet<String>;

/// A rule that one engine matched and the other did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    /// The event's line, from one.
    pub line: usize,
    /// The rule's id.
    pub rule: String,
    /// Whether it was Holdfast that matched it.
    pub ours: bool,
}

/// What came of comparing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Events that were compared.
    pub events: usize,
    /// Rules matched by both on the same event.
    pub both: usize,
    /// All else.
    pub apart: Vec<Disagreement>,
}

impl Agreement {
    /// Compares what both matched on each event.
    pub(super) fn of(ours: &[Matched], theirs: &[Matched]) -> Result<Self> {
        ensure!(ours.len() == theirs.len(), "{} events here, {} there", ours.len(), theirs.len());
        let mut agreement = Self { events: ours.len(), ..Self::default() };
        for ((ours, theirs), line) in ours.iter().zip(theirs).zip(1..) {
            agreement.both += ours.intersection(theirs).count();
            let apart = |rule: &String, ours| Disagreement { line, rule: rule.clone(), ours };
            agreement.apart.extend(ours.difference(theirs).map(|rule| apart(rule, true)));
            agreement.apart.extend(theirs.difference(ours).map(|rule| apart(rule, false)));
        }
        Ok(agreement)
    }
}

/// The rules for which a detector raises an alert on each event alone.
pub(super) fn matches(rules: &RuleSet, raws: &[RawEvent]) -> Result<Vec<Matched>> {
    let one = |raw: &RawEvent, detector: &mut Detector| {
        let mut matched = Matched::new();
        feed(detector, std::slice::from_ref(raw), &mut |effect| {
            if let Effect::Alert(alert) = effect {
                matched.insert(alert.rule.id.to_string());
            }
        })?;
        Ok(matched)
    };
    let mut detector = Detector::new(rules.clone(), Options::default());
    raws.iter().map(|raw| one(raw, &mut detector)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::raw;
    use detection::SourceKind;
    use detection::rules::load_texts;

    fn matched(ids: &[&str]) -> Matched {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn planted_disagreements_are_found_with_event_and_rule() {
        let ours = [matched(&["a"]), matched(&["a", "b"]), matched(&[])];
        assert_eq!(Agreement::of(&ours, &ours).unwrap().apart, []);
        let theirs = [matched(&["a"]), matched(&["b", "c"]), matched(&["a"])];
        let agreement = Agreement::of(&ours, &theirs).unwrap();
        let apart = |line, rule: &str, ours| Disagreement { line, rule: rule.into(), ours };
        assert_eq!(agreement.apart, [apart(2, "a", true), apart(2, "c", false), apart(3, "a", false)]);
        assert_eq!((agreement.events, agreement.both), (3, 2));
        assert!(Agreement::of(&ours, &theirs[1..]).is_err());
    }

    #[test]
    fn what_matches_is_known_event_by_event() {
        let rule = |id: &str, value: &str| {
            format!(
                "title: {id}\nid: {id}\nlogsource: {{product: p}}\ndetection: {{s: {{f: {value}}}, condition: s}}\n"
            )
        };
        let [one, two] = ["4c6a8a6e-0000-4000-8000-000000000001", "4c6a8a6e-0000-4000-8000-000000000002"];
        let text = [rule(one, "'*x'"), rule(two, "yx")].join("---\n");
        let (rules, errors) = load_texts(vec![("two.yml".to_owned(), text)]);
        assert!(errors.is_empty(), "{errors:?}");
        let lines = ["x", "yx", "z"].map(|value| format!("{{\"f\":\"{value}\",\"product\":\"p\"}}"));
        let raws: Vec<RawEvent> =
            (0..).zip(lines).map(|(number, line)| raw(number, SourceKind::Ndjson, line)).collect();
        let ours = matches(&rules, &raws).unwrap();
        assert_eq!(ours, [matched(&[one]), matched(&[one, two]), matched(&[])]);
    }
}
