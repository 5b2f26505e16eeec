//! Correlation on event time: for each group key a small exact state, right for every order of arrival.
//!
//! A correlation is a [`sweep::Sweep`]: an automaton that reads the entries of one key in the order of their event
//! time. What lies behind the watermark is folded into it and forgotten; what lies before it is kept sorted, so that
//! an event that comes late is put in its place and only that part is read again. So the alerts are a function
//! of the set of events, never of their order of arrival.

mod absent;
mod delta;
mod key;
mod reading;
pub(crate) mod rows;
mod shape;
mod sweep;
mod window;

pub(crate) use delta::Delta;
pub(crate) use reading::{Lost, Occurrence, Outcome};
pub(crate) use shape::{Measure, Shape, number, parts, within};

use crate::alert::{Alert, EventSummary};
use crate::id::EventId;
use crate::rules::CorrelationPlan;
use key::KeyState;
use reading::Of;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most entries of one key that wait for the watermark; beyond it the older half is folded early.
pub const OPEN_MAX: usize = 65_536;

/// The order of entries: by event time, then by place in the stream, then by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct OrderKey {
    pub(crate) time_ms: u64,
    pub(crate) sequence: u64,
    pub(crate) id: EventId,
    /// Which of the correlation's rules it is of.
    pub(crate) slot: u32,
}

/// Up to when a stream is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub(crate) time_ms: u64,
    /// A stream that is silent holds nothing open while another is awake.
    pub(crate) is_awake: bool,
    /// For one that is silent: where its watermark would be had its events' time gone on with the clock.
    pub(crate) quiet_ms: u64,
}

/// What an entry is worth to a correlation that reckons with values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Amount {
    /// Text, or the rule it is of.
    Text(Arc<str>),
    /// A number, in whole parts.
    Number(i128),
}

/// Something a correlation counts: an event that matched a rule, or a satisfied window of another correlation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: OrderKey,
    /// What is counted, compared or summed up, where values are.
    pub(crate) value: Option<Amount>,
    /// The clock of one of the events was ahead: it has the time at which it was received.
    pub(crate) is_clamped: bool,
    /// The events it rests on.
    pub(crate) events: Arc<[Arc<EventSummary>]>,
}

/// The values of the fields a correlation groups by.
pub(crate) type GroupKey = Vec<String>;

/// One correlation and the states of all its keys.
#[derive(Debug)]
pub(crate) struct Correlator {
    pub(crate) plan: Arc<CorrelationPlan>,
    tenant: Arc<str>,
    keys: BTreeMap<GroupKey, KeyState>,
    keys_max: usize,
    /// Entries that all keys keep.
    entries: usize,
    /// Its name among the rows: of its id and meaning, so that state survives a reload that leaves both alone.
    name: [u8; rows::NAME_BYTES],
    /// Keys that changed since they were last stored.
    changed: BTreeSet<GroupKey>,
    /// Rows of keys that are gone.
    gone: BTreeSet<Vec<u8>>,
}

impl Correlator {
    pub(crate) fn new(plan: Arc<CorrelationPlan>, tenant: Arc<str>, keys_max: usize) -> Self {
        let name = rows::name(&plan.header.reference);
        let (changed, gone) = (BTreeSet::new(), BTreeSet::new());
        Self { plan, tenant, keys: BTreeMap::new(), keys_max: keys_max.max(1), entries: 0, name, changed, gone }
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// About how many entries all keys keep.
    pub(crate) fn entry_count(&self) -> usize {
        self.entries
    }

    /// Goes on with a plan that means the same, but may say otherwise what it is called and whom it feeds.
    pub(crate) fn replan(&mut self, plan: Arc<CorrelationPlan>) {
        let (was, is) = (&self.plan, &plan);
        let says_same = was.feeds_others == is.feeds_others
            && was.header.reference == is.header.reference
            && was.header.severity == is.header.severity
            && was.header.audience == is.header.audience;
        self.plan = plan;
        if says_same {
            return;
        }
        for (group, state) in &mut self.keys {
            let make = alert_maker(&self.plan, &self.tenant, group);
            state.say_again(Of { plan: &self.plan, make: &make });
        }
    }

    /// Puts an entry in its place that came from these streams, late or not.
    pub(crate) fn insert(
        &mut self,
        now_ms: u64,
        group: &GroupKey,
        (streams, is_late): (&[u32], bool),
        watermarks: &dyn Fn(u32) -> Option<Watermark>,
        entry: Entry,
    ) -> Outcome {
        let mut lost = Lost::default();
        let is_behind = self.keys.get(group).is_some_and(|state| state.is_behind(entry.key.time_ms));
        // What lies far behind can be satisfied on its own, as an old log that is replayed; late entries cannot.
        let is_apart = is_behind && !is_late && !self.plan.shape.is_closed();
        let apart = is_apart.then(|| apart(group, streams));
        let group = apart.as_ref().unwrap_or(group);
        let is_new = !self.keys.contains_key(group);
        if is_new {
            if self.keys.len() >= self.keys_max {
                lost.keys = self.evict_oldest();
            }
            self.keys.insert(group.clone(), KeyState::new(&self.plan));
        }
        let Some(state) = self.keys.get_mut(group) else { return Outcome::default() };
        let make = alert_maker(&self.plan, &self.tenant, group);
        let of = Of { plan: &self.plan, make: &make };
        let before = state.len();
        mark(&mut self.changed, group, state);
        state.touch(now_ms, streams);
        if is_new {
            state.begin(state.watermark(self.plan.closes(), watermarks));
        }
        let mut outcome = Outcome::default();
        // What comes from windows judged in the sweep comes after the watermark has passed them.
        if self.plan.delay_ms == 0 && !is_late {
            outcome = state.fold(of, state.watermark(self.plan.closes(), watermarks)).0;
        }
        // Windows that ended are judged elsewhere; those to come count it.
        let is_behind = state.is_behind(entry.key.time_ms);
        outcome.late = is_behind || (is_late && !state.knows(&self.plan, entry.key.time_ms));
        outcome.add(if is_behind { state.take_in(of, &entry) } else { state.insert(of, entry) });
        self.entries = (self.entries + state.len()).saturating_sub(before);
        outcome.lost.add(lost);
        outcome
    }

    /// Takes an entry out again: the window it stands for was replaced.
    pub(crate) fn remove(&mut self, group: &GroupKey, streams: &[u32], key: &OrderKey) -> Outcome {
        let apart = apart(group, streams);
        let group = if self.keys.get(group).is_some_and(|state| state.holds(key)) { group } else { &apart };
        let Some(state) = self.keys.get_mut(group) else { return Outcome::default() };
        let make = alert_maker(&self.plan, &self.tenant, group);
        mark(&mut self.changed, group, state);
        state.remove(Of { plan: &self.plan, make: &make }, key)
    }

    /// Folds what the watermark has passed, judges what it has closed, and forgets keys in which nothing can begin
    /// any more. What follows, for each key with the streams that feed it.
    pub(crate) fn sweep(
        &mut self,
        now_ms: u64,
        idle_after_ms: u64,
        watermarks: &dyn Fn(u32) -> Option<Watermark>,
    ) -> Vec<(GroupKey, Vec<u32>, Outcome)> {
        let (plan, tenant) = (&self.plan, &self.tenant);
        let abandoned_after_ms = plan.timespan_ms.saturating_add(plan.delay_ms).saturating_add(idle_after_ms);
        let (mut over, mut outcomes) = (Vec::new(), Vec::new());
        for (group, state) in &mut self.keys {
            let watermark = state.watermark(plan.closes(), watermarks).saturating_sub(plan.delay_ms);
            let make = alert_maker(plan, tenant, group);
            let (outcome, changed) = state.fold(Of { plan, make: &make }, watermark);
            if !outcome.is_empty() {
                outcomes.push((group.clone(), state.streams(), outcome));
            }
            if state.is_over(watermark, plan.timespan_ms)
                || state.is_abandoned(now_ms, abandoned_after_ms, plan.closes())
            {
                over.push(group.clone());
            } else if state.forget_streams(watermarks) || changed {
                mark(&mut self.changed, group, state);
            }
        }
        for group in &over {
            self.forget(group);
        }
        self.entries = self.keys.values().map(KeyState::len).sum();
        outcomes
    }

    /// Makes room: the quarter of the keys that was touched longest ago goes.
    pub(crate) fn evict_oldest(&mut self) -> u64 {
        let mut touched: Vec<(u64, GroupKey)> =
            self.keys.iter().map(|(group, state)| (state.touched_ms(), group.clone())).collect();
        touched.sort_unstable();
        touched.truncate((self.keys.len() / 4).max(1));
        for (_, group) in &touched {
            self.forget(group);
        }
        touched.len() as u64
    }
}

/// Puts a key on the list of those that changed.
fn mark(changed: &mut BTreeSet<GroupKey>, group: &GroupKey, state: &mut KeyState) {
    if !std::mem::replace(&mut state.changed.is_listed, true) {
        changed.insert(group.clone());
    }
}

/// The key for a stream that lies so far behind the others that a group's state no longer takes its entries, such as
/// an old log that is replayed. What is said about it names the group alone.
fn apart(group: &GroupKey, streams: &[u32]) -> GroupKey {
    group.iter().cloned().chain(streams.first().map(u32::to_string)).collect()
}

/// Makes the alert of a satisfying set.
fn alert_maker<'a>(
    plan: &'a CorrelationPlan,
    tenant: &'a Arc<str>,
    group: &'a GroupKey,
) -> impl Fn(&[Arc<EventSummary>]) -> Alert + 'a {
    move |events| {
        let key = plan.group_by.iter().cloned().zip(group.iter().cloned()).collect();
        let events = events.iter().map(|event| event.as_ref().clone()).collect();
        let owner = plan.header.audience.owner(tenant, group).unwrap_or_else(|| tenant.clone());
        Alert::new(owner, plan.header.reference.clone(), plan.header.severity, key, events)
    }
}
