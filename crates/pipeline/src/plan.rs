//! Plans: a topology made ready, and what it makes of records. Pure but for the lists that transforms read.
//!
//! The whole way from a source to the sinks is computed at once, batch by batch and in the topology's order: between
//! transforms nothing waits, so nothing between them has to be bounded, and tests and nodes compute the same.

mod way;

use crate::record::Record;
use crate::topology::{Finding, Input, OWN_SOURCES, Topology};
use crate::transform::{BadTransform, Outputs, Refusal, Transform};
use std::collections::BTreeMap;
use std::sync::Arc;
use way::{Mark, Streams, Way};

/// A topology made ready.
pub struct Plan {
    steps: Vec<Step>,
    /// For each source, who listens to it.
    sources: BTreeMap<Arc<str>, Vec<Target>>,
    sinks: Vec<Arc<str>>,
    /// For each source, the sinks that it reaches by more than one way.
    forked: BTreeMap<Arc<str>, Vec<bool>>,
}

struct Step {
    name: Arc<str>,
    transform: Box<dyn Transform>,
    /// For each of its outputs, who listens to it.
    outputs: Vec<Vec<Target>>,
    /// For each of its outputs, what it adds to the way of who goes through.
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A step, by its place.
    Step(usize),
    /// A sink, by its place.
    Sink(usize),
}

/// Where records enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// As if they came from a source.
    From(Arc<str>),
    /// As if they were on their way to a component.
    Into(Arc<str>),
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Made {
    /// For each sink that has any, its records in their order.
    pub arrived: BTreeMap<Arc<str>, Vec<Record>>,
    /// What could not be dealt with, by which component and why.
    pub refused: Vec<(Arc<str>, Record, Refusal)>,
    /// For each transform: how many records came, went on, and were left out.
    pub passed: BTreeMap<Arc<str>, Passed>,
}

/// What went through a transform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Records that came.
    pub received: u64,
    /// Records that went on.
    pub sent: u64,
    /// Records left out because the user said so.
    pub left_out: u64,
    /// Records that became dead letters.
    pub refused: u64,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum NoPlan {
    /// The topology has faults.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Finding>),
    /// A transform does not open.
    #[error("{name}: {why}")]
    Transform {
        /// Its name.
        name: Arc<str>,
        /// Why.
        why: BadTransform,
    },
}

impl Plan {
    /// Makes a topology ready whose check found nothing.
    ///
    /// # Errors
    /// A transform that does not open.
    pub fn new(topology: &Topology) -> Result<Self, NoPlan> {
        let order = topology.in_order();
        let is_transform = |name: &Arc<str>| topology.transforms.iter().find(|transform| transform.name == *name);
        let sinks: Vec<Arc<str>> = topology.sinks.iter().map(|sink| Arc::clone(&sink.name)).collect();
        let mut steps: Vec<Step> = Vec::new();
        let mut targets = Vec::new();
        for (name, inputs) in order {
            let target = match is_transform(name) {
                Some(entry) => {
                    let transform = entry.config.open(&topology.folder);
                    let transform = transform.map_err(|why| NoPlan::Transform { name: Arc::clone(name), why })?;
                    let names = entry.config.outputs();
                    let marks = match names.is_empty() {
                        true => vec![Mark::new(name, "")],
                        false => names.iter().map(|output| Mark::new(name, output)).collect(),
                    };
                    let outputs = vec![Vec::new(); marks.len()];
                    steps.push(Step { name: Arc::clone(name), transform, outputs, marks });
                    Target::Step(steps.len() - 1)
                }
                None => Target::Sink(sinks.iter().position(|sink| sink == name).expect("it is one or the other")),
            };
            targets.push((target, inputs));
        }
        let own = OWN_SOURCES.into_iter().map(Arc::from);
        let names = own.chain(topology.sources.iter().map(|source| Arc::clone(&source.name)));
        let sources = names.map(|name| (name, Vec::new())).collect();
        let mut plan = Self { steps, sources, sinks, forked: BTreeMap::new() };
        for (target, inputs) in targets {
            for input in inputs {
                plan.join(topology, input, target);
            }
        }
        let forked = |(name, targets): (&Arc<str>, &Vec<Target>)| (Arc::clone(name), plan.forked(targets));
        plan.forked = plan.sources.iter().map(forked).collect();
        Ok(plan)
    }

    /// The sinks that are reached by more than one way from there.
    fn forked(&self, from: &[Target]) -> Vec<bool> {
        let (mut steps, mut sinks) = (vec![0_u64; self.steps.len()], vec![0_u64; self.sinks.len()]);
        let mut add = |target: &Target, ways: u64, steps: &mut [u64]| {
            let count = match target {
                Target::Step(place) => &mut steps[*place],
                Target::Sink(place) => &mut sinks[*place],
            };
            *count = count.saturating_add(ways);
        };
        from.iter().for_each(|target| add(target, 1, &mut steps));
        // Each step comes after all that it listens to.
        for (place, step) in self.steps.iter().enumerate() {
            let ways = steps[place];
            step.outputs.iter().flatten().for_each(|target| add(target, ways, &mut steps));
        }
        sinks.into_iter().map(|ways| ways > 1).collect()
    }

    fn join(&mut self, topology: &Topology, input: &Input, target: Target) {
        let component = input.component();
        if let Some(listeners) = self.sources.get_mut(component) {
            listeners.push(target);
            return;
        }
        let outputs = topology.transforms.iter().find(|transform| *transform.name == *component);
        let outputs = outputs.map(|transform| transform.config.outputs()).unwrap_or_default();
        let output = input.name.split_once('.').map_or("", |(_, output)| output);
        let place = outputs.iter().position(|name| **name == *output).unwrap_or(0);
        if let Some(step) = self.steps.iter_mut().find(|step| *step.name == *component) {
            step.outputs[place].push(target);
        }
    }

    /// The names of all sinks.
    pub fn sinks(&self) -> &[Arc<str>] {
        &self.sinks
    }

    /// Where records of a component enter again; `None` where nothing is called that.
    pub fn entry(&self, name: &Arc<str>) -> Option<Entry> {
        if self.sources.contains_key(name) {
            return Some(Entry::From(Arc::clone(name)));
        }
        let is_there = self.steps.iter().any(|step| step.name == *name) || self.sinks.contains(name);
        is_there.then(|| Entry::Into(Arc::clone(name)))
    }

    /// The sinks that records of a source can reach.
    pub fn reached_from(&self, source: &str) -> Vec<Arc<str>> {
        let mut reached = vec![false; self.sinks.len()];
        let mut steps = vec![false; self.steps.len()];
        let mut waiting: Vec<Target> = self.sources.get(source).cloned().unwrap_or_default();
        while let Some(target) = waiting.pop() {
            match target {
                Target::Sink(place) => reached[place] = true,
                Target::Step(place) if steps[place] => {}
                Target::Step(place) => {
                    steps[place] = true;
                    waiting.extend(self.steps[place].outputs.iter().flatten());
                }
            }
        }
        self.sinks.iter().zip(reached).filter(|(_, reached)| *reached).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// What becomes of records that enter there; `None` where nothing is called that.
    ///
    /// By one way records arrive in their order. Where a sink is reached by several, each is a stream of its own: a
    /// place in it is met once, and in its order, so that places tell repetitions.
    pub fn run(&self, entry: &Entry, records: Vec<Record>) -> Option<Made> {
        let mut made = Made::default();
        let mut boxes: Vec<Vec<(Way, Record)>> = vec![Vec::new(); self.steps.len()];
        let mut sinks: Vec<Vec<(Way, Record)>> = vec![Vec::new(); self.sinks.len()];
        let records = records.into_iter().map(|record| (Way::BEGIN, record));
        match entry {
            Entry::From(source) => {
                let targets = self.sources.get(source)?;
                for (way, record) in records {
                    hand(way, record, targets, &mut boxes, &mut sinks);
                }
            }
            Entry::Into(name) => match self.steps.iter().position(|step| step.name == *name) {
                Some(place) => boxes[place] = records.collect(),
                None => sinks[self.sinks.iter().position(|sink| sink == name)?] = records.collect(),
            },
        }
        for (place, step) in self.steps.iter().enumerate() {
            let records = std::mem::take(&mut boxes[place]);
            if records.is_empty() {
                continue;
            }
            let mut passed = Passed { received: records.len() as u64, ..Passed::default() };
            let mut out = Outputs::default();
            for (way, record) in records {
                step.transform.apply(record, &mut out);
                passed.sent += out.passed.len() as u64;
                for (output, record) in out.passed.drain(..) {
                    hand(way.through(step.marks[output]), record, &step.outputs[output], &mut boxes, &mut sinks);
                }
            }
            (passed.left_out, passed.refused) = (out.left_out, out.refused.len() as u64);
            made.refused.extend(out.refused.into_iter().map(|(record, why)| (Arc::clone(&step.name), record, why)));
            made.passed.insert(Arc::clone(&step.name), passed);
        }
        let forked = match entry {
            Entry::From(source) => self.forked.get(source).map_or(&[][..], Vec::as_slice),
            Entry::Into(_) => &[],
        };
        for (place, (name, records)) in self.sinks.iter().zip(sinks).enumerate() {
            if records.is_empty() {
                continue;
            }
            let is_forked = forked.get(place).copied().unwrap_or(false);
            let mut streams = Streams::default();
            let record = |(way, record)| if is_forked { streams.by(way, record) } else { record };
            made.arrived.insert(Arc::clone(name), records.into_iter().map(record).collect());
        }
        Some(made)
    }

    /// Looks again at the files that transforms read: which have changed, and what is wrong with those that cannot be
    /// read. What was there before is kept where the new is wrong.
    pub fn reload(&self) -> Vec<(Arc<str>, Result<(), BadTransform>)> {
        let all = self.steps.iter().map(|step| (Arc::clone(&step.name), step.transform.reload()));
        all.filter_map(|(name, done)| match done {
            Ok(false) => None,
            Ok(true) => Some((name, Ok(()))),
            Err(error) => Some((name, Err(error))),
        })
        .collect()
    }
}

fn hand(
    way: Way,
    record: Record,
    targets: &[Target],
    boxes: &mut [Vec<(Way, Record)>],
    sinks: &mut [Vec<(Way, Record)>],
) {
    let Some((last, others)) = targets.split_last() else { return };
    let mut put = |target: Target, record: Record| match target {
        Target::Step(place) => boxes[place].push((way, record)),
        Target::Sink(place) => sinks[place].push((way, record)),
    };
    for target in others {
        put(*target, record.clone());
    }
    put(*last, record);
}
