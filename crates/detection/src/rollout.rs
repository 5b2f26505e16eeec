//! New rule sets step by step: first in shadow beside the old, then in charge and watched, and back where they go wrong.
//!
//! Pure: it says what to do with which set; who runs detectors does it and tells what they saw. Its state can be stored.

use crate::report::Forecast;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most rules whose alerts are counted one by one.
pub const RULES_MAX: usize = crate::rules::RULES_MAX;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: f64 = 86_400_000.0;

/// A rule set, by [`crate::rules::RuleSet::fingerprint`].
pub type SetId = crate::id::SemanticHash;

/// How careful a rollout is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Care {
    /// A set is in shadow for at least that long…
    pub shadow_ms: u64,
    /// …unless it has seen that many events before.
    pub shadow_events: u64,
    /// A set in charge is watched for that long.
    pub watch_ms: u64,
    /// How many times its forecast a rule may exceed.
    pub factor: f64,
    /// Alerts that any rule may raise in a phase, whatever its forecast is.
    pub alerts_free: u64,
}

impl Default for Care {
    fn default() -> Self {
        Self { shadow_ms: HOUR_MS, shadow_events: 10_000_000, watch_ms: 24 * HOUR_MS, factor: 3.0, alerts_free: 20 }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// There is a new set, compiled.
    Propose {
        /// The set.
        set: SetId,
        /// Documents of it that were refused: then it is not rolled out.
        refused: usize,
    },
    /// What a backtest makes of the rules of a set. It may take a while: until it is known the set stays in shadow.
    Forecast {
        /// The set.
        set: SetId,
        /// The volume of each rule that the backtest saw, by the rule's id.
        forecast: BTreeMap<Arc<str>, Forecast>,
    },
    /// The new set saw so many more events, and its rules raised, or would have raised, so many more alerts.
    Seen {
        /// Events.
        events: u64,
        /// Alerts by rule.
        alerts: BTreeMap<Arc<str>, u64>,
    },
    /// A rule of the new set went wrong: its state was evicted, or its detector could not go on.
    Failed {
        /// The rule's id.
        rule: Arc<str>,
        /// Why.
        why: String,
    },
    /// Somebody calls it off.
    Abandon,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Run the set in shadow beside the one in charge.
    Shadow(SetId),
    /// Put the set in charge, and keep the old one at hand. Correlations that mean the same keep their state.
    Promote(SetId),
    /// Put the old set in charge again.
    RollBack {
        /// The set that went wrong.
        from: SetId,
        /// The one before it.
        to: SetId,
        /// Why.
        why: Fault,
    },
    /// Forget a set that never was in charge.
    Discard {
        /// The set.
        set: SetId,
        /// Why.
        why: Fault,
    },
    /// The set in charge stays; the one before it can be forgotten.
    Settled(SetId),
}

/// Why a set goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    /// Some of its documents were refused.
    Refused {
        /// How many.
        documents: usize,
    },
    /// A rule went wrong.
    Failed {
        /// The rule.
        rule: Arc<str>,
        /// Why.
        why: String,
    },
    /// A rule raised more alerts than it should.
    Volume {
        /// The rule.
        rule: Arc<str>,
        /// How many it raised.
        alerts: u64,
        /// How many were allowed until then.
        allowed: u64,
    },
    /// A newer set was proposed.
    Replaced,
    /// The set before it was proposed again.
    TakenBack,
    /// Somebody called it off.
    Abandoned,
}

impl Fault {
    /// Whether nothing went wrong: another set is wanted.
    pub fn is_wish(&self) -> bool {
        matches!(self, Self::Replaced | Self::TakenBack)
    }
}

/// Where the rollout is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// One set is in charge, and no other is waiting.
    Steady,
    /// A set runs in shadow.
    Shadow(Trial),
    /// A new set is in charge; the one before it is kept.
    Watched {
        /// The set in charge.
        trial: Trial,
        /// The one before it.
        before: SetId,
    },
}

/// A set on trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    set: SetId,
    since_ms: u64,
    events: u64,
    alerts: BTreeMap<Arc<str>, u64>,
    /// Unknown only in shadow, where nothing is raised: waiting for it costs nothing.
    forecast: Option<BTreeMap<Arc<str>, Forecast>>,
}

/// The state of the rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    care: Care,
    in_charge: SetId,
    phase: Phase,
}

impl Rollout {
    /// That set is in charge, whatever it is: it was there when the node began.
    pub fn new(in_charge: SetId, care: Care) -> Self {
        Self { care, in_charge, phase: Phase::Steady }
    }

    /// The set in charge.
    pub fn in_charge(&self) -> SetId {
        self.in_charge
    }

    /// Where it is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The set that runs beside the one in charge: on trial, or kept to go back to.
    pub fn beside(&self) -> Option<SetId> {
        match &self.phase {
            Phase::Steady => None,
            Phase::Shadow(trial) => Some(trial.set),
            Phase::Watched { before, .. } => Some(*before),
        }
    }

    /// One step; appends what follows from it to `effects`.
    pub fn step(&mut self, now_ms: u64, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Propose { set, refused } => self.propose(now_ms, set, refused, effects),
            Input::Forecast { set, forecast } => {
                if let Some(trial) = self.trial().filter(|trial| trial.set == set) {
                    // The first stays: a later one would have seen what is to be judged by it.
                    trial.forecast.get_or_insert(forecast);
                }
                self.judge(now_ms, effects);
            }
            Input::Seen { events, alerts } => {
                if let Some(trial) = self.trial() {
                    trial.events = trial.events.saturating_add(events);
                    for (rule, more) in alerts {
                        if trial.alerts.len() < RULES_MAX || trial.alerts.contains_key(&rule) {
                            let count = trial.alerts.entry(rule).or_default();
                            *count = count.saturating_add(more);
                        }
                    }
                }
                self.judge(now_ms, effects);
            }
            Input::Failed { rule, why } => self.end(Fault::Failed { rule, why }, effects),
            Input::Abandon => self.end(Fault::Abandoned, effects),
            Input::Tick => self.judge(now_ms, effects),
        }
    }

    fn trial(&mut self) -> Option<&mut Trial> {
        match &mut self.phase {
            Phase::Steady => None,
            Phase::Shadow(trial) | Phase::Watched { trial, .. } => Some(trial),
        }
    }

    fn propose(&mut self, now_ms: u64, set: SetId, refused: usize, effects: &mut Vec<Effect>) {
        if set == self.in_charge {
            // What was to replace it is wanted no longer; one that replaced another stays watched.
            if matches!(self.phase, Phase::Shadow(_)) {
                self.end(Fault::TakenBack, effects);
            }
            return;
        }
        if refused > 0 {
            return effects.push(Effect::Discard { set, why: Fault::Refused { documents: refused } });
        }
        match &self.phase {
            Phase::Shadow(trial) if trial.set == set => return,
            Phase::Watched { before, .. } if *before == set => return self.end(Fault::TakenBack, effects),
            _ => {}
        }
        // One trial at a time: a set that is watched settles when a newer one comes, one in shadow gives way to it.
        match std::mem::replace(&mut self.phase, Phase::Steady) {
            Phase::Shadow(trial) => effects.push(Effect::Discard { set: trial.set, why: Fault::Replaced }),
            Phase::Watched { trial, .. } => effects.push(Effect::Settled(trial.set)),
            Phase::Steady => {}
        }
        effects.push(Effect::Shadow(set));
        let (alerts, forecast) = (BTreeMap::new(), None);
        self.phase = Phase::Shadow(Trial { set, since_ms: now_ms, events: 0, alerts, forecast });
    }

    fn judge(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let care = self.care.clone();
        // Without a forecast a set is neither too loud nor good enough.
        let Some(trial) = self.trial().filter(|trial| trial.is_foretold()) else { return };
        if let Some(fault) = trial.excess(now_ms, &care) {
            return self.end(fault, effects);
        }
        let past_ms = now_ms.saturating_sub(trial.since_ms);
        let seen_enough = past_ms >= care.shadow_ms || trial.events >= care.shadow_events;
        match std::mem::replace(&mut self.phase, Phase::Steady) {
            Phase::Shadow(trial) if seen_enough => {
                effects.push(Effect::Promote(trial.set));
                let before = std::mem::replace(&mut self.in_charge, trial.set);
                let trial = Trial { since_ms: now_ms, events: 0, alerts: BTreeMap::new(), ..trial };
                self.phase = Phase::Watched { trial, before };
            }
            Phase::Watched { trial, .. } if past_ms >= care.watch_ms => effects.push(Effect::Settled(trial.set)),
            phase => self.phase = phase,
        }
    }

    fn end(&mut self, why: Fault, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.phase, Phase::Steady) {
            Phase::Steady => {}
            Phase::Shadow(trial) => effects.push(Effect::Discard { set: trial.set, why }),
            Phase::Watched { trial, before } => {
                self.in_charge = before;
                effects.push(Effect::RollBack { from: trial.set, to: before, why });
            }
        }
    }
}

impl Trial {
    /// The set.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// What its rules raised, or would have raised, in this phase.
    pub fn alerts(&self) -> &BTreeMap<Arc<str>, u64> {
        &self.alerts
    }

    /// Since when it is in this phase.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Events it saw in this phase.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether what is to be expected of its rules is known.
    pub fn is_foretold(&self) -> bool {
        self.forecast.is_some()
    }

    /// How many alerts a rule may have raised in this phase until now; `None` while its forecast is not known.
    pub fn allowed(&self, rule: &str, now_ms: u64, care: &Care) -> Option<u64> {
        // Of less than an hour nothing can be said.
        let days = now_ms.saturating_sub(self.since_ms).max(HOUR_MS) as f64 / DAY_MS;
        let at_most = self.forecast.as_ref()?.get(rule).map_or(0.0, |forecast| forecast.at_most_per_day);
        Some(care.alerts_free.max((care.factor * at_most * days).ceil() as u64))
    }

    fn excess(&self, now_ms: u64, care: &Care) -> Option<Fault> {
        self.alerts.iter().find_map(|(rule, alerts)| {
            let allowed = self.allowed(rule, now_ms, care)?;
            (*alerts > allowed).then(|| Fault::Volume { rule: rule.clone(), alerts: *alerts, allowed })
        })
    }
}
