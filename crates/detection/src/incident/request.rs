//! From what people ask for to what is written: checks that need no other incident, and the deed.

use super::act::{Act, Refusal};
use super::change::Deed;
use super::state::Status;
use crate::id::{Digest, IncidentId};
use model::Hlc;

impl Act {
    /// Whether it may be asked for at all: texts where they must be, reasons where they must be, no times to come.
    pub(super) fn check(&self, now_ms: u64, status: Status, why: Option<&str>) -> Result<(), Refusal> {
        let has_text = |text: &str| !text.trim().is_empty();
        let must_say_why = match self {
            Self::SetStatus { .. } => status == Status::Closed,
            Self::Suppress { .. } | Self::StopClock { .. } | Self::Undo { .. } => true,
            _ => false,
        };
        match why {
            Some(why) if !has_text(why) => return Err(Refusal::TextRequired),
            None if must_say_why => return Err(Refusal::ReasonRequired),
            _ => {}
        }
        let is_complete = match self {
            Self::Assign { to: text } | Self::Comment { text } | Self::PostMortem { text } => has_text(text),
            Self::StartClock { subject, .. } => has_text(subject),
            Self::MeetClock { subject, reference, .. } => has_text(subject) && has_text(reference),
            _ => true,
        };
        if !is_complete {
            return Err(Refusal::TextRequired);
        }
        match self {
            Self::StartClock { aware_ms: at_ms, .. } | Self::MeetClock { at_ms, .. } if *at_ms > now_ms => {
                Err(Refusal::TimeOutOfRange)
            }
            _ => Ok(()),
        }
    }

    /// What it is in the history. The incident that a split makes is named after where and when it was made.
    pub(super) fn deed(self, id: IncidentId, hlc: Hlc) -> Deed {
        match self {
            Self::Acknowledge => Deed::Acknowledged,
            Self::Assign { to } => Deed::Assigned { to },
            Self::Unassign => Deed::Unassigned,
            Self::Comment { text } => Deed::Commented { text },
            Self::SetStatus { to } => Deed::StatusSet { to },
            Self::SetSeverity { to } => Deed::SeveritySet { to },
            Self::SetPriority { to } => Deed::PrioritySet { to },
            Self::PostMortem { text } => Deed::PostMortemWritten { text },
            Self::Close { post_mortem } => Deed::Closed { post_mortem },
            Self::Merge { from } => Deed::Merged { from },
            Self::Split { alerts } => {
                let mut hash = Digest::new("holdfast incident split 1");
                hash.part(id.as_bytes()).part(&hlc.bits().to_le_bytes());
                for alert in &alerts {
                    hash.part(alert.as_bytes());
                }
                Deed::Split { alerts, into: IncidentId::of(hash) }
            }
            Self::Undo { change } => Deed::Undone { change },
            Self::Suppress { until_ms } => Deed::Suppressed { until_ms },
            Self::Unsuppress => Deed::Unsuppressed,
            Self::StartClock { clock, subject, aware_ms, limit_ms } => {
                Deed::ClockStarted { clock, subject, aware_ms, limit_ms: limit_ms.unwrap_or(clock.limit_ms()) }
            }
            Self::MeetClock { clock, subject, at_ms, reference } => Deed::ClockMet { clock, subject, at_ms, reference },
            Self::StopClock { clock, subject } => Deed::ClockStopped { clock, subject },
            Self::Notified { notification, target } => Deed::Notified { notification, target },
            Self::NotNotified { target, reason } => Deed::NotNotified { target, reason },
        }
    }
}
