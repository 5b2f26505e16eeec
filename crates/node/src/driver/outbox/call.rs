//! Calls to people: whether one is still wanted, and what became of it.
//!
//! Between the moment a call was stored and the moment a sink takes it, somebody may have acknowledged. So the incident
//! is looked at again before each attempt; and what became of a call is a record, from which the escalation knows
//! whether anybody was told.

use super::queue::Item;
use crate::core::stored::put;
use crate::machine::command::{Act, Must};
use crate::machine::control::platform;
use api::core::Answer;
use detection::IncidentId;
use detection::escalation::{State, Stop};
use detection::incident::breach::ClockKind;
use detection::incident::{Act as Said, Desk, Input};
use pipeline::sink::Notice;
use serde::{Deserialize, Serialize};

/// The version of the stored form that is written.
const VERSION: u32 = 1;
/// Who writes into the history of incidents.
const BY: &str = "outbox";
/// Characters of a reason in the history.
const REASON_CHARACTERS_MAX: usize = 300;
/// Keys of calls because of an incident begin so; the rest is the notification's id.
pub(crate) const PAGE: &str = "page/";

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// A sink that calls people took it.
    Taken,
    /// A sink refused it for good.
    Refused,
    /// It was not wanted any more.
    Withdrawn,
}

/// What became of a call, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    version: u32,
    sink: String,
    outcome: Outcome,
    at_ms: u64,
}

impl Call {
    /// Its writing.
    pub(super) fn put(notice: &Notice, sink: &str, outcome: Outcome, at_ms: u64) -> Answer<Act> {
        let call = Self { version: VERSION, sink: sink.to_owned(), outcome, at_ms };
        put(platform::CALLS, notice.key.clone(), Must::Nothing, &call, format!("sinks/{sink}/{}", notice.key))
    }
}

/// What the body of a call says, as far as it matters here.
#[derive(Deserialize)]
struct Body {
    incident: IncidentId,
    #[serde(default)]
    target: String,
    #[serde(default)]
    receiver: serde_json::Value,
    /// The duty to report that somebody is reminded of.
    clock: Option<ClockKind>,
    #[serde(default)]
    subject: String,
}

fn body(notice: &Notice) -> Option<Body> {
    serde_json::from_str(&notice.body).ok()
}

/// Why a call is not wanted any more; `None` where it is.
pub(super) fn unwanted<'a>(desk: &Desk, notice: &Notice, mut others: impl Iterator<Item = &'a Item>) -> Option<String> {
    let call = body(notice)?;
    let incident = desk.board().get(call.incident)?;
    if let Some(kind) = call.clock {
        let is_open =
            incident.clocks.iter().any(|one| one.kind == kind && one.subject == call.subject && one.is_open());
        return (!is_open).then(|| "the duty is met or does not exist any more".to_owned());
    }
    match State::of(incident).stop {
        Some(Stop::Acknowledged) => return Some("somebody has acknowledged in the meantime".to_owned()),
        Some(Stop::Ended) => return Some("the incident has ended in the meantime".to_owned()),
        Some(Stop::Merged) => return Some("the incident went up in another in the meantime".to_owned()),
        None => {}
    }
    let is_newer = |other: &Item| {
        let is_same_way = other.notice.to == notice.to && other.notice.key.starts_with(PAGE);
        is_same_way
            && other.notice.at_ms > notice.at_ms
            && body(&other.notice).is_some_and(|one| one.incident == call.incident && one.receiver == call.receiver)
    };
    others.any(is_newer).then(|| "a later call to the same waits".to_owned())
}

/// What the incident remembers of somebody who was not told.
pub(super) fn not_told(notice: &Notice, reason: &str) -> Option<Input> {
    let Body { incident, target, .. } = body(notice)?;
    Some(of_incident(incident, BY, target, reason))
}

/// See [`not_told`].
pub(crate) fn of_incident(incident: IncidentId, by: &str, target: String, reason: &str) -> Input {
    let reason = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARACTERS_MAX).collect();
    let act = Said::NotNotified { target, reason };
    Input::Act { incident, by: by.to_owned(), why: None, seen: None, act }
}

/// Whom a call is for.
pub(crate) fn target(notice: &Notice) -> String {
    body(notice).map(|body| body.target).unwrap_or_default()
}
