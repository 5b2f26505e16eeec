//! Incidents: alerts about the same entities, worked on by people until they are closed.
//!
//! Event-sourced: each [`Change`] says who did what, when and why, and is never edited.
//! An incident is a fold over changes in the order of clock, region and id; whoever holds the same changes
//! sees the same incidents, in whatever order and batches they came. Pure: no clock, no store; the caller
//! keeps the changes and sends what follows from them.

mod act;
pub mod attack;
mod board;
pub mod breach;
mod change;
mod desk;
pub mod entity;
mod fold;
pub mod graph;
pub mod link;
pub mod mute;
mod request;
pub mod risk;
mod rules;
mod state;
pub mod timeline;

pub use act::{Act, Effect, Input, Refusal};
pub use board::Board;
pub use change::{AHEAD_MS_MAX, Change, ChangeError, Deed, Order};
pub use desk::{Desk, JOIN_WINDOW_MS, Options};
pub use state::{Acknowledgement, Alarm, AlertLine, Cause, Entry, Incident, Priority, Status, Suppression};

/// Most alerts one incident takes; a further one opens another, so that no incident swallows all.
pub const ALERTS_MAX: usize = 256;
/// Most alerts an incident may have by merging; a merge beyond it is void.
pub const ALERTS_MERGED_MAX: usize = 1_024;
/// Most entities of an incident that still takes alerts.
pub const ENTITIES_MAX: usize = 512;
/// Longest time between the first and the last event of an incident that still takes alerts.
pub const SPAN_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// Most changes of one incident by people; more are refused.
pub const HISTORY_MAX: usize = 2_048;
/// Most changes of one incident that are kept at all: those first in order.
pub const LOG_MAX: usize = 4 * HISTORY_MAX;
/// Most bytes of a comment or post-mortem.
pub const TEXT_SIZE_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a reason, a login or another short text.
pub const REASON_SIZE_BYTES_MAX: usize = 2 * 1024;
/// Most event summaries an incident lists; its alerts keep theirs.
pub const EVENTS_MAX: usize = 512;
/// Most event summaries of one alert that an incident lists: its first and its last.
pub const EVENTS_OF_ALERT_MAX: usize = 4;
/// Most breach clocks of one incident.
pub const CLOCKS_MAX: usize = 64;
/// Most notifications that one incident remembers as sent.
pub const NOTIFIED_MAX: usize = 4_096;
/// Longest suppression of an incident's notifications.
pub const SUPPRESSION_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// Most bytes of a stored change.
pub const CHANGE_SIZE_BYTES_MAX: usize = 60 * 1024;
