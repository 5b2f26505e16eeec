//! The topology: which sources, transforms and sinks there are, and who listens to whom; one TOML file.
//!
//! Reading touches nothing but the text: what the components name (addresses, files) is opened by those who run them.

mod check;
pub(crate) mod described;
pub mod graph;
mod read;

pub use check::{Finding, Problem};
pub(crate) use read::tests;

use crate::buffer::BufferConfig;
use crate::cases::Case;
use crate::resource::OpenError;
use crate::sink::SinkConfig;
use crate::source::SourceConfig;
use crate::transform::TransformConfig;
use model::time::Clock;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Most components of a topology.
pub const COMPONENTS_MAX: usize = 256;
/// Most copies that the ways through a topology may make of one event on its way to one component.
pub const COPIES_MAX: u64 = 64;
/// Most bytes of a topology file.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// The platform's own audit stream.
pub const AUDIT: &str = "audit";
/// Alerts of this region.
pub const ALERTS: &str = "alerts";
/// Changes of incidents of this region.
pub const INCIDENTS: &str = "incidents";
/// Sources that are there without being described.
pub const OWN_SOURCES: [&str; 3] = [AUDIT, ALERTS, INCIDENTS];
/// The region's log of events, which detection reads.
pub const DETECTOR: &str = "detector";
/// Sinks that are there without being described. The archive keeps what is in the region's log of events, so it needs
/// no name here.
pub const OWN_SINKS: [&str; 1] = [DETECTOR];

/// A topology as its file says, and checked.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// The file's folder: what components name is relative to it.
    pub folder: PathBuf,
    /// Where events come from.
    pub sources: Vec<SourceEntry>,
    /// What is done to them.
    pub transforms: Vec<TransformEntry>,
    /// Where they go; the detector is always there.
    pub sinks: Vec<SinkEntry>,
    /// The user's own tests in the same file.
    pub tests: Vec<Case>,
}

/// A described source.
#[derive(Clone, Debug)]
pub struct SourceEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is described.
    pub line: u32,
    /// What it is.
    pub config: SourceConfig,
    /// On disk between it and the rest, for sources that cannot wait.
    pub buffer: Option<BufferConfig>,
    /// Whose its events are; the platform's own where it is not said. What they say themselves does not count.
    pub tenant: Option<Arc<str>>,
    pub(crate) lines: Lines,
}

/// A described transform.
#[derive(Clone, Debug)]
pub struct TransformEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is described.
    pub line: u32,
    /// Whom it listens to.
    pub inputs: Vec<Input>,
    /// What it does.
    pub config: TransformConfig,
}

/// A sink: described, or one of the platform's own.
#[derive(Clone, Debug)]
pub struct SinkEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is described; 0 where it is not.
    pub line: u32,
    /// Whom it listens to.
    pub inputs: Vec<Input>,
    /// What it is; `None` for the platform's own.
    pub config: Option<SinkConfig>,
    /// On disk between the rest and it.
    pub buffer: Option<BufferConfig>,
    pub(crate) lines: Lines,
}

/// Whom a component listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// A component's name, or `component.output`.
    pub name: Arc<str>,
    /// Where it is written; 0 where it is the default.
    pub line: u32,
}

impl Input {
    /// The component, without its output.
    pub fn component(&self) -> &str {
        self.name.split_once('.').map_or(&self.name, |(component, _)| component)
    }
}

/// Where each of a component's settings stands.
pub(crate) type Lines = BTreeMap<String, u32>;

/// Any component, where only its wiring counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A source that is described.
    Source,
    /// A source that is always there.
    OwnSource,
    /// A transform.
    Transform,
    /// A sink.
    Sink,
}

impl Topology {
    /// Reads and checks a topology. What is wrong is in the findings, in the order of their lines; the topology is what
    /// could be read, and runs only where none of them is an error.
    pub fn read(file: &str, text: &str, folder: PathBuf) -> (Self, Vec<Finding>) {
        let (mut topology, mut findings) = read::read(file, text, folder);
        let folder = topology.folder.clone();
        topology.sources.iter_mut().for_each(|source| source.config.resolve(&folder));
        topology.sinks.iter_mut().flat_map(|sink| &mut sink.config).for_each(|config| config.resolve(&folder));
        topology.listen_by_default();
        check::check(&topology, file, &mut findings);
        findings.sort();
        findings.dedup();
        (topology, findings)
    }

    /// What is wrong with the secrets and certificates that sources and sinks name: they are read, and nothing is kept.
    pub fn look(&self, file: &str, clock: &Arc<dyn Clock>) -> Vec<Finding> {
        let sources = self.sources.iter().map(|source| (&source.name, source.line, source.config.look()));
        let described = self.sinks.iter().filter_map(|sink| Some((sink, sink.config.as_ref()?)));
        let sinks = described.map(|(sink, config)| (&sink.name, sink.line, config.look(clock)));
        let broken = sources.chain(sinks).filter_map(|(name, line, looked)| Some((name, line, looked.err()?)));
        let finding = |(name, line, why): (&Arc<str>, u32, OpenError)| {
            let problem = Problem::DoesNotOpen { why: why.to_string() };
            Finding { file: file.into(), line: line.max(1), component: Some(Arc::clone(name)), problem }
        };
        broken.map(finding).collect()
    }

    /// The detector listens to every described source that nobody else listens to, and to what it is told to.
    fn listen_by_default(&mut self) {
        let heard = |name: &Arc<str>, topology: &Self| {
            topology.listeners().any(|(_, inputs)| inputs.iter().any(|input| input.name == *name))
        };
        let unheard = self.sources.iter().map(|source| Arc::clone(&source.name)).filter(|name| !heard(name, self));
        let unheard: Vec<Input> = unheard.map(|name| Input { name, line: 0 }).collect();
        match self.sinks.iter_mut().find(|sink| &*sink.name == DETECTOR) {
            Some(detector) => detector.inputs.extend(unheard),
            None if unheard.is_empty() => {}
            None => {
                let (name, lines) = (DETECTOR.into(), Lines::new());
                self.sinks.push(SinkEntry { name, line: 0, inputs: unheard, config: None, buffer: None, lines });
            }
        }
    }

    /// Everything that listens, with whom it listens to.
    pub fn listeners(&self) -> impl Iterator<Item = (&Arc<str>, &[Input])> {
        let transforms = self.transforms.iter().map(|transform| (&transform.name, transform.inputs.as_slice()));
        transforms.chain(self.sinks.iter().map(|sink| (&sink.name, sink.inputs.as_slice())))
    }

    /// Everything that listens, each after all that it listens to; without what goes in circles.
    pub fn in_order(&self) -> Vec<(&Arc<str>, &[Input])> {
        let mut waiting: Vec<_> = self.listeners().collect();
        let mut order: Vec<(&Arc<str>, &[Input])> = Vec::with_capacity(waiting.len());
        loop {
            let before = waiting.len();
            waiting.retain(|(name, inputs)| {
                let is_placed = |component: &str| {
                    let is_transform = self.transforms.iter().any(|transform| *transform.name == *component);
                    !is_transform || order.iter().any(|(placed, _)| ***placed == *component)
                };
                let ready = inputs.iter().all(|input| is_placed(input.component()));
                if ready {
                    order.push((name, inputs));
                }
                !ready
            });
            if waiting.len() == before {
                return order;
            }
        }
    }

    /// Whether events of that stream come again after a crash, in their order: then their places tell repetitions.
    pub fn is_read_again(&self, stream: &str) -> bool {
        let name = stream.split(['@', '#']).next().unwrap_or(stream);
        let name = name.split_once('.').map_or(name, |(_, name)| name);
        self.sources.iter().any(|source| *source.name == *name && described::is_read_again(&source.config))
    }

    /// Whether a component, or an output of one, is called that.
    pub fn is_there(&self, name: &str) -> bool {
        self.voices().any(|(voice, _)| *voice == *name) || self.listeners().any(|(listener, _)| **listener == *name)
    }

    /// Everything that can be listened to: a component's name, or those of its outputs, and the component's kind.
    pub fn voices(&self) -> impl Iterator<Item = (Arc<str>, Kind)> {
        let own = OWN_SOURCES.into_iter().map(|name| (Arc::from(name), Kind::OwnSource));
        let sources = self.sources.iter().map(|source| (Arc::clone(&source.name), Kind::Source));
        let transforms = self.transforms.iter().flat_map(|transform| {
            let outputs = transform.config.outputs();
            let names: Vec<Arc<str>> = match outputs.is_empty() {
                true => vec![Arc::clone(&transform.name)],
                false => outputs.iter().map(|output| format!("{}.{output}", transform.name).into()).collect(),
            };
            names.into_iter().map(|name| (name, Kind::Transform))
        });
        own.chain(sources).chain(transforms)
    }
}
