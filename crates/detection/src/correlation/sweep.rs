//! The automata: each reads the entries of one key in order and says when a window is satisfied.
//!
//! State is bounded by the rule's threshold: the newest K entries, the newest entry of the K newest
//! distinct values, or for each rule of a sequence the sequence up to it that began last. Reading just the
//! entries that are kept gives the same state again: this is how it is restored.

use super::{Entry, OrderKey};
use crate::alert::EventSummary;
use crate::rules::{CorrelationPlan, Shape};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The state of one key after all entries read so far.
#[derive(Clone, Debug)]
pub(super) enum Sweep {
    /// The newest K entries.
    Count(VecDeque<Entry>),
    /// The newest entry of each of the K newest distinct values.
    Distinct { newest: BTreeMap<OrderKey, Entry>, by_value: BTreeMap<Arc<str>, OrderKey> },
    /// For each step of the sequence, the entries up to it that begin last.
    Ordered(Vec<Option<Vec<Entry>>>),
}

impl Sweep {
    pub(super) fn new(plan: &CorrelationPlan) -> Self {
        match plan.shape {
            Shape::Count { .. } => Self::Count(VecDeque::new()),
            Shape::Distinct { .. } => Self::Distinct { newest: BTreeMap::new(), by_value: BTreeMap::new() },
            Shape::Ordered => Self::Ordered(vec![None; plan.slots.len()]),
        }
    }

    /// Reads the next entry; whether a window is satisfied that ends with it. Tells which entries are kept no longer.
    pub(super) fn step(&mut self, plan: &CorrelationPlan, entry: &Entry, drop: &mut dyn FnMut(OrderKey)) -> bool {
        let span_ms = plan.timespan_ms;
        let within = |first_ms: u64| entry.key.time_ms.saturating_sub(first_ms) <= span_ms;
        match (self, &plan.shape) {
            (Self::Count(newest), Shape::Count { at_least }) => {
                newest.push_back(entry.clone());
                let is_surplus = |newest: &VecDeque<Entry>| {
                    newest.len() > *at_least as usize || newest.front().is_some_and(|first| !within(first.key.time_ms))
                };
                while is_surplus(newest) {
                    newest.pop_front().into_iter().for_each(|first| drop(first.key));
                }
                newest.len() == *at_least as usize
            }
            (Self::Distinct { newest, by_value }, Shape::Distinct { at_least }) => {
                let value = entry.value.clone().unwrap_or_else(|| "".into());
                if let Some(before) = by_value.insert(value, entry.key) {
                    newest.remove(&before);
                    drop(before);
                }
                newest.insert(entry.key, entry.clone());
                while let Some(first) = newest.first_entry() {
                    if within(first.key().time_ms) && by_value.len() <= *at_least as usize {
                        break;
                    }
                    let (key, first) = first.remove_entry();
                    by_value.remove(first.value.as_deref().unwrap_or_default());
                    drop(key);
                }
                newest.len() == *at_least as usize
            }
            (Self::Ordered(best), Shape::Ordered) => {
                let (mut satisfied, mut replaced) = (false, BTreeSet::from([entry.key]));
                for step in (0..best.len()).rev().filter(|step| plan.slots[*step] == entry.key.slot) {
                    let mut sequence = match step.checked_sub(1) {
                        None => Vec::with_capacity(best.len()),
                        Some(before) => match best[before].clone().filter(|s| within(s[0].key.time_ms)) {
                            Some(sequence) => sequence,
                            None => continue,
                        },
                    };
                    sequence.push(entry.clone());
                    satisfied |= step + 1 == best.len();
                    replaced.extend(best[step].replace(sequence).into_iter().flatten().map(|entry| entry.key));
                }
                let keeps = |key: &OrderKey| best.iter().flatten().flatten().any(|entry| entry.key == *key);
                replaced.into_iter().filter(|key| !keeps(key)).for_each(drop);
                satisfied
            }
            _ => false,
        }
    }

    /// The entries it keeps; one of a sequence may be told more than once.
    pub(super) fn entries(&self) -> Box<dyn Iterator<Item = &Entry> + '_> {
        match self {
            Self::Count(newest) => Box::new(newest.iter()),
            Self::Distinct { newest, .. } => Box::new(newest.values()),
            Self::Ordered(best) => Box::new(best.iter().flatten().flatten()),
        }
    }

    /// The entry of that key, if it is kept.
    pub(super) fn entry(&self, key: &OrderKey) -> Option<&Entry> {
        match self {
            Self::Count(newest) => newest.get(newest.binary_search_by(|entry| entry.key.cmp(key)).ok()?),
            Self::Distinct { newest, .. } => newest.get(key),
            Self::Ordered(_) => self.entries().find(|entry| entry.key == *key),
        }
    }

    /// When the newest entry it keeps happened.
    pub(super) fn newest_ms(&self) -> u64 {
        let newest = match self {
            Self::Count(newest) => newest.back(),
            Self::Distinct { newest, .. } => newest.values().next_back(),
            Self::Ordered(best) => best.iter().flatten().filter_map(|s| s.last()).max_by_key(|entry| entry.key),
        };
        newest.map_or(0, |entry| entry.key.time_ms)
    }

    /// The events that the window just satisfied rests on, each once, by time.
    pub(super) fn events(&self) -> Arc<[Arc<EventSummary>]> {
        let entries: Vec<&Entry> = match self {
            Self::Ordered(best) => best.last().and_then(Option::as_ref).map_or_else(Vec::new, |s| s.iter().collect()),
            all => all.entries().collect(),
        };
        let mut events: Vec<_> = entries.into_iter().flat_map(|entry| entry.events.iter().cloned()).collect();
        events.sort_by_key(|event| (event.time_ms, event.id));
        events.dedup_by_key(|event| event.id);
        events.into()
    }
}

/// The bursts of one key: satisfied windows that follow each other within the timespan are one.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
