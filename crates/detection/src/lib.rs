//! From raw events to incidents: normalising to OCSF, Sigma rules, correlation on event time, incidents, escalation.
//!
//! Pure: nothing here reads a clock, draws entropy or opens anything; time is an argument.

pub mod alert;
mod correlation;
pub mod engine;
pub mod escalation;
pub mod event;
pub mod id;
pub mod incident;
pub mod normalise;
pub mod packs;
pub mod program;
pub mod report;
pub mod rollout;
pub mod rules;
pub mod sigma;
pub mod source;
pub mod tuple;

pub use alert::{Alert, Entity, EntityKind, EventSummary, RuleReference, Severity};
pub use event::{Event, LogSource, Owner, Position, RawEvent, Reject, RejectReason, SourceKind};
pub use id::{
    AlertId, ChangeId, EventId, IncidentId, MuteId, NotAnId, NotificationId, SemanticHash, TicketId, VersionId,
};
pub use tuple::Tuple;
