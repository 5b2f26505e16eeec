//! An incident as it stands: the result of folding its changes.

use super::act::Refusal;
use super::breach::Clock;
use super::change::{Change, Deed};
use super::{EVENTS_MAX, EVENTS_OF_ALERT_MAX, entity};
use crate::alert::{Alert, Entity, EventSummary, Severity};
use crate::id::{AlertId, ChangeId, Digest, IncidentId, NotificationId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most entities and most tags that an incident lists of one alert.
const LISTED_MAX: usize = 24;
/// Most characters of a rule's id, of its title, and of one tag in an alert's line: with these bounds and without
/// events a line always fits into a change.
const NAME_CHARACTERS_MAX: usize = 256;
/// See [`NAME_CHARACTERS_MAX`].
const TAG_CHARACTERS_MAX: usize = 128;

/// Where an incident stands: the life of an OCSF Incident Finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody has looked at it.
    New,
    /// Somebody works on it.
    InProgress,
    /// Work rests until something else has happened.
    OnHold,
    /// The cause is gone; the post-mortem is still to be written.
    Resolved,
    /// Done, with a post-mortem.
    Closed,
}

impl Status {
    /// OCSF's `status_id` of class 2005.
    pub const fn ocsf_id(self) -> u32 {
        match self {
            Self::New => 1,
            Self::InProgress => 2,
            Self::OnHold => 3,
            Self::Resolved => 4,
            Self::Closed => 5,
        }
    }
    /// Whether a person may set it so; closing has its own deed.
    pub(super) const fn may_become(self, to: Self) -> bool {
        match to {
            Self::New | Self::Closed => false,
            Self::InProgress => true,
            Self::OnHold => matches!(self, Self::New | Self::InProgress),
            Self::Resolved => matches!(self, Self::New | Self::InProgress | Self::OnHold),
        }
    }
}

/// How urgent: OCSF's priorities. Severity says how grave, risk how likely; this says who comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// When there is time.
    Low,
    /// In its turn.
    Medium,
    /// Before others.
    High,
    /// Now.
    Critical,
}

/// An alert as its incident lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertLine {
    /// The rule's id.
    pub rule: Arc<str>,
    /// The rule's title.
    pub title: Arc<str>,
    /// The rule's severity.
    pub severity: Severity,
    /// The rule's tags, as it writes them.
    pub tags: Vec<Arc<str>>,
    /// Whom it concerns.
    pub entities: BTreeSet<Entity>,
    /// Satisfying events so far, those that only extend the burst among them.
    pub count: u64,
    /// When its first event happened.
    pub first_ms: u64,
    /// When its last event happened.
    pub last_ms: u64,
    /// The first and the last of its events.
    pub events: Vec<Arc<EventSummary>>,
}

impl AlertLine {
    /// The line of an alert.
    pub fn of(alert: &Alert) -> Self {
        let (count, half) = (alert.events.len(), EVENTS_OF_ALERT_MAX / 2);
        let ends = alert.events.iter().enumerate().filter(|(place, _)| *place < half || *place + half >= count);
        Self {
            rule: cut(&alert.rule.id, NAME_CHARACTERS_MAX),
            title: cut(&alert.rule.title, NAME_CHARACTERS_MAX),
            severity: alert.severity,
            tags: alert.rule.tags.iter().take(LISTED_MAX).map(|tag| cut(tag, TAG_CHARACTERS_MAX)).collect(),
            entities: alert.entities.iter().filter_map(entity::normalised).take(LISTED_MAX).collect(),
            count: count as u64 + alert.events_left_out,
            first_ms: alert.first_ms,
            last_ms: alert.last_ms,
            events: ends.map(|(_, event)| event.clone()).collect(),
        }
    }
}

fn cut(text: &Arc<str>, characters_max: usize) -> Arc<str> {
    let end = text.char_indices().nth(characters_max).map(|(end, _)| end);
    end.map_or_else(|| text.clone(), |end| text[..end].into())
}

/// Why people are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cause {
    /// It is new.
    Opened,
    /// It became graver than when they were called before.
    Graver {
        /// How grave.
        severity: Severity,
    },
    /// It went on after it was resolved or closed.
    Reopened {
        /// What went on.
        change: ChangeId,
    },
}

/// Who has seen an alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Who.
    pub by: String,
    /// When.
    pub at_ms: u64,
}

/// The call for people that an incident makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub begun_ms: u64,
    /// How grave the incident was then.
    pub severity: Severity,
    /// Who has seen it.
    pub acknowledged: Option<Acknowledgement>,
}

/// Notifications rest; risk does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// Until when.
    pub until_ms: u64,
    /// How grave the incident was when it was suppressed: a graver one breaks through.
    pub severity: Severity,
    /// By whom.
    pub by: String,
}

/// A change in its place in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The change's id.
    pub id: ChangeId,
    /// Its place in the incident's history as it is known now, from 1.
    pub revision: u64,
    /// What was done.
    pub change: Arc<Change>,
    /// Why it has no effect, where it has none: something that came before it in order forbids it.
    pub void: Option<Refusal>,
}

/// An incident as it stands, with all that was done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// A function of the alert that opened it, or of the split that made it.
    pub id: IncidentId,
    /// Whose rules found it.
    pub tenant: Arc<str>,
    /// The title of the gravest rule.
    pub title: Arc<str>,
    /// Where it stands.
    pub status: Status,
    /// How grave: as a person said, else the gravest of its alerts.
    pub severity: Severity,
    /// How grave, where a person said so.
    pub severity_set: Option<Severity>,
    /// How urgent, where a person said so; see [`super::risk::priority`].
    pub priority_set: Option<Priority>,
    /// Whose it is.
    pub assignee: Option<String>,
    /// Whom its alerts concern.
    pub entities: BTreeSet<Entity>,
    /// Its alerts.
    pub alerts: BTreeMap<AlertId, AlertLine>,
    /// Its events by time, the first and last of each alert, at most [`EVENTS_MAX`].
    pub events: Vec<Arc<EventSummary>>,
    /// When the first of its events happened.
    pub first_ms: u64,
    /// When the last of them happened.
    pub last_ms: u64,
    /// When it was opened.
    pub opened_ms: u64,
    /// When it was last closed; `None` while it is not.
    pub closed_ms: Option<u64>,
    /// When it was last resolved or closed; `None` while it is neither.
    pub ended_ms: Option<u64>,
    /// What happened, why, and what is changed so that it does not again.
    pub post_mortem: Option<String>,
    /// The incident it went up in.
    pub merged_into: Option<IncidentId>,
    /// The incidents that went up in it.
    pub absorbed: BTreeSet<IncidentId>,
    /// Duties to report.
    pub clocks: Vec<Clock>,
    /// Whether its notifications rest.
    pub suppression: Option<Suppression>,
    /// The call for people.
    pub alarm: Alarm,
    /// Notifications that went out.
    pub notified: BTreeSet<NotificationId>,
    /// Alerts that no longer stand, and what covers their events.
    pub superseded: BTreeMap<AlertId, AlertId>,
    /// All that was done, in order.
    pub history: Vec<Entry>,
}

impl Incident {
    /// How many changes it has: more whenever something was done.
    pub fn revision(&self) -> u64 {
        self.history.len() as u64
    }
    /// Until when its notifications rest; `None` where they do not.
    pub fn quiet_until_ms(&self, now_ms: u64) -> Option<u64> {
        let held = self.suppression.as_ref().filter(|held| now_ms < held.until_ms && self.gravity() <= held.severity);
        held.map(|held| held.until_ms)
    }
    /// Whether nothing more is to be done about it under its own id.
    pub fn is_settled(&self) -> bool {
        self.status == Status::Closed || self.merged_into.is_some()
    }
    /// The gravest of its alerts, whatever a person said.
    pub fn gravest(&self) -> Severity {
        self.alerts.values().map(|line| line.severity).max().unwrap_or_default()
    }
    /// The gravest of its alerts, or what a person called graver.
    pub fn gravity(&self) -> Severity {
        self.gravest().max(self.severity_set.unwrap_or_default())
    }
    /// How many of its changes people made.
    pub fn acts(&self) -> usize {
        self.history.iter().filter(|entry| entry.change.is_by_a_person()).count()
    }
    /// Whether somebody parted these two: they are not to be joined again by a machine.
    pub fn was_parted_from(&self, other: IncidentId) -> bool {
        self.history.iter().any(|entry| match &entry.change.deed {
            Deed::Merged { from } => *from == other && entry.void == Some(Refusal::Undone),
            Deed::Split { into, .. } => *into == other && entry.void.is_none(),
            _ => false,
        })
    }

    /// Adds what people can see done to it.
    pub(super) fn add_to(&self, hash: &mut Digest) {
        // What is done to an incident that went up in this stands in that one's history, and in these here.
        let set = (self.status, self.severity_set, self.priority_set, &self.assignee, &self.post_mortem);
        let rest = (&self.merged_into, &self.absorbed, &self.clocks, &self.suppression, &self.alarm);
        let json = serde_json::to_vec(&(set, rest)).expect("names and numbers, and no map whose keys are not text");
        hash.part(&json);
        for alert in self.alerts.keys() {
            hash.part(alert.as_bytes());
        }
        let is_seen = |entry: &&Entry| {
            let deed = &entry.change.deed;
            !matches!(deed, Deed::Notified { .. } | Deed::NotNotified { .. } | Deed::AlertExtended { .. })
        };
        for entry in self.history.iter().filter(is_seen) {
            hash.part(entry.id.as_bytes());
        }
    }

    /// Works out again what its alerts say together.
    pub(super) fn refresh(&mut self) {
        for (old, by) in &self.superseded {
            if old != by && self.alerts.contains_key(by) {
                self.alerts.remove(old);
            }
        }
        if self.alerts.is_empty() {
            // It went up in another, which says the rest.
            return;
        }
        let gravest =
            self.alerts.iter().min_by_key(|(id, line)| (std::cmp::Reverse(line.severity), line.first_ms, **id));
        if let Some((_, line)) = gravest {
            self.title = line.title.clone();
        }
        self.severity = self.severity_set.unwrap_or_else(|| self.gravest());
        self.entities = self.alerts.values().flat_map(|line| line.entities.iter().cloned()).collect();
        self.first_ms = self.alerts.values().map(|line| line.first_ms).min().unwrap_or(self.first_ms);
        self.last_ms = self.alerts.values().map(|line| line.last_ms).max().unwrap_or(self.last_ms);
        let mut events: Vec<&Arc<EventSummary>> = self.alerts.values().flat_map(|line| &line.events).collect();
        events.sort_by_key(|event| (event.time_ms, event.id));
        events.dedup_by_key(|event| event.id);
        self.events = events.into_iter().take(EVENTS_MAX).cloned().collect();
    }
}
