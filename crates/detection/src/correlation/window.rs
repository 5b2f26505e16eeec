//! Windows that are judged when they are closed: once nothing can come any more that belongs into them.
//!
//! A key's time is cut into windows: each begins with the first entry after the one before and lasts the timespan.
//! State is bounded: entries beyond a budget are counted but not kept, and whoever asks is told how many.

use super::shape::{Measure, number, within};
use super::sweep::Satisfied;
use super::{Amount, Entry, OrderKey};
use crate::rules::CorrelationPlan;
use crate::sigma::Bound;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most events that the alert on a window names.
pub(super) const EVIDENCE_MAX: usize = 100;
/// Most values of a window that are kept to count or order them.
pub(super) const VALUES_MAX: usize = 100_000;

/// The window that is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// How many entries it holds.
    pub(super) count: u64,
    /// What their values come to.
    pub(super) sum: i128,
    /// The first of them, and those whose values matter.
    kept: BTreeMap<OrderKey, Entry>,
    /// How often each value is there.
    tally: BTreeMap<Amount, u64>,
}

impl Window {
    /// Reads the next entry, which is not behind the window's end. Tells which entries are not kept.
    pub(super) fn step(&mut self, measure: Measure, entry: &Entry, drop: &mut dyn FnMut(&Entry)) -> u64 {
        self.count += 1;
        if let Some(Amount::Number(value)) = entry.value {
            self.sum = self.sum.saturating_add(value);
        }
        let wants_each = matches!(measure, Measure::Percentile(_) | Measure::Share | Measure::InOrder);
        let is_evidence = self.kept.len() < EVIDENCE_MAX;
        let mut is_kept = is_evidence || wants_each;
        if wants_each || measure == Measure::Distinct {
            let seen = self.tally.entry(entry.value.clone().unwrap_or(Amount::Number(0))).or_default();
            *seen += 1;
            is_kept |= *seen == 1;
        }
        let lost = is_kept && self.kept.len() >= VALUES_MAX;
        if is_kept && !lost {
            let mut entry = entry.clone();
            // Which events have the value in question is known in the end: then all of them may be asked for.
            if !is_evidence && measure != Measure::Share {
                entry.events = Arc::new([]);
            }
            self.kept.insert(entry.key, entry);
        } else {
            drop(entry);
        }
        u64::from(lost)
    }

    /// Judges the window if it ended before that time; `None` while it is open.
    pub(super) fn close(
        &mut self,
        plan: &CorrelationPlan,
        (measure, bounds): (Measure, &[Bound]),
        until_ms: u64,
        drop: &mut dyn FnMut(&Entry),
    ) -> Option<Satisfied> {
        let (first, _) = self.kept.first_key_value()?;
        let first = *first;
        if first.time_ms.saturating_add(plan.timespan_ms) >= until_ms {
            return None;
        }
        let window = std::mem::take(self);
        window.kept.values().for_each(drop);
        let named: Vec<&Entry> = match measure {
            Measure::Share => window.rare(bounds),
            _ if within(bounds, window.measure(measure, plan)) => window.kept.values().take(EVIDENCE_MAX).collect(),
            _ => Vec::new(),
        };
        if named.is_empty() { None } else { Some(Satisfied::of(first, named)) }
    }

    fn measure(&self, measure: Measure, plan: &CorrelationPlan) -> f64 {
        match measure {
            Measure::Events => self.count as f64,
            Measure::Distinct => self.tally.len() as f64,
            Measure::InOrder => self.longest_order(plan) as f64,
            Measure::Sum => number(self.sum),
            Measure::Average => number(self.sum) / self.count.max(1) as f64,
            Measure::Percentile(percent) => {
                let kept: u64 = self.tally.values().sum();
                let rank = ((percent / 100.0 * kept as f64).ceil() as u64).max(1);
                let mut passed = 0;
                let at = self.tally.iter().find(|(_, count)| {
                    passed += **count;
                    passed >= rank
                });
                at.map_or(0.0, |(value, _)| if let Amount::Number(parts) = value { number(*parts) } else { 0.0 })
            }
            // Judged value by value.
            Measure::Share => 0.0,
        }
    }

    /// Entries whose value has a share within the bounds.
    fn rare(&self, bounds: &[Bound]) -> Vec<&Entry> {
        let share = |value: &Amount| {
            let count = self.tally.get(value).copied().unwrap_or(0);
            100.0 * count as f64 / self.count.max(1) as f64
        };
        let is_named = |entry: &&Entry| entry.value.as_ref().is_some_and(|value| within(bounds, share(value)));
        self.kept.values().filter(is_named).take(EVIDENCE_MAX).collect()
    }

    /// How many of the rules follow each other in their order.
    fn longest_order(&self, plan: &CorrelationPlan) -> usize {
        // For each place in the list, the longest such sequence that ends with it.
        let mut best = vec![0_usize; plan.slots.len()];
        for entry in self.kept.values() {
            for place in (0..best.len()).rev().filter(|place| plan.slots[*place] == entry.key.slot) {
                let before = best[..place].iter().copied().max().unwrap_or(0);
                best[place] = best[place].max(before + 1);
            }
        }
        best.into_iter().max().unwrap_or(0)
    }

    /// Whether it is open and an entry lies behind its begin.
    pub(super) fn begins_before(&self, key: &OrderKey) -> bool {
        self.kept.first_key_value().is_some_and(|(first, _)| first < key)
    }

    /// The entries it keeps.
    pub(super) fn kept(&self) -> &BTreeMap<OrderKey, Entry> {
        &self.kept
    }
}
