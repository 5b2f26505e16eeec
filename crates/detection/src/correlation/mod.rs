//! Correlation on event time: for each group key a small exact state, right for every order of arrival.
//!
//! A correlation is a [`sweep::Sweep`]: an automaton that reads the entries of one key in the order of their event
//! time. What lies behind the watermark is folded into it and forgotten; what lies before it is kept sorted, so that
//! an event that comes late is put in its place and only that part is read again. So the alerts are a function
//! of the set of events, never of their order of arrival.

mod absent;
mod delta;
mod key;
mod open;
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

/// About what an entry takes of memory besides its texts, with its places in trees.
const ENTRY_BYTES: usize = 256;
/// The same of an entity.
const ENTITY_BYTES: usize = 48;
/// The same of a key.
const KEY_BYTES: usize = 1_024;

/// The order of entries: by event time, then by place in the stream, then by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct OrderKey {
    pub(crate) time_ms: u64,
    pub(crate) sequence: u64,
    pub(crate) id: EventId,
    /// Which of the correlation's rules it is of.
    pub(crate) slot: u32,
}

/// How a stream gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Its events come soon after they happen: it holds windows open.
    Steady,
    /// Its events come long after they happened, as those of a log that is replayed: it holds nobody else's open.
    Behind,
    /// None come, or their clock stands: it goes on with ours.
    Silent,
}

/// Up to when a stream is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub(crate) time_ms: u64,
    pub(crate) pace: Pace,
    /// Where it would be had its events' time gone on with the clock.
    pub(crate) quiet_ms: u64,
    /// Up to here it may have belonged to keys that were forgotten.
    pub(crate) gap_ms: u64,
}

impl Watermark {
    /// Nothing comes any more.
    pub(crate) const END: Self = Self { time_ms: u64::MAX, pace: Pace::Steady, quiet_ms: u64::MAX, gap_ms: 0 };
}

/// The watermarks of all streams.
#[derive(Clone, Copy)]
pub(crate) struct Watermarks<'a> {
    /// Of one stream, unless it is forgotten.
    pub(crate) of: &'a dyn Fn(u32) -> Option<Watermark>,
    /// The earliest of those that are steady, whether or not they feed a key: they may yet.
    pub(crate) floor_ms: u64,
    /// The earliest of all that are not behind, where silent ones go on with the clock.
    pub(crate) slowest_ms: u64,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// When it was received.
    pub(crate) received_ms: u64,
    pub(crate) streams: &'a [u32],
    /// It came behind the watermark of its stream.
    pub(crate) is_late: bool,
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
    /// The events it rests on; of many the first.
    pub(crate) events: Arc<[Arc<EventSummary>]>,
    /// About what it takes of memory.
    pub(crate) bytes: usize,
}

impl Entry {
    pub(crate) fn new(key: OrderKey, value: Option<Amount>, of: Occurrence) -> Self {
        let Occurrence { is_clamped, events, .. } = of;
        let text = if let Some(Amount::Text(text)) = &value { text.len() } else { 0 };
        let bytes = ENTRY_BYTES + text + events.iter().map(|event| summary_bytes(event)).sum::<usize>();
        Self { key, value, is_clamped, events, bytes }
    }
}

fn summary_bytes(event: &EventSummary) -> usize {
    let names = event.entities.iter().map(|entity| ENTITY_BYTES + entity.name.len());
    size_of::<EventSummary>() + event.text.len() + names.sum::<usize>()
}

/// The values of the fields a correlation groups by.
pub(crate) type GroupKey = Vec<String>;

/// What is held of entries, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl Held {
    /// Counts what was `before` no longer, and what is `now`.
    pub(crate) fn change(&mut self, before: Self, now: Self) {
        self.entries = (self.entries + now.entries).saturating_sub(before.entries);
        self.bytes = (self.bytes + now.bytes).saturating_sub(before.bytes);
    }
}

impl std::iter::Sum for Held {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self { entries: sum.entries + one.entries, bytes: sum.bytes + one.bytes })
    }
}

/// What followed from time passing.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// For each key, with the streams that feed it.
    pub(crate) outcomes: Vec<(GroupKey, Vec<u32>, Outcome)>,
    /// Streams that keys were forgotten of which they may have fed up to that time.
    pub(crate) gaps: Vec<(u32, u64)>,
}

/// One correlation and the states of all its keys.
#[derive(Clone, Debug)]
pub(crate) struct Correlator {
    pub(crate) plan: Arc<CorrelationPlan>,
    tenant: Arc<str>,
    keys: BTreeMap<GroupKey, KeyState>,
    keys_max: usize,
    /// What all keys keep.
    held: Held,
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
        Self {
            plan,
            tenant,
            keys: BTreeMap::new(),
            keys_max: keys_max.max(1),
            held: Held::default(),
            name,
            changed,
            gone,
        }
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// What all keys keep.
    pub(crate) fn held(&self) -> Held {
        self.held
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

    /// Puts an entry in its place.
    pub(crate) fn insert(
        &mut self,
        group: &GroupKey,
        source: Source<'_>,
        watermarks: Watermarks<'_>,
        entry: Entry,
    ) -> Outcome {
        let mut lost = Lost::default();
        let time_ms = entry.key.time_ms;
        let is_behind = |state: &KeyState| {
            let is_passed = || state.watermark(false, watermarks).is_some_and(|watermark_ms| time_ms < watermark_ms);
            state.is_behind(time_ms) || (self.plan.delay_ms == 0 && is_passed())
        };
        // What lies far behind can be satisfied on its own, as an old log that is replayed; late entries cannot.
        let may_be_apart = !source.is_late && !self.plan.shape.is_closed();
        let is_apart = may_be_apart && self.keys.get(group).is_some_and(is_behind);
        let apart = is_apart.then(|| apart(group, source.streams));
        let group = apart.as_ref().unwrap_or(group);
        let is_new = !self.keys.contains_key(group);
        if is_new {
            if self.keys.len() >= self.keys_max {
                lost.keys = self.evict_oldest();
            }
            let state = KeyState::new(&self.plan, group);
            self.held.change(Held::default(), state.held());
            self.keys.insert(group.clone(), state);
        }
        let Some(state) = self.keys.get_mut(group) else { return Outcome::default() };
        let make = alert_maker(&self.plan, &self.tenant, group);
        let of = Of { plan: &self.plan, make: &make };
        let before = state.held();
        mark(&mut self.changed, group, state);
        state.touch(source.received_ms, source.streams);
        let watermark_ms = state.watermark(self.plan.closes(), watermarks).unwrap_or(0);
        // Windows that are counted once they are judged come late by nature.
        let known = source.streams.iter().filter_map(|stream| (watermarks.of)(*stream));
        let gap_ms = known.filter(|_| self.plan.delay_ms == 0).map(|watermark| watermark.gap_ms).max().unwrap_or(0);
        if is_new {
            state.begin(watermark_ms.max(gap_ms));
        }
        let mut outcome = Outcome::default();
        // What comes from windows judged in the sweep comes after the watermark has passed them.
        if self.plan.delay_ms == 0 && !source.is_late {
            outcome = state.fold(of, watermark_ms).0;
        }
        // Windows that ended are judged elsewhere, and those that others fed; those to come count it.
        let is_behind = state.is_behind(time_ms);
        let is_unsure = source.is_late || time_ms <= gap_ms;
        outcome.late = is_apart || is_behind || (is_unsure && !state.knows(&self.plan, time_ms));
        outcome.apart = is_apart && !is_behind;
        outcome.add(if is_behind { state.take_in(of, &entry) } else { state.insert(of, entry) });
        self.held.change(before, state.held());
        outcome.lost.add(lost);
        outcome
    }

    /// Takes an entry out again: the window it stands for was replaced.
    pub(crate) fn remove(&mut self, group: &GroupKey, streams: &[u32], key: &OrderKey) -> Outcome {
        let apart = apart(group, streams);
        let group = if self.keys.get(group).is_some_and(|state| state.holds(key)) { group } else { &apart };
        let Some(state) = self.keys.get_mut(group) else { return Outcome::default() };
        let make = alert_maker(&self.plan, &self.tenant, group);
        let before = state.held();
        mark(&mut self.changed, group, state);
        let outcome = state.remove(Of { plan: &self.plan, make: &make }, key);
        self.held.change(before, state.held());
        outcome
    }

    /// Folds what the watermark has passed, judges what it has closed, and forgets keys in which nothing can begin
    /// any more. All that was received before `read_ms` was read; `grace_ms` is how long nothing must have come.
    pub(crate) fn sweep(&mut self, read_ms: u64, grace_ms: u64, watermarks: Watermarks<'_>) -> Swept {
        // Windows that others judge come as late as the slowest stream makes them, which may have fed none here yet.
        let slowest_ms = if self.plan.delay_ms > 0 { watermarks.slowest_ms } else { u64::MAX };
        let (plan, tenant) = (&self.plan, &self.tenant);
        let closes = plan.closes();
        let abandoned_after_ms = plan.timespan_ms.saturating_add(plan.delay_ms).saturating_add(grace_ms);
        let (mut over, mut swept) = (Vec::new(), Swept::default());
        for (group, state) in &mut self.keys {
            let watermark = state.watermark(closes, watermarks);
            // Where none of its streams is known any more, windows are closed by the clock.
            let quiet_ms = || if closes { state.quiet_ms(read_ms, grace_ms) } else { 0 };
            let watermark_ms = watermark.unwrap_or_else(quiet_ms).min(slowest_ms).saturating_sub(plan.delay_ms);
            let make = alert_maker(plan, tenant, group);
            let (outcome, changed) = state.fold(Of { plan, make: &make }, watermark_ms);
            if !outcome.is_empty() {
                swept.outcomes.push((group.clone(), state.streams(), outcome));
            }
            if state.is_over(watermark_ms, plan.timespan_ms) {
                over.push(group.clone());
            } else if state.is_abandoned(read_ms, abandoned_after_ms, closes) {
                let until_ms = state.newest_ms().saturating_add(plan.timespan_ms);
                swept.gaps.extend(state.streams().into_iter().map(|stream| (stream, until_ms)));
                over.push(group.clone());
            } else if state.forget_streams(watermarks) || changed {
                mark(&mut self.changed, group, state);
            }
        }
        for group in &over {
            self.forget(group);
        }
        self.held = self.keys.values().map(KeyState::held).sum();
        swept
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
        let owner = plan.header.audience.owner(tenant, group).unwrap_or_else(|| tenant.clone());
        Alert::new(owner, plan.header.reference.clone(), plan.header.severity, key, events.iter().cloned())
    }
}
