//! From raw events to incidents: sources, normalising to OCSF, Sigma rules, correlation on event time, incidents, sinks.
//!
//! All operators are pure: they read no clock, draw no entropy and open nothing; time is an argument.
//! Only the listeners in [`source`] wait for bytes, on sockets and files that their caller opened.

pub mod alert;
mod correlation;
pub mod engine;
pub mod escalation;
pub mod event;
pub mod id;
pub mod incident;
pub mod normalise;
pub mod program;
pub mod report;
pub mod rules;
pub mod sigma;
pub mod sink;
pub mod source;

pub use alert::{Alert, Entity, EntityKind, EventSummary, RuleReference, Severity};
pub use event::{Event, LogSource, Position, RawEvent, Reject, RejectReason, SourceKind};
pub use id::{AlertId, ChangeId, EventId, IncidentId, NotificationId, SemanticHash, TicketId};
