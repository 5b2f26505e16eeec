//! Events on their way through one node: what each component does, and what it could not deal with.

use super::record::Page;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The pipeline of the node that answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PipelineStatus {
    /// The node.
    pub node: String,
    /// Its sources, transforms and sinks, by their names.
    pub components: Vec<ComponentStatus>,
    /// Bytes of dead letters that are kept.
    pub dead_letters_bytes: u64,
    /// Files of dead letters that went because there were too many.
    pub dead_letters_files_lost: u64,
}

/// One component of the pipeline.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ComponentStatus {
    /// Its name in the topology.
    pub name: String,
    /// Whether its tasks run: a component of which one has ended is begun again.
    pub is_running: bool,
    /// Events that wait for it.
    pub buffered_events: u64,
    /// Their bytes, in memory or on disk.
    pub buffered_bytes: u64,
    /// What it counted since the node started: received, sent, left out, dropped, dead-lettered, retries, restarts.
    pub counts: BTreeMap<String, u64>,
    /// What a source counts of its own: connections, files, what was lost before it could be read.
    pub own: BTreeMap<String, u64>,
}

/// Which dead letters are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only of this component.
    pub component: Option<String>,
    /// Only for this reason, by its short word.
    pub code: Option<String>,
    /// Which part of the list.
    pub page: Page,
}

/// Dead letters of the node that answers, the oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadLetterList {
    /// The node.
    pub node: String,
    /// One page.
    pub letters: Vec<DeadLetterView>,
    /// How many there are in all.
    pub total: u64,
    /// Lines that cannot be read.
    pub unreadable: u64,
    /// To go on with; null at the end.
    #[serde(rename = "next_page_token")]
    pub next: Option<String>,
}

/// An event that could not be dealt with; what it says is seen on the node's machine only.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadLetterView {
    /// Its name on its node, such as `3-17`.
    pub id: String,
    /// When it became one: milliseconds since 1970.
    pub at_ms: u64,
    /// Which component could not deal with it.
    pub component: String,
    /// A short word for the reason.
    pub code: String,
    /// The reason.
    pub reason: String,
    /// When the event was received: milliseconds since 1970; null where it cannot be read.
    pub received_ms: Option<u64>,
    /// Whose it is, where its source says so.
    pub tenant: Option<String>,
    /// Bytes of the event that are kept.
    pub size_bytes: u64,
    /// Whether only its beginning is kept: it cannot be replayed.
    pub is_sample: bool,
}

/// Which dead letters of the node that answers something is done to: those that are named, or that are of a component
/// or for a reason, or all. To say nothing is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChosenLetters {
    /// The node that they are on: another one refuses.
    pub node: String,
    /// Their names, at most 500.
    pub ids: Option<Vec<String>>,
    /// Only of this component.
    pub component: Option<String>,
    /// Only for this reason, by its short word.
    pub code: Option<String>,
    /// All that are there.
    #[serde(default)]
    pub all: bool,
}

/// To how many dead letters it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LettersDone {
    /// How many.
    pub count: u64,
    /// How many stay, of which only a sample is kept.
    pub stay: u64,
}
