//! The platform's own audit stream: JSON of an audit event, as the audit log's leaves hold it.

use crate::event::RejectReason;
use serde::{Deserialize, Serialize};

/// An audit event as the platform writes it. Fields added later are ignored here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// The region that wrote it.
    #[serde(default)]
    pub region: String,
    /// The node that wrote it.
    #[serde(default)]
    pub node: String,
    /// The Raft group whose log it is in.
    #[serde(default)]
    pub group: u64,
    /// What was done: `login.failed`, `record.view`, …
    pub action: String,
    /// `success`, `failure` or `denied`.
    pub outcome: String,
    /// Why it failed, or why it was done.
    #[serde(default)]
    pub reason: Option<String>,
    /// The tenant's name.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The login of who did it.
    #[serde(default)]
    pub user: Option<String>,
    /// Their session.
    #[serde(default)]
    pub session: Option<String>,
    /// Where they did it from.
    #[serde(default)]
    pub address: Option<String>,
    /// What it was done to.
    #[serde(default)]
    pub resource: Option<String>,
    /// Which of its fields.
    #[serde(default)]
    pub fields: Vec<String>,
    /// The request it was part of.
    #[serde(default)]
    pub request_id: Option<String>,
    /// Commits to old and new values.
    #[serde(default)]
    pub detail_digest: Option<String>,
    /// How many records were seen, where one act sees several.
    #[serde(default)]
    pub count: Option<u64>,
    /// The country of the address, where a list of the node that read the entry says it: no part of the entry itself.
    #[serde(default)]
    pub country: Option<String>,
}

/// Parses an audit event.
pub fn parse(bytes: &[u8]) -> Result<AuditEvent, RejectReason> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(RejectReason::Empty);
    }
    let event: AuditEvent = serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            RejectReason::BadField { field: field_of(&error.to_string()) }
        } else {
            RejectReason::NotJson { column: error.column() as u64 }
        }
    })?;
    match has_failed(&event.outcome) {
        Some(_) => Ok(event),
        None => Err(RejectReason::BadField { field: "outcome".to_owned() }),
    }
}

/// Whether an outcome says that it was not done; `None` for what is no outcome.
pub(crate) fn has_failed(outcome: &str) -> Option<bool> {
    match outcome {
        "success" => Some(false),
        "failure" | "denied" => Some(true),
        _ => None,
    }
}

/// The field that an error is about, where it says so.
fn field_of(error: &str) -> String {
    error.split('`').nth(1).unwrap_or("value").chars().take(64).collect()
}
