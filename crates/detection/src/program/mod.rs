//! The compiler of rules, and what it makes: one program for live events, backtests and retro-hunts.
//!
//! Rules are split by log source; what they ask of fields is interned, so that it is asked once for each event; probes
//! find the few rules that may match, and only these are evaluated. A program is immutable and shared; what changes
//! while it runs is in a [`Worker`]. It must agree with [`Rule::matches`] on every event.

mod audit;
mod escape;
pub(crate) mod flat;
mod intake;
mod item;
mod literal;
pub(crate) mod predicate;
mod probe;
mod scan;
mod slots;
mod witness;

use crate::event::{Event, LogSource, Owner, RAW_SIZE_BYTES_MAX, RawEvent, Reject, SourceKind};
use crate::normalise::{OWN_PRODUCT, normalise_for};
use crate::sigma::matcher::Node;
use crate::sigma::{FieldId, FieldNames, LogSourceFilter, Rule};
use audit::AuditFields;
use flat::{NO, Steps, YES};
use intake::{Intake, Origin, Paths, SystemFields};
use item::Odd;
use predicate::Predicates;
use probe::Probes;
use rustc_hash::FxHashMap;
use serde::Serialize;
use slots::{FieldIndex, Slots};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most log sources whose rules a worker remembers.
const SOURCES_MAX: usize = 1_024;

/// Compiled rules.
#[derive(Debug)]
pub struct Program {
    index: FieldIndex,
    field_count: usize,
    system: SystemFields,
    audit: AuditFields,
    /// Whether rules for audit events look at every value: then they are read the slow way.
    audit_needs_all: bool,
    predicates: Predicates,
    steps: Steps,
    /// For each rule, its first step.
    entries: Vec<u32>,
    groups: Vec<Group>,
}

/// The rules for one log source.
#[derive(Debug)]
struct Group {
    source: LogSourceFilter,
    probes: Probes,
}

/// What a program consists of, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgramSize {
    /// Rules.
    pub rules: usize,
    /// Log sources they are split by.
    pub sources: usize,
    /// Fields they look at.
    pub fields: usize,
    /// Distinct questions they ask.
    pub predicates: usize,
    /// Steps of all conditions.
    pub steps: usize,
    /// Rules that are evaluated for every event of their log source.
    pub unwitnessed: usize,
    /// Bytes of the automata that find candidates.
    pub automata_bytes: usize,
}

/// What a program changes while it runs: one for each thread. It belongs to the program that made it.
#[derive(Debug, Default)]
pub struct Worker {
    slots: Slots,
    /// For each predicate, the event it was asked of last, and the answer.
    answers: Vec<u32>,
    /// For each rule, the event it was last a candidate for.
    seen: Vec<u32>,
    event: u32,
    candidates: Vec<u32>,
    hits: Vec<u32>,
    origin: Origin,
    paths: Paths,
    path: String,
    groups: FxHashMap<Box<str>, Arc<[u32]>>,
    evaluated: u64,
    read_slowly: u64,
}

impl Worker {
    /// The rules that matched the last event, as places in the rule set, ascending.
    pub fn hits(&self) -> impl ExactSizeIterator<Item = usize> {
        self.hits.iter().map(|rule| *rule as usize)
    }
    /// How many rules were evaluated so far, as candidates.
    pub fn evaluated(&self) -> u64 {
        self.evaluated
    }
    /// The product of the last raw event; only where no event had to be made of it.
    pub(crate) fn product(&self) -> Option<&str> {
        self.origin.source.split('\0').next().and_then(|product| product.strip_prefix('='))
    }
    /// The host that wrote the last raw event, empty where it names none; only where no event had to be made of it.
    pub(crate) fn host(&self) -> &str {
        &self.origin.host
    }
    /// How many raw events were not read by the fast reader.
    pub fn read_slowly(&self) -> u64 {
        self.read_slowly
    }
}

/// What was found of a raw event as a whole.
#[derive(Debug)]
pub struct Look {
    /// When it happened.
    pub time_ms: u64,
    /// The event, where it had to be made to look at it; normalising makes it where there is a hit.
    pub event: Option<Event>,
}

impl Program {
    /// Compiles rules whose fields are numbered by `names`.
    pub fn compile(rules: &[Rule], names: &FieldNames) -> Self {
        let mut names = names.clone();
        let used = u32::try_from(names.len()).expect("field names are bounded");
        let system = SystemFields::new(&mut names);
        let mut predicates = Predicates::default();
        let mut steps = Steps::default();
        let mut entries = Vec::with_capacity(rules.len());
        let mut groups: BTreeMap<&LogSourceFilter, Vec<(u32, Option<witness::Witness>)>> = BTreeMap::new();
        for (place, rule) in rules.iter().enumerate() {
            entries.push(steps.flatten(&rule.conditions, &mut predicates));
            let any = Node::Any(rule.conditions.clone());
            let place = u32::try_from(place).expect("rules are bounded");
            groups.entry(&rule.source).or_default().push((place, witness::of(&any)));
        }
        predicates.seal();
        steps.seal();
        let keeps_all = |rule: &&Rule| rule.conditions.iter().any(looks_anywhere);
        let own = LogSource { product: Some(OWN_PRODUCT.into()), category: None, services: vec!["audit".into()] };
        let index = FieldIndex::new(names.names(), rules.iter().any(|rule| keeps_all(&rule)));
        Self {
            audit: AuditFields::new(&index, used),
            audit_needs_all: rules.iter().filter(keeps_all).any(|rule| rule.source.admits(&own)),
            index,
            field_count: names.len(),
            system,
            predicates,
            steps,
            entries,
            groups: groups
                .into_iter()
                .map(|(source, rules)| Group { source: source.clone(), probes: Probes::new(rules) })
                .collect(),
        }
    }

    /// What it consists of.
    pub fn size(&self) -> ProgramSize {
        ProgramSize {
            rules: self.entries.len(),
            sources: self.groups.len(),
            fields: self.field_count,
            predicates: self.predicates.len(),
            steps: self.steps.len(),
            unwitnessed: self.groups.iter().map(|group| group.probes.always()).sum(),
            automata_bytes: self.groups.iter().map(|group| group.probes.size_bytes()).sum(),
        }
    }

    /// A worker for one thread.
    pub fn worker(&self) -> Worker {
        Worker {
            slots: Slots::new(self.field_count),
            answers: vec![0; self.predicates.len()],
            seen: vec![0; self.entries.len()],
            ..Worker::default()
        }
    }

    /// Finds the rules that match an event.
    pub fn run(&self, worker: &mut Worker, event: &Event) {
        let groups = self.groups_of(worker, &event.logsource);
        if groups.is_empty() {
            worker.hits.clear();
            return;
        }
        worker.slots.fill(&self.index, event);
        self.evaluate(worker, &groups);
    }

    /// Finds the rules that match a raw event, without making an event of it where that can be avoided.
    ///
    /// # Errors
    /// The dead letter that normalising made of it.
    pub fn run_raw(&self, worker: &mut Worker, raw: &RawEvent) -> Result<Look, Reject> {
        self.run_raw_for(worker, raw, Owner::Itself)
    }

    /// Finds the rules that match a raw event of somebody's.
    ///
    /// # Errors
    /// The dead letter that normalising made of it.
    pub fn run_raw_for(&self, worker: &mut Worker, raw: &RawEvent, owner: Owner<'_>) -> Result<Look, Reject> {
        match self.take_in(worker, raw, owner) {
            Ok(Intake { time_ms }) => {
                let groups = match worker.groups.get(worker.origin.source.as_str()) {
                    Some(groups) => Arc::clone(groups),
                    None => {
                        let source = source_of_key(&worker.origin.source);
                        self.remember(worker, &source)
                    }
                };
                self.evaluate(worker, &groups);
                Ok(Look { time_ms, event: None })
            }
            Err(Odd) => {
                worker.hits.clear();
                worker.read_slowly += 1;
                let event = normalise_for(raw, owner)?;
                self.run(worker, &event);
                Ok(Look { time_ms: event.time_ms, event: Some(event) })
            }
        }
    }

    fn take_in(&self, worker: &mut Worker, raw: &RawEvent, owner: Owner<'_>) -> Result<Intake, Odd> {
        let Worker { slots, paths, path, origin, .. } = worker;
        origin.host.clear();
        match raw.source {
            _ if raw.bytes.len() > RAW_SIZE_BYTES_MAX => Err(Odd),
            SourceKind::Audit if !self.audit_needs_all => audit::audit(&raw.bytes, &self.audit, path, slots, origin),
            SourceKind::Ndjson => {
                let intake =
                    intake::ndjson(&raw.bytes, raw.received_ms, &self.index, &self.system, paths, slots, origin)?;
                self.system.stamp(owner, slots)?;
                Ok(intake)
            }
            SourceKind::Audit
            | SourceKind::Syslog
            | SourceKind::Otlp
            | SourceKind::Badge
            | SourceKind::Parsed
            | SourceKind::Tuple => Err(Odd),
        }
    }

    fn evaluate(&self, worker: &mut Worker, groups: &[u32]) {
        worker.hits.clear();
        worker.candidates.clear();
        worker.event += 1;
        if worker.event > u32::MAX / 2 {
            worker.event = 1;
            worker.answers.fill(0);
            worker.seen.fill(0);
        }
        let Worker { slots, seen, event, candidates, .. } = worker;
        for group in groups {
            self.groups[*group as usize].probes.look(slots, &mut |rule| {
                let seen = &mut seen[rule as usize];
                if *seen != *event {
                    *seen = *event;
                    candidates.push(rule);
                }
            });
        }
        worker.candidates.sort_unstable();
        worker.evaluated += worker.candidates.len() as u64;
        let candidates = std::mem::take(&mut worker.candidates);
        for rule in &candidates {
            if self.holds(worker, self.entries[*rule as usize]) {
                worker.hits.push(*rule);
            }
        }
        worker.candidates = candidates;
    }

    /// Follows a rule's steps; each goes on to one that was made before it, so there is an end.
    fn holds(&self, worker: &mut Worker, entry: u32) -> bool {
        let mut at = entry;
        while at < NO {
            let step = self.steps.get(at);
            let answer = worker.answers[step.predicate as usize];
            let holds = if answer >> 1 == worker.event {
                answer & 1 == 1
            } else {
                let holds = self.predicates.get(step.predicate).holds(&mut worker.slots);
                worker.answers[step.predicate as usize] = worker.event << 1 | u32::from(holds);
                holds
            };
            at = if holds { step.yes } else { step.no };
        }
        at == YES
    }

    fn groups_of(&self, worker: &mut Worker, source: &LogSource) -> Arc<[u32]> {
        let Worker { origin: Origin { source: key, .. }, groups, .. } = worker;
        if !write_source_key(source, key) {
            return self.admitting(source);
        }
        match groups.get(key.as_str()) {
            Some(groups) => Arc::clone(groups),
            None => self.remember(worker, source),
        }
    }

    fn remember(&self, worker: &mut Worker, source: &LogSource) -> Arc<[u32]> {
        if worker.groups.len() >= SOURCES_MAX {
            worker.groups.clear();
        }
        let groups = self.admitting(source);
        worker.groups.insert(worker.origin.source.as_str().into(), Arc::clone(&groups));
        groups
    }

    fn admitting(&self, source: &LogSource) -> Arc<[u32]> {
        (0_u32..).zip(&self.groups).filter(|(_, group)| group.source.admits(source)).map(|(place, _)| place).collect()
    }
}

/// Whether a rule shows no sign in events that it matches, so that it must be evaluated for each.
pub(crate) fn is_evaluated_always(rule: &Rule) -> bool {
    witness::of(&Node::Any(rule.conditions.clone())).is_none()
}

fn looks_anywhere(node: &Node) -> bool {
    match node {
        Node::All(nodes) | Node::Any(nodes) => nodes.iter().any(looks_anywhere),
        Node::Not(inner) => looks_anywhere(inner),
        Node::Selection(selection) => looks_anywhere(&selection.node),
        Node::Field(test) => test.field == FieldId::ANY,
    }
}

/// Writes a log source as one text: product, category and each service after a `=`, each part ended by a zero byte.
/// Whether no other log source has the same text.
fn write_source_key(source: &LogSource, key: &mut String) -> bool {
    key.clear();
    let is_plain = |text: &Arc<str>| !text.contains(['\0', '\u{1}']);
    for part in [&source.product, &source.category] {
        if let Some(text) = part {
            key.extend(["=", text]);
        }
        key.push('\0');
    }
    for (place, service) in source.services.iter().enumerate() {
        key.extend([if place == 0 { "=" } else { "\u{1}" }, service]);
    }
    key.push('\0');
    source.product.iter().chain(&source.category).chain(&source.services).all(is_plain)
}

/// The log source of such a text.
fn source_of_key(key: &str) -> LogSource {
    let mut parts = key.split('\0').map(|part| part.strip_prefix('='));
    let product = parts.next().flatten().map(Arc::from);
    let category = parts.next().flatten().map(Arc::from);
    let services = parts.next().flatten().map(|services| services.split('\u{1}').map(Arc::from).collect());
    LogSource { product, category, services: services.unwrap_or_default() }
}
