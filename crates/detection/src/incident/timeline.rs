//! The timeline of an incident: events, alerts and acts in the order of time.
//!
//! Pure: the caller gives the alerts as stored, which keep all of their events; without one, its line serves.

use super::act::Refusal;
use super::board::Board;
use super::change::Deed;
use super::state::{AlertLine, Entry, Incident};
use crate::alert::{Alert, EventSummary};
use crate::id::{AlertId, EventId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most moments of one timeline; the rest is counted.
pub const MOMENTS_MAX: usize = 8_192;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum What {
    /// An event of one or more of its alerts.
    Event {
        /// The event.
        event: Arc<EventSummary>,
        /// The alerts that rest on it.
        alerts: BTreeSet<AlertId>,
    },
    /// An alert was complete.
    Alert {
        /// Its id.
        alert: AlertId,
        /// What it says.
        line: AlertLine,
    },
    /// Something was done.
    Act {
        /// The change, and the incident's id in it: it may be one that was merged into this.
        entry: Entry,
    },
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// What.
    pub what: What,
}

/// An incident's moments, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// At most [`MOMENTS_MAX`]: the acts, then the alerts, then as many events as there is room for.
    pub moments: Vec<Moment>,
    /// How many events there was no room for.
    pub left_out: u64,
}

/// The timeline of an incident and of those that went up in it.
pub fn timeline<'a>(board: &Board, incident: &Incident, alerts: impl IntoIterator<Item = &'a Alert>) -> Timeline {
    let alerts: BTreeMap<AlertId, &Alert> = alerts.into_iter().map(|alert| (alert.id, alert)).collect();
    let mut moments: Vec<Moment> = acts(board, incident);
    moments.truncate(MOMENTS_MAX);
    for (alert, line) in incident.alerts.iter().take(MOMENTS_MAX - moments.len()) {
        moments.push(Moment { time_ms: line.last_ms, what: What::Alert { alert: *alert, line: line.clone() } });
    }
    let mut events: BTreeMap<(u64, EventId), (Arc<EventSummary>, BTreeSet<AlertId>)> = BTreeMap::new();
    let room = MOMENTS_MAX - moments.len();
    let mut left_out: BTreeSet<EventId> = BTreeSet::new();
    for (id, line) in &incident.alerts {
        let known = alerts.get(id).map_or(&line.events, |alert| &alert.events);
        for event in known {
            let key = (event.time_ms, event.id);
            if events.len() >= room && !events.contains_key(&key) {
                left_out.insert(event.id);
                continue;
            }
            events.entry(key).or_insert_with(|| (event.clone(), BTreeSet::new())).1.insert(*id);
        }
    }
    let events = events.into_values();
    moments
        .extend(events.map(|(event, alerts)| Moment { time_ms: event.time_ms, what: What::Event { event, alerts } }));
    moments.sort_by_cached_key(|moment| (moment.time_ms, rank(&moment.what)));
    Timeline { moments, left_out: left_out.len() as u64 }
}

/// What was done to it and, until they went up in it, to those that did; each act once.
fn acts(board: &Board, incident: &Incident) -> Vec<Moment> {
    let others = incident.absorbed.iter().filter_map(|id| board.get(*id));
    let mut seen = BTreeSet::new();
    let mut moments = Vec::new();
    let mut waiting: Vec<&Incident> = others.collect();
    waiting.push(incident);
    let mut visited = BTreeSet::new();
    while let Some(one) = waiting.pop() {
        if !visited.insert(one.id) {
            continue;
        }
        waiting.extend(one.absorbed.iter().filter_map(|id| board.get(*id)));
        for entry in &one.history {
            let is_noise =
                entry.void == Some(Refusal::NoEffect) && !matches!(entry.change.deed, Deed::Commented { .. });
            if !is_noise && seen.insert(entry.id) {
                moments.push(Moment { time_ms: entry.change.at_ms(), what: What::Act { entry: entry.clone() } });
            }
        }
    }
    moments.sort_by_key(|moment| match &moment.what {
        What::Act { entry } => Some((entry.change.counts_at(), entry.change.region, entry.id)),
        _ => None,
    });
    moments
}

/// At the same time, events come before the alerts they complete and alerts before what people do about them.
fn rank(what: &What) -> (u8, u64, [u8; 32]) {
    let wide = |bytes: &[u8]| {
        let mut key = [0; 32];
        key[..bytes.len()].copy_from_slice(bytes);
        key
    };
    match what {
        What::Event { event, .. } => (0, 0, wide(event.id.as_bytes())),
        What::Alert { alert, .. } => (1, 0, wide(alert.as_bytes())),
        What::Act { entry } => (2, entry.change.counts_at().bits(), wide(entry.id.as_bytes())),
    }
}
