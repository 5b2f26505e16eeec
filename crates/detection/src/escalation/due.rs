//! What is due: the notifications to send now, and when to ask again.
//!
//! A step is due a fixed time after the alarm began; whoever asks at any time gets the same ids. What is sent
//! is written to the incident, and the incident says what was sent: that is all the state there is.

use super::book::{Book, Channel, Policy, Target};
use crate::alert::Severity;
use crate::id::{Digest, IncidentId, NotificationId};
use crate::incident::{Cause, Incident, Status};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why nobody is called any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Somebody has seen it.
    Acknowledged,
    /// It is resolved or closed.
    Ended,
    /// It went up in another incident, which calls for itself.
    Merged,
}

/// What escalation needs to know of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Which.
    pub incident: IncidentId,
    /// Whose.
    pub tenant: Arc<str>,
    /// Why people are called.
    pub cause: Cause,
    /// Since when.
    pub begun_ms: u64,
    /// How grave it was then: says which policy.
    pub severity: Severity,
    /// Why nobody is called any more.
    pub stop: Option<Stop>,
    /// Until when notifications rest.
    pub quiet_until_ms: Option<u64>,
    /// What was sent.
    pub sent: BTreeSet<NotificationId>,
}

impl State {
    /// The state of an incident.
    pub fn of(incident: &Incident) -> Self {
        let stop = if incident.merged_into.is_some() {
            Some(Stop::Merged)
        } else if matches!(incident.status, Status::Resolved | Status::Closed) {
            Some(Stop::Ended)
        } else {
            incident.alarm.acknowledged.as_ref().map(|_| Stop::Acknowledged)
        };
        Self {
            incident: incident.id,
            tenant: incident.tenant.clone(),
            cause: incident.alarm.cause,
            begun_ms: incident.alarm.begun_ms,
            severity: incident.alarm.severity,
            stop,
            // Whether the suppression holds at all, whenever it ends.
            quiet_until_ms: incident.quiet_until_ms(0),
            sent: incident.notified.clone(),
        }
    }
}

/// One notification to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notification {
    /// The same whoever asks, and whenever.
    pub id: NotificationId,
    /// About what.
    pub incident: IncidentId,
    /// By which policy.
    pub policy: Arc<str>,
    /// Which round of its steps, from 0; one more than its repeats for the fallback at the end.
    pub round: u32,
    /// Which step, from 0.
    pub step: u32,
    /// Who or what is told: `person:ann`, `team:soc/ann`, `schedule:primary`, `webhook:pager`.
    pub target: String,
    /// How it travels; data only.
    #[serde(skip)]
    pub channel: Channel,
    /// Since when it is due.
    pub due_ms: u64,
    /// Until when somebody should acknowledge before the next step comes.
    pub acknowledge_by_ms: u64,
}

/// How the escalation of an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nobody is called any more.
    Stopped(Stop),
    /// No policy is for it.
    NoPolicy,
    /// Notifications rest.
    Quiet,
    /// Steps are to come.
    Running,
    /// All steps have come and nobody answered: an alarm of its own for whoever watches the watchers.
    Exhausted,
}

/// A step whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The round of the policy's steps, from 0.
    pub round: u32,
    /// The step, from 0.
    pub step: u32,
    /// Since when.
    pub at_ms: u64,
    /// Until when somebody should acknowledge.
    pub acknowledge_by_ms: u64,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What to send, the longest due first.
    pub notifications: Vec<Notification>,
    /// When to ask again at the latest, unless the incident changes.
    pub next_ms: Option<u64>,
    /// How it stands.
    pub standing: Standing,
    /// The last step whose time has come; `None` where nobody is called.
    pub reached: Option<Reached>,
}

/// One time of a policy at which people are told.
#[derive(Clone, Copy)]
struct Slot<'a> {
    round: u32,
    step: u32,
    at_ms: u64,
    within_ms: u64,
    notify: &'a [Target],
}

/// What is due for an incident at a time: the steps whose time has come, each person or receiver only by the
/// latest of them, without what was sent. Where nobody is on call, the fallback is told instead.
pub fn due(book: &Book, state: &State, now_ms: u64) -> Due {
    let nothing = |standing, next_ms| Due { notifications: Vec::new(), next_ms, standing, reached: None };
    if let Some(stop) = state.stop {
        return nothing(Standing::Stopped(stop), None);
    }
    let Some(policy) = book.policy(&state.tenant, state.severity) else {
        return nothing(Standing::NoPolicy, None);
    };
    if let Some(until_ms) = state.quiet_until_ms.filter(|until_ms| now_ms < *until_ms) {
        return nothing(Standing::Quiet, Some(until_ms));
    }
    let slots = slots(policy, state.begun_ms);
    let next_ms = slots.iter().map(|slot| slot.at_ms).find(|at_ms| *at_ms > now_ms);
    let mut notifications = Vec::new();
    let mut told: BTreeSet<Channel> = BTreeSet::new();
    for slot in slots.iter().rev().filter(|slot| slot.at_ms <= now_ms) {
        for (target, channel) in reach(book, policy, slot, now_ms) {
            if !told.insert(channel.clone()) {
                continue;
            }
            let id = id_of(state, slot, &target, &channel);
            if !state.sent.contains(&id) {
                notifications.push(Notification {
                    id,
                    incident: state.incident,
                    policy: policy.name.clone(),
                    round: slot.round,
                    step: slot.step,
                    target,
                    channel,
                    due_ms: slot.at_ms,
                    acknowledge_by_ms: slot.at_ms.saturating_add(slot.within_ms),
                });
            }
        }
    }
    notifications.sort_by_key(|one| (one.due_ms, one.id));
    let standing = if next_ms.is_some() { Standing::Running } else { Standing::Exhausted };
    let reached = slots.iter().rev().find(|slot| slot.at_ms <= now_ms).map(|slot| Reached {
        round: slot.round,
        step: slot.step,
        at_ms: slot.at_ms,
        acknowledge_by_ms: slot.at_ms.saturating_add(slot.within_ms),
    });
    Due { notifications, next_ms, standing, reached }
}

/// All times of a policy, in order; the last is the fallback after all rounds.
fn slots(policy: &Policy, begun_ms: u64) -> Vec<Slot<'_>> {
    let (mut slots, mut at_ms) = (Vec::new(), begun_ms);
    for round in 0..=policy.repeats {
        for (step, place) in policy.steps.iter().zip(0..) {
            let within_ms = step.acknowledge_within_ms;
            slots.push(Slot { round, step: place, at_ms, within_ms, notify: &step.notify });
            at_ms = at_ms.saturating_add(within_ms);
        }
    }
    slots.push(Slot { round: policy.repeats + 1, step: 0, at_ms, within_ms: 0, notify: &policy.fallback });
    slots
}

/// Who is told at a slot: whoever is on call now, under names that do not depend on who that is.
fn reach(book: &Book, policy: &Policy, slot: &Slot<'_>, now_ms: u64) -> Vec<(String, Channel)> {
    let mut reached = Vec::new();
    let mut somebody_is_missing = false;
    for target in slot.notify {
        let found = book.reach(target, now_ms);
        somebody_is_missing |= found.is_empty();
        reached.extend(found);
    }
    if somebody_is_missing {
        reached.extend(policy.fallback.iter().flat_map(|target| book.reach(target, now_ms)));
    }
    let single =
        |(target, channels): (String, Vec<Channel>)| channels.into_iter().map(move |one| (target.clone(), one));
    reached.into_iter().flat_map(single).collect()
}

fn id_of(state: &State, slot: &Slot<'_>, target: &str, channel: &Channel) -> NotificationId {
    let mut hash = Digest::new("holdfast notification 1");
    hash.part(state.incident.as_bytes());
    match &state.cause {
        Cause::Opened => hash.part(b"opened"),
        Cause::Graver { severity } => hash.part(b"graver").part(severity.name().as_bytes()),
        Cause::Reopened { change } => hash.part(b"reopened").part(change.as_bytes()),
    };
    let kind: &[u8] = match channel {
        Channel::Email { .. } => b"email",
        Channel::Webhook { .. } => b"webhook",
    };
    hash.part(&slot.round.to_le_bytes()).part(&slot.step.to_le_bytes()).part(target.as_bytes()).part(kind);
    NotificationId::of(hash)
}
