//! The state of one group key: what is folded, what waits for the watermark, and what was said about it.

use super::delta::Delta;
use super::open::Open;
use super::reading::{Of, Outcome, Reading};
use super::sweep::{Beyond, Chain};
use super::{Entry, GroupKey, Held, KEY_BYTES, OPEN_MAX, OrderKey, Pace, Watermarks};
use crate::id::AlertId;
use crate::rules::CorrelationPlan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How finely it is known when a key was last touched.
const TOUCH_EVERY_MS: u64 = 5_000;

#[derive(Clone, Debug)]
pub(super) struct KeyState {
    /// After all that the watermark has passed.
    folded: Reading,
    /// Entries before this time are late.
    folded_until_ms: u64,
    /// The watermark when it began: what was before may be forgotten.
    since_ms: u64,
    /// What the watermark has not passed.
    open: Open,
    streams: BTreeSet<u32>,
    /// When its last entry was received.
    touched_ms: u64,
    /// About what it takes of memory.
    bytes: usize,
    pub(super) changed: Changed,
}

/// What of a key changed since it was last stored.
#[derive(Clone, Debug, Default)]
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
    since_ms: u64,
    pub(super) streams: BTreeSet<u32>,
    touched_ms: u64,
    chain: Chain,
    alert: Option<AlertId>,
    beyond: Beyond,
}

#[cfg(test)]
impl KeyRow {
    pub(super) fn example(alert: AlertId, judged: Option<OrderKey>) -> Self {
        Self {
            group: vec!["ann".into(), "b".into()],
            folded_until_ms: 1,
            since_ms: 300,
            streams: BTreeSet::from([1, 2]),
            touched_ms: 5_000,
            chain: Chain { last_ms: Some(400), count: 3 },
            alert: Some(alert),
            beyond: Beyond { count: 2, sum: -1, judged },
        }
    }
}

impl KeyState {
    pub(super) fn new(plan: &CorrelationPlan, group: &GroupKey) -> Self {
        let reading = Reading::new(plan);
        Self {
            folded: reading.clone(),
            folded_until_ms: 0,
            since_ms: 0,
            open: Open::new(reading),
            streams: BTreeSet::new(),
            touched_ms: 0,
            bytes: KEY_BYTES + group.iter().map(String::len).sum::<usize>(),
            changed: Changed::default(),
        }
    }

    /// The row that stores it.
    pub(super) fn row(&self, group: &GroupKey) -> KeyRow {
        KeyRow {
            group: group.clone(),
            folded_until_ms: self.folded_until_ms,
            since_ms: self.since_ms,
            streams: self.streams.clone(),
            touched_ms: self.touched_ms,
            chain: self.folded.chain.clone(),
            alert: self.folded.alert,
            beyond: self.folded.sweep.beyond(),
        }
    }

    /// The state that was stored as a row and entries, in order.
    pub(super) fn restore(of: Of<'_>, row: KeyRow, entries: impl Iterator<Item = Entry>) -> Self {
        let mut state = Self::new(of.plan, &row.group);
        for entry in entries {
            state.bytes += entry.bytes;
            if entry.key.time_ms < row.folded_until_ms {
                let mut drop = |gone: &Entry| state.bytes = state.bytes.saturating_sub(gone.bytes);
                let _ = state.folded.sweep.step(of.plan, &entry, &mut drop);
            } else {
                state.open.hold(entry);
            }
        }
        state.folded.sweep.restore(&row.beyond);
        state.folded.chain = row.chain;
        state.folded.alert = row.alert;
        state.folded_until_ms = row.folded_until_ms;
        state.since_ms = row.since_ms;
        state.streams = row.streams;
        state.touched_ms = row.touched_ms;
        state.changed.is_stored = true;
        state.say_again(of);
        state
    }

    /// Reads what is open again, in other words perhaps; what follows from it was told when it came.
    pub(super) fn say_again(&mut self, of: Of<'_>) {
        if !of.plan.shape.is_closed() {
            self.open.say_again(of, &self.folded);
        }
    }

    /// The entry of that key, wherever it is kept.
    pub(super) fn entry(&self, key: &OrderKey) -> Option<&Entry> {
        self.open.entries().get(key).or_else(|| self.folded.sweep.entry(key))
    }

    /// All entries it keeps; some may be told more than once.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.folded.sweep.entries().chain(self.open.entries().values())
    }

    /// What it keeps, about.
    pub(super) fn held(&self) -> Held {
        Held { entries: self.open.entries().len() + self.folded.sweep.len(), bytes: self.bytes }
    }

    pub(super) fn touch(&mut self, received_ms: u64, streams: &[u32]) {
        // No finer than it is asked for, so that it seldom changes.
        let received_ms = received_ms.checked_next_multiple_of(TOUCH_EVERY_MS).unwrap_or(received_ms);
        self.touched_ms = self.touched_ms.max(received_ms);
        self.streams.extend(streams);
    }

    /// The streams that feed it.
    pub(super) fn streams(&self) -> Vec<u32> {
        self.streams.iter().copied().collect()
    }

    /// Whether an entry of that time comes too late for this state.
    pub(super) fn is_behind(&self, time_ms: u64) -> bool {
        time_ms < self.folded_until_ms
    }

    /// Whether that entry still waits for the watermark.
    pub(super) fn holds(&self, key: &OrderKey) -> bool {
        self.open.entries().contains_key(key)
    }

    pub(super) fn touched_ms(&self) -> u64 {
        self.touched_ms
    }

    /// The earliest watermark of the streams that feed this key and are steady. If none is, the latest of those that
    /// are silent, or of what is replayed where that is later. Where windows are judged when they are closed, silent
    /// streams go on with the clock; where not, nothing is folded before any steady stream has passed it.
    pub(super) fn watermark(&self, closes: bool, watermarks: Watermarks<'_>) -> Option<u64> {
        let all = || self.streams.iter().filter_map(|stream| (watermarks.of)(*stream));
        let of = |pace| all().filter(move |watermark| watermark.pace == pace);
        let own_ms = of(Pace::Steady).map(|watermark| watermark.time_ms).min().or_else(|| {
            let silent = of(Pace::Silent).map(|mark| if closes { mark.quiet_ms } else { mark.time_ms }).max();
            silent.max(of(Pace::Behind).map(|watermark| watermark.time_ms).min())
        });
        own_ms.map(|own_ms| if closes { own_ms } else { own_ms.min(watermarks.floor_ms) })
    }

    /// Where its watermark would be had its entries' time gone on with the clock.
    pub(super) fn quiet_ms(&self, read_ms: u64, grace_ms: u64) -> u64 {
        self.newest_ms().saturating_add(read_ms.saturating_sub(self.touched_ms)).saturating_sub(grace_ms)
    }

    /// When the newest thing it knows of happened.
    pub(super) fn newest_ms(&self) -> u64 {
        let open_ms = self.open.entries().last_key_value().map_or(0, |(key, _)| key.time_ms);
        open_ms.max(self.folded.sweep.newest_ms()).max(self.folded.chain.last_ms.unwrap_or(0))
    }

    /// Forgets streams that are forgotten everywhere.
    pub(super) fn forget_streams(&mut self, watermarks: Watermarks<'_>) -> bool {
        let before = self.streams.len();
        self.streams.retain(|stream| (watermarks.of)(*stream).is_some());
        before != self.streams.len()
    }

    /// Whether no later event can complete a window that began here.
    pub(super) fn is_over(&self, watermark_ms: u64, span_ms: u64) -> bool {
        self.open.entries().is_empty() && watermark_ms > self.newest_ms().saturating_add(span_ms)
    }

    /// Whether nothing came for so long that what belongs to it would have come by now.
    pub(super) fn is_abandoned(&self, read_ms: u64, after_ms: u64, closes: bool) -> bool {
        let waits = closes && self.entries().next().is_some();
        !waits && read_ms > self.touched_ms.saturating_add(after_ms)
    }

    /// What was before that time may be forgotten.
    pub(super) fn begin(&mut self, since_ms: u64) {
        self.since_ms = since_ms;
    }

    /// Whether it holds all that matters to windows with something of that time.
    pub(super) fn knows(&self, plan: &CorrelationPlan, time_ms: u64) -> bool {
        !self.is_behind(time_ms) && time_ms >= self.since_ms.saturating_add(plan.timespan_ms)
    }

    /// Takes in an entry behind what is folded: it counts in the windows to come, those that ended are another's care.
    pub(super) fn take_in(&mut self, of: Of<'_>, entry: &Entry) -> Outcome {
        if self.folded.sweep.entry(&entry.key).is_some() {
            return Outcome::default();
        }
        self.bytes += entry.bytes;
        self.changed.entries.put(entry.key);
        let mut drop = dropping(&mut self.changed.entries, &mut self.bytes);
        let lost = self.folded.sweep.take_in(of.plan, entry, &mut drop);
        let closed = of.plan.shape.is_closed();
        let mut outcome =
            if closed { Outcome::default() } else { self.open.read_again(of, &self.folded, OrderKey::at(0)) };
        outcome.lost.entries += lost;
        outcome
    }

    pub(super) fn insert(&mut self, of: Of<'_>, entry: Entry) -> Outcome {
        if self.open.entries().contains_key(&entry.key) {
            return Outcome::default();
        }
        self.bytes += entry.bytes;
        self.changed.entries.put(entry.key);
        let mut outcome = Outcome::default();
        if of.plan.shape.is_closed() {
            self.open.hold(entry);
        } else {
            outcome = self.open.put(of, &self.folded, entry);
        }
        let before = self.open.entries().len();
        if before > OPEN_MAX {
            let middle_ms = self.open.entries().keys().nth(OPEN_MAX / 2).map_or(0, |key| key.time_ms);
            // The middle's own moment too: all of them may be of one.
            outcome.add(self.fold(of, middle_ms.saturating_add(1)).0);
            outcome.lost.early += (before - self.open.entries().len()) as u64;
        }
        outcome
    }

    pub(super) fn remove(&mut self, of: Of<'_>, key: &OrderKey) -> Outcome {
        let Some(gone) = self.open.take(key) else { return Outcome::default() };
        self.bytes = self.bytes.saturating_sub(gone.bytes);
        self.changed.entries.drop(*key);
        if of.plan.shape.is_closed() { Outcome::default() } else { self.open.read_again(of, &self.folded, *key) }
    }

    /// Folds entries before the watermark and judges windows that ended before it: what was said about them stays
    /// said. What follows, and whether anything changed.
    pub(super) fn fold(&mut self, of: Of<'_>, watermark_ms: u64) -> (Outcome, bool) {
        let (mut outcome, mut changed) = (Outcome::default(), false);
        let before_lost = self.folded.lost;
        let is_closed = of.plan.shape.is_closed();
        let mut drop = dropping(&mut self.changed.entries, &mut self.bytes);
        while let Some((entry, said)) = self.open.pop_before(watermark_ms) {
            if is_closed {
                while let Some(said) = self.folded.close(of, entry.key.time_ms, &mut drop) {
                    outcome.tell(&said, &self.folded);
                }
            }
            self.folded.step_again(of, &entry, said.as_ref(), &mut drop);
            changed = true;
        }
        if is_closed {
            let before = self.folded.sweep.beyond();
            while let Some(said) = self.folded.close(of, watermark_ms, &mut drop) {
                outcome.tell(&said, &self.folded);
            }
            changed |= self.folded.sweep.beyond() != before;
        }
        if changed {
            self.folded_until_ms = self.folded_until_ms.max(watermark_ms);
        }
        outcome.lost.entries += self.folded.lost - before_lost;
        (outcome, changed)
    }
}

/// What to do about entries that are kept no longer.
fn dropping<'a>(changed: &'a mut Delta<OrderKey>, bytes: &'a mut usize) -> impl FnMut(&Entry) + 'a {
    move |entry: &Entry| {
        changed.drop(entry.key);
        *bytes = bytes.saturating_sub(entry.bytes);
    }
}
