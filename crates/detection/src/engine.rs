//! The detector: events in, alerts out.
//!
//! Pure and deterministic: the time is an argument, and the same inputs give the same effects in the same order.

mod intake;
mod quota;
mod rows;
mod shadow;
mod streams;

pub use rows::{RestoreError, Restored, Row};
pub use shadow::Shadow;

use crate::alert::{Alert, EventSummary, RuleReference, Severity};
use crate::correlation::{Amount, Correlator, Entry, GroupKey, Lost, OrderKey, Outcome, Watermark, parts};
use crate::event::{Event, Fields};
use crate::id::{AlertId, Digest, EventId, SemanticHash};
use crate::program::Worker;
use crate::rules::{Feed, Origin, RuleSet, TENANT_FIELD};
use quota::Quotas;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use streams::Streams;

/// Bounds and times of a detector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whose rules these are; part of every alert's id.
    pub tenant: Arc<str>,
    /// How much later than the newest event of its stream an event may come and still be correlated.
    pub allowed_lateness_ms: u64,
    /// How long a stream may be silent before it stops holding others' windows open.
    pub idle_after_ms: u64,
    /// How far an event's clock may be ahead of ours; beyond it the time of receipt counts.
    pub ahead_max_ms: u64,
    /// Most group keys a correlation keeps; the least recent leave, counted and reported as an alert.
    pub keys_max: usize,
    /// Most events remembered to drop duplicates; beyond it the allowed lateness shrinks.
    pub remembered_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tenant: "platform".into(),
            allowed_lateness_ms: 60_000,
            idle_after_ms: 30_000,
            ahead_max_ms: 60_000,
            keys_max: 100_000,
            remembered_max: 1_000_000,
        }
    }
}

/// What goes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An event.
    Event(Event),
    /// Time passed; about once a second.
    Tick,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A rule is satisfied. Store it under its id: the same alert may be raised again by a replay.
    Alert(Alert),
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
    /// Of them, later than the allowed lateness: matched by single-event rules, not correlated.
    pub late: u64,
    /// Of them, with a clock too far ahead.
    pub ahead: u64,
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
    /// Values left out because they are no numbers where numbers are reckoned with.
    pub not_numbers: u64,
    /// Group keys held now.
    pub keys: u64,
    /// Events remembered now.
    pub remembered: u64,
}

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
    shadows: BTreeMap<Arc<str>, Shadow>,
    counts: Counts,
    swept_ms: u64,
    blind_told_ms: Option<u64>,
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
    pub fn new(rules: RuleSet, options: Options) -> Self {
        let rules = Arc::new(rules);
        let mut feeds: BTreeMap<Origin, Vec<(usize, usize)>> = BTreeMap::new();
        for (correlation, plan) in rules.correlations.iter().enumerate() {
            for (place, feed) in plan.feeds.iter().enumerate() {
                feeds.entry(feed.origin).or_default().push((correlation, place));
            }
        }
        let correlators = rules
            .correlations
            .iter()
            .map(|plan| Correlator::new(plan.clone(), options.tenant.clone(), options.keys_max))
            .collect();
        let streams = Streams::new(&options);
        let worker = rules.program.worker();
        Self {
            options,
            rules,
            correlators,
            feeds,
            worker,
            streams,
            quotas: Quotas::default(),
            shadows: BTreeMap::new(),
            counts: Counts::default(),
            swept_ms: 0,
            blind_told_ms: None,
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
        let end = Watermark { time_ms: u64::MAX, is_awake: true, quiet_ms: u64::MAX };
        self.sweep(now_ms, Some(end), effects);
    }

    fn tick(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if now_ms < self.swept_ms.saturating_add(SWEEP_EVERY_MS) {
            return;
        }
        self.swept_ms = now_ms;
        self.streams.tick(now_ms);
        self.sweep(now_ms, None, effects);
    }

    fn sweep(&mut self, now_ms: u64, watermark: Option<Watermark>, effects: &mut Vec<Effect>) {
        let quiet_ms = self.options.idle_after_ms.saturating_add(self.options.allowed_lateness_ms);
        // In an order in which each comes after those that feed it.
        for correlation in 0..self.correlators.len() {
            let watermarks = |stream| watermark.or_else(|| self.streams.watermark(stream));
            let outcomes = self.correlators[correlation].sweep(now_ms, quiet_ms, &watermarks);
            for (group, streams, outcome) in outcomes {
                let mut work = Vec::new();
                self.follow(now_ms, correlation, &group, outcome, &mut work, effects);
                self.correlate(now_ms, &streams, work, effects);
            }
        }
    }

    /// What follows from an event that rules matched.
    fn matched(&mut self, now_ms: u64, stream: u32, is_late: bool, event: &Event, effects: &mut Vec<Effect>) {
        if self.streams.is_again(stream, event) {
            self.counts.duplicates += 1;
            return;
        }
        let rules = Arc::clone(&self.rules);
        let hits: Vec<usize> = self.worker.hits().collect();
        let tenant = event.text(TENANT_FIELD);
        let shows_text = rules.shows_text(tenant.filter(|tenant| **tenant != *self.options.tenant));
        let summary = Arc::new(if shows_text { EventSummary::of(event) } else { EventSummary::tuple(event) });
        for place in hits {
            let Some(owner) = rules.owner(place, &self.options.tenant, tenant) else { continue };
            let rule = &rules.rules[place];
            self.counts.matches += 1;
            if rules.rule_alerts[place] {
                let mut alert = Alert::new(
                    owner,
                    rule.header.reference.clone(),
                    rule.header.severity,
                    BTreeMap::new(),
                    vec![summary.as_ref().clone()],
                );
                alert.late = is_late;
                self.raise(rule.header.shadow, alert, effects);
            }
            if !is_late {
                let key = OrderKey {
                    time_ms: event.time_ms,
                    sequence: event.position.as_ref().map_or(0, |position| position.sequence),
                    id: event.id,
                    slot: 0,
                };
                let events: Arc<[Arc<EventSummary>]> = Arc::new([Arc::clone(&summary)]);
                let text = |field: &str| text_of(&event.fields, field);
                let mut work = Vec::new();
                self.fed(Origin::Rule(place), key, &events, &text, &mut work);
                self.correlate(now_ms, &[stream], work, effects);
            }
        }
    }

    /// What an event or satisfied window puts into the correlations it feeds.
    fn fed(
        &mut self,
        origin: Origin,
        key: OrderKey,
        events: &Arc<[Arc<EventSummary>]>,
        text: &dyn Fn(&str) -> Option<String>,
        work: &mut Vec<Work>,
    ) {
        for &(correlation, place) in self.feeds.get(&origin).map_or(&[][..], Vec::as_slice) {
            let plan = &self.rules.correlations[correlation];
            let feed: &Feed = &plan.feeds[place];
            // An event without one of the fields belongs to no group, and one without a value counts for nothing.
            let all = |fields: &[String]| fields.iter().map(|field| text(field)).collect::<Option<Vec<_>>>();
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
            let key = OrderKey { slot: feed.slot, ..key };
            work.push(Work::Insert { correlation, group, entry: Entry { key, value, events: Arc::clone(events) } });
        }
    }

    /// Does the work and the work that follows from it; ends because correlations do not refer to each other in circles.
    fn correlate(&mut self, now_ms: u64, streams: &[u32], mut work: Vec<Work>, effects: &mut Vec<Effect>) {
        while let Some(next) = work.pop() {
            let watermarks = |stream| self.streams.watermark(stream);
            let (correlation, group, outcome) = match next {
                Work::Insert { correlation, group, entry } => {
                    let correlator = &mut self.correlators[correlation];
                    let outcome = correlator.insert(now_ms, &group, streams, &watermarks, entry);
                    (correlation, group, outcome)
                }
                Work::Remove { correlation, group, key } => {
                    let outcome = self.correlators[correlation].remove(&group, streams, &key);
                    (correlation, group, outcome)
                }
            };
            self.follow(now_ms, correlation, &group, outcome, &mut work, effects);
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
            self.fed(origin, occurrence.key, &occurrence.events, &text, work);
        }
        let mut removals = Vec::new();
        for key in outcome.vanished {
            let none: Arc<[Arc<EventSummary>]> = Arc::new([]);
            self.fed(origin, key, &none, &text, &mut removals);
        }
        work.extend(removals.into_iter().map(|work| match work {
            Work::Insert { correlation, group, entry } => Work::Remove { correlation, group, key: entry.key },
            remove => remove,
        }));
    }

    fn tell(&mut self, now_ms: u64, correlation: usize, outcome: &Outcome, effects: &mut Vec<Effect>) {
        self.counts.late += u64::from(outcome.late);
        if !outcome.lost.is_none() {
            self.tell_blind(now_ms, correlation, outcome.lost, effects);
        }
        if !self.correlators[correlation].plan.alerts {
            return;
        }
        let is_shadow = self.correlators[correlation].plan.header.shadow;
        let mut held = BTreeSet::new();
        for alert in &outcome.raised {
            if !self.raise(is_shadow, alert.clone(), effects) {
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

    /// State was evicted: from here on something may be missed, and whoever relies on the detector must know.
    fn tell_blind(&mut self, now_ms: u64, correlation: usize, lost: Lost, effects: &mut Vec<Effect>) {
        self.counts.keys_evicted += lost.keys;
        self.counts.entries_lost += lost.entries;
        self.counts.early += lost.early;
        if self.blind_told_ms.is_some_and(|told_ms| now_ms < told_ms.saturating_add(BLIND_EVERY_MS)) {
            return;
        }
        self.blind_told_ms = Some(now_ms);
        let rule = &self.rules.correlations[correlation].header.reference;
        let mut hash = Digest::new("holdfast detector blind 1");
        hash.part(rule.id.as_bytes()).part(&now_ms.to_le_bytes());
        let event = EventSummary {
            id: EventId::of(hash),
            time_ms: now_ms,
            class_uid: 0,
            activity_id: 0,
            text: format!("state of \"{}\" was evicted: it may miss what began before", rule.title),
            entities: BTreeSet::new(),
        };
        let reference = RuleReference {
            id: "holdfast-detector-state-evicted".into(),
            title: "Detector evicted correlation state".into(),
            semantic_hash: SemanticHash::of(Digest::new("holdfast-detector-state-evicted")),
            tags: Vec::new(),
        };
        let key = BTreeMap::from([("rule".to_owned(), rule.id.to_string())]);
        self.counts.alerts += 1;
        let tenant = self.options.tenant.clone();
        effects.push(Effect::Alert(Alert::new(tenant, reference, Severity::High, key, vec![event])));
    }
}

/// How often the detector repeats that it evicts state.
const BLIND_EVERY_MS: u64 = 60_000;

fn text_of(fields: &Fields, name: &str) -> Option<String> {
    match fields.get(name)? {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
