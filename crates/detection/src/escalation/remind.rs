//! Reminders of duties to report: those on call are told when half of the time is gone, when three quarters are, and
//! when it is over.
//!
//! Pure. Only the latest mark that has passed is told, and ids do not depend on who asks or when: whoever stores what
//! is told under them tells each once.

use super::book::{Book, Channel};
use crate::id::{Digest, IncidentId, NotificationId};
use crate::incident::Incident;
use crate::incident::breach::{Clock, ClockKind};
use serde::Serialize;
use std::collections::BTreeSet;

/// How much of the time is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Half of it.
    Half,
    /// Three quarters.
    ThreeQuarters,
    /// All of it: the duty is overdue.
    Over,
}

impl Mark {
    const ALL: [Self; 3] = [Self::Half, Self::ThreeQuarters, Self::Over];

    const fn quarters(self) -> u64 {
        match self {
            Self::Half => 2,
            Self::ThreeQuarters => 3,
            Self::Over => 4,
        }
    }

    /// When it passes.
    fn at_ms(self, clock: &Clock) -> u64 {
        let span_ms = clock.due_ms.saturating_sub(clock.aware_ms);
        clock.aware_ms.saturating_add(span_ms / 4 * self.quarters() + span_ms % 4 * self.quarters() / 4)
    }
}

/// Somebody is reminded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reminder {
    /// The same whoever asks, and whenever.
    pub id: NotificationId,
    /// Of which incident's duty.
    pub incident: IncidentId,
    /// Which duty.
    pub clock: ClockKind,
    /// To or about whom.
    pub subject: String,
    /// How much of the time is gone.
    pub mark: Mark,
    /// Since when.
    pub at_ms: u64,
    /// Until when it must be reported.
    pub due_ms: u64,
    /// Who or what is told.
    pub target: String,
    /// How it travels.
    pub channel: Channel,
}

/// The reminders that are due for an incident, and when the next one is.
pub fn remind(book: &Book, incident: &Incident, now_ms: u64) -> (Vec<Reminder>, Option<u64>) {
    let (mut reminders, mut next_ms) = (Vec::new(), None::<u64>);
    // A duty to report is a duty however grave the incident is: where no policy is for that, the gravest is.
    let policy = book.policy(&incident.tenant, incident.severity).or_else(|| book.gravest(&incident.tenant));
    for clock in incident.clocks.iter().filter(|clock| clock.is_open()) {
        let ahead = Mark::ALL.into_iter().map(|mark| mark.at_ms(clock)).find(|at_ms| *at_ms > now_ms);
        next_ms = [next_ms, ahead].into_iter().flatten().min();
        let passed = Mark::ALL.into_iter().rev().find(|mark| mark.at_ms(clock) <= now_ms);
        let (Some(mark), Some(policy)) = (passed, policy) else { continue };
        let first = policy.steps.first().map_or(&[][..], |step| &step.notify);
        let mut reached: Vec<_> = first.iter().flat_map(|target| book.reach(target, now_ms)).collect();
        if reached.is_empty() {
            reached = policy.fallback.iter().flat_map(|target| book.reach(target, now_ms)).collect();
        }
        let mut told = BTreeSet::new();
        let each = reached
            .into_iter()
            .flat_map(|(target, channels)| channels.into_iter().map(move |channel| (target.clone(), channel)));
        for (target, channel) in each.filter(|(_, channel)| told.insert(channel.clone())) {
            let (kind, subject) = (clock.kind, clock.subject.clone());
            let id = id_of(incident.id, clock, mark, &target, &channel);
            let (at_ms, due_ms) = (mark.at_ms(clock), clock.due_ms);
            let incident = incident.id;
            reminders.push(Reminder { id, incident, clock: kind, subject, mark, at_ms, due_ms, target, channel });
        }
    }
    (reminders, next_ms)
}

fn id_of(incident: IncidentId, clock: &Clock, mark: Mark, target: &str, channel: &Channel) -> NotificationId {
    let kind: &[u8] = match clock.kind {
        ClockKind::GdprAuthority => b"gdpr_authority",
        ClockKind::Nis2EarlyWarning => b"nis2_early_warning",
        ClockKind::Nis2Notification => b"nis2_notification",
        ClockKind::ProcessorNotice => b"processor_notice",
    };
    let way: &[u8] = match channel {
        Channel::Email { .. } => b"email",
        Channel::Webhook { .. } => b"webhook",
    };
    let mut hash = Digest::new("holdfast reminder 1");
    hash.part(incident.as_bytes()).part(kind).part(clock.subject.as_bytes()).part(&clock.due_ms.to_le_bytes());
    hash.part(&mark.quarters().to_le_bytes()).part(target.as_bytes()).part(way);
    NotificationId::of(hash)
}
