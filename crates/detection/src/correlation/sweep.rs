//! The automata: each reads the entries of one key in order and says when a window is satisfied.
//!
//! State is bounded by the rule's threshold: the newest K entries, the newest entry of the K newest
//! distinct values, or for each rule of a sequence the sequence up to it that began last.

use super::Entry;
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

    /// Reads the next entry; the satisfying set if one ends here.
    pub(super) fn step(&mut self, plan: &CorrelationPlan, entry: &Entry) -> Option<Vec<Entry>> {
        let span_ms = plan.timespan_ms;
        let within = |first: &Entry| entry.key.time_ms.saturating_sub(first.key.time_ms) <= span_ms;
        match (self, &plan.shape) {
            (Self::Count(newest), Shape::Count { at_least }) => {
                newest.push_back(entry.clone());
                while newest.len() > *at_least as usize || newest.front().is_some_and(|first| !within(first)) {
                    newest.pop_front();
                }
                (newest.len() == *at_least as usize).then(|| newest.iter().cloned().collect())
            }
            (Self::Distinct(newest), Shape::Distinct { at_least }) => {
                newest.retain(|known| known.value != entry.value && within(known));
                newest.push(entry.clone());
                if newest.len() > *at_least as usize {
                    newest.remove(0);
                }
                (newest.len() == *at_least as usize).then(|| newest.clone())
            }
            (Self::Ordered(best), Shape::Ordered) => {
                let mut satisfied = None;
                for step in (0..best.len()).rev().filter(|step| plan.slots[*step] == entry.key.slot) {
                    let mut sequence = match step.checked_sub(1) {
                        None => Vec::with_capacity(best.len()),
                        Some(before) => match best[before].clone().filter(|sequence| within(&sequence[0])) {
                            Some(sequence) => sequence,
                            None => continue,
                        },
                    };
                    sequence.push(entry.clone());
                    if step + 1 == best.len() {
                        satisfied = Some(sequence.clone());
                    }
                    best[step] = Some(sequence);
                }
                satisfied
            }
            _ => None,
        }
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
    pub(super) fn begins(&mut self, end_ms: u64, span_ms: u64, events: usize) -> bool {
        let begins = self.last_ms.is_none_or(|last_ms| end_ms.saturating_sub(last_ms) > span_ms);
        self.last_ms = Some(end_ms);
        self.count = if begins { events as u64 } else { self.count.saturating_add(1) };
        begins
    }
}

/// The events a satisfying set rests on, each once, by time.
pub(super) fn events_of(set: &[Entry]) -> Arc<[Arc<crate::alert::EventSummary>]> {
    let mut events: Vec<_> = set.iter().flat_map(|entry| entry.events.iter().cloned()).collect();
    events.sort_by_key(|event| (event.time_ms, event.id));
    events.dedup_by_key(|event| event.id);
    events.into()
}
