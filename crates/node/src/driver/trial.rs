//! New rules of a shard on their way into charge: in shadow beside the old ones, then watched, and back where they
//! raise too much.
//!
//! `detection::rollout` decides; this holds the rule sets and the detector that runs beside the one in charge: of the
//! rules on trial, or, while those are watched, of the rules before. Only what one set has beyond the other runs there,
//! and either goes on with the state of the other when they change places. The decision is a row of the shard's duty;
//! what runs beside begins again with whoever takes the shard over.

use crate::driver::duty::Post;
use crate::driver::known::Forecasts;
use crate::driver::status::{OnTrial, RULES_TOLD, Rejected, Status, most};
use crate::machine::command::Row;
use detection::alert::{EventSummary, RuleReference};
use detection::engine::{Detector, Effect};
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
    /// A set that went wrong, by its identity: it is not tried again until the rules change.
    pub(crate) rejected: Option<SetId>,
    /// Why, for people.
    #[serde(default)]
    pub(crate) about: Option<Rejected>,
}

/// A change of the rules in charge, or of those in shadow.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Shadow(SetId),
    InCharge(SetId),
    /// Rules that mean the same, said otherwise or for others.
    Same(SetId),
    Back {
        from: SetId,
        why: Fault,
    },
    Discarded {
        set: SetId,
        why: Fault,
    },
}

/// What runs beside the detector in charge.
struct Beside {
    set: SetId,
    detector: Detector,
    /// Alerts of each rule that were counted.
    counted: BTreeMap<Arc<str>, u64>,
}

pub(super) struct Trial {
    stored: Stored,
    care: Care,
    /// Sets that are needed: in charge, on trial, and the one before.
    sets: BTreeMap<SetId, Arc<RuleSet>>,
    beside: Option<Beside>,
    /// Rules of the set on trial whose alerts count: neither those that the one before has too, nor those that only
    /// count what they would raise. What is raised in no rule's name, as of a quota that is used up, is nobody's.
    counted: BTreeSet<Arc<str>>,
    changes: Vec<Change>,
    /// Whether detectors must be brought in line with the decision.
    is_unsettled: bool,
    is_stored: bool,
}

impl Trial {
    /// Goes on where the last holder was, with the rules this node knows.
    pub(super) async fn restore(post: &Post, known: Arc<RuleSet>, care: Care) -> Self {
        let stored = post.stored(ROLLOUT).await.pop().and_then(|(_, row)| {
            serde_json::from_slice::<Stored>(&row)
                .inspect_err(|error| tracing::warn!(%error, "the rollout before cannot be read"))
                .ok()
        });
        // The sets before are not at hand: what this node knows is in charge.
        let (rejected, about) = stored.map(|stored| (stored.rejected, stored.about)).unwrap_or_default();
        let mut trial = Self::new(known, care);
        (trial.stored.rejected, trial.stored.about) = (rejected, about);
        trial
    }

    fn new(known: Arc<RuleSet>, care: Care) -> Self {
        let id = known.fingerprint();
        Self {
            stored: Stored { rollout: Rollout::new(id, care.clone()), rejected: None, about: None },
            care,
            sets: BTreeMap::from([(id, known)]),
            beside: None,
            counted: BTreeSet::new(),
            changes: Vec::new(),
            is_unsettled: false,
            is_stored: false,
        }
    }

    /// The rules in charge.
    pub(super) fn in_charge(&self) -> &Arc<RuleSet> {
        self.sets.get(&self.stored.rollout.in_charge()).expect("the set in charge is kept")
    }

    /// Where the rollout is, in a word.
    pub(super) fn phase(&self) -> &'static str {
        match self.stored.rollout.phase() {
            Phase::Steady => "steady",
            Phase::Shadow(_) => "shadow",
            Phase::Watched { .. } => "watched",
        }
    }

    /// This node knows other rules now, or what is to be expected of those it knows.
    pub(super) fn propose(&mut self, now_ms: u64, new: Arc<RuleSet>, forecast: Option<&Forecasts>) {
        let (set, identity) = (new.fingerprint(), new.identity());
        if self.stored.rejected == Some(identity) {
            tracing::warn!(set = %set, "these rules went wrong before; they are not tried again");
            return;
        }
        self.is_stored &= self.stored.rejected.take().is_none();
        self.stored.about = None;
        let is_other = self.sets.get(&set).is_none_or(|known| known.identity() != identity);
        if set == self.stored.rollout.in_charge() && is_other {
            self.changes.push(Change::Same(set));
            self.is_unsettled = true;
        }
        if is_other {
            self.sets.insert(set, new);
        }
        self.step(now_ms, Input::Propose { set, refused: 0 });
        self.counted = self.counted();
        if let Some(forecast) = forecast {
            // No more than is compared with: it is stored with the rollout.
            let expected = |id: &Arc<str>| Some((id.clone(), *forecast.get(id)?));
            let forecast = self.counted.iter().filter_map(expected).collect();
            self.step(now_ms, Input::Forecast { set, forecast });
        }
    }

    /// How it stands.
    pub(super) fn status(&self, now_ms: u64) -> Status {
        let on_trial = match self.stored.rollout.phase() {
            Phase::Steady => None,
            Phase::Shadow(trial) | Phase::Watched { trial, .. } => Some(trial),
        };
        let told = |trial: &rollout::Trial| {
            let alerts = |rule: &Arc<str>| (rule.clone(), trial.alerts().get(rule).copied().unwrap_or(0));
            let allowed = |(rule, alerts): (Arc<str>, u64)| {
                let allowed = trial.allowed(&rule, now_ms, &self.care);
                (rule, alerts, allowed)
            };
            OnTrial {
                set: Some(trial.set()),
                since_ms: trial.since_ms(),
                events: trial.events(),
                is_foretold: trial.is_foretold(),
                new: self.counted.len() as u64,
                first: most(self.counted.iter().map(alerts)).into_iter().map(allowed).collect(),
            }
        };
        Status {
            in_charge: Some(self.stored.rollout.in_charge()),
            phase: self.phase().into(),
            trial: on_trial.map(told),
            rejected: self.stored.rejected.and(self.stored.about.clone()),
            ..Status::default()
        }
    }

    fn counted(&self) -> BTreeSet<Arc<str>> {
        let on_trial = match self.stored.rollout.phase() {
            Phase::Steady => return BTreeSet::new(),
            Phase::Shadow(trial) | Phase::Watched { trial, .. } => trial.set(),
        };
        let other = match self.stored.rollout.phase() {
            Phase::Watched { before, .. } => self.sets.get(before),
            _ => Some(self.in_charge()),
        };
        let meanings = |rules: &RuleSet| -> BTreeMap<Arc<str>, (SemanticHash, bool)> {
            let headers = rules.rules().iter().map(|rule| &rule.header);
            let all = headers.chain(rules.correlations().iter().map(|plan| &plan.header));
            all.map(|header| (header.reference.id.clone(), (header.reference.semantic_hash, header.shadow))).collect()
        };
        let before = other.map(|rules| meanings(rules)).unwrap_or_default();
        let now = self.sets.get(&on_trial).map(|rules| meanings(rules)).unwrap_or_default();
        let is_counted = |id: &Arc<str>, (meaning, is_shadow): &(SemanticHash, bool)| {
            !is_shadow && before.get(id).is_none_or(|(before, _)| before != meaning)
        };
        now.into_iter().filter(|(id, of)| is_counted(id, of)).map(|(id, _)| id).collect()
    }

    /// What runs beside sees what the one in charge sees.
    pub(super) fn take(&mut self, now_ms: u64, raw: &RawEvent, owner: Owner<'_>) {
        if let Some(beside) = &mut self.beside {
            // What cannot be read was told by the set in charge.
            let _ = beside.detector.raw_for(now_ms, raw, owner, &mut Vec::new());
        }
    }

    /// Time passed, and all that was received before `read_ms` was read.
    pub(super) fn tick(&mut self, now_ms: u64, read_ms: u64) {
        if let Some(beside) = &mut self.beside {
            beside.detector.step(read_ms, detection::engine::Input::Tick, &mut Vec::new());
        }
        self.step(now_ms, Input::Tick);
    }

    /// So much was seen, and this followed under the rules in charge.
    pub(super) fn saw(&mut self, now_ms: u64, events: usize, effects: &[Effect]) {
        let mut alerts: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        match (self.stored.rollout.phase(), &mut self.beside) {
            (Phase::Steady, _) => return,
            (Phase::Shadow(trial), Some(beside)) if beside.set == trial.set() => {
                for (rule, seen) in beside.detector.shadows() {
                    let known = beside.counted.insert(rule.clone(), seen.alerts).unwrap_or(0);
                    alerts.insert(rule.clone(), seen.alerts.saturating_sub(known));
                }
            }
            (Phase::Shadow(_), _) => {}
            (Phase::Watched { .. }, _) => {
                for effect in effects {
                    if let Effect::Alert(alert) = effect {
                        *alerts.entry(alert.rule.id.clone()).or_default() += 1;
                    }
                }
            }
        }
        alerts.retain(|rule, count| *count > 0 && self.counted.contains(rule));
        if events > 0 || !alerts.is_empty() {
            self.step(now_ms, Input::Seen { events: events as u64, alerts });
        }
    }

    fn step(&mut self, now_ms: u64, input: Input) {
        let mut effects = Vec::new();
        self.stored.rollout.step(now_ms, input, &mut effects);
        for effect in effects {
            (self.is_stored, self.is_unsettled) = (false, true);
            match effect {
                rollout::Effect::Shadow(set) => self.changes.push(Change::Shadow(set)),
                rollout::Effect::Promote(set) => self.changes.push(Change::InCharge(set)),
                rollout::Effect::RollBack { from, why, .. } => {
                    self.reject(from, &why);
                    self.changes.push(Change::Back { from, why });
                }
                rollout::Effect::Discard { set, why } => {
                    self.reject(set, &why);
                    self.changes.push(Change::Discarded { set, why });
                }
                rollout::Effect::Settled(_) => {}
            }
        }
        let (in_charge, beside) = (self.stored.rollout.in_charge(), self.stored.rollout.beside());
        self.sets.retain(|set, _| *set == in_charge || Some(*set) == beside);
    }

    /// A set that went wrong is not tried again; one that gives way to another may be.
    fn reject(&mut self, set: SetId, why: &Fault) {
        if !why.is_wish() {
            let rules = self.counted.iter().take(RULES_TOLD).cloned().collect();
            self.stored.about = Some(Rejected { why: told(why), rules });
            self.stored.rejected = self.sets.get(&set).map(|rules| rules.identity());
        }
    }

    /// Brings the detector in charge, and what runs beside it, in line with what was decided.
    pub(super) fn settle(&mut self, detector: &mut Detector) {
        if !std::mem::take(&mut self.is_unsettled) {
            return;
        }
        let rules = Arc::clone(self.in_charge());
        let wanted = self.stored.rollout.beside().filter(|set| self.sets.contains_key(set));
        let run = |set: SetId, rules: &RuleSet, detector: &Detector| {
            let own = self.sets[&set].beyond(rules).in_shadow();
            Beside { set, detector: detector.beside(own), counted: BTreeMap::new() }
        };
        let was = self.beside.take();
        let is_same = detector.rules().fingerprint() == rules.fingerprint();
        let is_at_hand = is_same && was.as_ref().map(|beside| beside.set) == wanted;
        let next = if is_at_hand { None } else { wanted.map(|set| run(set, &rules, detector)) };
        if !Arc::ptr_eq(&detector.shared_rules(), &rules) {
            let from = was.as_ref().filter(|_| !is_at_hand).map(|beside| &beside.detector);
            let detection::engine::Reloaded { carried, keys, begun, dropped } = detector.exchange(rules, from);
            tracing::info!(carried, keys, begun, dropped, "the rules in charge are others");
        }
        self.beside = if is_at_hand { was } else { next };
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
    /// Why the new rules went, if they went wrong.
    pub(super) fn refusal(&self) -> Option<String> {
        match self {
            Self::Back { why, .. } | Self::Discarded { why, .. } if !why.is_wish() => Some(told(why)),
            _ => None,
        }
    }

    /// Who relies on the rules must know that they are not those that were asked for.
    pub(super) fn alert(&self, now_ms: u64) -> Option<Alert> {
        let (set, why) = match self {
            Self::Back { from: set, why } | Self::Discarded { set, why } if !why.is_wish() => (set, why),
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
        Fault::TakenBack => "the change was taken back".to_owned(),
        Fault::Abandoned => "it was called off".to_owned(),
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |set: &SetId| set.to_string().chars().take(12).collect::<String>();
        match self {
            Self::Shadow(set) => write!(formatter, "{} runs in shadow", short(set)),
            Self::InCharge(set) => write!(formatter, "{} is in charge", short(set)),
            Self::Same(set) => write!(formatter, "{} is said otherwise", short(set)),
            Self::Back { from, why } => write!(formatter, "{} is rolled back: {}", short(from), told(why)),
            Self::Discarded { set, why } => write!(formatter, "{} is discarded: {}", short(set), told(why)),
        }
    }
}

#[cfg(test)]
mod tests;
