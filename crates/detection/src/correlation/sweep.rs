//! The automata: each reads the entries of one key in order and says when a window is satisfied.
//!
//! State is bounded by the rule's threshold: the newest K entries, the newest entry of the K newest
//! distinct values, for each rule of a sequence the sequence up to it that began last, the newest values that come to
//! the sum. Reading just the entries that are kept gives the same state again: this is how it is restored.

use super::absent::Absent;
use super::shape::Shape;
use super::window::Window;
use super::{Amount, Entry, OrderKey};
use crate::alert::EventSummary;
use crate::rules::CorrelationPlan;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Most values of a sum that are kept; beyond it the oldest go.
const SUMMED_MAX: usize = 100_000;

/// For each step of a sequence, the entries up to it that begin last.
type Best = Vec<Option<Vec<Entry>>>;

/// The state of one key after all entries read so far.
#[derive(Clone, Debug)]
pub(super) enum Sweep {
    /// The newest K entries.
    Count(VecDeque<Entry>),
    /// The newest entry of each of the K newest distinct values.
    Distinct { newest: BTreeMap<OrderKey, Entry>, by_value: BTreeMap<Amount, OrderKey> },
    /// For each way; and the way last satisfied.
    Ordered { ways: Vec<Best>, hit: usize },
    /// The newest entry of each rule; and the rules of the way last satisfied.
    Either { newest: BTreeMap<u32, Entry>, hit: Vec<u32> },
    /// The newest values, and what they come to.
    Sum { newest: VecDeque<Entry>, sum: i128 },
    /// A window that is judged when it is closed.
    Window(Window),
    /// Entries whose windows are judged when they are closed.
    Absent(Absent),
}

/// A satisfied window: the entry it is known by, and the events it rests on, each once, by time.
#[derive(Debug)]
pub(super) struct Satisfied {
    pub(super) key: OrderKey,
    pub(super) events: Arc<[Arc<EventSummary>]>,
    /// The clock of one of them was ahead.
    pub(super) is_clamped: bool,
}

impl Satisfied {
    pub(super) fn of(key: OrderKey, entries: Vec<&Entry>) -> Self {
        Self::of_most(key, entries, usize::MAX)
    }

    /// Of many events, so many.
    fn of_most(key: OrderKey, entries: Vec<&Entry>, events_max: usize) -> Self {
        let is_clamped = entries.iter().any(|entry| entry.is_clamped);
        let events = entries.into_iter().flat_map(|entry| entry.events.iter().cloned());
        let mut events: Vec<_> = events.take(events_max).collect();
        events.sort_by_key(|event| (event.time_ms, event.id));
        events.dedup_by_key(|event| event.id);
        Self { key, events: events.into(), is_clamped }
    }
}

/// What is known of a state beyond the entries it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beyond {
    pub(super) count: u64,
    pub(super) sum: i128,
    pub(super) judged: Option<OrderKey>,
}

/// What reading an entry came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// A window is satisfied that ends with the entry.
    pub(super) satisfied: bool,
    /// Entries that a budget made it forget.
    pub(super) lost: u64,
}

impl Sweep {
    pub(super) fn new(plan: &CorrelationPlan) -> Self {
        match &plan.shape {
            Shape::Count { .. } => Self::Count(VecDeque::new()),
            Shape::Distinct { .. } => Self::Distinct { newest: BTreeMap::new(), by_value: BTreeMap::new() },
            Shape::Ordered { ways } => {
                Self::Ordered { ways: ways.iter().map(|way| vec![None; way.len()]).collect(), hit: 0 }
            }
            Shape::Either { .. } => Self::Either { newest: BTreeMap::new(), hit: Vec::new() },
            Shape::Sum { .. } => Self::Sum { newest: VecDeque::new(), sum: 0 },
            Shape::Window { .. } => Self::Window(Window::default()),
            Shape::Absent { .. } => Self::Absent(Absent::default()),
        }
    }

    /// Reads the next entry. Tells which entries are kept no longer.
    pub(super) fn step(&mut self, plan: &CorrelationPlan, entry: &Entry, drop: &mut dyn FnMut(&Entry)) -> Step {
        let span_ms = plan.timespan_ms;
        let within = |first: &OrderKey| entry.key.time_ms.saturating_sub(first.time_ms) <= span_ms;
        let mut lost = 0;
        let satisfied = match (self, &plan.shape) {
            (Self::Count(newest), Shape::Count { at_least }) => {
                let at_least = *at_least as usize;
                newest.push_back(entry.clone());
                while let Some(first) = newest.pop_front_if(|first| !within(&first.key)) {
                    drop(&first);
                }
                if newest.len() > at_least {
                    newest.pop_front().iter().for_each(&mut *drop);
                }
                newest.len() == at_least
            }
            (Self::Distinct { newest, by_value }, Shape::Distinct { at_least }) => {
                let at_least = *at_least as usize;
                let value = entry.value.clone().unwrap_or(Amount::Number(0));
                if let Some(before) = by_value.insert(value, entry.key) {
                    newest.remove(&before).iter().for_each(&mut *drop);
                }
                newest.insert(entry.key, entry.clone());
                while let Some(first) = newest.first_entry() {
                    if within(first.key()) && by_value.len() <= at_least {
                        break;
                    }
                    let first = first.remove();
                    by_value.remove(first.value.as_ref().unwrap_or(&Amount::Number(0)));
                    drop(&first);
                }
                newest.len() == at_least
            }
            (Self::Ordered { ways: bests, hit }, Shape::Ordered { ways }) => {
                let (mut satisfied, mut replaced) = (None, BTreeMap::from([(entry.key, entry.clone())]));
                for (place, (best, way)) in bests.iter_mut().zip(ways).enumerate() {
                    if follow(best, way, entry, &within, &mut replaced) {
                        satisfied = satisfied.or(Some(place));
                    }
                }
                let keeps = |key: &OrderKey| bests.iter().flatten().flatten().flatten().any(|entry| entry.key == *key);
                replaced.values().filter(|entry| !keeps(&entry.key)).for_each(drop);
                *hit = satisfied.unwrap_or(*hit);
                satisfied.is_some()
            }
            (Self::Either { newest, hit }, Shape::Either { ways }) => {
                let over = newest.extract_if(.., |slot, first| *slot == entry.key.slot || !within(&first.key));
                over.for_each(|(_, first)| drop(&first));
                newest.insert(entry.key.slot, entry.clone());
                let is_there =
                    |way: &&Vec<u32>| way.contains(&entry.key.slot) && way.iter().all(|slot| newest.contains_key(slot));
                let way = ways.iter().find(is_there);
                if let Some(way) = way {
                    hit.clone_from(way);
                }
                way.is_some()
            }
            (Self::Sum { newest, sum }, Shape::Sum { at_least }) => {
                let worth = |entry: &Entry| if let Some(Amount::Number(parts)) = entry.value { parts } else { 0 };
                if worth(entry) <= 0 {
                    drop(entry);
                    return Step::default();
                }
                newest.push_back(entry.clone());
                *sum += worth(entry);
                while let Some(first) = newest.front() {
                    let is_surplus = *sum - worth(first) >= *at_least || !within(&first.key);
                    let is_lost = newest.len() > SUMMED_MAX;
                    if !is_surplus && !is_lost {
                        break;
                    }
                    lost += u64::from(!is_surplus);
                    *sum -= worth(first);
                    newest.pop_front().iter().for_each(&mut *drop);
                }
                *sum >= *at_least
            }
            (Self::Window(window), Shape::Window { measure, .. }) => {
                lost = window.step(*measure, entry, drop);
                false
            }
            (Self::Absent(absent), Shape::Absent { .. }) => {
                lost = absent.step(entry, drop);
                false
            }
            _ => false,
        };
        Step { satisfied, lost }
    }

    /// Takes in an entry that belongs before some that are read already, for the windows to come. How many entries
    /// that made it forget.
    pub(super) fn take_in(&mut self, plan: &CorrelationPlan, entry: &Entry, drop: &mut dyn FnMut(&Entry)) -> u64 {
        match (&mut *self, &plan.shape) {
            (Self::Window(window), Shape::Window { measure, .. }) if window.begins_before(&entry.key) => {
                window.step(*measure, entry, drop)
            }
            (Self::Absent(absent), Shape::Absent { .. }) if absent.may_need(plan, &entry.key) => {
                absent.step(entry, drop)
            }
            (Self::Window(_) | Self::Absent(_), _) => {
                drop(entry);
                0
            }
            _ => {
                let kept: BTreeMap<OrderKey, Entry> =
                    self.entries().chain([entry]).map(|entry| (entry.key, entry.clone())).collect();
                *self = Self::new(plan);
                kept.values().map(|entry| self.step(plan, entry, drop).lost).sum()
            }
        }
    }

    /// Puts an entry among those before the last that was read; what follows from it is another's care.
    pub(super) fn slip_in(&mut self, plan: &CorrelationPlan, entry: &Entry, last: OrderKey) {
        let Self::Distinct { newest, by_value } = self else { return };
        let is_over = last.time_ms.saturating_sub(entry.key.time_ms) > plan.timespan_ms;
        let value = entry.value.clone().unwrap_or(Amount::Number(0));
        if is_over || by_value.get(&value).is_some_and(|newer| *newer > entry.key) {
            return;
        }
        if let Some(older) = by_value.insert(value, entry.key) {
            newest.remove(&older);
        }
        newest.insert(entry.key, entry.clone());
    }

    /// Whether it keeps the same entries as another of its kind.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let keys = |entries: &[Entry]| entries.iter().map(|entry| entry.key).collect::<Vec<_>>();
        if let (Self::Ordered { ways, .. }, Self::Ordered { ways: others, .. }) = (self, other) {
            let mut steps = ways.iter().flatten().zip(others.iter().flatten());
            return steps.all(|(one, other)| one.as_deref().map(keys) == other.as_deref().map(keys));
        }
        self.len() == other.len() && self.entries().map(|entry| entry.key).eq(other.entries().map(|entry| entry.key))
    }

    /// The next satisfied window that ended before that time, of those that are judged when they are closed.
    pub(super) fn close(
        &mut self,
        plan: &CorrelationPlan,
        until_ms: u64,
        drop: &mut dyn FnMut(&Entry),
    ) -> Option<Satisfied> {
        match (self, &plan.shape) {
            (Self::Window(window), Shape::Window { measure, bounds }) => {
                window.close(plan, (*measure, bounds), until_ms, drop)
            }
            (Self::Absent(absent), Shape::Absent { ways, ordered }) => {
                absent.close(plan, (ways, *ordered), until_ms, drop)
            }
            _ => None,
        }
    }

    /// The entries it keeps; one of a sequence may be told more than once.
    pub(super) fn entries(&self) -> Box<dyn Iterator<Item = &Entry> + '_> {
        match self {
            Self::Count(newest) | Self::Sum { newest, .. } => Box::new(newest.iter()),
            Self::Distinct { newest, .. } => Box::new(newest.values()),
            Self::Ordered { ways, .. } => Box::new(ways.iter().flatten().flatten().flatten()),
            Self::Either { newest, .. } => Box::new(newest.values()),
            Self::Window(window) => Box::new(window.kept().values()),
            Self::Absent(absent) => Box::new(absent.kept().values()),
        }
    }

    /// The entry of that key, if it is kept.
    pub(super) fn entry(&self, key: &OrderKey) -> Option<&Entry> {
        match self {
            Self::Count(newest) | Self::Sum { newest, .. } => {
                newest.get(newest.binary_search_by(|entry| entry.key.cmp(key)).ok()?)
            }
            Self::Distinct { newest, .. } => newest.get(key),
            Self::Window(window) => window.kept().get(key),
            Self::Absent(absent) => absent.kept().get(key),
            Self::Ordered { .. } | Self::Either { .. } => self.entries().find(|entry| entry.key == *key),
        }
    }

    /// About how many entries it keeps.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Count(newest) | Self::Sum { newest, .. } => newest.len(),
            Self::Distinct { newest, .. } => newest.len(),
            Self::Either { newest, .. } => newest.len(),
            Self::Window(window) => window.kept().len(),
            Self::Absent(absent) => absent.kept().len(),
            Self::Ordered { ways, .. } => ways.iter().flatten().filter(|step| step.is_some()).count(),
        }
    }

    /// When the newest entry it keeps happened.
    pub(super) fn newest_ms(&self) -> u64 {
        let newest = match self {
            Self::Count(newest) | Self::Sum { newest, .. } => newest.back(),
            Self::Distinct { newest, .. } => newest.values().next_back(),
            Self::Window(window) => window.kept().values().next_back(),
            Self::Absent(absent) => absent.kept().values().next_back(),
            Self::Ordered { .. } | Self::Either { .. } => self.entries().max_by_key(|entry| entry.key),
        };
        newest.map_or(0, |entry| entry.key.time_ms)
    }

    /// What the window rests on that was satisfied by the entry just read; of many events, so many.
    pub(super) fn satisfied(&self, key: OrderKey, events_max: usize) -> Satisfied {
        let entries = match self {
            Self::Ordered { ways, hit } => ways[*hit].last().into_iter().flatten().flatten().collect(),
            Self::Either { newest, hit } => hit.iter().filter_map(|slot| newest.get(slot)).collect(),
            all => all.entries().collect(),
        };
        Satisfied::of_most(key, entries, events_max)
    }

    /// What is known beyond the entries.
    pub(super) fn beyond(&self) -> Beyond {
        match self {
            Self::Window(window) => Beyond { count: window.count, sum: window.sum, judged: None },
            Self::Absent(absent) => Beyond { judged: absent.judged, ..Beyond::default() },
            _ => Beyond::default(),
        }
    }

    /// Puts back what was known beyond the entries, all of which were read.
    pub(super) fn restore(&mut self, beyond: &Beyond) {
        match self {
            Self::Window(window) => (window.count, window.sum) = (beyond.count, beyond.sum),
            Self::Absent(absent) => absent.judged = beyond.judged,
            _ => {}
        }
    }
}

/// Reads the next entry of a way to fulfil a sequence; whether it is complete.
fn follow(
    best: &mut Best,
    way: &[u32],
    entry: &Entry,
    within: &dyn Fn(&OrderKey) -> bool,
    replaced: &mut BTreeMap<OrderKey, Entry>,
) -> bool {
    let mut complete = false;
    for step in (0..way.len()).rev().filter(|step| way[*step] == entry.key.slot) {
        let mut sequence = match step.checked_sub(1) {
            None => Vec::with_capacity(way.len()),
            Some(before) => match best[before].clone().filter(|sequence| within(&sequence[0].key)) {
                Some(sequence) => sequence,
                None => continue,
            },
        };
        sequence.push(entry.clone());
        complete |= step + 1 == way.len();
        replaced.extend(best[step].replace(sequence).into_iter().flatten().map(|entry| (entry.key, entry)));
    }
    complete
}

/// The bursts of one key: satisfied windows that follow each other within the timespan are one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chain {
    /// When the last satisfied window ended.
    pub(super) last_ms: Option<u64>,
    /// Satisfying events of the burst so far.
    pub(super) count: u64,
}

impl Chain {
    /// Takes in a satisfied window: whether a new burst begins with it.
    pub(super) fn begins(&mut self, end_ms: u64, span_ms: u64) -> bool {
        let begins = self.last_ms.is_none_or(|last_ms| end_ms.saturating_sub(last_ms) > span_ms);
        self.last_ms = Some(end_ms);
        self.count = if begins { 0 } else { self.count.saturating_add(1) };
        begins
    }
}
