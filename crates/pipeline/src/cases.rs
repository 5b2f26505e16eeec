//! The user's own tests of a topology: lines in at a source, and what is to come out where.
//!
//! Pure: they compute what a node would, and touch no network and no disk but the lists that transforms read.

use crate::fit::fit;
use crate::plan::{Entry, Made, Plan};
use crate::record::{Record, nested};
use crate::topology::described::source_kind;
use crate::topology::{ALERTS, AUDIT, DETECTOR, Finding, INCIDENTS, Topology};
use detection::SourceKind;
use detection::event::Fields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most tests of a file.
pub const CASES_MAX: usize = 1_000;
/// When test events are received, unless a test says otherwise: 2026-01-01.
const RECEIVED_MS: u64 = 1_767_225_600_000;

/// A test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it claims.
    pub name: String,
    /// The source that the lines come from.
    input: Arc<str>,
    /// The lines.
    lines: Vec<String>,
    /// When they are received, in milliseconds since 1970.
    #[serde(default = "received_ms")]
    received_ms: u64,
    /// For each sink, what arrives there and nothing else: each event has at least these fields.
    #[serde(default)]
    expect: BTreeMap<Arc<str>, Vec<Map<String, Value>>>,
    /// For each component, the reasons of its dead letters.
    #[serde(default)]
    dead_letters: BTreeMap<Arc<str>, Vec<String>>,
    /// Where it stands.
    #[serde(skip)]
    pub(crate) line: u32,
}

fn received_ms() -> u64 {
    RECEIVED_MS
}

/// What came of the tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many hold.
    pub passed: usize,
    /// How many do not.
    pub failed: usize,
    /// Those that do not.
    pub failures: Vec<Failure>,
}

/// A test that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What it claims.
    pub name: String,
    /// Where it stands.
    pub line: u32,
    /// What is different.
    pub differences: Vec<String>,
}

impl Case {
    /// The components that it names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.input)
            .chain(self.expect.keys().map(AsRef::as_ref))
            .chain(self.dead_letters.keys().map(AsRef::as_ref))
    }

    fn differences(&self, topology: &Topology, plan: &Plan) -> Vec<String> {
        let source = topology.sources.iter().find(|source| source.name == self.input);
        let kind = source.map_or(SourceKind::Ndjson, |source| source_kind(&source.config));
        let kind = if &*self.input == AUDIT { SourceKind::Audit } else { kind };
        // Alerts and incidents are JSON objects that conditions see into, as they do where they are told.
        let is_told = [ALERTS, INCIDENTS].contains(&&*self.input);
        let records = self.lines.iter().map(|line| Record {
            source: kind,
            received_ms: self.received_ms,
            position: None,
            tenant: source.and_then(|source| source.tenant.clone()),
            raw: line.clone().into(),
            fields: if is_told { told(line) } else { None },
        });
        let Some(mut made) = plan.run(&Entry::From(Arc::clone(&self.input)), records.collect()) else {
            return vec![format!("there is no source '{}'", self.input)];
        };
        bury_unfit(&mut made);
        let mut differences = Vec::new();
        let nothing = Vec::new();
        for sink in plan.sinks() {
            let arrived = made.arrived.get(sink).unwrap_or(&nothing);
            match self.expect.get(sink) {
                Some(expected) => compare(sink, expected, arrived, &mut differences),
                None if arrived.is_empty() => {}
                None => differences.push(format!("{sink}: {} events arrived, none were expected", arrived.len())),
            }
        }
        let mut dead: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
        for (component, _, refusal) in &made.refused {
            dead.entry(Arc::clone(component)).or_default().push(refusal.label().to_owned());
        }
        if dead != self.dead_letters {
            differences.push(format!("dead letters are {dead:?}, expected {:?}", self.dead_letters));
        }
        differences
    }
}

/// What detection would not take is a dead letter.
fn bury_unfit(made: &mut Made) {
    let Some(arrived) = made.arrived.get_mut(DETECTOR) else { return };
    for record in std::mem::take(arrived) {
        match fit(&record) {
            Ok(_) => arrived.push(record),
            Err(refusal) => made.refused.push((DETECTOR.into(), record, refusal)),
        }
    }
}

fn told(line: &str) -> Option<Fields> {
    let mut fields = Fields::new();
    detection::normalise::flatten(&serde_json::from_str(line).ok()?, &mut fields).ok()?;
    Some(fields)
}

fn compare(sink: &str, expected: &[Map<String, Value>], arrived: &[Record], differences: &mut Vec<String>) {
    if expected.len() != arrived.len() {
        differences.push(format!("{sink}: {} events arrived, {} were expected", arrived.len(), expected.len()));
    }
    for (number, (expected, record)) in (1..).zip(expected.iter().zip(arrived)) {
        for (field, value) in expected {
            let is = match (field.as_str(), &record.fields) {
                ("raw", _) => Some(String::from_utf8_lossy(&record.raw).into()),
                (field, Some(fields)) => fields.get(field).cloned().or_else(|| nested(fields).remove(field)),
                (_, None) => None,
            };
            if is.as_ref() != Some(value) {
                let is = is.map_or_else(|| "missing".to_owned(), |is| is.to_string());
                differences.push(format!("{sink}, event {number}: {field} is {is}, expected {value}"));
            }
        }
    }
}

/// Runs tests on a topology whose check found nothing.
///
/// # Errors
/// A transform that does not open.
pub fn run(topology: &Topology, cases: &[Case]) -> Result<Report, crate::plan::NoPlan> {
    let plan = Plan::new(topology)?;
    let mut report = Report::default();
    for case in cases {
        let differences = case.differences(topology, &plan);
        if differences.is_empty() {
            report.passed += 1;
        } else {
            report.failed += 1;
            report.failures.push(Failure { name: case.name.clone(), line: case.line, differences });
        }
    }
    Ok(report)
}

/// The tests of a file beside a topology.
pub fn read(file: &str, text: &str) -> (Vec<Case>, Vec<Finding>) {
    crate::topology::tests(file, text)
}
