//! Searches and hunts through the events of the past.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A search. Either `query` or `sql`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventSearch {
    /// Whose events: the session's own tenant's when not given. Only the platform's SOC may name another, or `*` for
    /// all, and each of them sees in its audit log that it did.
    pub tenant: Option<String>,
    /// Events from this moment on, milliseconds since 1970: a day before `to_ms` when not given.
    pub from_ms: Option<u64>,
    /// Events before this moment: now when not given.
    pub to_ms: Option<u64>,
    /// Terms such as `user:ann severity>=3 "session opened"`: the newest events that fit.
    pub query: Option<String>,
    /// One SELECT over the table `events`.
    pub sql: Option<String>,
    /// Most rows of the answer: 1 to 10000, 1000 when not given.
    pub limit: Option<usize>,
    /// How long to wait for the answer before it is a job to ask for: up to 20000, 5000 when not given.
    pub wait_ms: Option<u64>,
}

/// A hunt: detection rules over events of the past.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventHunt {
    /// As for a search.
    pub tenant: Option<String>,
    /// As for a search: the last event of an alert happened in this span.
    pub from_ms: Option<u64>,
    /// As for a search.
    pub to_ms: Option<u64>,
    /// Sigma rules, as YAML: those the node detects with when not given.
    pub rules: Option<String>,
    /// What the rules that were sent are read through, one after the other: `ocsf`, which comes with the program, or a
    /// pipeline as YAML.
    #[serde(default)]
    pub pipelines: Vec<String>,
    /// Only alerts of these rules, by id, those in shadow too: of all that are not in shadow when empty.
    #[serde(default)]
    pub only: Vec<String>,
    /// As for a search.
    pub wait_ms: Option<u64>,
}

/// How a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It goes on.
    Running,
    /// It has ended, and this is what it gave.
    Done,
    /// It gave nothing: `problem` says why.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

/// A search or hunt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobView {
    /// Its id, for `/v1/events/jobs/{id}`.
    pub id: String,
    /// `search` or `hunt`.
    pub kind: String,
    /// How it is.
    pub state: JobState,
    /// Whose events; `*` for all.
    pub tenant: String,
    /// What was asked.
    pub question: String,
    /// When it began, milliseconds since 1970.
    pub began_ms: u64,
    /// Files it has looked at.
    pub files_done: u64,
    /// Files it will look at.
    pub files_total: u64,
    /// Events it had to read.
    pub rows_read: u64,
    /// Events or alerts found so far.
    pub rows_matched: u64,
    /// Why it gave nothing.
    pub problem: Option<String>,
    /// Files that were skipped because they are broken, and why: where there are any, the answer may lack events.
    pub broken: BTreeMap<String, String>,
    /// The columns of the rows, in order.
    pub columns: Vec<String>,
    /// Rows of a search, alerts of a hunt: from the place that was asked for on.
    pub rows: Vec<Value>,
    /// Where the next rows are: give it as `after`.
    pub next: Option<usize>,
    /// Whether there was more than the bounds of an answer allow.
    pub truncated: bool,
}

/// The jobs the session may see.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobList {
    /// Without their rows.
    pub jobs: Vec<JobView>,
}

/// What a node's archive holds.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct ArchiveView {
    /// The node that answers: each node of a region has a copy of its own.
    pub node: String,
    /// Its region.
    pub region: String,
    /// By tenant, those the session may see.
    pub tenants: Vec<ArchiveTenant>,
    /// Events that are in no file yet; they are searched too.
    pub open_rows: u64,
    /// Bytes of all files.
    pub size_bytes: u64,
    /// Bytes that all files may have: beyond it the oldest leave.
    pub size_bytes_max: u64,
    /// Broken files, and why they are.
    pub broken: BTreeMap<String, String>,
}

/// What an archive holds of a tenant.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct ArchiveTenant {
    /// Its name.
    pub tenant: String,
    /// Files.
    pub files: u64,
    /// Events in them.
    pub rows: u64,
    /// Bytes of them.
    pub size_bytes: u64,
    /// The oldest day, `YYYY-MM-DD`.
    pub first_day: String,
    /// The newest day.
    pub last_day: String,
    /// How many days its events are kept.
    pub retention_days: u32,
    /// Legal holds on its events, in words.
    pub holds: Vec<String>,
}
