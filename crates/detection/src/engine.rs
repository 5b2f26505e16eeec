//! The detector: events in, alerts out.
//!
//! Pure and deterministic: the time is an argument, and the same inputs give the same effects in the same order.

mod blind;
mod intake;
mod late;
mod options;
mod quota;
mod reload;
mod rows;
mod shadow;
mod streams;

pub use blind::{COVERAGE_DEGRADED, coverage_degraded};
pub use late::{LateLane, judge_again};
pub use options::Options;
pub use reload::Reloaded;
pub use rows::{RestoreError, Restored, Row};
pub use shadow::Shadow;

use crate::alert::{Alert, EventSummary, Lately};
use crate::correlation::{
    Amount, Correlator, Entry, GroupKey, Held, Lost, Occurrence, OrderKey, Outcome, Source, Watermark, Watermarks,
    parts,
};
use crate::event::{Event, Fields};
use crate::id::{AlertId, Digest, EventId};
use crate::program::Worker;
use crate::rules::{Feed, Origin, RuleSet, TENANT_FIELD};
use crate::tuple::{SENT, Tuple};
use blind::Blind;
use late::LaneKey;
use quota::Quotas;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use streams::Streams;

/// What goes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An event.
    Event(Event),
    /// Time passed; about once a second. The time of this step is not the clock's but how far the reader has come:
    /// all that was received before it was read. Who has read all there is says the clock; who is behind says when
    /// what it read last was received, or windows would be judged before their events are read.
    Tick,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A rule is satisfied. Store it under its id: the same alert may be raised again by a replay.
    Alert(Arc<Alert>),
    /// An event that came late changed which events a burst begins with: `old` no longer stands, `by` does.
    Superseded {
        /// The alert that no longer stands.
        old: AlertId,
        /// The one that covers its events, always raised before; `old` itself where none does.
        by: AlertId,
    },
    /// The burst that an alert reported goes on; told when the count of satisfying events has doubled.
    Extended {
        /// The alert.
        alert: AlertId,
        /// Satisfying events so far.
        count: u64,
        /// When the last of them happened.
        last_ms: u64,
    },
}

/// What the detector has done, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events taken in.
    pub events: u64,
    /// Of them, matching ones dropped because they had come before.
    pub duplicates: u64,
    /// Of them, later than the allowed lateness: correlated where state still can, else left to the late lane.
    pub late: u64,
    /// Of them, with a clock too far ahead.
    pub ahead: u64,
    /// Of them, of streams that come too long after they happened to hold others' windows open.
    pub behind: u64,
    /// Streams whose clock was found to stand.
    pub standing: u64,
    /// Times a single-event rule matched.
    pub matches: u64,
    /// Alerts raised.
    pub alerts: u64,
    /// Alerts not raised because a tenant's quota was used up, each rule and hour told of once.
    pub held: u64,
    /// Alerts that rules in shadow would have raised.
    pub shadowed: u64,
    /// Alerts superseded.
    pub superseded: u64,
    /// Group keys evicted because of the bound: from here on the detector may have missed something.
    pub keys_evicted: u64,
    /// Entries of windows forgotten because of a bound: the same.
    pub entries_lost: u64,
    /// Entries that stopped waiting for what comes late because too many of one key did.
    pub early: u64,
    /// Identities and streams forgotten because of a bound.
    pub forgotten_early: u64,
    /// Late entries that no late lane had room for.
    pub late_unseen: u64,
    /// Rows of stored state that could not be read.
    pub rows_lost: u64,
    /// Values left out because they are no numbers where numbers are reckoned with.
    pub not_numbers: u64,
    /// Group keys held now.
    pub keys: u64,
    /// Events remembered now.
    pub remembered: u64,
}

/// How an event came in.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    received_ms: u64,
    stream: u32,
    is_late: bool,
    /// Its clock was too far ahead, and the time of receipt counts.
    is_clamped: bool,
}

/// Most bytes of a text that is counted or grouped by.
const TEXT_BYTES_MAX: usize = 256;
/// How often folded state is forgotten.
const SWEEP_EVERY_MS: u64 = 5_000;

/// The detector: rules, and the state of their correlations.
#[derive(Debug)]
pub struct Detector {
    options: Options,
    rules: Arc<RuleSet>,
    /// For each correlation, its keys.
    correlators: Vec<Correlator>,
    /// For each rule or correlation, the correlations it feeds and as which of their rules.
    feeds: BTreeMap<Origin, Vec<(usize, usize)>>,
    worker: Worker,
    streams: Streams,
    quotas: Quotas,
    lately: Lately,
    shadows: BTreeMap<Arc<str>, Shadow>,
    counts: Counts,
    swept_ms: u64,
    /// By rule, what was lost of its state.
    blind: BTreeMap<Arc<str>, Blind>,
    /// What all correlations keep.
    held: Held,
    /// By rule, what of its stored state could not be read and was not told yet.
    unread: BTreeMap<(Arc<str>, Arc<str>), Lost>,
    /// For each correlation, how far from an entry others may be that matter.
    reaches: Vec<u64>,
    /// Spans that must be read again.
    lanes: BTreeMap<LaneKey, LateLane>,
    /// What travels to correlations that look across regions: nothing from one that runs beside another, which sends it.
    tuples: Option<Vec<Tuple>>,
    /// The row last stored of what is of no stream and no correlation.
    stored_clock: Vec<u8>,
    /// Rows found when restoring that no rule is behind.
    foreign_rows: Vec<Vec<u8>>,
}

/// Something to put into a correlation or take out of it again.
enum Work {
    Insert { correlation: usize, group: GroupKey, entry: Entry },
    Remove { correlation: usize, group: GroupKey, key: OrderKey },
}

impl Detector {
    /// A detector without state.
    pub fn new(rules: impl Into<Arc<RuleSet>>, options: Options) -> Self {
        let rules: Arc<RuleSet> = rules.into();
        let feeds = rules.feeds();
        let correlators = rules
            .correlations
            .iter()
            .map(|plan| Correlator::new(plan.clone(), options.tenant.clone(), options.keys_max))
            .collect();
        let streams = Streams::new(&options);
        let worker = rules.program.worker();
        let reaches = late::reaches(&rules);
        Self {
            options,
            rules,
            correlators,
            feeds,
            worker,
            streams,
            quotas: Quotas::default(),
            lately: Lately::default(),
            shadows: BTreeMap::new(),
            counts: Counts::default(),
            swept_ms: 0,
            blind: BTreeMap::new(),
            held: Held::default(),
            unread: BTreeMap::new(),
            reaches,
            lanes: BTreeMap::new(),
            tuples: Some(Vec::new()),
            stored_clock: Vec::new(),
            foreign_rows: Vec::new(),
        }
    }

    /// One step; appends what follows from it to `effects`.
    pub fn step(&mut self, now_ms: u64, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Event(event) => self.event(now_ms, event, effects),
            Input::Tick => self.tick(now_ms, effects),
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        let keys = self.correlators.iter().map(|correlator| correlator.key_count() as u64).sum();
        Counts { keys, remembered: self.streams.remembered() as u64, ..self.counts }
    }

    /// The rules it works with.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// There is no more input: everything that waits for the watermark is judged as it is. For what is read once.
    pub fn finish(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.sweep(now_ms, u64::MAX, Some(Watermark::END), effects);
    }

    /// What travels to correlations that look across regions, since this was last called. To be taken when rows are, and
    /// kept with them.
    pub fn take_tuples(&mut self) -> Vec<Tuple> {
        self.tuples.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn tick(&mut self, read_ms: u64, effects: &mut Vec<Effect>) {
        for (rule, lost) in std::mem::take(&mut self.unread) {
            self.lose(read_ms, rule, lost, effects);
        }
        if read_ms < self.swept_ms.saturating_add(SWEEP_EVERY_MS) {
            return;
        }
        self.swept_ms = read_ms;
        self.streams.tick(read_ms);
        self.sweep(read_ms, read_ms, None, effects);
        self.tell_lost(read_ms, effects);
        self.tell_rest(read_ms, effects);
    }

    fn sweep(&mut self, now_ms: u64, read_ms: u64, end: Option<Watermark>, effects: &mut Vec<Effect>) {
        let grace_ms = self.options.idle_after_ms.saturating_add(self.options.allowed_lateness_ms);
        let slowest_ms = end.map_or_else(|| self.streams.slowest_ms(), |end| end.time_ms);
        // In an order in which each comes after those that feed it.
        for correlation in 0..self.correlators.len() {
            let floor_ms = end.map_or_else(|| self.streams.floor_ms(), |end| end.time_ms);
            let of = |stream| end.or_else(|| self.streams.watermark(stream));
            let watermarks = Watermarks { of: &of, floor_ms, slowest_ms };
            let swept = self.correlators[correlation].sweep(read_ms, grace_ms, watermarks);
            for (stream, until_ms) in swept.gaps.into_iter().filter(|_| end.is_none()) {
                self.streams.leave_gap(stream, until_ms);
            }
            for (group, streams, outcome) in swept.outcomes {
                let mut work = Vec::new();
                self.follow(now_ms, correlation, &group, outcome, &mut work, effects);
                let source = Source { received_ms: now_ms, streams: &streams, is_late: false };
                self.correlate(now_ms, source, work, effects);
            }
        }
        self.held = self.correlators.iter().map(Correlator::held).sum();
    }

    /// What follows from an event that rules matched.
    fn matched(&mut self, now_ms: u64, arrived: Arrived, event: &Event, effects: &mut Vec<Effect>) {
        let Arrived { received_ms, stream, is_late, is_clamped } = arrived;
        if self.streams.is_again(stream, event) {
            self.counts.duplicates += 1;
            return;
        }
        let rules = Arc::clone(&self.rules);
        let hits: Vec<usize> = self.worker.hits().collect();
        let tenant = event.text(TENANT_FIELD);
        let shows_text = rules.shows_text(tenant.filter(|tenant| **tenant != *self.options.tenant));
        let summary = if shows_text { EventSummary::of } else { EventSummary::tuple };
        let summary = Arc::new(summary(event, &mut self.lately));
        for place in hits {
            let Some(owner) = rules.owner(place, &self.options.tenant, tenant) else { continue };
            let rule = &rules.rules[place];
            self.counts.matches += 1;
            if let (Some(carries), Some(tuples)) = (&rule.carries, &mut self.tuples)
                && event.text("api.operation") != Some(SENT)
            {
                tuples.push(Tuple::of(&rule.header.reference.id, event, carries, &summary.text));
            }
            if rules.rule_alerts[place] {
                let mut alert = Alert::new(
                    owner,
                    rule.header.reference.clone(),
                    rule.header.severity,
                    BTreeMap::new(),
                    [Arc::clone(&summary)],
                );
                alert.late = is_late;
                alert.clamped = is_clamped;
                self.raise(rule.header.shadow, Arc::new(alert), effects);
            }
            let key = OrderKey {
                time_ms: event.time_ms,
                sequence: event.position.as_ref().map_or(0, |position| position.sequence),
                id: event.id,
                slot: 0,
            };
            let events: Arc<[Arc<EventSummary>]> = Arc::new([Arc::clone(&summary)]);
            let text = |field: &str| text_of(&event.fields, field);
            let mut work = Vec::new();
            self.fed(Origin::Rule(place), Occurrence { key, is_clamped, events }, &text, &mut work);
            let source = Source { received_ms, streams: &[stream], is_late };
            self.correlate(now_ms, source, work, effects);
        }
    }

    /// What an event or satisfied window puts into the correlations it feeds.
    fn fed(&mut self, origin: Origin, of: Occurrence, text: &dyn Fn(&str) -> Option<String>, work: &mut Vec<Work>) {
        for &(correlation, place) in self.feeds.get(&origin).map_or(&[][..], Vec::as_slice) {
            let plan = &self.rules.correlations[correlation];
            let feed: &Feed = &plan.feeds[place];
            // An event without one of the fields belongs to no group, and one without a value counts for nothing.
            let first = |names: &Vec<String>| names.iter().find_map(|name| text(name));
            let all = |fields: &[Vec<String>]| fields.iter().map(first).collect::<Option<Vec<_>>>();
            let (Some(group), Some(values)) = (all(&feed.group_fields), all(&feed.value_fields)) else { continue };
            if plan.header.audience.owner(&self.options.tenant, &group).is_none() {
                continue;
            }
            let value = if plan.shape.wants_numbers() {
                let number: Option<f64> = values.first().and_then(|value| value.trim().parse().ok());
                match number.filter(|number| number.is_finite()) {
                    Some(number) => Some(Amount::Number(parts(number))),
                    None => {
                        self.counts.not_numbers += 1;
                        continue;
                    }
                }
            } else if !values.is_empty() {
                Some(Amount::Text(values.join("\u{1f}").into()))
            } else {
                Some(Amount::Number(i128::from(feed.slot)))
            };
            let key = OrderKey { slot: feed.slot, ..of.key };
            let entry = Entry::new(key, value, of.clone());
            work.push(Work::Insert { correlation, group, entry });
        }
    }

    /// Does the work and the work that follows from it; ends because correlations do not refer to each other in circles.
    fn correlate(&mut self, now_ms: u64, source: Source<'_>, mut work: Vec<Work>, effects: &mut Vec<Effect>) {
        let floor_ms = if work.is_empty() { 0 } else { self.streams.floor_ms() };
        while let Some(next) = work.pop() {
            let of = |stream| self.streams.watermark(stream);
            let (correlation, group, mut outcome) = match next {
                Work::Insert { correlation, group, entry } => {
                    let event = (entry.key.time_ms, entry.key.id);
                    let correlator = &mut self.correlators[correlation];
                    let before = correlator.held();
                    let watermarks = Watermarks { of: &of, floor_ms, slowest_ms: floor_ms };
                    let outcome = correlator.insert(&group, source, watermarks, entry);
                    self.held.change(before, correlator.held());
                    if outcome.late {
                        self.counts.late += u64::from(!source.is_late);
                        self.too_late(now_ms, correlation, &group, (event, outcome.apart), effects);
                    }
                    (correlation, group, outcome)
                }
                Work::Remove { correlation, group, key } => {
                    let correlator = &mut self.correlators[correlation];
                    let before = correlator.held();
                    let outcome = correlator.remove(&group, source.streams, &key);
                    self.held.change(before, correlator.held());
                    (correlation, group, outcome)
                }
            };
            if source.is_late {
                outcome.raised.iter_mut().for_each(|alert| Arc::make_mut(alert).late = true);
            }
            self.follow(now_ms, correlation, &group, outcome, &mut work, effects);
        }
        self.make_room(now_ms, effects);
    }

    /// Keeps to the budgets of entries and bytes: the correlation that has most of them lets keys go.
    fn make_room(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        loop {
            let weight: fn(Held) -> usize = if self.held.entries > self.options.entries_max {
                |held| held.entries
            } else if self.held.bytes > self.options.bytes_max {
                |held| held.bytes
            } else {
                return;
            };
            let largest = self.correlators.iter_mut().max_by_key(|correlator| weight(correlator.held()));
            let Some(correlator) = largest.filter(|correlator| correlator.key_count() > 0) else { return };
            let reference = correlator.plan.header.reference.clone();
            let lost = Lost { keys: correlator.evict_oldest(), ..Lost::default() };
            self.held = self.correlators.iter().map(Correlator::held).sum();
            self.lose(now_ms, (reference.id, reference.title), lost, effects);
        }
    }

    /// Tells what an outcome means, and adds what it means for the correlations that are about this one.
    fn follow(
        &mut self,
        now_ms: u64,
        correlation: usize,
        group: &GroupKey,
        outcome: Outcome,
        work: &mut Vec<Work>,
        effects: &mut Vec<Effect>,
    ) {
        self.tell(now_ms, correlation, &outcome, effects);
        let origin = Origin::Correlation(correlation);
        if !self.feeds.contains_key(&origin) {
            return;
        }
        let plan = self.rules.correlations[correlation].clone();
        let text = |field: &str| {
            let place = plan.group_by.iter().position(|name| name == field)?;
            group.get(place).cloned()
        };
        // Removals are done before insertions: the last pushed is the first done.
        for occurrence in outcome.appeared {
            self.fed(origin, occurrence, &text, work);
        }
        let mut removals = Vec::new();
        for key in outcome.vanished {
            let gone = Occurrence { key, is_clamped: false, events: Arc::new([]) };
            self.fed(origin, gone, &text, &mut removals);
        }
        work.extend(removals.into_iter().map(|work| match work {
            Work::Insert { correlation, group, entry } => Work::Remove { correlation, group, key: entry.key },
            remove => remove,
        }));
    }

    fn tell(&mut self, now_ms: u64, correlation: usize, outcome: &Outcome, effects: &mut Vec<Effect>) {
        if !outcome.lost.is_none() {
            let reference = self.rules.correlations[correlation].header.reference.clone();
            self.lose(now_ms, (reference.id, reference.title), outcome.lost, effects);
        }
        if !self.correlators[correlation].plan.alerts {
            return;
        }
        let is_shadow = self.correlators[correlation].plan.header.shadow;
        let mut held = BTreeSet::new();
        for alert in &outcome.raised {
            if !self.raise(is_shadow, Arc::clone(alert), effects) {
                held.insert(alert.id);
            }
        }
        if is_shadow {
            return;
        }
        for (old, by) in &outcome.superseded {
            // Where the alert that replaces it is held back, the old one stands.
            if by.is_some_and(|by| held.contains(&by)) {
                continue;
            }
            self.counts.superseded += 1;
            effects.push(Effect::Superseded { old: *old, by: by.unwrap_or(*old) });
        }
        for &(alert, count, last_ms) in &outcome.extended {
            effects.push(Effect::Extended { alert, count, last_ms });
        }
    }
}

/// The text of a field that is counted or grouped by; a long one is cut, and told apart by its hash.
pub(crate) fn text_of(fields: &Fields, name: &str) -> Option<String> {
    let text = match fields.get(name)? {
        Value::Null => return None,
        Value::String(text) if text.is_empty() => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.len() <= TEXT_BYTES_MAX {
        return Some(text);
    }
    let mut hash = Digest::new("holdfast long text 1");
    hash.part(text.as_bytes());
    let begin = &text[..text.floor_char_boundary(TEXT_BYTES_MAX / 2)];
    Some(format!("{begin}\u{2026}{}", EventId::of(hash)))
}
