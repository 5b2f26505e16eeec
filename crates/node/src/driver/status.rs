//! How a shard does, as the node that has it says: a row of its duty, so that every node of the region can answer.

use crate::driver::gauge::counted;
use crate::machine::command::Row;
use detection::SemanticHash;
use detection::engine::{Counts, Detector};
use detection::rollout::SetId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The row.
pub(crate) const STATUS: &[u8] = b"h";
/// How often it is stored at most.
const TELL_EVERY_MS: u64 = 10_000;
/// Rules that are named of each kind: those with most alerts, and how many there are beside them is told.
pub(crate) const RULES_TOLD: usize = 100;

/// How a shard does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// When it was said.
    pub(crate) at_ms: u64,
    /// All rules that its node knows, of all shards: [`detection::rules::RuleSet::identity`].
    pub(crate) known: Option<SemanticHash>,
    /// Its own rules in charge.
    pub(crate) in_charge: Option<SetId>,
    pub(crate) rules: u64,
    pub(crate) correlations: u64,
    /// `steady`, `shadow` or `watched`.
    pub(crate) phase: String,
    pub(crate) trial: Option<OnTrial>,
    pub(crate) rejected: Option<Rejected>,
    /// What rules in shadow would have raised.
    pub(crate) shadows: Vec<(Arc<str>, u64)>,
    pub(crate) late_spans: u64,
    pub(crate) keys: u64,
    pub(crate) remembered: u64,
    /// All that only grows, since the node has the shard.
    pub(crate) counts: BTreeMap<String, u64>,
}

/// Rules on trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OnTrial {
    pub(crate) set: Option<SetId>,
    pub(crate) since_ms: u64,
    pub(crate) events: u64,
    pub(crate) is_foretold: bool,
    /// How many of its rules are on trial: the others are in charge already, or raise nothing.
    pub(crate) new: u64,
    /// The first of them: its id, its alerts in this phase, and how many are allowed until now.
    pub(crate) first: Vec<(Arc<str>, u64, Option<u64>)>,
}

/// Rules that went wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rejected {
    pub(crate) why: String,
    /// The first of those that were on trial.
    pub(crate) rules: Vec<Arc<str>>,
}

impl Status {
    /// With what the detector has counted.
    pub(super) fn counting(mut self, detector: &Detector) -> Self {
        let counts: Counts = detector.counts();
        (self.keys, self.remembered) = (counts.keys, counts.remembered);
        self.counts = counted(counts).into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let rules = detector.rules();
        (self.rules, self.correlations) = (rules.rules().len() as u64, rules.correlations().len() as u64);
        self.shadows = most(detector.shadows().iter().map(|(rule, shadow)| (rule.clone(), shadow.alerts)));
        self
    }

    /// As it was stored; `None` where it cannot be read.
    pub(crate) fn read(row: &[u8]) -> Option<Self> {
        serde_json::from_slice(row).inspect_err(|error| tracing::warn!(%error, "how a shard does cannot be read")).ok()
    }
}

/// Those with most alerts.
pub(super) fn most(rules: impl Iterator<Item = (Arc<str>, u64)>) -> Vec<(Arc<str>, u64)> {
    let mut rules: Vec<_> = rules.collect();
    rules.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
    rules.truncate(RULES_TOLD);
    rules
}

/// What was said last.
#[derive(Default)]
pub(super) struct Teller {
    told: Status,
    looked_ms: Option<u64>,
    row: Option<Row>,
}

impl Teller {
    /// Whether it is time to say it again.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.looked_ms.is_none_or(|looked_ms| now_ms >= looked_ms.saturating_add(TELL_EVERY_MS))
    }

    /// Whether there is something to store: nothing where all is as it was.
    pub(super) fn tell(&mut self, now_ms: u64, status: Status) -> bool {
        self.looked_ms = Some(now_ms);
        if (Status { at_ms: self.told.at_ms, ..status.clone() }) == self.told {
            return false;
        }
        self.told = Status { at_ms: now_ms, ..status };
        self.row = serde_json::to_vec(&self.told).ok().map(|row| (STATUS.to_vec(), Some(row)));
        true
    }

    pub(super) fn take_row(&mut self) -> Option<Row> {
        self.row.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_as_it_was_is_not_stored_again() {
        let mut teller = Teller::default();
        assert!(teller.is_due(0));
        let status = Status { phase: "steady".into(), ..Status::default() };
        assert!(teller.tell(1, status.clone()) && teller.take_row().is_some());
        assert!(!teller.is_due(10_000) && teller.is_due(10_001));
        assert!(!teller.tell(10_001, status.clone()) && teller.take_row().is_none());
        assert!(teller.tell(20_001, Status { late_spans: 1, ..status }));
        let (key, row) = teller.take_row().unwrap();
        let read = Status::read(&row.unwrap()).unwrap();
        assert_eq!((key.as_slice(), read.at_ms, read.late_spans), (STATUS, 20_001, 1));
    }

    #[test]
    fn a_row_of_another_version_says_what_it_says() {
        assert_eq!(Status::read(b"{\"at_ms\":7,\"news\":true}"), Some(Status { at_ms: 7, ..Status::default() }));
        assert_eq!(Status::read(b"?"), None);
    }

    #[test]
    fn those_with_most_alerts_are_told_first() {
        let rules = (0..200_u64).map(|number| (Arc::from(format!("r{number:03}")), number % 150));
        let most = most(rules);
        assert_eq!((most.len(), &*most[0].0, most[0].1), (RULES_TOLD, "r149", 149));
    }
}
