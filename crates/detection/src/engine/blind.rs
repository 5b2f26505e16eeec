//! What the detector lost because of a budget, told as an alert: whoever relies on it must know when it has gone blind.

use super::{Detector, Effect};
use crate::alert::{Alert, EventSummary, RuleReference, Severity};
use crate::correlation::Lost;
use crate::id::{Digest, EventId, SemanticHash};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One alert for each rule in that time.
const TOLD_EVERY_MS: u64 = 3_600_000;

/// The id of the rule of such alerts.
pub const COVERAGE_DEGRADED: &str = "holdfast-coverage-degraded";

/// What was lost of one rule's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blind {
    title: Arc<str>,
    /// Since when it was told last.
    told_ms: u64,
    /// Lost since then.
    lost: Lost,
}

#[cfg(test)]
impl Blind {
    pub(super) fn example(lost: Lost) -> Self {
        Self { title: "X".into(), told_ms: 1, lost }
    }
}

impl Detector {
    /// A rule's state was lost: told at once, unless it was within the hour.
    pub(super) fn lose(&mut self, now_ms: u64, rule: (Arc<str>, Arc<str>), lost: Lost, effects: &mut Vec<Effect>) {
        self.counts.keys_evicted += lost.keys;
        self.counts.entries_lost += lost.entries;
        self.counts.early += lost.early;
        self.counts.forgotten_early += lost.remembered + lost.streams;
        self.counts.late_unseen += lost.late;
        self.counts.standing += lost.standing;
        self.counts.rows_lost += lost.rows;
        let (id, title) = rule;
        match self.blind.get_mut(&id) {
            Some(blind) => blind.lost.add(lost),
            None => {
                self.tell_blind(now_ms, &id, &title, lost, effects);
                self.blind.insert(id, Blind { title, told_ms: now_ms, lost: Lost::default() });
            }
        }
    }

    /// An hour later, what was lost meanwhile is told in one.
    pub(super) fn tell_rest(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let is_due = |blind: &Blind| now_ms >= blind.told_ms.saturating_add(TOLD_EVERY_MS);
        let due: BTreeMap<Arc<str>, Blind> = self.blind.extract_if(.., |_, blind| is_due(blind)).collect();
        for (id, blind) in due.into_iter().filter(|(_, blind)| !blind.lost.is_none()) {
            self.tell_blind(now_ms, &id, &blind.title, blind.lost, effects);
            self.blind.insert(id, Blind { told_ms: now_ms, lost: Lost::default(), ..blind });
        }
    }

    fn tell_blind(&mut self, now_ms: u64, rule: &str, title: &str, lost: Lost, effects: &mut Vec<Effect>) {
        let mut hash = Digest::new("holdfast coverage degraded 1");
        hash.part(rule.as_bytes()).part(&now_ms.to_le_bytes());
        let event = EventSummary {
            id: EventId::of(hash),
            time_ms: now_ms,
            class_uid: 0,
            activity_id: 0,
            text: format!("\"{title}\" may miss something: {lost}"),
            entities: BTreeSet::new(),
        };
        let reference = RuleReference {
            id: COVERAGE_DEGRADED.into(),
            title: "Coverage degraded: the detector forgot state".into(),
            semantic_hash: SemanticHash::of(Digest::new(COVERAGE_DEGRADED)),
            tags: Vec::new(),
        };
        let key = BTreeMap::from([("rule".to_owned(), rule.to_owned())]);
        self.counts.alerts += 1;
        let tenant = self.options.tenant.clone();
        effects.push(Effect::Alert(Alert::new(tenant, reference, Severity::High, key, vec![event])));
    }
}
