//! The automata: each reads the entries of one key in order and says when a window is satisfied.
//!
//! State is bounded by the rule's threshold: the newest K entries, the newest entry of the K newest
//! distinct values, or for each rule of a sequence the sequence up to it that began last.

use super::Entry;
use crate::alert::EventSummary;
use crate::rules::{CorrelationPlan, Shape};
use std::collections::VecDeque;
use std::sync::Arc;

/// The state of one key after all entries read so far.
#[derive(Clone, Debug)]
pub(super) enum Sweep {
    /// The newest K entries.
    Count(VecDeque<Entry>),
    /// The newest entry of each of the K newest distinct values, by order.
    Distinct(Vec<Entry>),
    /// For each step of the sequence, the entries up to it that begin last.
    Ordered(Vec<Option<Vec<Entry>>>),
}

impl Sweep {
    pub(super) fn new(plan: &CorrelationPlan) -> Self {
        match plan.shape {
            Shape::Count { .. } => Self::Count(VecDeque::new()),
            Shape::Distinct { .. } => Self::Distinct(Vec::new()),
            Shape::Ordered => Self::Ordered(vec![None; plan.slots.len()]),
        }
    }

    /// Reads the next entry; whether a window is satisfied that ends with it.
    pub(super) fn step(&mut self, plan: &CorrelationPlan, entry: &Entry) -> bool {
        let span_ms = plan.timespan_ms;
        let within = |first: &Entry| entry.key.time_ms.saturating_sub(first.key.time_ms) <= span_ms;
        match (self, &plan.shape) {
            (Self::Count(newest), Shape::Count { at_least }) => {
                newest.push_back(entry.clone());
                while newest.len() > *at_least as usize || newest.front().is_some_and(|first| !within(first)) {
                    newest.pop_front();
                }
                newest.len() == *at_least as usize
            }
            (Self::Distinct(newest), Shape::Distinct { at_least }) => {
                newest.retain(|known| known.value != entry.value && within(known));
                newest.push(entry.clone());
                if newest.len() > *at_least as usize {
                    newest.remove(0);
                }
                newest.len() == *at_least as usize
            }
            (Self::Ordered(best), Shape::Ordered) => {
                let mut satisfied = false;
                for step in (0..best.len()).rev().filter(|step| plan.slots[*step] == entry.key.slot) {
                    let mut sequence = match step.checked_sub(1) {
                        None => Vec::with_capacity(best.len()),
                        Some(before) => match best[before].clone().filter(|sequence| within(&sequence[0])) {
                            Some(sequence) => sequence,
                            None => continue,
                        },
                    };
                    sequence.push(entry.clone());
                    satisfied |= step + 1 == best.len();
                    best[step] = Some(sequence);
                }
                satisfied
            }
            _ => false,
        }
    }

    /// The events that the window just satisfied rests on, each once, by time.
    pub(super) fn events(&self) -> Arc<[Arc<EventSummary>]> {
        let entries: Vec<&Entry> = match self {
            Self::Count(newest) => newest.iter().collect(),
            Self::Distinct(newest) => newest.iter().collect(),
            Self::Ordered(best) => best.last().and_then(Option::as_ref).map_or_else(Vec::new, |s| s.iter().collect()),
        };
        let mut events: Vec<_> = entries.into_iter().flat_map(|entry| entry.events.iter().cloned()).collect();
        events.sort_by_key(|event| (event.time_ms, event.id));
        events.dedup_by_key(|event| event.id);
        events.into()
    }
}

/// The bursts of one key: satisfied windows that follow each other within the timespan are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// When the last satisfied window ended.
    last_ms: Option<u64>,
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
