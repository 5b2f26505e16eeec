//! What of a key the watermark has not passed: read in order, and again from where an entry is put in or taken out.
//!
//! Reading again ends where it comes to the same as before: most of what comes in disorder changes little.

use super::reading::{Of, Outcome, Reading, Said};
use super::shape::Shape;
use super::{Entry, OrderKey};
use crate::alert::Alert;
use crate::id::AlertId;
use crate::rules::CorrelationPlan;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

/// How many entries at least are read from one reading that is kept to the next; the larger a reading is, the fewer.
const MARK_EVERY: usize = 64;

/// Entries, and what was read of them.
#[derive(Clone, Debug)]
pub(super) struct Open {
    entries: BTreeMap<OrderKey, Entry>,
    /// After all entries.
    live: Reading,
    /// What was said about windows that end with an entry.
    said: BTreeMap<OrderKey, Said>,
    /// What was live after some of the entries.
    marks: BTreeMap<OrderKey, Reading>,
    since_mark: usize,
}

impl Open {
    /// No entries yet; `begun` is what was read before them.
    pub(super) fn new(begun: Reading) -> Self {
        let (entries, said, marks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { entries, live: begun, said, marks, since_mark: 0 }
    }

    pub(super) fn entries(&self) -> &BTreeMap<OrderKey, Entry> {
        &self.entries
    }

    /// Puts an entry in without reading it.
    pub(super) fn hold(&mut self, entry: Entry) {
        self.entries.insert(entry.key, entry);
    }

    /// Puts an entry in its place; `folded` is what was read before all entries. What follows.
    pub(super) fn put(&mut self, of: Of<'_>, folded: &Reading, entry: Entry) -> Outcome {
        let key = entry.key;
        if self.entries.last_key_value().is_none_or(|(last, _)| *last < key) {
            let mut outcome = Outcome::default();
            let said = self.live.step(of, &entry, None, &mut |_| {});
            self.entries.insert(key, entry);
            self.mark(key);
            if let Some(said) = said {
                outcome.tell(&said, &self.live);
                self.said.insert(key, said);
            }
            return outcome;
        }
        let slips_in = self.slip_in(of.plan, &entry);
        self.entries.insert(key, entry);
        if slips_in { Outcome::default() } else { self.read_again(of, folded, key) }
    }

    /// Reads all of it anew, in other words perhaps; what follows was told before.
    pub(super) fn say_again(&mut self, of: Of<'_>, folded: &Reading) {
        self.marks.clear();
        self.said.clear();
        let _ = self.read_again(of, folded, OrderKey::at(0));
    }

    /// Takes an entry out that nothing is to be said about any more: the first, and what was said.
    pub(super) fn pop_before(&mut self, time_ms: u64) -> Option<(Entry, Option<Said>)> {
        let first = self.entries.first_entry().filter(|first| first.key().time_ms < time_ms)?;
        let entry = first.remove();
        self.marks.remove(&entry.key);
        let said = self.said.remove(&entry.key);
        Some((entry, said))
    }

    /// Takes an entry out without reading again what comes after it.
    pub(super) fn take(&mut self, key: &OrderKey) -> Option<Entry> {
        self.entries.remove(key)
    }

    /// Keeps what is live after an entry, now and then.
    fn mark(&mut self, key: OrderKey) {
        self.since_mark += 1;
        let size = self.live.sweep.len();
        self.live.peak = self.live.peak.max(size);
        if self.since_mark >= MARK_EVERY.max(size) {
            self.since_mark = 0;
            self.marks.insert(key, self.live.clone());
            self.live.peak = size;
        }
    }

    /// Puts an entry into all readings after its place, if with it no window can be satisfied that was not: whether
    /// it was.
    fn slip_in(&mut self, plan: &CorrelationPlan, entry: &Entry) -> bool {
        let Shape::Distinct { at_least } = plan.shape else { return false };
        let Some((last, _)) = self.entries.last_key_value() else { return false };
        let after = || self.marks.range(entry.key..).map(|(_, mark)| mark).chain([&self.live]);
        if after().any(|reading| reading.peak + 1 >= at_least as usize) {
            return false;
        }
        let after = self.marks.range_mut(entry.key..).map(|(key, mark)| (*key, mark)).chain([(*last, &mut self.live)]);
        for (until, reading) in after {
            reading.sweep.slip_in(plan, entry, until);
            reading.peak += 1;
        }
        true
    }

    /// Reads entries from a place on again, and says what is different now. `folded` is what was read before them all.
    pub(super) fn read_again(&mut self, of: Of<'_>, folded: &Reading, from: OrderKey) -> Outcome {
        let mark = self.marks.range(..from).next_back();
        let (begin, start) = mark.map_or((Unbounded, folded), |(key, reading)| (Excluded(*key), reading));
        // What is put in first comes right after it.
        let peak = start.sweep.len();
        let before = std::mem::replace(&mut self.live, Reading { peak, ..start.clone() });
        let since_mark = std::mem::replace(&mut self.since_mark, 0);
        let mut change = Change::default();
        if !self.entries.contains_key(&from) {
            self.marks.remove(&from);
            change.compare(from, self.said.remove(&from), None);
        }
        let mut same = None;
        for (key, entry) in self.entries.range((begin, Unbounded)) {
            if *key < from {
                self.live.step_again(of, entry, self.said.get(key), &mut |_| {});
            } else {
                let was = self.said.remove(key);
                let now = self.live.step(of, entry, was.as_ref(), &mut |_| {});
                change.compare(*key, was, now.as_ref());
                if let Some(now) = now {
                    self.said.insert(*key, now);
                }
            }
            let size = self.live.sweep.len();
            self.live.peak = self.live.peak.max(size);
            self.since_mark += 1;
            match self.marks.get_mut(key) {
                Some(mark) if mark.is_as(&self.live) => {
                    same = Some((*key, self.live.chain.count.wrapping_sub(mark.chain.count), mark.alert));
                    mark.peak = self.live.peak;
                    break;
                }
                Some(_) => drop(self.marks.remove(key)),
                None => {}
            }
            if self.since_mark >= MARK_EVERY.max(size) {
                self.since_mark = 0;
                self.marks.insert(*key, self.live.clone());
                self.live.peak = size;
            }
        }
        if let Some((key, more, alert)) = same {
            (self.live, self.since_mark) = (before, since_mark);
            let after = self.marks.range_mut(key..).map(|(_, mark)| mark).chain([&mut self.live]);
            // All is as it was from here on, but that the burst may have more or fewer entries.
            for reading in after.take_while(|reading| more != 0 && reading.alert == alert) {
                reading.chain.count = reading.chain.count.wrapping_add(more);
            }
        }
        change.outcome(&self.said, folded.alert.or(self.live.alert))
    }
}

/// What was said otherwise.
#[derive(Default)]
struct Change {
    outcome: Outcome,
    stood: BTreeMap<AlertId, Arc<Alert>>,
    stand: BTreeMap<AlertId, Arc<Alert>>,
}

impl Change {
    fn compare(&mut self, key: OrderKey, was: Option<Said>, now: Option<&Said>) {
        let is_same = was.as_ref().map(|was| &was.occurrence) == now.map(|now| &now.occurrence);
        let id = |said: &Said| said.alert.as_ref().map(|alert| alert.id);
        if is_same && was.as_ref().map(id) == now.map(id) {
            return;
        }
        if let Some(now) = now {
            if !is_same {
                self.outcome.appeared.push(now.occurrence.clone());
            }
            self.stand.extend(now.alert.iter().map(|alert| (alert.id, Arc::clone(alert))));
        }
        if let Some(was) = was {
            if !is_same {
                self.outcome.vanished.push(key);
            }
            self.stood.extend(was.alert.map(|alert| (alert.id, alert)));
        }
    }

    fn outcome(self, said: &BTreeMap<OrderKey, Said>, or: Option<AlertId>) -> Outcome {
        let Self { mut outcome, stood, stand } = self;
        for old in stood.values().filter(|old| !stand.contains_key(&old.id)) {
            let all = said.values().filter_map(|said| said.alert.as_deref());
            let covering = all.filter(|by| by.first_ms <= old.last_ms).max_by_key(|by| (by.last_ms, by.id));
            outcome.superseded.push((old.id, covering.map(|by| by.id).or(or)));
        }
        outcome.raised = stand.into_values().filter(|alert| !stood.contains_key(&alert.id)).collect();
        outcome
    }
}
