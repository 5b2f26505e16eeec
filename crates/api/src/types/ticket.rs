//! Tickets: the work on an incident as other systems know it.

use super::record::{Etag, Page};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Where the work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TicketState {
    /// To be done.
    Open,
    /// Somebody does it.
    InProgress,
    /// It waits for somebody else.
    Waiting,
    /// Done.
    Done,
}

/// Whether the other systems know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TicketSync {
    /// None has answered about the newest revision yet.
    Pending,
    /// Those that answered have taken it.
    Sent,
    /// One has refused it for good.
    Failed,
}

/// Opens a ticket: an incident has one in each queue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTicket {
    /// The incident.
    pub incident: String,
    /// The queue of the other system, such as a project.
    pub queue: String,
    /// In one line; the incident's title when not given.
    pub title: Option<String>,
    /// At length.
    #[serde(default)]
    pub description: String,
}

/// Changes a ticket: at least one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeTicket {
    /// Another title.
    pub title: Option<String>,
    /// Where the work stands.
    pub state: Option<TicketState>,
    /// Fields of the other system; `null` removes one.
    #[serde(default)]
    pub fields: BTreeMap<String, Option<String>>,
    /// A remark.
    pub comment: Option<String>,
    /// What it has to do with: an address, or another ticket or incident.
    pub link: Option<String>,
    /// What it has nothing to do with any more.
    pub unlink: Option<String>,
    /// Tells those again that refused it.
    #[serde(default)]
    pub retry: bool,
}

/// Which tickets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TicketFilter {
    /// Only about this incident.
    pub incident: Option<String>,
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only where the work stands so.
    pub state: Option<TicketState>,
    /// Which part.
    pub page: Page,
}

/// Tickets.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TicketList {
    /// Those that changed last first.
    pub tickets: Vec<TicketView>,
    /// What follows: the API seals it, clients give it as `page_token`.
    #[serde(rename = "next_page_token")]
    pub next: Option<String>,
}

/// One ticket.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct TicketView {
    /// Unique.
    pub id: String,
    /// The incident it is about.
    pub incident: String,
    /// The queue of the other system.
    pub queue: String,
    /// In one line.
    pub title: String,
    /// At length.
    pub description: String,
    /// Where the work stands.
    pub state: TicketState,
    /// Fields of the other system.
    pub fields: BTreeMap<String, String>,
    /// Remarks, oldest first.
    pub comments: Vec<TicketComment>,
    /// What it has to do with.
    pub links: Vec<String>,
    /// When it was opened: milliseconds since 1970.
    pub opened_ms: u64,
    /// When somebody last did something: milliseconds since 1970.
    pub updated_ms: u64,
    /// What the others are to know.
    pub revision: u64,
    /// Whether they do.
    pub sync: TicketSync,
    /// What each of them said last.
    pub sinks: Vec<TicketSink>,
    /// For `If-Match`; also the answer's `ETag`.
    pub etag: Etag,
}

/// A remark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TicketComment {
    /// When: milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub by: String,
    /// What.
    pub text: String,
}

/// What one sink said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TicketSink {
    /// The sink's name.
    pub sink: String,
    /// The revision it spoke of.
    pub revision: u64,
    /// When: milliseconds since 1970.
    pub at_ms: u64,
    /// Why it refused it for good; null where it took it.
    pub refused: Option<String>,
}
