//! New rules of a shard on their way into charge: in shadow beside the old ones, then watched, and back where they
//! raise too much.
//!
//! `detection::rollout` decides; this holds the rule sets and the detector in shadow. The decision is a row of the
//! shard's duty; a set in shadow begins again with whoever takes the shard over.

use crate::driver::duty::Post;
use crate::machine::command::Row;
use detection::alert::{EventSummary, RuleReference};
use detection::engine::{Detector, Effect, Options};
use detection::rollout::{self, Care, Fault, Input, Phase, Rollout, SetId};
use detection::rules::RuleSet;
use detection::{Alert, EventId, Owner, RawEvent, SemanticHash, Severity};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The row with the rollout.
const ROLLOUT: &[u8] = b"o";

/// What is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) rollout: Rollout,
    /// A set that went wrong: it is not tried again until the rules change.
    pub(crate) rejected: Option<SetId>,
}

/// A change of the rules in charge, or of those in shadow.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Shadow(SetId),
    InCharge(SetId),
    Back { from: SetId, why: Fault },
    Discarded { set: SetId, why: Fault },
}

pub(super) struct Trial {
    stored: Stored,
    /// Sets that may be needed: in charge, on trial, and the one before.
    sets: BTreeMap<SetId, Arc<RuleSet>>,
    shadow: Option<Detector>,
    counted: BTreeMap<Arc<str>, u64>,
    /// Rules whose meaning the set on trial shares with the one before: they raise what they raised.
    unchanged: BTreeSet<Arc<str>>,
    changes: Vec<Change>,
    is_stored: bool,
}

impl Trial {
    /// Goes on where the last holder was, with the rules this node knows.
    pub(super) fn restore(post: &Post, known: Arc<RuleSet>, care: Care) -> Self {
        let row = post.row(ROLLOUT).ok().flatten().and_then(|row| serde_json::from_slice::<Stored>(&row).ok());
        // The sets before are not at hand: what this node knows is in charge.
        Self::new(known, care, row.and_then(|stored| stored.rejected))
    }

    fn new(known: Arc<RuleSet>, care: Care, rejected: Option<SetId>) -> Self {
        let id = known.fingerprint();
        Self {
            stored: Stored { rollout: Rollout::new(id, care), rejected },
            sets: BTreeMap::from([(id, known)]),
            shadow: None,
            counted: BTreeMap::new(),
            unchanged: BTreeSet::new(),
            changes: Vec::new(),
            is_stored: false,
        }
    }

    /// The rules in charge.
    pub(super) fn in_charge(&self) -> &RuleSet {
        self.sets.get(&self.stored.rollout.in_charge()).expect("the set in charge is kept")
    }

    /// This node knows other rules now.
    pub(super) fn propose(&mut self, now_ms: u64, new: Arc<RuleSet>) {
        let set = new.fingerprint();
        if self.stored.rejected == Some(set) {
            return;
        }
        let references = |rules: &RuleSet| -> BTreeMap<Arc<str>, SemanticHash> {
            let rules_of = rules.rules().iter().map(|rule| &rule.header.reference);
            let all = rules_of.chain(rules.correlations().iter().map(|plan| &plan.header.reference));
            all.map(|reference| (reference.id.clone(), reference.semantic_hash)).collect()
        };
        let before = references(self.in_charge());
        let now = references(&new);
        self.unchanged = now.into_iter().filter(|(id, hash)| before.get(id) == Some(hash)).map(|(id, _)| id).collect();
        self.sets.insert(set, new);
        self.step(now_ms, Input::Propose { set, forecast: BTreeMap::new(), refused: 0 });
    }

    /// The set in shadow sees what the one in charge sees.
    pub(super) fn take(&mut self, now_ms: u64, raw: &RawEvent, owner: Owner<'_>) {
        if let Some(shadow) = &mut self.shadow {
            // What cannot be read was told by the set in charge.
            let _ = shadow.raw_for(now_ms, raw, owner, &mut Vec::new());
        }
    }

    pub(super) fn tick(&mut self, now_ms: u64) {
        if let Some(shadow) = &mut self.shadow {
            shadow.step(now_ms, detection::engine::Input::Tick, &mut Vec::new());
        }
        self.step(now_ms, Input::Tick);
    }

    /// So much was seen, and this followed under the rules in charge.
    pub(super) fn saw(&mut self, now_ms: u64, events: usize, effects: &[Effect]) {
        let mut alerts: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        match (self.stored.rollout.phase(), &self.shadow) {
            (Phase::Steady, _) => return,
            (Phase::Shadow(_), Some(shadow)) => {
                for (rule, seen) in shadow.shadows() {
                    let known = self.counted.insert(rule.clone(), seen.alerts).unwrap_or(0);
                    alerts.insert(rule.clone(), seen.alerts.saturating_sub(known));
                }
            }
            (Phase::Shadow(_), None) => {}
            (Phase::Watched { .. }, _) => {
                for effect in effects {
                    if let Effect::Alert(alert) = effect {
                        *alerts.entry(alert.rule.id.clone()).or_default() += 1;
                    }
                }
            }
        }
        alerts.retain(|rule, count| *count > 0 && !self.unchanged.contains(rule));
        if events > 0 || !alerts.is_empty() {
            self.step(now_ms, Input::Seen { events: events as u64, alerts });
        }
    }

    fn step(&mut self, now_ms: u64, input: Input) {
        let mut effects = Vec::new();
        self.stored.rollout.step(now_ms, input, &mut effects);
        for effect in effects {
            self.is_stored = false;
            match effect {
                rollout::Effect::Shadow(set) => {
                    let rules = self.sets.get(&set).map(|rules| rules.in_shadow());
                    self.shadow = rules.map(|rules| Detector::new(rules, Options::default()));
                    self.counted.clear();
                    self.changes.push(Change::Shadow(set));
                }
                rollout::Effect::Promote(set) => {
                    (self.shadow, self.stored.rejected) = (None, None);
                    self.changes.push(Change::InCharge(set));
                }
                rollout::Effect::RollBack { from, why, .. } => {
                    self.stored.rejected = Some(from);
                    self.sets.remove(&from);
                    self.changes.push(Change::Back { from, why });
                }
                rollout::Effect::Discard { set, why } => {
                    self.shadow = None;
                    if why != Fault::Replaced {
                        self.stored.rejected = Some(set);
                    }
                    if set != self.stored.rollout.in_charge() {
                        self.sets.remove(&set);
                    }
                    self.changes.push(Change::Discarded { set, why });
                }
                rollout::Effect::Settled(set) => self.sets.retain(|known, _| *known == set),
            }
        }
    }

    /// What changed since this was last asked.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The row, where it changed.
    pub(super) fn take_row(&mut self) -> Option<Row> {
        if std::mem::replace(&mut self.is_stored, true) {
            return None;
        }
        serde_json::to_vec(&self.stored).ok().map(|row| (ROLLOUT.to_vec(), Some(row)))
    }
}

impl Change {
    /// Whether other rules are in charge.
    pub(super) fn is_in_charge(&self) -> bool {
        matches!(self, Self::InCharge(_) | Self::Back { .. })
    }

    /// Why the new rules went, if they did.
    pub(super) fn refusal(&self) -> Option<String> {
        match self {
            Self::Back { why, .. } | Self::Discarded { why, .. } => Some(told(why)),
            Self::Shadow(_) | Self::InCharge(_) => None,
        }
    }

    /// Who relies on the rules must know that they are not those that were asked for.
    pub(super) fn alert(&self, now_ms: u64) -> Option<Alert> {
        let (set, why) = match self {
            Self::Back { from, why } => (from, why),
            Self::Discarded { set, why } if *why != Fault::Replaced => (set, why),
            _ => return None,
        };
        let event = EventSummary {
            id: EventId::from_bytes(*set.as_bytes().first_chunk().expect("a hash has 32 bytes")),
            time_ms: now_ms,
            class_uid: 0,
            activity_id: 0,
            text: self.to_string(),
            entities: BTreeSet::new(),
        };
        let reference = RuleReference {
            id: "holdfast-rules-rolled-back".into(),
            title: "New rules are not in charge".into(),
            semantic_hash: *set,
            tags: Vec::new(),
        };
        let key = BTreeMap::from([("why".to_owned(), told(why))]);
        Some(Alert::new("platform".into(), reference, Severity::Medium, key, vec![event]))
    }
}

fn told(why: &Fault) -> String {
    match why {
        Fault::Refused { documents } => format!("{documents} documents were refused"),
        Fault::Failed { rule, why } => format!("{rule} went wrong: {why}"),
        Fault::Volume { rule, alerts, allowed } => {
            format!("{rule} raised, or would have raised, {alerts} alerts where {allowed} are allowed")
        }
        Fault::Replaced => "newer rules came".to_owned(),
        Fault::Abandoned => "it was called off".to_owned(),
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |set: &SetId| set.to_string().chars().take(12).collect::<String>();
        match self {
            Self::Shadow(set) => write!(formatter, "{} runs in shadow", short(set)),
            Self::InCharge(set) => write!(formatter, "{} is in charge", short(set)),
            Self::Back { from, why } => write!(formatter, "{} is rolled back: {}", short(from), told(why)),
            Self::Discarded { set, why } => write!(formatter, "{} is discarded: {}", short(set), told(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use detection::SourceKind;

    fn rules(threshold: u32) -> Arc<RuleSet> {
        let text = format!(
            "title: Knock\nname: knock\nlogsource: {{product: doors}}\ndetection: {{s: {{door: '*'}}, condition: s}}\n\
             level: low\n---\ntitle: Knocks\nname: knocks\ncorrelation: {{type: event_count, rules: [knock], \
             group-by: [door], timespan: 5m, condition: {{gte: {threshold}}}}}\n"
        );
        let (rules, errors) = detection::rules::load_texts(vec![("a.yml".into(), text)]);
        assert!(errors.is_empty(), "{errors:?}");
        Arc::new(rules)
    }

    fn knock(number: u64) -> RawEvent {
        let text = format!("{{\"product\":\"doors\",\"door\":\"d{number}\",\"time\":{}}}", 1_000 + number);
        RawEvent { source: SourceKind::Ndjson, received_ms: 1_000, position: None, bytes: Bytes::from(text) }
    }

    fn told(trial: &mut Trial) -> Vec<String> {
        trial.changes().iter().map(|change| change.to_string().split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn new_rules_run_in_shadow_and_then_are_in_charge() {
        let care = Care { shadow_ms: 10_000, ..Care::default() };
        let (old, new) = (rules(3), rules(4));
        let mut trial = Trial::new(Arc::clone(&old), care, None);
        trial.propose(0, Arc::clone(&old));
        assert_eq!(told(&mut trial), Vec::<String>::new(), "the same rules are nothing new");
        trial.propose(0, Arc::clone(&new));
        trial.tick(5_000);
        assert_eq!(
            (told(&mut trial), trial.in_charge().fingerprint()),
            (vec!["runs in shadow".into()], old.fingerprint())
        );
        trial.tick(10_000);
        assert_eq!(
            (told(&mut trial), trial.in_charge().fingerprint()),
            (vec!["is in charge".into()], new.fingerprint())
        );
        assert!(trial.take_row().is_some() && trial.take_row().is_none(), "a row is stored once");
    }

    #[test]
    fn rules_that_would_raise_too_much_never_come_into_charge_and_are_not_tried_again() {
        let care = Care { alerts_free: 5, ..Care::default() };
        let (old, new) = (rules(3), rules(1));
        let mut trial = Trial::new(Arc::clone(&old), care, None);
        trial.propose(0, Arc::clone(&new));
        for number in 0..6 {
            trial.take(number, &knock(number), Owner::Nobody);
            trial.saw(number, 1, &[]);
        }
        let changes = trial.changes();
        assert_eq!(changes.len(), 2);
        assert!(changes[1].refusal().unwrap().contains("knocks") && changes[1].alert(0).is_some(), "{changes:?}");
        assert_eq!(trial.in_charge().fingerprint(), old.fingerprint());
        trial.propose(10, new);
        assert_eq!(told(&mut trial), Vec::<String>::new());
    }

    #[test]
    fn rules_in_charge_that_raise_too_much_are_rolled_back() {
        let care = Care { shadow_ms: 0, alerts_free: 5, ..Care::default() };
        let (old, new) = (rules(3), rules(1));
        let mut trial = Trial::new(Arc::clone(&old), care, None);
        trial.propose(0, Arc::clone(&new));
        trial.tick(0);
        assert_eq!(trial.in_charge().fingerprint(), new.fingerprint());
        trial.changes();
        let mut detector = Detector::new((*new).clone(), Options::default());
        let mut effects = Vec::new();
        for number in 0..6 {
            detector.raw(number, &knock(number), &mut effects).unwrap();
        }
        trial.saw(10, 6, &effects);
        let changes = trial.changes();
        assert!(matches!(&changes[..], [Change::Back { .. }]) && changes[0].is_in_charge(), "{changes:?}");
        assert_eq!(trial.in_charge().fingerprint(), old.fingerprint());
    }
}
