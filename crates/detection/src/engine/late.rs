//! The late lane: what came later than the allowed lateness, and no state can take in any more, is judged again from
//! stored events.
//!
//! The detector names the spans that must be read again; whoever holds the events reads them and asks [`reconsider`].

use super::{Detector, Effect, Input, Options};
use crate::alert::Alert;
use crate::correlation::{GroupKey, Lost};
use crate::event::Event;
use crate::id::{AlertId, EventId};
use crate::rules::{Origin, RuleSet};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most spans that wait to be taken; beyond it coverage is degraded.
const LANES_MAX: usize = 1_024;
/// Most late events of one span.
const LATE_EVENTS_MAX: usize = 256;
/// Spans begin and end on a multiple of this, so that what comes late together is read together.
const STEP_MS: u64 = 60_000;

/// A span of stored events that must be read again for a correlation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateLane {
    /// The id of the correlation.
    pub rule: Arc<str>,
    /// The values it groups by: no other group is concerned.
    pub group: BTreeMap<String, String>,
    /// The first moment to read.
    pub from_ms: u64,
    /// The last moment to read.
    pub to_ms: u64,
    /// The events that came late; they are among those stored.
    pub events: BTreeSet<EventId>,
}

/// What tells lanes apart: correlation, group and begin.
pub(super) type LaneKey = (usize, GroupKey, u64);

impl Detector {
    /// Spans that must be read again, since this was last called. To be taken when rows are, and kept with them.
    pub fn take_late(&mut self) -> Vec<LateLane> {
        std::mem::take(&mut self.lanes).into_values().collect()
    }

    /// An entry came too late for its group's state.
    pub(super) fn too_late(
        &mut self,
        now_ms: u64,
        correlation: usize,
        group: &GroupKey,
        (time_ms, event): (u64, EventId),
        effects: &mut Vec<Effect>,
    ) {
        let reach_ms = self.reaches[correlation];
        let from_ms = time_ms.saturating_sub(reach_ms) / STEP_MS * STEP_MS;
        let to_ms = time_ms.saturating_add(reach_ms) / STEP_MS * STEP_MS + STEP_MS;
        let plan = self.rules.correlations[correlation].clone();
        let key = (correlation, group.clone(), from_ms);
        let is_full = self.lanes.len() >= LANES_MAX && !self.lanes.contains_key(&key);
        let events = (!is_full).then(|| {
            let group = plan.group_by.iter().cloned().zip(group.iter().cloned()).collect();
            let rule = plan.header.reference.id.clone();
            let new = || LateLane { rule, group, from_ms, to_ms, events: BTreeSet::new() };
            let lane = self.lanes.entry(key).or_insert_with(new);
            lane.to_ms = lane.to_ms.max(to_ms);
            &mut lane.events
        });
        match events.filter(|events| events.len() < LATE_EVENTS_MAX) {
            Some(events) => {
                events.insert(event);
            }
            None => {
                let reference = &plan.header.reference;
                let lost = Lost { late: 1, ..Lost::default() };
                self.lose(now_ms, (reference.id.clone(), reference.title.clone()), lost, effects);
            }
        }
    }
}

impl RuleSet {
    /// How far before an event others may lie that matter to what follows from it.
    pub fn reach_ms(&self) -> u64 {
        reaches(self).into_iter().max().unwrap_or(0)
    }
}

/// For each correlation, how far from an entry others may be that matter, to it or to those that are about it.
pub(super) fn reaches(rules: &RuleSet) -> Vec<u64> {
    let mut reaches: Vec<u64> = Vec::with_capacity(rules.correlations.len());
    let origins = |place: usize| {
        rules.correlations[place].feeds.iter().filter_map(|feed| match feed.origin {
            Origin::Rule(_) => None,
            Origin::Correlation(other) => Some(other),
        })
    };
    for (place, plan) in rules.correlations.iter().enumerate() {
        let below = origins(place).map(|other| reaches[other]).max().unwrap_or(0);
        reaches.push(plan.timespan_ms.saturating_add(below));
    }
    for place in (0..reaches.len()).rev() {
        for other in origins(place) {
            reaches[other] = reaches[other].max(reaches[place]);
        }
    }
    reaches
}

/// What late events made true that was not before, given all stored events of the span: alerts that say `late`.
///
/// Both are evaluated with nothing before the span, so that what its border changes changes both. A window that is
/// judged when it is closed is told only if a late event lies in it.
pub fn reconsider(rules: &RuleSet, options: &Options, lane: &LateLane, events: &[Event]) -> Vec<Alert> {
    let late_ms: Vec<u64> =
        events.iter().filter(|event| lane.events.contains(&event.id)).map(|event| event.time_ms).collect();
    let mut with = evaluate(rules, options, events.iter());
    let without = evaluate(rules, options, events.iter().filter(|event| !lane.events.contains(&event.id)));
    with.retain(|id, alert| {
        let plan = rules.correlations.iter().find(|plan| plan.header.reference == alert.rule);
        let concerns = plan.is_some_and(|plan| {
            let end_ms = alert.first_ms.saturating_add(plan.timespan_ms);
            !plan.shape.is_closed() || late_ms.iter().any(|late_ms| (alert.first_ms..=end_ms).contains(late_ms))
        });
        concerns && !without.contains_key(id)
    });
    with.into_values().map(|alert| Alert { late: true, ..alert }).collect()
}

fn evaluate<'a>(
    rules: &RuleSet,
    options: &Options,
    events: impl Iterator<Item = &'a Event>,
) -> BTreeMap<AlertId, Alert> {
    // Nothing is late to who has all the time in the world.
    let options = Options { allowed_lateness_ms: u64::MAX, ..options.clone() };
    let (mut detector, mut effects) = (Detector::new(rules.clone(), options), Vec::new());
    let mut newest_ms = 0;
    for event in events {
        newest_ms = newest_ms.max(event.time_ms);
        detector.step(newest_ms, Input::Event(event.clone()), &mut effects);
    }
    detector.finish(newest_ms, &mut effects);
    let mut alerts = BTreeMap::new();
    for effect in effects {
        match effect {
            Effect::Alert(alert) => {
                alerts.insert(alert.id, alert);
            }
            Effect::Superseded { old, .. } => {
                alerts.remove(&old);
            }
            Effect::Extended { .. } => {}
        }
    }
    alerts
}
