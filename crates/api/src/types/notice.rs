//! What could not be told outside: notices that a sink refused for good.

use super::incident::Severity;
use super::record::Page;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which refused notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFilter {
    /// Only of this sink.
    pub sink: Option<String>,
    /// Which part of the list.
    pub page: Page,
}

/// Notices that were refused for good, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedList {
    /// One page.
    pub notices: Vec<RefusedNotice>,
    /// How many there are in all.
    pub total: u64,
    /// To go on with; null at the end.
    #[serde(rename = "next_page_token")]
    pub next: Option<String>,
}

/// A notice that a sink refused for good, or did not take for too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedNotice {
    /// The sink.
    pub sink: String,
    /// The notice's key: the same for every attempt.
    pub key: String,
    /// `alert`, `incident`, `page` or `ticket`.
    pub topic: String,
    /// Whose it is.
    pub tenant: String,
    /// How grave it is.
    pub severity: Severity,
    /// In one line.
    pub subject: String,
    /// When what it tells came about: milliseconds since 1970.
    pub at_ms: u64,
    /// When it was refused: milliseconds since 1970.
    pub refused_ms: u64,
    /// Why.
    pub reason: String,
    /// The region that tells it.
    pub region: String,
    /// Whether somebody asked for it to be told again.
    pub is_asked_for: bool,
}

/// Which refused notices something is done to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChosenNotices {
    /// The sink.
    pub sink: String,
    /// Their keys, at most 500; all of the sink when not given.
    pub keys: Option<Vec<String>>,
}

/// To how many notices it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct NoticesDone {
    /// How many.
    pub count: u64,
}
