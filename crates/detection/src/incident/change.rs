//! What was done to an incident: immutable, self-contained, totally ordered.
//!
//! The stored form is JSON with a version; decoding never panics and refuses what is too large.

use super::breach::ClockKind;
use super::state::{AlertLine, Priority, Status};
use super::{CHANGE_SIZE_BYTES_MAX, REASON_SIZE_BYTES_MAX, TEXT_SIZE_BYTES_MAX};
use crate::alert::{Entity, Severity};
use crate::id::{AlertId, ChangeId, Digest, IncidentId, NotificationId};
use model::{Hlc, RegionId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The version of the stored form that is written.
pub const VERSION: u32 = 1;

/// Who the detector is in changes.
pub(super) const DETECTOR: &str = "detector";
/// How far a change's time may be ahead of the log that committed it.
pub const AHEAD_MS_MAX: u64 = 60_000;

/// What was done to an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Deed {
    /// The first alert opened it.
    Opened {
        /// That alert.
        alert: AlertId,
        /// Whose rules found it.
        tenant: String,
        /// What the alert says.
        line: Box<AlertLine>,
    },
    /// An alert joined it because of what it shares.
    AlertJoined {
        /// The alert.
        alert: AlertId,
        /// The heaviest entity that it shares.
        shared: Entity,
        /// The weight of all it shares, in thousandths of a bit.
        score_millibits: u32,
        /// What the alert says.
        line: Box<AlertLine>,
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
    /// It is nobody's any more.
    Unassigned,
    /// Somebody remarked.
    Commented {
        /// What.
        text: String,
    },
    /// It stands elsewhere in its life now.
    StatusSet {
        /// Where.
        to: Status,
    },
    /// How grave it is was said by a person, or left to its alerts again.
    SeveritySet {
        /// How grave; `None` as its alerts say.
        to: Option<Severity>,
    },
    /// How urgent it is was said by a person, or left to its risk again.
    PrioritySet {
        /// How urgent; `None` as its risk says.
        to: Option<Priority>,
    },
    /// What happened, why, and what is changed so that it does not again; a later one replaces it.
    PostMortemWritten {
        /// The text.
        text: String,
    },
    /// It is done.
    Closed {
        /// As [`Deed::PostMortemWritten`].
        post_mortem: String,
    },
    /// Another incident is the same as this.
    Merged {
        /// The one whose alerts are this one's from now on.
        from: IncidentId,
    },
    /// Some of its alerts are another matter.
    Split {
        /// Which.
        alerts: BTreeSet<AlertId>,
        /// The incident they are from now on.
        into: IncidentId,
    },
    /// A merge, a split or an undoing before it counts no longer.
    Undone {
        /// Which change, of the same incident.
        change: ChangeId,
    },
    /// Notifications rest for a while; risk goes on.
    Suppressed {
        /// Until when.
        until_ms: u64,
    },
    /// Notifications rest no longer.
    Unsuppressed,
    /// A duty to report began.
    ClockStarted {
        /// Which.
        clock: ClockKind,
        /// Whom it concerns: a tenant, a controller, an authority.
        subject: String,
        /// Since when it has been known.
        aware_ms: u64,
        /// How long may pass.
        limit_ms: u64,
    },
    /// A duty to report was met.
    ClockMet {
        /// Which.
        clock: ClockKind,
        /// Whom it concerned.
        subject: String,
        /// When it was reported.
        at_ms: u64,
        /// Under which reference.
        reference: String,
    },
    /// A duty to report does not exist after all; the reason says why.
    ClockStopped {
        /// Which.
        clock: ClockKind,
        /// Whom it concerned.
        subject: String,
    },
    /// Somebody was notified.
    Notified {
        /// The notification; told once.
        notification: NotificationId,
        /// Who or what was told.
        target: String,
    },
    /// Somebody was to be notified, and was not.
    NotNotified {
        /// Who or what was to be told.
        target: String,
        /// Why not.
        reason: String,
    },
}

/// Where a change stands among all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// When, by the clock that never contradicts causality.
    pub hlc: Hlc,
    /// Where.
    pub region: RegionId,
    /// What, where the others are the same.
    pub id: ChangeId,
}

/// One entry of an incident's history: immutable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The incident it was done to.
    pub incident: IncidentId,
    /// When.
    pub hlc: Hlc,
    /// Where.
    pub region: RegionId,
    /// Who: a login, or `detector`.
    pub by: String,
    /// Why, where the one who did it said so.
    pub why: Option<String>,
    /// What.
    pub deed: Deed,
    /// What stood there before, where something was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// When it counts, where its own time cannot be: see [`Change::committed`].
    #[serde(skip)]
    pub counts: Option<Hlc>,
}

#[derive(Serialize)]
struct Out<'a> {
    version: u32,
    #[serde(flatten)]
    change: &'a Change,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Why a stored change is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Larger than [`CHANGE_SIZE_BYTES_MAX`].
    #[error("larger than {CHANGE_SIZE_BYTES_MAX} bytes")]
    TooLarge,
    /// Written by a version this program does not know.
    #[error("written by version {found}; this program reads up to {VERSION}")]
    Version {
        /// The version it names.
        found: u32,
    },
    /// Not a change.
    #[error("not a change of an incident")]
    Malformed,
    /// A text in it is longer than any that is taken.
    #[error("a text is too long")]
    TextTooLong,
}

impl Change {
    /// Its id: a hash of all that it says.
    pub fn id(&self) -> ChangeId {
        let mut hash = Digest::new("holdfast incident change 1");
        let json = serde_json::to_vec(self).expect("a change has text keys only and its numbers are finite");
        hash.part(&json);
        ChangeId::of(hash)
    }
    /// As it was committed: whose clock was far ahead counts from when it was stored, so that nobody can put an alarm
    /// into the future, or a change after which all others come too early.
    pub fn committed(mut self, at: Hlc) -> Self {
        let is_ahead = self.hlc.wall_ms() > at.wall_ms().saturating_add(AHEAD_MS_MAX);
        self.counts = is_ahead.then_some(at);
        self
    }
    /// When it counts.
    pub fn counts_at(&self) -> Hlc {
        self.counts.unwrap_or(self.hlc)
    }
    /// Where it stands among all others.
    pub fn order(&self) -> Order {
        Order { hlc: self.counts_at(), region: self.region, id: self.id() }
    }
    /// When, in milliseconds since 1970.
    pub fn at_ms(&self) -> u64 {
        self.counts_at().wall_ms()
    }
    /// A key under which it can be stored: those of one incident lie together, in order.
    pub fn key(&self) -> String {
        format!("{}/{:016x}-{:05}-{}", self.incident, self.hlc.bits(), self.region.get(), self.id())
    }
    /// Its stored form.
    pub fn encode(&self) -> Result<String, ChangeError> {
        let json =
            serde_json::to_string(&Out { version: VERSION, change: self }).map_err(|_| ChangeError::Malformed)?;
        if json.len() > CHANGE_SIZE_BYTES_MAX {
            return Err(ChangeError::TooLarge);
        }
        Ok(json)
    }
    /// A change from its stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChangeError> {
        if bytes.len() > CHANGE_SIZE_BYTES_MAX {
            return Err(ChangeError::TooLarge);
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(|_| ChangeError::Malformed)?;
        if version != VERSION {
            return Err(ChangeError::Version { found: version });
        }
        let change: Self = serde_json::from_slice(bytes).map_err(|_| ChangeError::Malformed)?;
        let short = change.texts().all(|(text, size_max)| text.len() <= size_max);
        if short { Ok(change) } else { Err(ChangeError::TextTooLong) }
    }

    /// Whether a person did it: what the detector and those who tell do is no part of what people may do at most.
    pub fn is_by_a_person(&self) -> bool {
        let is_machines = matches!(
            self.deed,
            Deed::Opened { .. }
                | Deed::AlertJoined { .. }
                | Deed::AlertSuperseded { .. }
                | Deed::AlertExtended { .. }
                | Deed::Notified { .. }
                | Deed::NotNotified { .. }
        );
        !is_machines && self.by != DETECTOR
    }

    /// Texts that people wrote, and how long each may be.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, usize)> {
        let long = match &self.deed {
            Deed::Commented { text } | Deed::PostMortemWritten { text } => Some(text),
            Deed::Closed { post_mortem } => Some(post_mortem),
            _ => None,
        };
        let (one, other) = match &self.deed {
            Deed::Assigned { to } => (Some(to), None),
            Deed::Notified { target, .. } => (Some(target), None),
            Deed::NotNotified { target, reason } => (Some(target), Some(reason)),
            Deed::ClockStarted { subject, .. } | Deed::ClockStopped { subject, .. } => (Some(subject), None),
            Deed::ClockMet { subject, reference, .. } => (Some(subject), Some(reference)),
            _ => (None, None),
        };
        let short = [Some(&self.by), self.why.as_ref(), one, other].into_iter().flatten();
        let long = long.into_iter().map(|text| (text.as_str(), TEXT_SIZE_BYTES_MAX));
        short.map(|text| (text.as_str(), REASON_SIZE_BYTES_MAX)).chain(long)
    }
}
