//! Conditions of which a part is that rules do not match, judged once nothing can come any more that matters.
//!
//! Each entry is the first of a window that lasts the timespan. Where rules have no order, those that must not match
//! must not do so within a timespan of any that do; where they have, they must not at their place in the order.

use super::shape::Way;
use super::sweep::Satisfied;
use super::{Entry, OrderKey};
use crate::id::EventId;
use crate::rules::CorrelationPlan;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

/// Most entries that are kept; beyond it the oldest go.
const KEPT_MAX: usize = 4_096;

/// Entries whose windows are open, and those before them that may matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Absent {
    kept: BTreeMap<OrderKey, Entry>,
    /// The last entry whose window was judged.
    pub(super) judged: Option<OrderKey>,
}

impl Absent {
    /// Reads the next entry; how many were lost to the budget.
    pub(super) fn step(&mut self, entry: &Entry, drop: &mut dyn FnMut(&Entry)) -> u64 {
        self.kept.insert(entry.key, entry.clone());
        let mut lost = 0;
        while self.kept.len() > KEPT_MAX {
            if let Some((key, first)) = self.kept.pop_first() {
                lost += u64::from(self.judged.is_none_or(|judged| judged < key));
                drop(&first);
            }
        }
        lost
    }

    /// The next window that ended before that time and holds what is waited for.
    pub(super) fn close(
        &mut self,
        plan: &CorrelationPlan,
        (ways, ordered): (&[Way], bool),
        until_ms: u64,
        drop: &mut dyn FnMut(&Entry),
    ) -> Option<Satisfied> {
        let mut found = None;
        while found.is_none() {
            let from = self.judged.map_or(Unbounded, Excluded);
            let Some((&first, _)) = self.kept.range((from, Unbounded)).next() else { break };
            if first.time_ms.saturating_add(plan.timespan_ms) >= until_ms {
                break;
            }
            self.judged = Some(first);
            let judge = |way| if ordered { self.in_order(plan, way, first) } else { self.together(plan, way, first) };
            found = ways
                .iter()
                .find_map(judge)
                .map(|keys| Satisfied::of(first, keys.iter().filter_map(|key| self.kept.get(key)).collect()));
        }
        if let Some(judged) = self.judged {
            // What comes next begins no earlier than what was judged last.
            let needed_ms = judged.time_ms.saturating_sub(plan.timespan_ms);
            while let Some(first) = self.kept.first_entry().filter(|first| first.key().time_ms < needed_ms) {
                drop(&first.remove());
            }
        }
        found
    }

    /// The first match of each rule that must match, if the others have none near.
    fn together(&self, plan: &CorrelationPlan, way: &Way, first: OrderKey) -> Option<Vec<OrderKey>> {
        if !way.positive.is_empty() && !way.positive.contains(&first.slot) {
            return None;
        }
        let end_ms = first.time_ms.saturating_add(plan.timespan_ms);
        let mut keys = vec![first];
        for slot in way.positive.iter().filter(|slot| **slot != first.slot) {
            keys.push(self.between(first, end_ms).find(|key| key.slot == *slot)?);
        }
        let last_ms = keys.iter().map(|key| key.time_ms).max().unwrap_or(first.time_ms);
        let begin = OrderKey::at(last_ms.saturating_sub(plan.timespan_ms));
        let is_there = self.between(begin, end_ms).any(|key| way.negative.contains(&key.slot));
        if is_there { None } else { Some(keys) }
    }

    /// Matches of the rules that must match, in order, with none of the others at its place among them.
    fn in_order(&self, plan: &CorrelationPlan, way: &Way, first: OrderKey) -> Option<Vec<OrderKey>> {
        let begin = way.positive.first().copied();
        if begin.is_some_and(|slot| slot != first.slot) || way.negative.contains(&first.slot) {
            return None;
        }
        // How many of the rules that match come before one that must not.
        let place = |slot: u32| way.positive.iter().take_while(|positive| **positive < slot).count();
        let lead = OrderKey::at(first.time_ms.saturating_sub(plan.timespan_ms));
        let leads = |key: &OrderKey| way.negative.contains(&key.slot) && place(key.slot) == 0;
        if self.kept.range((Included(lead), Excluded(first))).any(|(key, _)| leads(key)) {
            return None;
        }
        // The sequence of each length that is still possible.
        let mut alive: Vec<Option<Vec<OrderKey>>> = vec![None; way.positive.len() + 1];
        alive[usize::from(begin.is_some())] = Some(vec![first]);
        let end_ms = first.time_ms.saturating_add(plan.timespan_ms);
        for key in self.between(first, end_ms).filter(|key| *key != first) {
            if way.negative.contains(&key.slot) {
                alive[place(key.slot)] = None;
            }
            for step in (1..way.positive.len()).rev().filter(|step| way.positive[*step] == key.slot) {
                if let Some(mut sequence) = alive[step].clone() {
                    sequence.push(key);
                    alive[step + 1] = Some(sequence);
                }
            }
        }
        alive.pop().flatten()
    }

    fn between(&self, from: OrderKey, until_ms: u64) -> impl Iterator<Item = OrderKey> {
        self.kept.range((Included(from), Unbounded)).map(|(key, _)| *key).take_while(move |key| key.time_ms <= until_ms)
    }

    /// Whether a window that is not judged yet may ask for an entry.
    pub(super) fn may_need(&self, plan: &CorrelationPlan, key: &OrderKey) -> bool {
        self.judged.is_none_or(|judged| key.time_ms.saturating_add(plan.timespan_ms) >= judged.time_ms)
    }

    /// The entries it keeps.
    pub(super) fn kept(&self) -> &BTreeMap<OrderKey, Entry> {
        &self.kept
    }
}

impl OrderKey {
    /// Before all entries of that time.
    pub(super) fn at(time_ms: u64) -> Self {
        Self { time_ms, sequence: 0, id: EventId::from_bytes([0; 16]), slot: 0 }
    }
}
