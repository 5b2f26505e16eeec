//! A running escalation: what is stored about calling people for one incident, before anybody is called.
//!
//! Pure. Whoever has the duty asks [`advance`] what comes next, stores the run together with the notifications as one,
//! and only then do they leave: a step that was stored is not made again, by whoever takes over, and one that was not
//! stored was not made.

use super::book::Book;
use super::due::{Due, Notification, Reached, Standing, State, due};
use crate::id::{IncidentId, NotificationId};
use crate::incident::Cause;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The version of the stored form that is written.
pub const VERSION: u32 = 1;
/// Most notifications stored at once; the rest comes with the next step of the duty, at once.
pub const AT_ONCE_MAX: usize = 16;
/// Most notifications of one run; an escalation that has sent so many is exhausted.
pub const SENT_MAX: usize = 1_024;
/// Most notifications of one run whose arrival is waited for; of further ones it is not known.
pub const WAITING_MAX: usize = 128;
/// How long a sink may take to tell somebody, where the step leaves more time: after that it is said that nobody was.
pub const TOLD_WITHIN_MS: u64 = 5 * 60_000;

/// How calling people for one incident stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The version of the stored form.
    pub version: u32,
    /// About what.
    pub incident: IncidentId,
    /// Why people are called.
    pub cause: Cause,
    /// Since when.
    pub begun_ms: u64,
    /// By which policy.
    pub policy: Option<Arc<str>>,
    /// How it stands.
    pub standing: Standing,
    /// The last step whose time has come.
    pub reached: Option<Reached>,
    /// Whom that step has told so far.
    pub told: Vec<String>,
    /// Everything that was handed over to be told.
    pub sent: BTreeSet<NotificationId>,
    /// What of it nobody is known to have been told yet, and until when somebody should have been.
    #[serde(default)]
    pub waiting: BTreeMap<NotificationId, u64>,
}

impl Run {
    /// The run without what is known to have been told or given up, and what of it was not in time.
    pub fn heard(&self, now_ms: u64, is_told: impl Fn(NotificationId) -> bool) -> (Self, Vec<NotificationId>) {
        let mut run = self.clone();
        run.waiting.retain(|id, _| !is_told(*id));
        let late: Vec<NotificationId> =
            run.waiting.iter().filter(|(_, until_ms)| **until_ms <= now_ms).map(|(id, _)| *id).collect();
        run.waiting.retain(|_, until_ms| *until_ms > now_ms);
        (run, late)
    }
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The run as it is to be stored; `None` where nothing changes.
    pub run: Option<Run>,
    /// What to send with it.
    pub notifications: Vec<Notification>,
    /// When to ask again at the latest, unless the incident or the policy changes.
    pub next_ms: Option<u64>,
}

/// What comes next for an incident, as its run was stored.
pub fn advance(known: Option<&Run>, book: &Book, state: &State, now_ms: u64) -> Advance {
    let same_call = known.filter(|run| run.cause == state.cause && run.begun_ms == state.begun_ms);
    let mut run = same_call.cloned().unwrap_or_else(|| Run {
        version: VERSION,
        incident: state.incident,
        cause: state.cause,
        begun_ms: state.begun_ms,
        policy: None,
        standing: Standing::NoPolicy,
        reached: None,
        told: Vec::new(),
        sent: BTreeSet::new(),
        waiting: known.map(|known| known.waiting.clone()).unwrap_or_default(),
    });
    let state = State { sent: state.sent.union(&run.sent).copied().collect(), ..state.clone() };
    let Due { mut notifications, mut next_ms, mut standing, reached } = due(book, &state, now_ms);
    let room = AT_ONCE_MAX.min(SENT_MAX.saturating_sub(run.sent.len()));
    if notifications.len() > room {
        notifications.truncate(room);
        if room == 0 {
            (standing, next_ms) = (Standing::Exhausted, None);
        } else {
            next_ms = Some(now_ms);
        }
    }
    run.standing = standing;
    if reached.is_some() && reached != run.reached {
        run.reached = reached;
        run.told.clear();
    }
    if let Some(first) = notifications.first() {
        run.policy = Some(first.policy.clone());
    }
    run.told.extend(notifications.iter().map(|one| one.target.clone()));
    run.told.truncate(AT_ONCE_MAX);
    run.sent.extend(notifications.iter().map(|one| one.id));
    for one in &notifications {
        let step_ms = one.acknowledge_by_ms.saturating_sub(one.due_ms);
        let within_ms = if step_ms == 0 { TOLD_WITHIN_MS } else { step_ms.min(TOLD_WITHIN_MS) };
        if run.waiting.len() < WAITING_MAX {
            run.waiting.insert(one.id, now_ms.saturating_add(within_ms));
        }
    }
    if matches!(standing, Standing::Stopped(_)) {
        // Nobody has to be told any more.
        run.waiting.clear();
    }
    next_ms = next_ms.into_iter().chain(run.waiting.values().copied()).min();
    // An incident that never called anybody has nothing to be remembered.
    let is_news = match known {
        Some(known) => *known != run,
        None => !notifications.is_empty(),
    };
    Advance { run: is_news.then_some(run), notifications, next_ms }
}
