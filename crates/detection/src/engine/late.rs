//! The late lane: what came later than the allowed lateness, and no state can take in any more, is judged again from
//! stored events.
//!
//! The detector names the spans that must be read again; whoever holds the events reads them and asks [`judge_again`].

use super::{Detector, Effect, Input, Options};
use crate::alert::Alert;
use crate::correlation::{GroupKey, Lost};
use crate::event::{Event, HOST_FIELD};
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
    /// The values it groups by: no other group of it is concerned.
    pub group: BTreeMap<String, String>,
    /// The first moment to read.
    pub from_ms: u64,
    /// The last moment to read.
    pub to_ms: u64,
    /// The events that came late; they are among those stored.
    pub events: BTreeSet<EventId>,
    /// All of them came in time for their streams, and only others' had moved on: what they come to with events of
    /// their own stream alone was told.
    #[serde(default)]
    pub apart: bool,
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
        ((time_ms, event), apart): ((u64, EventId), bool),
        effects: &mut Vec<Effect>,
    ) {
        let reach_ms = self.reaches[correlation];
        // Spans of the two kinds begin at different moments: whoever keeps them by that must not make one of them.
        let from_ms = (time_ms.saturating_sub(reach_ms) / STEP_MS * STEP_MS).saturating_sub(u64::from(apart));
        let to_ms = time_ms.saturating_add(reach_ms) / STEP_MS * STEP_MS + STEP_MS;
        let plan = self.rules.correlations[correlation].clone();
        let key = (correlation, group.clone(), from_ms);
        let is_full = self.lanes.len() >= LANES_MAX && !self.lanes.contains_key(&key);
        let events = (!is_full).then(|| {
            let group = plan.group_by.iter().cloned().zip(group.iter().cloned()).collect();
            let rule = plan.header.reference.id.clone();
            let new = || LateLane { rule, group, from_ms, to_ms, events: BTreeSet::new(), apart };
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
    for (place, plan) in rules.correlations.iter().enumerate() {
        let below = below(rules, place).map(|other| reaches[other]).max().unwrap_or(0);
        reaches.push(plan.timespan_ms.saturating_add(below));
    }
    for place in (0..reaches.len()).rev() {
        for other in below(rules, place) {
            reaches[other] = reaches[other].max(reaches[place]);
        }
    }
    reaches
}

/// The correlations that one is about; they come before it.
fn below(rules: &RuleSet, place: usize) -> impl Iterator<Item = usize> {
    rules.correlations[place].feeds.iter().filter_map(|feed| match feed.origin {
        Origin::Rule(_) => None,
        Origin::Correlation(other) => Some(other),
    })
}

/// The correlation that has a span read again, and all that are about it.
fn concerned(rules: &RuleSet, lane: &LateLane) -> BTreeSet<usize> {
    let mut concerned = BTreeSet::new();
    for (place, plan) in rules.correlations.iter().enumerate() {
        if plan.header.reference.id == lane.rule || below(rules, place).any(|other| concerned.contains(&other)) {
            concerned.insert(place);
        }
    }
    concerned
}

/// What late events made true that was not before, given all stored events of the span: alerts that say `late`, and
/// which of those that stood until then they supersede.
///
/// Both are evaluated with nothing before the span, so that what its border changes changes both. A window that is
/// judged when it is closed is told only if a late event lies in it.
pub fn judge_again<'a>(rules: &RuleSet, options: &Options, lane: &LateLane, events: &'a [Event]) -> Vec<Effect> {
    let late = || events.iter().filter(|event| lane.events.contains(&event.id));
    let late_ms: Vec<u64> = late().map(|event| options.believed_ms(event.time_ms, event.received_ms)).collect();
    let with = evaluate(rules, options, events.iter());
    let without = evaluate(rules, options, events.iter().filter(|event| !lane.events.contains(&event.id)));
    let concerned = concerned(rules, lane);
    // Others took the same events in when they came, or ask for a span of their own: what they came to was told.
    let concerns = |alert: &Alert| {
        let is_group = alert.rule.id != lane.rule || alert.group_key == lane.group;
        let mut plans = concerned.iter().map(|place| &rules.correlations[*place]).filter(|_| is_group);
        plans.find(|plan| plan.header.reference == alert.rule).is_some_and(|plan| {
            let end_ms = alert.first_ms.saturating_add(plan.timespan_ms);
            !plan.shape.is_closed() || late_ms.iter().any(|late_ms| (alert.first_ms..=end_ms).contains(late_ms))
        })
    };
    let streams: BTreeMap<EventId, (&str, &str)> = if lane.apart {
        let pair = |event: &'a Event| (name_of(event), event.text(HOST_FIELD).unwrap_or_default());
        events.iter().map(|event| (event.id, pair(event))).collect()
    } else {
        BTreeMap::new()
    };
    let is_news = |alert: &Alert| {
        let of = alert.events.iter().filter_map(|event| streams.get(&event.id)).collect::<BTreeSet<_>>();
        !lane.apart || of.len() > 1
    };
    let is_raised = |alert: &Alert| !without.contains_key(&alert.id) && concerns(alert) && is_news(alert);
    let late = |alert: &Arc<Alert>| Effect::Alert(Arc::new(Alert { late: true, ..alert.as_ref().clone() }));
    let raised = with.values().filter(|alert| is_raised(alert)).map(late);
    let superseded =
        without.values().filter(|alert| !with.contains_key(&alert.id) && concerns(alert)).filter_map(|old| {
            let is_told = |by: &&Arc<Alert>| without.contains_key(&by.id) || is_raised(by);
            let covers =
                |by: &&Arc<Alert>| by.rule == old.rule && by.group_key == old.group_key && by.first_ms <= old.last_ms;
            let by = with.values().filter(covers).filter(is_told).max_by_key(|by| (by.last_ms, by.id));
            // What all events of a stream came to in time stands, whatever others add to it.
            (by.is_some() || !lane.apart).then(|| Effect::Superseded { old: old.id, by: by.map_or(old.id, |by| by.id) })
        });
    raised.chain(superseded).collect()
}

/// The name of the stream that an event comes in.
fn name_of(event: &Event) -> &str {
    event.position.as_ref().map_or("", |position| &position.stream)
}

fn evaluate<'a>(
    rules: &RuleSet,
    options: &Options,
    events: impl Iterator<Item = &'a Event>,
) -> BTreeMap<AlertId, Arc<Alert>> {
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
