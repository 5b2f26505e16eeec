//! What people do to incidents, and for how long notifications of an entity or a rule rest.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::incident::{IncidentStatus, Priority, Severity};

/// What to do about an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentAction {
    /// Somebody has looked.
    Acknowledge,
    /// Somebody works on it.
    Assign(Assign),
    /// Nobody works on it.
    Unassign,
    /// Somebody says something.
    Comment(Comment),
    /// It stands elsewhere in its life.
    SetStatus(SetStatus),
    /// How grave it is.
    SetSeverity(SetSeverity),
    /// How urgent it is.
    SetPriority(SetPriority),
    /// What happened and why, before it is closed.
    PostMortem(Comment),
    /// It is done.
    Close(Close),
    /// Others are the same.
    Merge(Merge),
    /// Some of its alerts are another matter.
    Split(Split),
    /// A merge or split was wrong.
    Undo(Undo),
    /// Its notifications rest for a while.
    Suppress(Suppress),
    /// They rest no longer.
    Unsuppress,
    /// It must be reported.
    StartClock(StartClock),
    /// It was reported.
    MeetClock(MeetClock),
    /// It need not be reported.
    StopClock(StopClock),
}

/// Gives an incident to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Assign {
    /// The login.
    pub assignee: String,
}

/// Says something about an incident.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Comment {
    /// What.
    pub text: String,
}

/// Moves an incident in its life. It is closed with its post-mortem only; opening it again needs a reason.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetStatus {
    /// Where: `in_progress`, `on_hold` or `resolved`.
    pub status: IncidentStatus,
    /// Why.
    pub why: Option<String>,
}

/// Says how grave an incident is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSeverity {
    /// How grave; `null` leaves it to its alerts again.
    pub severity: Option<Severity>,
    /// Why.
    pub why: Option<String>,
}

/// Says how urgent an incident is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPriority {
    /// How urgent; `null` leaves it to its risk again.
    pub priority: Option<Priority>,
    /// Why.
    pub why: Option<String>,
}

/// Closes an incident: not without its cause and what was done, unless a post-mortem was written before, to which they
/// are added. Both or neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Close {
    /// Why it happened.
    pub cause: Option<String>,
    /// What was done.
    pub actions: Option<String>,
}

/// Makes several incidents one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// Those that go up in this one.
    pub incidents: Vec<String>,
    /// Why.
    pub why: Option<String>,
}

/// Makes another incident of some of the alerts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Which: not all.
    pub alerts: Vec<String>,
    /// Why.
    pub why: Option<String>,
}

/// Undoes a merge, a split, or an undoing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The `id` of the change in the history.
    pub change: String,
    /// Why.
    pub why: String,
}

/// Lets an incident's notifications rest; its risk goes on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Suppress {
    /// Until when: milliseconds since 1970, at most seven days ahead.
    pub until_ms: u64,
    /// Why.
    pub why: String,
}

/// A duty to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// A breach of personal data, to the supervisory authority: 72 hours (GDPR art. 33(1)).
    GdprAuthority,
    /// A significant incident's early warning, to the CSIRT: 24 hours (NIS2 art. 23(4)(a)).
    Nis2EarlyWarning,
    /// A significant incident's notification, to the CSIRT: 72 hours (NIS2 art. 23(4)(b)).
    Nis2Notification,
    /// A breach of personal data, from us as processor to a controller: without undue delay (GDPR art. 33(2));
    /// 24 hours unless the contract says otherwise.
    ProcessorNotice,
}

impl ClockKind {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::GdprAuthority, Self::Nis2EarlyWarning, Self::Nis2Notification, Self::ProcessorNotice];

    /// Its name, as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GdprAuthority => "gdpr_authority",
            Self::Nis2EarlyWarning => "nis2_early_warning",
            Self::Nis2Notification => "nis2_notification",
            Self::ProcessorNotice => "processor_notice",
        }
    }
}

/// Starts a duty to report.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartClock {
    /// Which.
    pub clock: ClockKind,
    /// To or about whom: an authority, a controller, a tenant.
    pub subject: String,
    /// Since when it has been known: milliseconds since 1970; now when not given.
    pub aware_ms: Option<u64>,
    /// How many hours may pass, where a contract says so; never more than the law allows.
    pub limit_hours: Option<u64>,
    /// Why.
    pub why: Option<String>,
}

/// Says that a duty to report was met.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MeetClock {
    /// Which.
    pub clock: ClockKind,
    /// To or about whom.
    pub subject: String,
    /// When it was reported: milliseconds since 1970; now when not given.
    pub at_ms: Option<u64>,
    /// The receiver's reference.
    pub reference: String,
}

/// Says that a duty to report does not exist after all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopClock {
    /// Which.
    pub clock: ClockKind,
    /// To or about whom.
    pub subject: String,
    /// Why.
    pub why: String,
}

/// A duty to report as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClockView {
    /// Which.
    pub clock: ClockKind,
    /// To or about whom.
    pub subject: String,
    /// Since when it has been known: milliseconds since 1970.
    pub aware_ms: u64,
    /// Until when it must be reported: milliseconds since 1970.
    pub due_ms: u64,
    /// `running`, `overdue`, `met`, `met_late` or `stopped`.
    pub state: String,
    /// What is left, or, below zero, by how much it is or was too late; none once it is met in time or stopped.
    pub left_ms: Option<i64>,
    /// When it was reported: milliseconds since 1970.
    pub met_ms: Option<u64>,
    /// The receiver's reference.
    pub reference: Option<String>,
}

/// Lets notifications about an entity or a rule rest. Alerts still open incidents, and their risk still counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMute {
    /// Kind and name, such as `user:ann`; this or `rule`.
    pub entity: Option<String>,
    /// A rule's id; this or `entity`.
    pub rule: Option<String>,
    /// Only for this tenant's alerts.
    pub tenant: Option<String>,
    /// Until when: milliseconds since 1970, at most seven days ahead.
    pub until_ms: u64,
    /// Why.
    pub why: String,
}

/// Notifications about an entity or a rule that rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MuteView {
    /// The same for the same entity or rule and tenant.
    pub id: String,
    /// Kind and name, such as `user:ann`.
    pub entity: Option<String>,
    /// A rule's id.
    pub rule: Option<String>,
    /// Only for this tenant's alerts.
    pub tenant: Option<String>,
    /// Until when: milliseconds since 1970.
    pub until_ms: u64,
    /// Who said so.
    pub by: String,
    /// Why.
    pub why: String,
}

/// What rests now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MuteList {
    /// The one that ends first, first.
    pub mutes: Vec<MuteView>,
}
