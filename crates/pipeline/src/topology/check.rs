//! Checks of a topology: what is wrong, in which line, and what to do about it.

use super::{ALERTS, AUDIT, COPIES_MAX, DETECTOR, INCIDENTS, Kind, OWN_SINKS, OWN_SOURCES, Topology};
use crate::resource::Resource;
use crate::sink::SinkConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Something wrong with a topology.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Finding {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The component it is about.
    pub component: Option<Arc<str>>,
    /// What is wrong.
    #[serde(serialize_with = "as_text")]
    pub problem: Problem,
}

fn as_text<S: serde::Serializer>(problem: &Problem, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(problem)
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if let Some(component) = &self.component {
            write!(f, "{component}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

/// What can be wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    /// Larger than a topology may be.
    #[error("the file is larger than 1 MiB")]
    TooLarge,
    /// Not TOML.
    #[error("not TOML: {why}")]
    NotToml {
        /// What the parser said.
        why: String,
    },
    /// A section that does not exist.
    #[error("there is no section '{name}': use sources, transforms, sinks and tests")]
    UnknownSection {
        /// Its name.
        name: String,
    },
    /// A component or section that is no table.
    #[error("'{name}' must be a table")]
    NotATable {
        /// Its name.
        name: String,
    },
    /// More than a topology may have.
    #[error("too many: split the file over several nodes")]
    TooMany,
    /// A name that cannot be one.
    #[error("a name is made of 1 to 64 lower-case letters, digits, '_' and '-'")]
    BadName,
    /// A name that the platform uses.
    #[error("this name is the platform's own: choose another")]
    OwnName,
    /// A second component of that name.
    #[error("another component has this name: names are unique over sources, transforms and sinks")]
    Duplicate,
    /// The platform's own sinks are set up elsewhere.
    #[error("the platform's own sink has no setting '{key}': only inputs and buffer")]
    OwnSinkHasNoSettings {
        /// The setting.
        key: String,
    },
    /// Settings that do not fit.
    #[error("{why}")]
    BadSettings {
        /// Which, and why.
        why: String,
    },
    /// No tenant's name.
    #[error("tenant must be the name of a tenant")]
    BadTenant,
    /// It listens to nothing.
    #[error("it needs inputs = [...]: the names of those it listens to")]
    NoInputs,
    /// Inputs that are not names.
    #[error("inputs must be a list of names")]
    BadInputs,
    /// It listens to something that is not there.
    #[error("there is no '{name}' to listen to{}", hint(.near))]
    UnknownInput {
        /// What it names.
        name: String,
        /// What it may have meant.
        near: Option<String>,
    },
    /// It names the same input twice.
    #[error("it listens to '{name}' twice")]
    RepeatedInput {
        /// The input.
        name: String,
    },
    /// A circle.
    #[error("events would go round for ever: {path}")]
    Cycle {
        /// The way round.
        path: String,
    },
    /// Nobody listens.
    #[error("nobody listens to '{name}': what comes out of it would vanish; add it to a component's inputs{}", .more)]
    Unheard {
        /// What nobody listens to.
        name: String,
        /// What else could be done.
        more: &'static str,
    },
    /// The platform's own events to its own detector.
    #[error("'{source_name}' must not reach the detector: {why}")]
    Feedback {
        /// The platform's own source.
        source_name: String,
        /// Why.
        why: &'static str,
    },
    /// What is no event to a sink that holds events only.
    #[error("'{source_name}' must not reach it: it holds events only; use a sink of another type")]
    NoEvents {
        /// The platform's own source.
        source_name: String,
    },
    /// More ways to one component than make sense.
    #[error("one event would reach it by {copies} ways: at most {COPIES_MAX}")]
    TooManyCopies {
        /// How many.
        copies: u64,
    },
    /// Two components want the same.
    #[error("{what} is taken by '{other}' already: only one component can have it")]
    Taken {
        /// What.
        what: String,
        /// By whom.
        other: String,
    },
    /// A transform that does not compile, or a file that a component needs and that cannot be used.
    #[error("{why}")]
    DoesNotOpen {
        /// Why.
        why: String,
    },
    /// Tests that are none.
    #[error("tests must be [[tests]] with name, input, lines and expect")]
    BadTests,
    /// A test of something that is not there.
    #[error("the test '{test}' names '{name}', which is not in the topology")]
    UnknownInTest {
        /// The test.
        test: String,
        /// What it names.
        name: String,
    },
    /// A file of tests that describes components.
    #[error("a file of tests has [[tests]] only")]
    NotOnlyTests,
}

fn hint(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!(": did you mean '{near}'?")).unwrap_or_default()
}

/// Names are labels of metrics, names of folders and parts of `component.output`.
pub(super) fn name_fault(name: &str, section: &str) -> Option<Problem> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        return Some(Problem::BadName);
    }
    let is_own_sink = OWN_SINKS.contains(&name);
    (OWN_SOURCES.contains(&name) || (is_own_sink && section != "sinks")).then_some(Problem::OwnName)
}

pub(super) fn check(topology: &Topology, file: &str, findings: &mut Vec<Finding>) {
    let mut checking = Checking { topology, file: file.into(), findings: Vec::new() };
    checking.names();
    // Where components could not be read, what listens to them is not to blame.
    if findings.is_empty() {
        checking.inputs();
        checking.cycles();
        if checking.findings.is_empty() {
            checking.listeners();
            checking.copies();
            checking.feedback();
        }
        checking.settings();
        checking.transforms();
        checking.tests();
    }
    findings.append(&mut checking.findings);
}

struct Checking<'a> {
    topology: &'a Topology,
    file: Arc<str>,
    findings: Vec<Finding>,
}

impl Checking<'_> {
    fn found(&mut self, line: u32, component: &str, problem: Problem) {
        let component = Some(component.into());
        self.findings.push(Finding { file: Arc::clone(&self.file), line: line.max(1), component, problem });
    }

    fn line_of(&self, name: &str) -> u32 {
        let topology = self.topology;
        let sources = topology.sources.iter().map(|source| (&source.name, source.line));
        let transforms = topology.transforms.iter().map(|transform| (&transform.name, transform.line));
        let sinks = topology.sinks.iter().map(|sink| (&sink.name, sink.line));
        let found = sources.chain(transforms).chain(sinks).find(|(found, _)| ***found == *name);
        found.map_or(1, |(_, line)| line)
    }

    fn names(&mut self) {
        let topology = self.topology;
        let sources = topology.sources.iter().map(|source| (&source.name, source.line));
        let transforms = topology.transforms.iter().map(|transform| (&transform.name, transform.line));
        let sinks = topology.sinks.iter().map(|sink| (&sink.name, sink.line));
        let mut seen = BTreeSet::new();
        let mut all: Vec<_> = sources.chain(transforms).chain(sinks).collect();
        all.sort_by_key(|(_, line)| *line);
        for (name, line) in all {
            if !seen.insert(name) {
                self.found(line, name, Problem::Duplicate);
            }
        }
    }

    fn inputs(&mut self) {
        let voices: BTreeSet<Arc<str>> = self.topology.voices().map(|(name, _)| name).collect();
        for (listener, inputs) in self.topology.listeners() {
            let mut seen = BTreeSet::new();
            for input in inputs {
                let name = input.name.to_string();
                if !voices.contains(&input.name) {
                    let near = nearest(&input.name, &voices);
                    self.found(input.line, listener, Problem::UnknownInput { name, near });
                } else if !seen.insert(&input.name) {
                    self.found(input.line, listener, Problem::RepeatedInput { name });
                }
            }
        }
    }

    /// Goes against the arrows from every transform until it meets itself.
    fn cycles(&mut self) {
        let inputs: BTreeMap<&str, Vec<&str>> = self
            .topology
            .transforms
            .iter()
            .map(|transform| (&*transform.name, transform.inputs.iter().map(|input| input.component()).collect()))
            .collect();
        let mut done = BTreeSet::new();
        for start in inputs.keys() {
            let mut path = Vec::new();
            if let Some(mut circle) = circle(start, &inputs, &mut done, &mut path) {
                circle.reverse();
                let path = format!("{} → {}", circle.join(" → "), circle[0]);
                self.found(self.line_of(start), start, Problem::Cycle { path });
            }
        }
    }

    fn listeners(&mut self) {
        let heard: BTreeSet<&str> =
            self.topology.listeners().flat_map(|(_, inputs)| inputs.iter().map(|input| &*input.name)).collect();
        for (name, kind) in self.topology.voices() {
            if kind == Kind::OwnSource || heard.contains(&*name) {
                continue;
            }
            let component = name.split_once('.').map_or(&*name, |(component, _)| component);
            let more = if name.ends_with(".unmatched") { ", or set unmatched = \"leave_out\"" } else { "" };
            self.found(self.line_of(component), component, Problem::Unheard { name: name.to_string(), more });
        }
    }

    /// How many ways lead from a source to each component: each is a copy of the event.
    fn copies(&mut self) {
        let order = self.topology.in_order();
        let described = self.topology.sources.iter().map(|source| &*source.name);
        for source in OWN_SOURCES.into_iter().chain(described) {
            let mut ways: BTreeMap<&str, u64> = BTreeMap::from([(source, 1)]);
            for (listener, inputs) in &order {
                let each = inputs.iter().map(|input| ways.get(input.component()).copied().unwrap_or(0));
                let copies = each.fold(0_u64, u64::saturating_add);
                if copies > COPIES_MAX {
                    self.found(self.line_of(listener), listener, Problem::TooManyCopies { copies });
                    return;
                }
                ways.insert(listener, copies);
            }
        }
    }

    fn feedback(&mut self) {
        let order = self.topology.in_order();
        for (source, why) in [
            (ALERTS, "an alert that is an event again would raise alerts for ever"),
            (INCIDENTS, "an incident that is an event again would raise alerts for ever"),
            (AUDIT, "it reads the audit stream by itself, and each entry would count twice"),
        ] {
            let mut reached: BTreeSet<&str> = BTreeSet::from([source]);
            for (listener, inputs) in &order {
                if inputs.iter().any(|input| reached.contains(input.component())) {
                    reached.insert(listener);
                }
            }
            if reached.contains(DETECTOR) {
                let problem = Problem::Feedback { source_name: source.into(), why };
                self.found(self.line_of(DETECTOR), DETECTOR, problem);
            }
            let takes_events = |sink: &&super::SinkEntry| matches!(sink.config, Some(SinkConfig::Parquet(_)));
            for sink in self.topology.sinks.iter().filter(takes_events) {
                if source != AUDIT && reached.contains(&*sink.name) {
                    self.found(sink.line, &sink.name, Problem::NoEvents { source_name: source.into() });
                }
            }
        }
    }

    /// What components want of the machine, and what is wrong with how they are described.
    fn settings(&mut self) {
        let sources = self.topology.sources.iter().map(|source| {
            let config = &source.config;
            (&source.name, source.line, &source.lines, config.problems(), config.resources())
        });
        let sinks = self.topology.sinks.iter().filter_map(|sink| {
            let config = sink.config.as_ref()?;
            let mut problems = config.problems();
            if let (SinkConfig::Parquet(config), None) = (config, &sink.buffer) {
                problems.extend(config.problem_unbuffered());
            }
            Some((&sink.name, sink.line, &sink.lines, problems, config.resources()))
        });
        let mut taken: Vec<(Resource, &str)> = Vec::new();
        let mut problems = Vec::new();
        for (name, line, lines, invalid, resources) in sources.chain(sinks) {
            for problem in invalid {
                let line = lines.get(problem.field).copied().unwrap_or(line);
                problems.push((line, name, Problem::BadSettings { why: problem.to_string() }));
            }
            for resource in resources {
                if let Some((_, other)) = taken.iter().find(|(other, _)| other.clashes(&resource)) {
                    let taken = Problem::Taken { what: resource.to_string(), other: (*other).to_owned() };
                    problems.push((line, name, taken));
                }
                taken.push((resource, name));
            }
        }
        for (line, name, problem) in problems {
            self.found(line, name, problem);
        }
    }

    fn transforms(&mut self) {
        for transform in &self.topology.transforms {
            if let Err(error) = transform.config.open(&self.topology.folder) {
                self.found(transform.line, &transform.name, Problem::DoesNotOpen { why: error.to_string() });
            }
        }
    }

    fn tests(&mut self) {
        let mut problems = Vec::new();
        for case in &self.topology.tests {
            for name in case.names().filter(|name| !self.topology.is_there(name)) {
                let problem = Problem::UnknownInTest { test: case.name.clone(), name: name.to_owned() };
                problems.push((case.line, problem));
            }
        }
        for (line, problem) in problems {
            self.found(line, "tests", problem);
        }
    }
}

fn circle<'a>(
    at: &'a str,
    inputs: &BTreeMap<&'a str, Vec<&'a str>>,
    done: &mut BTreeSet<&'a str>,
    path: &mut Vec<&'a str>,
) -> Option<Vec<&'a str>> {
    if let Some(place) = path.iter().position(|name| *name == at) {
        return Some(path[place..].to_vec());
    }
    if !done.insert(at) {
        return None;
    }
    path.push(at);
    // Recursion ends at the number of components, which is bounded.
    let found = inputs.get(at).into_iter().flatten().find_map(|next| circle(next, inputs, done, path));
    path.pop();
    found
}

/// The name that differs least, where one differs little.
fn nearest(name: &str, names: &BTreeSet<Arc<str>>) -> Option<String> {
    let outputs = names.iter().find(|other| other.split_once('.').is_some_and(|(component, _)| component == name));
    if let Some(output) = outputs {
        return Some(output.to_string());
    }
    let distances = names.iter().map(|other| (distance(name, other), other));
    distances.min().filter(|(distance, _)| *distance <= 2).map(|(_, other)| other.to_string())
}

/// Edits between two short texts (Levenshtein, 1965).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(128).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (place, character) in one.chars().take(128).enumerate() {
        let mut diagonal = row[0];
        row[0] = place + 1;
        for (column, against) in other.iter().enumerate() {
            let next = (diagonal + usize::from(character != *against)).min(row[column] + 1).min(row[column + 1] + 1);
            diagonal = row[column + 1];
            row[column + 1] = next;
        }
    }
    row[other.len()]
}
