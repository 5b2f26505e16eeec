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

    /// What the streams lost is told with the event that cost it: a detector that is restarted after it has told it too.
    pub(super) fn tell_lost(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let lost = self.streams.take_lost();
        if !lost.is_none() {
            self.lose(now_ms, ("streams".into(), "Source streams".into()), lost, effects);
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
        let text = format!("\"{title}\" may miss something: {lost}");
        self.counts.alerts += 1;
        let degraded = coverage_degraded(self.options.tenant.clone(), now_ms, rule, text);
        effects.push(Effect::Alert(Arc::new(degraded)));
    }

    /// Whoever reads late spans again could not do so for so many late events of a rule.
    pub fn unseen(&mut self, now_ms: u64, rule: &Arc<str>, late: u64, effects: &mut Vec<Effect>) {
        let plans = self.rules.correlations.iter().map(|plan| &plan.header.reference);
        let title = plans.into_iter().find(|reference| reference.id == *rule).map(|reference| reference.title.clone());
        let title = title.unwrap_or_else(|| rule.clone());
        self.lose(now_ms, (rule.clone(), title), Lost { late, ..Lost::default() }, effects);
    }
}

/// The alert that something may be missed: `of` is the rule, or the part of the detector, that has gone blind.
pub fn coverage_degraded(tenant: Arc<str>, now_ms: u64, of: &str, text: String) -> Alert {
    let mut hash = Digest::new("holdfast coverage degraded 1");
    hash.part(of.as_bytes()).part(&now_ms.to_le_bytes());
    let event = EventSummary {
        id: EventId::of(hash),
        time_ms: now_ms,
        class_uid: 0,
        activity_id: 0,
        text,
        entities: BTreeSet::new(),
    };
    let reference = RuleReference {
        id: COVERAGE_DEGRADED.into(),
        title: "Coverage degraded: the detector forgot state".into(),
        semantic_hash: SemanticHash::of(Digest::new(COVERAGE_DEGRADED)),
        tags: Vec::new(),
    };
    let key = BTreeMap::from([("rule".to_owned(), of.to_owned())]);
    Alert::new(tenant, reference, Severity::High, key, vec![event])
}
