//! The state of one group key: what is folded, what waits for the watermark, and what was said about it.

use super::delta::Delta;
use super::sweep::{Chain, Sweep};
use super::{Entry, GroupKey, OPEN_MAX, OrderKey, Watermark};
use crate::alert::{Alert, EventSummary};
use crate::id::AlertId;
use crate::rules::CorrelationPlan;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How finely it is known when a key was last touched.
const TOUCH_EVERY_MS: u64 = 5_000;

/// A satisfied window: what a correlation of correlations counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Occurrence {
    pub(crate) key: OrderKey,
    pub(crate) events: Arc<[Arc<EventSummary>]>,
}

/// What an insertion or removal changed.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) raised: Vec<Alert>,
    /// Alerts that no longer stand, each with the one that covers it, if any does.
    pub(crate) superseded: Vec<(AlertId, Option<AlertId>)>,
    /// A burst whose count has doubled: alert, count, time of the last event.
    pub(crate) extended: Option<(AlertId, u64, u64)>,
    pub(crate) appeared: Vec<Occurrence>,
    pub(crate) vanished: Vec<OrderKey>,
    /// The entry came behind what is already folded.
    pub(crate) late: bool,
    pub(crate) keys_evicted: u64,
}

/// A satisfied window that the watermark has not passed, and the alert if a burst begins with it.
#[derive(Clone, Debug)]
struct Said {
    occurrence: Occurrence,
    alert: Option<Box<Alert>>,
}

/// The automaton, the burst it is in, and that burst's alert.
#[derive(Clone, Debug)]
struct Reading {
    sweep: Sweep,
    chain: Chain,
    alert: Option<AlertId>,
}

impl Reading {
    fn step(
        &mut self,
        plan: &CorrelationPlan,
        entry: &Entry,
        make: &dyn Fn(&[Arc<EventSummary>]) -> Alert,
        drop: &mut dyn FnMut(OrderKey),
    ) -> Option<Said> {
        if !self.sweep.step(plan, entry, drop) {
            return None;
        }
        let begins = self.chain.begins(entry.key.time_ms, plan.timespan_ms);
        // Only who tells of a window, or feeds others with it, needs to know its events.
        let events = if begins || plan.feeds_others { self.sweep.events() } else { Arc::new([]) };
        let alert = begins.then(|| Box::new(make(&events)));
        if let Some(alert) = &alert {
            self.alert = Some(alert.id);
            self.chain.count = events.len() as u64;
        }
        Some(Said { occurrence: Occurrence { key: entry.key, events }, alert })
    }
}

#[derive(Debug)]
pub(super) struct KeyState {
    /// After all that the watermark has passed.
    folded: Reading,
    /// Entries before this time are late.
    folded_until_ms: u64,
    /// What the watermark has not passed.
    open: BTreeMap<OrderKey, Entry>,
    /// After all of `open` too.
    live: Reading,
    /// What was said about `open`.
    said: BTreeMap<OrderKey, Said>,
    streams: BTreeSet<u32>,
    touched_ms: u64,
    pub(super) changed: Changed,
}

/// What of a key changed since it was last stored.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// The key is on its correlation's list of those that changed.
    pub(super) is_listed: bool,
    /// Its row exists.
    pub(super) is_stored: bool,
    /// Entries that came and that are needed no longer.
    pub(super) entries: Delta<OrderKey>,
}

/// What is stored of a key, besides its entries: all else follows from reading them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyRow {
    pub(super) group: GroupKey,
    folded_until_ms: u64,
    streams: BTreeSet<u32>,
    touched_ms: u64,
    chain: Chain,
    alert: Option<AlertId>,
}

impl KeyState {
    pub(super) fn new(plan: &CorrelationPlan) -> Self {
        let reading = Reading { sweep: Sweep::new(plan), chain: Chain::default(), alert: None };
        Self {
            folded: reading.clone(),
            folded_until_ms: 0,
            open: BTreeMap::new(),
            live: reading,
            said: BTreeMap::new(),
            streams: BTreeSet::new(),
            touched_ms: 0,
            changed: Changed::default(),
        }
    }

    /// The row that stores it.
    pub(super) fn row(&self, group: &GroupKey) -> KeyRow {
        KeyRow {
            group: group.clone(),
            folded_until_ms: self.folded_until_ms,
            streams: self.streams.clone(),
            touched_ms: self.touched_ms,
            chain: self.folded.chain.clone(),
            alert: self.folded.alert,
        }
    }

    /// The state that was stored as a row and entries, in order.
    pub(super) fn restore(
        plan: &CorrelationPlan,
        row: KeyRow,
        entries: impl Iterator<Item = Entry>,
        make: &dyn Fn(&[Arc<EventSummary>]) -> Alert,
    ) -> Self {
        let mut state = Self::new(plan);
        for entry in entries {
            if entry.key.time_ms < row.folded_until_ms {
                let _ = state.folded.sweep.step(plan, &entry, &mut |_| {});
            } else {
                state.open.insert(entry.key, entry);
            }
        }
        state.folded.chain = row.chain;
        state.folded.alert = row.alert;
        state.folded_until_ms = row.folded_until_ms;
        state.streams = row.streams;
        state.touched_ms = row.touched_ms;
        state.changed.is_stored = true;
        // What follows from the entries was told when they came.
        let _ = state.read_again(plan, make);
        state
    }

    /// The entry of that key, wherever it is kept.
    pub(super) fn entry(&self, key: &OrderKey) -> Option<&Entry> {
        self.open.get(key).or_else(|| self.folded.sweep.entry(key))
    }

    /// All entries it keeps; some may be told more than once.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.folded.sweep.entries().chain(self.open.values())
    }

    pub(super) fn touch(&mut self, now_ms: u64, stream: u32) {
        // No finer than it is asked for, so that it seldom changes.
        self.touched_ms = now_ms.next_multiple_of(TOUCH_EVERY_MS);
        self.streams.insert(stream);
    }

    /// Whether an entry of that time comes too late for this state.
    pub(super) fn is_behind(&self, time_ms: u64) -> bool {
        time_ms < self.folded_until_ms
    }

    /// Whether that entry still waits for the watermark.
    pub(super) fn holds(&self, key: &OrderKey) -> bool {
        self.open.contains_key(key)
    }

    pub(super) fn touched_ms(&self) -> u64 {
        self.touched_ms
    }

    /// The earliest watermark of the streams that feed this key and are awake; if none is, the latest of them.
    pub(super) fn watermark(&self, watermarks: &dyn Fn(u32) -> Option<Watermark>) -> u64 {
        let all = || self.streams.iter().filter_map(|stream| watermarks(*stream));
        let awake = all().filter(|watermark| watermark.is_awake).map(|watermark| watermark.time_ms).min();
        awake.or_else(|| all().map(|watermark| watermark.time_ms).max()).unwrap_or(0)
    }

    /// Forgets streams that are forgotten everywhere.
    pub(super) fn forget_streams(&mut self, watermarks: &dyn Fn(u32) -> Option<Watermark>) -> bool {
        let before = self.streams.len();
        self.streams.retain(|stream| watermarks(*stream).is_some());
        before != self.streams.len()
    }

    /// Whether no later event can complete a window that began here.
    pub(super) fn is_over(&self, watermark_ms: u64, span_ms: u64) -> bool {
        let newest_ms = self.folded.sweep.newest_ms().max(self.folded.chain.last_ms.unwrap_or(0));
        self.open.is_empty() && watermark_ms > newest_ms.saturating_add(span_ms)
    }

    /// Whether it was not touched for so long that nothing can be missed any more.
    pub(super) fn is_abandoned(&self, now_ms: u64, after_ms: u64) -> bool {
        now_ms > self.touched_ms.saturating_add(after_ms)
    }

    pub(super) fn insert(
        &mut self,
        plan: &CorrelationPlan,
        entry: Entry,
        make: &dyn Fn(&[Arc<EventSummary>]) -> Alert,
    ) -> Outcome {
        if self.is_behind(entry.key.time_ms) {
            return Outcome { late: true, ..Outcome::default() };
        }
        if self.open.contains_key(&entry.key) {
            return Outcome::default();
        }
        self.changed.entries.put(entry.key);
        let is_newest = self.open.last_key_value().is_none_or(|(last, _)| *last < entry.key);
        self.open.insert(entry.key, entry.clone());
        let outcome = if is_newest { self.append(plan, &entry, make) } else { self.read_again(plan, make) };
        if self.open.len() > OPEN_MAX {
            let middle = self.open.keys().nth(OPEN_MAX / 2).map_or(0, |key| key.time_ms);
            self.fold(plan, middle, make);
        }
        outcome
    }

    pub(super) fn remove(
        &mut self,
        plan: &CorrelationPlan,
        key: &OrderKey,
        make: &dyn Fn(&[Arc<EventSummary>]) -> Alert,
    ) -> Outcome {
        if self.open.remove(key).is_none() {
            return Outcome::default();
        }
        self.changed.entries.drop(*key);
        self.read_again(plan, make)
    }

    fn append(
        &mut self,
        plan: &CorrelationPlan,
        entry: &Entry,
        make: &dyn Fn(&[Arc<EventSummary>]) -> Alert,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(said) = self.live.step(plan, entry, make, &mut |_| {}) else { return outcome };
        outcome.appeared.push(said.occurrence.clone());
        match (&said.alert, self.live.alert) {
            (Some(alert), _) => outcome.raised.push(alert.as_ref().clone()),
            (None, Some(alert)) if self.live.chain.count.is_power_of_two() => {
                outcome.extended = Some((alert, self.live.chain.count, entry.key.time_ms));
            }
            (None, _) => {}
        }
        self.said.insert(entry.key, said);
        outcome
    }

    /// Reads all open entries again and says what is different now.
    fn read_again(&mut self, plan: &CorrelationPlan, make: &dyn Fn(&[Arc<EventSummary>]) -> Alert) -> Outcome {
        let mut live = self.folded.clone();
        let mut said = BTreeMap::new();
        for (key, entry) in &self.open {
            if let Some(now) = live.step(plan, entry, make, &mut |_| {}) {
                said.insert(*key, now);
            }
        }
        let before = std::mem::replace(&mut self.said, said);
        self.live = live;
        let mut outcome = Outcome::default();
        for (key, was) in &before {
            if self.said.get(key).is_none_or(|now| now.occurrence != was.occurrence) {
                outcome.vanished.push(*key);
            }
        }
        for (key, now) in &self.said {
            if before.get(key).is_none_or(|was| was.occurrence != now.occurrence) {
                outcome.appeared.push(now.occurrence.clone());
            }
        }
        let stood = alerts(&before);
        let stand = alerts(&self.said);
        outcome.raised = stand.values().filter(|alert| !stood.contains_key(&alert.id)).map(|a| (*a).clone()).collect();
        for alert in stood.values().filter(|alert| !stand.contains_key(&alert.id)) {
            let covering =
                stand.values().filter(|by| by.first_ms <= alert.last_ms).max_by_key(|by| (by.last_ms, by.id));
            let by = covering.map(|by| by.id).or(self.folded.alert).or(self.live.alert);
            outcome.superseded.push((alert.id, by));
        }
        outcome
    }

    /// Folds entries before the watermark: what was said about them stays said. Whether there were any.
    pub(super) fn fold(
        &mut self,
        plan: &CorrelationPlan,
        watermark_ms: u64,
        make: &dyn Fn(&[Arc<EventSummary>]) -> Alert,
    ) -> bool {
        let mut folded = false;
        while let Some(first) = self.open.first_entry().filter(|first| first.key().time_ms < watermark_ms) {
            let entry = first.remove();
            self.said.remove(&entry.key);
            let entries = &mut self.changed.entries;
            let _ = self.folded.step(plan, &entry, make, &mut |key| entries.drop(key));
            self.folded_until_ms = self.folded_until_ms.max(watermark_ms);
            folded = true;
        }
        folded
    }
}

fn alerts(said: &BTreeMap<OrderKey, Said>) -> BTreeMap<AlertId, &Alert> {
    said.values().filter_map(|said| said.alert.as_deref()).map(|alert| (alert.id, alert)).collect()
}
