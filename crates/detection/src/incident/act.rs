//! What goes into the desk and what comes out of it.

use super::breach::ClockKind;
use super::change::Change;
use super::state::{Entry, Incident, Priority, Status};
use crate::alert::{Alert, Severity};
use crate::id::{AlertId, ChangeId, IncidentId, NotificationId, VersionId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

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
        /// How they saw it, where they want nothing done to what has changed since: one of these.
        seen: Option<BTreeSet<VersionId>>,
        /// What.
        act: Act,
    },
    /// Changes made elsewhere; those it has already change nothing.
    Changes(Vec<Change>),
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
    /// "It is nobody's."
    Unassign,
    /// A remark.
    Comment {
        /// What.
        text: String,
    },
    /// "It stands there." Closing is [`Act::Close`]; opening again needs a reason.
    SetStatus {
        /// Where.
        to: Status,
    },
    /// "It is that grave"; `None` leaves it to its alerts.
    SetSeverity {
        /// How grave.
        to: Option<Severity>,
    },
    /// "It is that urgent"; `None` leaves it to its risk.
    SetPriority {
        /// How urgent.
        to: Option<Priority>,
    },
    /// What happened, why, and what is changed so that it does not again.
    PostMortem {
        /// The text.
        text: String,
    },
    /// "It is done"; impossible without a post-mortem, and while a duty to report is open.
    Close {
        /// The post-mortem; empty where one was written before.
        post_mortem: String,
    },
    /// "That one is the same."
    Merge {
        /// The one that goes up in this.
        from: IncidentId,
    },
    /// "These are another matter."
    Split {
        /// Which alerts.
        alerts: BTreeSet<AlertId>,
    },
    /// "That merge, split or undoing was wrong."
    Undo {
        /// Which change.
        change: ChangeId,
    },
    /// "Tell nobody for a while"; needs a reason.
    Suppress {
        /// Until when.
        until_ms: u64,
    },
    /// "Tell again."
    Unsuppress,
    /// "This must be reported."
    StartClock {
        /// Which duty.
        clock: ClockKind,
        /// To or about whom.
        subject: String,
        /// Since when it has been known.
        aware_ms: u64,
        /// How long may pass, where law leaves it to a contract; `None` for the usual.
        limit_ms: Option<u64>,
    },
    /// "It was reported."
    MeetClock {
        /// Which duty.
        clock: ClockKind,
        /// To or about whom.
        subject: String,
        /// When.
        at_ms: u64,
        /// Under which reference.
        reference: String,
    },
    /// "It need not be reported"; needs a reason.
    StopClock {
        /// Which duty.
        clock: ClockKind,
        /// To or about whom.
        subject: String,
    },
    /// A notification went out.
    Notified {
        /// Which.
        notification: NotificationId,
        /// To whom.
        target: String,
    },
    /// A notification did not arrive.
    NotNotified {
        /// Who was to be told.
        target: String,
        /// Why not.
        reason: String,
    },
}

/// What comes out of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Store the change and tell the sinks of it.
    Changed {
        /// The incident as it now stands, its history included.
        incident: Box<Incident>,
        /// The change that was just made; [`Entry::change`] is what to store.
        change: Entry,
    },
    /// The act was not done, or an alert is too large for any incident.
    Refused {
        /// The incident it was for.
        incident: IncidentId,
        /// Why.
        reason: Refusal,
    },
}

/// Why an act is refused, or a change that was made elsewhere at the same time is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such incident, alert or change.
    #[error("no such incident, alert or change")]
    Unknown,
    /// It is not as it was seen.
    #[error("the incident has changed since it was seen")]
    Changed,
    /// It is closed.
    #[error("the incident is closed")]
    Closed,
    /// It was acknowledged before.
    #[error("the incident is already acknowledged")]
    AlreadyAcknowledged,
    /// It is so already.
    #[error("nothing would change")]
    NoEffect,
    /// A post-mortem, comment or assignee without text.
    #[error("a text is required")]
    TextRequired,
    /// A text longer than may be.
    #[error("the text is too long")]
    TextTooLong,
    /// Something that nobody may do without saying why.
    #[error("a reason is required")]
    ReasonRequired,
    /// The history is as long as it may get.
    #[error("the history is full")]
    HistoryFull,
    /// An incident cannot go from where it stands to there.
    #[error("the incident cannot go there from where it stands")]
    Transition,
    /// A duty to report is open.
    #[error("a breach clock is still running")]
    ClockRunning,
    /// The incidents are of two tenants.
    #[error("the incidents belong to different tenants")]
    OtherTenant,
    /// The incident would become larger than any may be.
    #[error("the incident would become too large")]
    TooLarge,
    /// Alerts that are not all of this incident, or are all there are.
    #[error("only some of the incident's own alerts can be split off")]
    NotAPart,
    /// A change that cannot be undone.
    #[error("only merges, splits and undoings can be undone")]
    NotUndoable,
    /// It has been undone.
    #[error("undone")]
    Undone,
    /// A time that cannot be.
    #[error("the time is out of range")]
    TimeOutOfRange,
}
