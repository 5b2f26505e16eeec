//! Alerts as they are read: what a rule said about which events.

use super::incident::Severity;
use super::record::Page;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

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
    /// Satisfying events so far, where the burst went on after the alert.
    pub count: Option<u64>,
    /// The alert that covers its events, where an event that came late made it void.
    pub superseded_by: Option<String>,
}

/// One alert, whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AlertDetail {
    /// As lists show it.
    #[serde(flatten)]
    pub alert: AlertView,
    /// What the rule means, hashed: the same after a reload that changed nothing of its meaning.
    pub semantic_hash: String,
    /// The rule's tags, such as `attack.t1110`, as they are written in it.
    pub tags: Vec<String>,
    /// Whom its events concern: kind and name, such as `user:ann`.
    pub entities: Vec<String>,
    /// When the first event happened.
    pub first_ms: u64,
    /// When the last one happened, those that prolonged the burst included.
    pub last_ms: u64,
    /// Whether an event came later than the allowed lateness.
    pub late: bool,
    /// Whether a source's clock was too far ahead, so that the time of receipt counts.
    pub clamped: bool,
    /// The minimal satisfying set of events, by time.
    pub events: Vec<AlertEvent>,
}

/// An event in brief.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AlertEvent {
    /// Its id.
    pub id: String,
    /// When it happened.
    pub time_ms: u64,
    /// Its OCSF class.
    pub class_uid: u32,
    /// Its OCSF activity.
    pub activity_id: u32,
    /// One line on it; empty where the tenant's words stay in their region.
    pub text: String,
    /// Whom it concerns.
    pub entities: Vec<String>,
}

/// Which alerts are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertFilter {
    /// Only of the rule with this id.
    pub rule: Option<String>,
    /// Only so grave or graver.
    pub severity: Option<Severity>,
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Only those that concern this entity: its kind and name.
    pub entity: Option<(String, String)>,
    /// Only those completed at this time or later.
    pub from_ms: Option<u64>,
    /// Only those completed before this time.
    pub to_ms: Option<u64>,
    /// Whether those that no longer stand are wanted too.
    pub superseded: bool,
    /// Which part of them.
    pub page: Page,
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
