//! Ingested events and incidents as they are read.

use super::alert::AlertView;
use super::incident_act::ClockView;
use super::record::{Etag, Page};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// Events that are durable and will be judged.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Ingested {
    /// How many.
    pub accepted: u64,
    /// Of them, those that were here already: sent again, they count once.
    pub repeated: u64,
}

/// How grave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    Informational,
    /// Can wait.
    Low,
    /// This week.
    Medium,
    /// Today.
    High,
    /// Now.
    Critical,
}

/// How urgent: severity says how grave, risk how likely, this what comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
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

/// Where an incident stands: the life of an OCSF Incident Finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentStatus {
    /// Nobody has looked.
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

impl IncidentStatus {
    /// All of them, in the order of an incident's life.
    pub const ALL: [Self; 5] = [Self::New, Self::InProgress, Self::OnHold, Self::Resolved, Self::Closed];

    /// Its name, as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::InProgress => "in_progress",
            Self::OnHold => "on_hold",
            Self::Resolved => "resolved",
            Self::Closed => "closed",
        }
    }
}

/// What a list of incidents begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentSort {
    /// What was opened last.
    #[default]
    Newest,
    /// What was worked on, or went on, last.
    Updated,
    /// What is most likely true and harmful.
    Risk,
    /// What comes first for people; then the risk.
    Priority,
    /// What is gravest; then the risk.
    Severity,
    /// What must be reported soonest.
    Due,
}

/// Which incidents. Those that went up in others are under the others.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct IncidentFilter {
    /// Only with one of these; empty for all.
    pub statuses: BTreeSet<IncidentStatus>,
    /// Only so grave or graver.
    pub severity: Option<Severity>,
    /// Only so urgent or more.
    pub priority: Option<Priority>,
    /// Only of this login; of nobody where it is empty.
    pub assignee: Option<String>,
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Only those that concern this entity: kind and name.
    pub entity: Option<(String, String)>,
    /// Only those with this in their id, title, entities, rules or comments, whatever the case.
    pub text: Option<String>,
    /// What comes first.
    pub sort: IncidentSort,
    /// Which part.
    pub page: Page,
}

/// Incidents.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentList {
    /// In the order asked for, without their events.
    pub incidents: Vec<IncidentSummary>,
    /// How many there are of them on all pages.
    pub total: u64,
    /// What follows: the API seals it, clients give it as `page_token`.
    #[serde(rename = "next_page_token")]
    pub next: Option<String>,
}

/// One incident, in short.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentSummary {
    /// Unique.
    pub id: String,
    /// What happened.
    pub title: String,
    /// How grave.
    pub severity: Severity,
    /// How urgent.
    pub priority: Priority,
    /// How likely it is that something is wrong: points, faded by time.
    pub risk: u64,
    /// Where it stands.
    pub status: IncidentStatus,
    /// The tenant it concerns.
    pub tenant: Option<String>,
    /// Who works on it.
    pub assignee: Option<String>,
    /// Who has seen its last call for people; none while nobody has.
    pub acknowledged_by: Option<String>,
    /// The time of its first event: milliseconds since 1970.
    pub first_ms: u64,
    /// The time of its last event: milliseconds since 1970.
    pub last_ms: u64,
    /// When it was opened: milliseconds since 1970.
    pub opened_ms: u64,
    /// When something was last done about it, or it went on: milliseconds since 1970.
    pub updated_ms: u64,
    /// When it was closed: milliseconds since 1970.
    pub closed_ms: Option<u64>,
    /// How many alerts it has.
    pub alert_count: u64,
    /// Until when it must be reported, where a duty to report is open: the soonest.
    pub due_ms: Option<u64>,
    /// Until when its notifications rest.
    pub quiet_until_ms: Option<u64>,
    /// The incident it went up in.
    pub merged_into: Option<String>,
}

/// One incident.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentView {
    /// In short.
    #[serde(flatten)]
    pub summary: IncidentSummary,
    /// What the severity is where a person said so.
    pub severity_set: Option<Severity>,
    /// What the priority is where a person said so.
    pub priority_set: Option<Priority>,
    /// Where the risk comes from.
    pub risk_parts: RiskView,
    /// MITRE ATT&CK.
    pub attack: AttackView,
    /// Whom it concerns, and what joins them.
    pub graph: EntityGraph,
    /// Duties to report.
    pub clocks: Vec<ClockView>,
    /// What happened, why, and what is changed so that it does not again.
    pub post_mortem: Option<String>,
    /// Incidents that went up in it.
    pub absorbed: Vec<String>,
    /// Its alerts, oldest first.
    pub alerts: Vec<AlertView>,
    /// The normalised (OCSF) events, oldest first, as many as are kept.
    pub events: Vec<Value>,
    /// What was said and done, oldest first.
    pub history: Vec<IncidentNote>,
    /// Its version, for `If-Match`; also the answer's `ETag`.
    pub etag: Etag,
}

/// Where a risk comes from.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RiskView {
    /// Points.
    pub score: u64,
    /// In words: `info`, `low`, `medium`, `high` or `critical`.
    pub level: String,
    /// What each rule brings before the factors, in thousandths of a point.
    pub rules: BTreeMap<String, u64>,
    /// The most critical of what is concerned: `low`, `normal`, `high` or `vital`.
    pub criticality: String,
    /// The tactics in whose order the attack goes on; each but the first adds a quarter.
    pub tactics: Vec<String>,
}

/// Tactics and techniques in one version of the matrix, whatever version the rules were written for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AttackView {
    /// The version.
    pub version: u16,
    /// In the order of an attack.
    pub tactics: Vec<String>,
    /// By number, such as `T1110.003`.
    pub techniques: Vec<String>,
    /// Techniques that rules name by a number of before, and the version that renamed them.
    pub renamed: Vec<RenamedTechnique>,
    /// Tags that are neither: groups, software, what is not understood.
    pub others: Vec<String>,
}

/// A technique that has another number now.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RenamedTechnique {
    /// As the rule has it.
    pub written: String,
    /// As it is now.
    pub now: String,
    /// The version of the matrix that renamed it.
    pub since: u16,
}

/// Whom an incident concerns: two entities are joined where an alert concerns both.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EntityGraph {
    /// The riskiest first.
    pub entities: Vec<EntityView>,
    /// The heaviest first.
    pub edges: Vec<EntityEdge>,
    /// How many entities and edges there was no room for.
    pub left_out: u64,
}

/// Someone or something that an incident concerns.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EntityView {
    /// `user`, `address`, `session`, `host`, `tenant`, `node`, `region` or `badge`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How many of the incident's alerts concern it.
    pub alerts: u64,
    /// Its risk over all incidents in memory, suppressed or not.
    pub risk: u64,
}

/// Two entities of the same alerts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EntityEdge {
    /// One: its kind and name, such as `user:ann`.
    pub one: String,
    /// The other.
    pub other: String,
    /// How many alerts concern both.
    pub alerts: u64,
}

/// Something said or done about an incident.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentNote {
    /// The change: what an undoing names.
    pub id: String,
    /// When: milliseconds since 1970.
    pub time_ms: u64,
    /// Who, by login; `detector` for the program.
    pub actor: String,
    /// What was done: `opened`, `acknowledged`, `assigned`, `commented`, `merged`, `closed`, …
    pub act: String,
    /// What was said, or what it was done with.
    pub text: String,
    /// Why, where the one who did it said so.
    pub why: Option<String>,
    /// Why it has no effect, where it has none.
    pub void: Option<String>,
}

/// What happened, oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Timeline {
    /// Events, alerts and acts.
    pub moments: Vec<Moment>,
    /// How many events there was no room for.
    pub left_out: u64,
}

/// One moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Moment {
    /// When: milliseconds since 1970.
    pub time_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: MomentKind,
}

/// What happened.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum MomentKind {
    /// An event of one or more alerts.
    Event {
        /// One line on it.
        text: String,
        /// Whom it concerns, such as `user:ann`.
        entities: Vec<String>,
        /// The alerts that rest on it.
        alerts: Vec<String>,
    },
    /// An alert was complete.
    Alert {
        /// Its id.
        alert: String,
        /// The rule's id.
        rule: String,
        /// The rule's title.
        title: String,
        /// How grave.
        severity: Severity,
    },
    /// Somebody did something.
    Act {
        /// The incident it was done to: it may have gone up in this one.
        incident: String,
        /// What.
        note: IncidentNote,
    },
}
