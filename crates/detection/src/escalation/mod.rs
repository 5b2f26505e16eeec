//! Escalation: who is told of an incident, when, and who next when nobody answers.
//!
//! Pure: what is due is a function of the policy document, the incident and the time. There are no timers to
//! lose: whoever has the duty asks again, and notifications have ids that do not depend on who asks or when, so that
//! a failover sends none twice. This module sends nothing itself.

mod book;
mod document;
mod due;
mod error;
mod remind;
mod rota;
mod run;
pub mod ticket;

pub use book::{Book, Channel, Person, Policy, Step, Target, Team, Webhook};
pub use document::parse;
pub use due::{Due, Notification, Reached, Standing, State, Stop, due};
pub use error::{PolicyError, Reason};
pub use remind::{Mark, Reminder, remind};
pub use rota::{Layer, Override, Schedule};
pub use run::{AT_ONCE_MAX, Advance, Run, SENT_MAX, TOLD_WITHIN_MS, advance};
pub use ticket::Ticket;

/// Most bytes of a policy document: it is stored in one field.
pub const DOCUMENT_SIZE_BYTES_MAX: usize = 48 * 1024;
/// Most people, teams, schedules, webhooks and policies, each.
pub const ITEMS_MAX: usize = 1_024;
/// Most bytes of a name, an address or a URL.
pub const NAME_SIZE_BYTES_MAX: usize = 512;
/// Most members of a team or of a layer of a schedule.
pub const MEMBERS_MAX: usize = 64;
/// Most layers of a schedule.
pub const LAYERS_MAX: usize = 16;
/// Most overrides of a schedule.
pub const OVERRIDES_MAX: usize = 512;
/// Most days of one turn on call.
pub const TURN_DAYS_MAX: u32 = 366;
/// Most steps of a policy.
pub const STEPS_MAX: usize = 16;
/// Most targets of a step.
pub const TARGETS_MAX: usize = 16;
/// Most times that a policy's steps are repeated.
pub const REPEATS_MAX: u32 = 10;
/// Shortest and longest time to acknowledge a step: seconds are for drills.
pub const ACKNOWLEDGE_MS: std::ops::RangeInclusive<u64> = 5_000..=24 * 3_600_000;
/// Most errors that one document is told of.
pub const ERRORS_MAX: usize = 100;
