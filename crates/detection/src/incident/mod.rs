//! Incidents: alerts about the same entities, worked on by people until they are closed.
//!
//! A pure state machine: alerts and acts go in, changes come out, and the caller stores and sends them.
//! It never forgets who did what: each change is appended to the incident's history and none is edited.

mod desk;

pub use desk::{Desk, Options};

use crate::alert::{Alert, Entity, EventSummary, Severity};
use crate::id::{AlertId, IncidentId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most alerts one incident takes; a further one opens another, so that no incident swallows all.
pub const ALERTS_MAX: usize = 256;
/// Most changes of one incident by people; more are refused.
pub const HISTORY_MAX: usize = 2_048;
/// Most bytes of a comment or post-mortem.
pub const TEXT_SIZE_BYTES_MAX: usize = 16 * 1024;
/// Most event summaries an incident lists; its alerts keep theirs.
pub const EVENTS_MAX: usize = 512;

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody has looked at it.
    Open,
    /// Somebody has.
    Acknowledged,
    /// Done, with a post-mortem; takes no more alerts and no acts but comments.
    Closed,
}

/// What was done to an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Deed {
    /// The first alert opened it.
    Opened {
        /// That alert.
        alert: AlertId,
    },
    /// An alert joined it because of an entity it shares.
    AlertJoined {
        /// The alert.
        alert: AlertId,
        /// What it shares.
        shared: Entity,
    },
    /// A late event changed which events an alert rests on.
    AlertSuperseded {
        /// The alert that no longer stands.
        old: AlertId,
        /// The one that covers its events.
        by: AlertId,
    },
    /// The burst that an alert reported goes on.
    AlertExtended {
        /// The alert.
        alert: AlertId,
        /// Satisfying events so far.
        count: u64,
        /// When the last of them happened.
        last_ms: u64,
    },
    /// Somebody has seen it.
    Acknowledged,
    /// It is somebody's.
    Assigned {
        /// Whose.
        to: String,
    },
    /// Somebody remarked.
    Commented {
        /// What.
        text: String,
    },
    /// It is done.
    Closed {
        /// What happened, why, and what is changed so that it does not again.
        post_mortem: String,
    },
}

/// One entry of an incident's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number within the incident, from 1: with the incident's id it makes a key for sending once.
    pub revision: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who: a login, or `detector`.
    pub by: String,
    /// What.
    pub deed: Deed,
    /// Why, where the one who did it said so.
    pub why: Option<String>,
}

/// An incident as it stands, with all that was done to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// A function of the alert that opened it.
    pub id: IncidentId,
    /// Whose rules found it.
    pub tenant: Arc<str>,
    /// The title of the gravest rule.
    pub title: Arc<str>,
    /// Where it stands.
    pub status: Status,
    /// The gravest of its alerts.
    pub severity: Severity,
    /// Whose it is.
    pub assignee: Option<String>,
    /// Whom its alerts concern.
    pub entities: BTreeSet<Entity>,
    /// Its alerts, with the rule's title and severity and the satisfying events counted so far.
    pub alerts: BTreeMap<AlertId, AlertLine>,
    /// Its events by time, at most [`EVENTS_MAX`].
    pub events: Vec<EventSummary>,
    /// When the first of its events happened.
    pub first_ms: u64,
    /// When the last of them happened.
    pub last_ms: u64,
    /// When it was opened.
    pub opened_ms: u64,
    /// All that was done, in order.
    pub history: Vec<Change>,
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
    /// Satisfying events so far, those that only extend the burst among them.
    pub count: u64,
    /// When its last event happened.
    pub last_ms: u64,
}

/// What goes into the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The detector raised an alert; one it already knows changes nothing.
    Alert(Alert),
    /// The detector replaced an alert.
    Superseded {
        /// The alert that no longer stands.
        old: AlertId,
        /// The one that covers its events.
        by: AlertId,
    },
    /// A burst goes on.
    Extended {
        /// Its alert.
        alert: AlertId,
        /// Satisfying events so far.
        count: u64,
        /// When the last of them happened.
        last_ms: u64,
    },
    /// Somebody did something.
    Act {
        /// The incident.
        incident: IncidentId,
        /// Who; the caller has checked that they may.
        by: String,
        /// Why, where they said so.
        why: Option<String>,
        /// What.
        act: Act,
    },
}

/// What people do to incidents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Act {
    /// "I have seen it."
    Acknowledge,
    /// "It is theirs."
    Assign {
        /// Whose.
        to: String,
    },
    /// A remark.
    Comment {
        /// What.
        text: String,
    },
    /// "It is done"; impossible without a post-mortem.
    Close {
        /// What happened, why, and what is changed so that it does not again.
        post_mortem: String,
    },
}

/// What comes out of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Store the incident as it now stands and tell the sinks of the change.
    Changed {
        /// The whole incident, its history included.
        incident: Box<Incident>,
        /// The change that was just appended.
        change: Change,
    },
    /// The act was not done.
    Refused {
        /// The incident it was for.
        incident: IncidentId,
        /// Why.
        reason: Refusal,
    },
}

/// Why an act was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such incident.
    #[error("no such incident")]
    Unknown,
    /// It is closed.
    #[error("the incident is closed")]
    Closed,
    /// It was acknowledged before.
    #[error("the incident is already acknowledged")]
    AlreadyAcknowledged,
    /// A post-mortem, comment or assignee without text.
    #[error("a text is required")]
    TextRequired,
    /// A text longer than [`TEXT_SIZE_BYTES_MAX`].
    #[error("the text is too long")]
    TextTooLong,
    /// The history is as long as it may get.
    #[error("the history is full")]
    HistoryFull,
}
