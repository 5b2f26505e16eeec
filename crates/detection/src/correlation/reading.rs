//! Reading the entries of a key: the automaton, the burst it is in, and what follows for others.

use super::sweep::{Chain, Satisfied, Sweep};
use super::window::EVIDENCE_MAX;
use super::{Entry, OrderKey};
use crate::alert::{Alert, EventSummary};
use crate::id::AlertId;
use crate::rules::CorrelationPlan;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A correlation, and how to make its alert of a satisfying set.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) plan: &'a CorrelationPlan,
    pub(super) make: &'a dyn Fn(&[Arc<EventSummary>]) -> Alert,
}

/// A satisfied window: what a correlation of correlations counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Occurrence {
    pub(crate) key: OrderKey,
    pub(crate) is_clamped: bool,
    pub(crate) events: Arc<[Arc<EventSummary>]>,
}

/// What an insertion or removal changed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) raised: Vec<Arc<Alert>>,
    /// Alerts that no longer stand, each with the one that covers it, if any does.
    pub(crate) superseded: Vec<(AlertId, Option<AlertId>)>,
    /// Bursts whose count has doubled: alert, count, time of the last event.
    pub(crate) extended: Vec<(AlertId, u64, u64)>,
    pub(crate) appeared: Vec<Occurrence>,
    pub(crate) vanished: Vec<OrderKey>,
    /// The entry came behind what is already folded.
    pub(crate) late: bool,
    /// Only by what other streams brought: of its own, all was there.
    pub(crate) apart: bool,
    /// What of the state a budget made it forget.
    pub(crate) lost: Lost,
}

/// What was forgotten because of a budget: from there on something may be missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    /// Group keys.
    pub(crate) keys: u64,
    /// Entries of windows.
    pub(crate) entries: u64,
    /// Entries that no longer wait for what comes late.
    pub(crate) early: u64,
    /// Events remembered to recognise them.
    pub(crate) remembered: u64,
    /// Streams.
    pub(crate) streams: u64,
    /// Late entries that are judged by nobody.
    pub(crate) late: u64,
    /// Streams whose clock stands: nothing of theirs is correlated with what others say of the same time.
    pub(crate) standing: u64,
    /// Rows of stored state that cannot be read.
    pub(crate) rows: u64,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.keys, "group keys forgotten"),
            (self.entries, "entries of windows forgotten"),
            (self.early, "entries not waited for"),
            (self.remembered, "identities of events forgotten"),
            (self.streams, "streams forgotten"),
            (self.late, "late entries judged by nobody"),
            (self.standing, "streams whose clock stands"),
            (self.rows, "rows of its state damaged"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        f.write_str(&parts.join(", "))
    }
}

impl Lost {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.entries += other.entries;
        self.early += other.early;
        self.remembered += other.remembered;
        self.streams += other.streams;
        self.late += other.late;
        self.standing += other.standing;
        self.rows += other.rows;
    }
}

impl Outcome {
    /// Whether nothing follows from it.
    pub(crate) fn is_empty(&self) -> bool {
        self.raised.is_empty()
            && self.superseded.is_empty()
            && self.extended.is_empty()
            && self.appeared.is_empty()
            && self.vanished.is_empty()
            && !self.late
            && self.lost.is_none()
    }

    /// Puts another behind it.
    pub(super) fn add(&mut self, other: Self) {
        self.raised.extend(other.raised);
        self.superseded.extend(other.superseded);
        self.extended.extend(other.extended);
        self.appeared.extend(other.appeared);
        self.vanished.extend(other.vanished);
        self.late |= other.late;
        self.lost.add(other.lost);
    }

    /// A window was satisfied that none was before: what that means for others.
    pub(super) fn tell(&mut self, said: &Said, reading: &Reading) {
        self.appeared.push(said.occurrence.clone());
        match (&said.alert, reading.alert) {
            (Some(alert), _) => self.raised.push(Arc::clone(alert)),
            (None, Some(alert)) if reading.chain.count.is_power_of_two() => {
                self.extended.push((alert, reading.chain.count, said.occurrence.key.time_ms));
            }
            (None, _) => {}
        }
    }
}

/// A satisfied window, and the alert if a burst begins with it.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) occurrence: Occurrence,
    pub(super) alert: Option<Arc<Alert>>,
}

/// The automaton, the burst it is in, and that burst's alert.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) sweep: Sweep,
    pub(super) chain: Chain,
    pub(super) alert: Option<AlertId>,
    /// Entries that a budget made it forget.
    pub(super) lost: u64,
    /// The most entries it kept since it was last kept aside.
    pub(super) peak: usize,
}

impl Reading {
    pub(super) fn new(plan: &CorrelationPlan) -> Self {
        Self { sweep: Sweep::new(plan), chain: Chain::default(), alert: None, lost: 0, peak: 0 }
    }

    /// Reads the next entry: the window that ends with it, if that is satisfied. `was` is what was said about it before,
    /// if it was read before.
    pub(super) fn step(
        &mut self,
        of: Of<'_>,
        entry: &Entry,
        was: Option<&Said>,
        drop: &mut dyn FnMut(&Entry),
    ) -> Option<Said> {
        let step = self.sweep.step(of.plan, entry, drop);
        self.lost += step.lost;
        if !step.satisfied {
            return None;
        }
        let begins = self.chain.begins(entry.key.time_ms, of.plan.timespan_ms);
        // Only who tells of a window needs to know all its events; who feeds others with it, what they may keep.
        let satisfied = match (begins, of.plan.feeds_others) {
            (true, _) => self.sweep.satisfied(entry.key, usize::MAX),
            (false, true) => self.sweep.satisfied(entry.key, EVIDENCE_MAX),
            (false, false) => Satisfied { key: entry.key, events: Arc::new([]), is_clamped: false },
        };
        Some(self.say(of, begins, satisfied, was))
    }

    /// Reads the next entry again, after the same entries as before: what was said about it is still right.
    pub(super) fn step_again(&mut self, of: Of<'_>, entry: &Entry, was: Option<&Said>, drop: &mut dyn FnMut(&Entry)) {
        let step = self.sweep.step(of.plan, entry, drop);
        self.lost += step.lost;
        if !step.satisfied || !self.chain.begins(entry.key.time_ms, of.plan.timespan_ms) {
            return;
        }
        match was.and_then(|was| was.alert.as_deref()) {
            Some(alert) => self.enter(alert),
            None => {
                let satisfied = self.sweep.satisfied(entry.key, usize::MAX);
                self.say(of, true, satisfied, None);
            }
        }
    }

    /// Whether all that is read from here on comes to the same, but for the count of the burst.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.alert == other.alert && self.chain.last_ms == other.chain.last_ms && self.sweep.is_as(&other.sweep)
    }

    /// The next window that ended before that time and is satisfied, of those that are judged when they are closed.
    pub(super) fn close(&mut self, of: Of<'_>, until_ms: u64, drop: &mut dyn FnMut(&Entry)) -> Option<Said> {
        let satisfied = self.sweep.close(of.plan, until_ms, drop)?;
        let begins = self.chain.begins(satisfied.key.time_ms, of.plan.timespan_ms);
        Some(self.say(of, begins, satisfied, None))
    }

    fn say(&mut self, of: Of<'_>, begins: bool, satisfied: Satisfied, was: Option<&Said>) -> Said {
        let Satisfied { key, events, is_clamped } = satisfied;
        let is_same = |alert: &&Arc<Alert>| {
            alert.clamped == is_clamped
                && alert.events.len() == events.len()
                && alert.events.iter().zip(&events[..]).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        // To make it of many events takes long.
        let known = was.and_then(|was| was.alert.as_ref()).filter(is_same).cloned();
        let make = || Arc::new(Alert { clamped: is_clamped, ..(of.make)(&events) });
        let alert = begins.then(|| known.unwrap_or_else(make));
        if let Some(alert) = &alert {
            self.enter(alert);
        }
        let events = if events.len() > EVIDENCE_MAX { events[..EVIDENCE_MAX].into() } else { events };
        Said { occurrence: Occurrence { key, is_clamped, events }, alert }
    }

    /// A burst begins, with that alert.
    fn enter(&mut self, alert: &Alert) {
        self.alert = Some(alert.id);
        self.chain.count = alert.events.len() as u64;
    }
}
