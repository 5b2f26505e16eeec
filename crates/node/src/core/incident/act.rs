//! From what the API takes to what the desk does.

use super::incident_id;
use api::core::Answer;
use api::problem::Problem;
use api::types::{self as said, IncidentAction};
use detection::Severity;
use detection::incident::breach::ClockKind;
use detection::incident::{Act, Priority, Status};

/// The acts of an action, in order, and why.
pub(super) fn of(action: IncidentAction, now_ms: u64) -> Answer<(Option<String>, Vec<Act>)> {
    let one = |why: Option<String>, act: Act| Ok((why, vec![act]));
    match action {
        IncidentAction::Acknowledge => one(None, Act::Acknowledge),
        IncidentAction::Assign(assign) => one(None, Act::Assign { to: assign.assignee }),
        IncidentAction::Unassign => one(None, Act::Unassign),
        IncidentAction::Comment(comment) => one(None, Act::Comment { text: comment.text }),
        IncidentAction::SetStatus(set) => one(set.why, Act::SetStatus { to: status(set.status) }),
        IncidentAction::SetSeverity(set) => one(set.why, Act::SetSeverity { to: set.severity.map(severity) }),
        IncidentAction::SetPriority(set) => one(set.why, Act::SetPriority { to: set.priority.map(priority) }),
        IncidentAction::PostMortem(text) => one(None, Act::PostMortem { text: text.text }),
        IncidentAction::Close(close) => {
            let said = close.cause.zip(close.actions);
            let post_mortem = said.map(|(cause, actions)| format!("Cause: {cause}\nActions: {actions}"));
            one(None, Act::Close { post_mortem: post_mortem.unwrap_or_default() })
        }
        IncidentAction::Merge(merge) => {
            let from = |id: &String| Ok(Act::Merge { from: incident_id(id)? });
            Ok((merge.why, merge.incidents.iter().map(from).collect::<Answer<_>>()?))
        }
        IncidentAction::Split(split) => {
            let alerts = split.alerts.iter().map(|id| id.parse().map_err(|_| Problem::not_found("alert")));
            let alerts = alerts.collect::<Answer<_>>()?;
            one(split.why, Act::Split { alerts })
        }
        IncidentAction::Undo(undo) => {
            let change = undo.change.parse().map_err(|_| Problem::not_found("change"))?;
            one(Some(undo.why), Act::Undo { change })
        }
        IncidentAction::Suppress(suppress) => one(Some(suppress.why), Act::Suppress { until_ms: suppress.until_ms }),
        IncidentAction::Unsuppress => one(None, Act::Unsuppress),
        IncidentAction::StartClock(start) => {
            let (aware_ms, clock) = (start.aware_ms.unwrap_or(now_ms), clock(start.clock));
            let limit_ms = start.limit_hours.map(|hours| hours.saturating_mul(3_600_000));
            one(start.why, Act::StartClock { clock, subject: start.subject, aware_ms, limit_ms })
        }
        IncidentAction::MeetClock(met) => {
            let (at_ms, clock) = (met.at_ms.unwrap_or(now_ms), clock(met.clock));
            one(None, Act::MeetClock { clock, subject: met.subject, at_ms, reference: met.reference })
        }
        IncidentAction::StopClock(stop) => {
            one(Some(stop.why), Act::StopClock { clock: clock(stop.clock), subject: stop.subject })
        }
    }
}

const fn status(status: said::IncidentStatus) -> Status {
    match status {
        said::IncidentStatus::New => Status::New,
        said::IncidentStatus::InProgress => Status::InProgress,
        said::IncidentStatus::OnHold => Status::OnHold,
        said::IncidentStatus::Resolved => Status::Resolved,
        said::IncidentStatus::Closed => Status::Closed,
    }
}

const fn severity(severity: said::Severity) -> Severity {
    match severity {
        said::Severity::Informational => Severity::Informational,
        said::Severity::Low => Severity::Low,
        said::Severity::Medium => Severity::Medium,
        said::Severity::High => Severity::High,
        said::Severity::Critical => Severity::Critical,
    }
}

const fn priority(priority: said::Priority) -> Priority {
    match priority {
        said::Priority::Low => Priority::Low,
        said::Priority::Medium => Priority::Medium,
        said::Priority::High => Priority::High,
        said::Priority::Critical => Priority::Critical,
    }
}

const fn clock(clock: said::ClockKind) -> ClockKind {
    match clock {
        said::ClockKind::GdprAuthority => ClockKind::GdprAuthority,
        said::ClockKind::Nis2EarlyWarning => ClockKind::Nis2EarlyWarning,
        said::ClockKind::Nis2Notification => ClockKind::Nis2Notification,
        said::ClockKind::ProcessorNotice => ClockKind::ProcessorNotice,
    }
}
