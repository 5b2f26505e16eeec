//! Ingested events, alerts and incidents.

use super::record::Page;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Events that are durable and will be judged.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Ingested {
    /// How many.
    pub accepted: u64,
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

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncidentStatus {
    /// Nobody has looked.
    Open,
    /// Somebody has.
    Acknowledged,
    /// Done.
    Closed,
}

/// One alert: a rule that matched.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AlertView {
    /// Unique, and the same when the events are replayed.
    pub id: String,
    /// The rule's id.
    pub rule: String,
    /// The rule's title.
    pub title: String,
    /// How grave.
    pub severity: Severity,
    /// The time of the event that completed it: milliseconds since 1970.
    pub time_ms: u64,
    /// The tenant it concerns.
    pub tenant: Option<String>,
    /// What the events have in common: values of the rule's group-by.
    pub group: Value,
    /// The incident it belongs to.
    pub incident: Option<String>,
}

/// Alerts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AlertList {
    /// Newest first.
    pub alerts: Vec<AlertView>,
    /// What follows: the API seals it, clients give it as `page_token`.
    #[serde(rename = "next_page_token")]
    pub next: Option<String>,
}

/// Which incidents.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct IncidentFilter {
    /// Only with this status.
    pub status: Option<IncidentStatus>,
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Which part.
    pub page: Page,
}

/// Incidents.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentList {
    /// Newest first, without their events.
    pub incidents: Vec<IncidentSummary>,
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
    /// Where it stands.
    pub status: IncidentStatus,
    /// The tenant it concerns.
    pub tenant: Option<String>,
    /// Who works on it.
    pub assignee: Option<String>,
    /// The time of its first event: milliseconds since 1970.
    pub first_ms: u64,
    /// The time of its last event: milliseconds since 1970.
    pub last_ms: u64,
    /// When it was opened: milliseconds since 1970.
    pub opened_ms: u64,
    /// How many alerts it has.
    pub alert_count: u64,
}

/// One incident.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentView {
    /// In short.
    #[serde(flatten)]
    pub summary: IncidentSummary,
    /// Its alerts, oldest first.
    pub alerts: Vec<AlertView>,
    /// The normalised (OCSF) events, oldest first, as many as are kept.
    pub events: Vec<Value>,
    /// What was said and done, oldest first.
    pub history: Vec<IncidentNote>,
}

/// Something said or done about an incident.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct IncidentNote {
    /// When: milliseconds since 1970.
    pub time_ms: u64,
    /// Who, by login.
    pub actor: String,
    /// `acknowledged`, `assigned`, `commented` or `closed`.
    pub act: String,
    /// What was said.
    pub text: String,
}

/// What to do about an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentAction {
    /// Somebody has looked.
    Acknowledge,
    /// Somebody works on it.
    Assign(Assign),
    /// Somebody says something.
    Comment(Comment),
    /// It is done.
    Close(Close),
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

/// Closes an incident: not without its cause and what was done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Close {
    /// Why it happened.
    pub cause: String,
    /// What was done.
    pub actions: String,
}
