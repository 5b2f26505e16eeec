//! The audit log: entries, log files and verification.

use super::record::Page;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Which entries of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// Only of this tenant.
    pub tenant: Option<String>,
    /// Only by this login.
    pub actor: Option<String>,
    /// Only this kind of act.
    pub action: Option<String>,
    /// Only about this table.
    pub table: Option<String>,
    /// Only about this record.
    pub key: Option<String>,
    /// Only of this log, by its name `{region}-{group}`.
    pub log: Option<String>,
    /// Not before: milliseconds since 1970.
    pub from_ms: Option<u64>,
    /// Before: milliseconds since 1970.
    pub to_ms: Option<u64>,
    /// Which part.
    pub page: Page,
}

/// Entries of the audit log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditList {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// What follows: the API seals it, clients give it as `page_token`.
    #[serde(rename = "next_page_token")]
    pub next: Option<String>,
}

/// One entry.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its log: `{region}-{group}`.
    pub log: String,
    /// Its index in the log.
    pub index: u64,
    /// The leaf, as it was hashed.
    pub event: Value,
    /// Old and new values; the leaf commits to their digest.
    pub detail: Option<Value>,
}

/// The logs of this region.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditLogs {
    /// In order of their names.
    pub logs: Vec<AuditLogView>,
}

/// One log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditLogView {
    /// `{region}-{group}`: the part of the path that names it.
    pub name: String,
    /// The first line of its checkpoints.
    pub origin: String,
    /// Entries it holds.
    pub size: u64,
    /// Its latest root hash, base64.
    pub root: String,
    /// The key its checkpoints verify with, as a note verifier.
    pub verifier: String,
}

/// A file of a log, named by C2SP tlog-tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFile {
    /// The latest signed checkpoint.
    Checkpoint,
    /// A tile of hashes or of entries.
    Tile(audit::Tile),
}

/// Whether the region's logs hold.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditVerification {
    /// Whether all of them do.
    pub verified: bool,
    /// Each log.
    pub logs: Vec<LogVerification>,
}

/// Whether one log holds.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LogVerification {
    /// `{region}-{group}`.
    pub name: String,
    /// Entries checked.
    pub size: u64,
    /// Whether it holds.
    pub verified: bool,
    /// What is wrong.
    pub problem: Option<String>,
}
