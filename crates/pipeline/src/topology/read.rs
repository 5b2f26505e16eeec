//! Reading a topology file: TOML to components, each with its line; what is wrong never takes its neighbours with it.

use super::check::{Finding, Problem, name_fault};
use super::{
    COMPONENTS_MAX, FILE_BYTES_MAX, Input, Lines, OWN_SINKS, SinkEntry, SourceEntry, Topology, TransformEntry,
};
use crate::cases::{self, Case};
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

type Value<'a> = Spanned<DeValue<'a>>;

pub(super) fn read(file: &str, text: &str, folder: PathBuf) -> (Topology, Vec<Finding>) {
    let mut reading = Reading { file, text, findings: Vec::new() };
    let mut topology = Topology { folder, ..Topology::default() };
    if text.len() > FILE_BYTES_MAX {
        reading.found(1, None, Problem::TooLarge);
        return (topology, reading.findings);
    }
    match DeTable::parse(text) {
        Ok(table) => reading.file(table.into_inner(), &mut topology),
        Err(error) => {
            let line = reading.line(error.span().unwrap_or_default());
            reading.found(line, None, Problem::NotToml { why: error.message().to_owned() });
        }
    }
    // In the order in which they are written, not that of their names.
    topology.sources.sort_by_key(|source| source.line);
    topology.transforms.sort_by_key(|transform| transform.line);
    topology.sinks.sort_by_key(|sink| sink.line);
    (topology, reading.findings)
}

/// Tests of a file beside the topology.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn tests(file: &str, text: &str) -> (Vec<Case>, Vec<Finding>) {
    let (topology, mut findings) = read(file, text, PathBuf::new());
    let only_tests = topology.sources.is_empty() && topology.transforms.is_empty() && topology.sinks.is_empty();
    if !only_tests {
        findings.push(Finding { file: file.into(), line: 1, component: None, problem: Problem::NotOnlyTests });
    }
    (topology.tests, findings)
}

struct Reading<'t> {
    file: &'t str,
    text: &'t str,
    findings: Vec<Finding>,
}

impl<'t> Reading<'t> {
    fn found(&mut self, line: u32, component: Option<&str>, problem: Problem) {
        self.findings.push(Finding { file: self.file.into(), line, component: component.map(Into::into), problem });
    }

    /// The line, from 1, in which a span begins.
    fn line(&self, span: Range<usize>) -> u32 {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        u32::try_from(before.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u32::MAX - 1) + 1
    }

    fn file(&mut self, root: DeTable<'t>, topology: &mut Topology) {
        let mut count = 0;
        for (key, value) in root {
            let line = self.line(key.span());
            let section = key.into_inner();
            if section == "tests" {
                topology.tests = self.tests(value);
                continue;
            }
            if !["sources", "transforms", "sinks"].contains(&section.as_ref()) {
                self.found(line, None, Problem::UnknownSection { name: section.into_owned() });
                continue;
            }
            let DeValue::Table(components) = value.into_inner() else {
                self.found(line, None, Problem::NotATable { name: section.into_owned() });
                continue;
            };
            for (name, value) in components {
                let line = self.line(name.span());
                let name: Arc<str> = name.into_inner().as_ref().into();
                count += 1;
                if count > COMPONENTS_MAX {
                    self.found(line, Some(&name), Problem::TooMany);
                    return;
                }
                let DeValue::Table(table) = value.get_ref() else {
                    self.found(line, Some(&name), Problem::NotATable { name: name.to_string() });
                    continue;
                };
                if let Some(problem) = name_fault(&name, &section) {
                    self.found(line, Some(&name), problem);
                    continue;
                }
                // A component whose settings are wrong is still there for those who listen to it: but it is not known
                // what it is, so the rest of the check is left to a file whose components can be read.
                self.component(&section, &name, line, table.clone(), value.span(), topology);
            }
        }
    }

    fn component(
        &mut self,
        section: &str,
        name: &Arc<str>,
        line: u32,
        mut table: DeTable<'t>,
        span: Range<usize>,
        topology: &mut Topology,
    ) {
        let inputs = if section == "sources" { Some(Vec::new()) } else { self.inputs(name, line, &mut table) };
        let buffer = match section {
            "transforms" => None,
            _ => table.remove("buffer").and_then(|value| self.config(name, line, value)),
        };
        let lines = self.lines(&table);
        let tenant = match section {
            "sources" => table.remove("tenant").and_then(|value| self.tenant(name, value)),
            _ => None,
        };
        let name = Arc::clone(name);
        if section == "sinks" && OWN_SINKS.contains(&&*name) {
            for (key, _) in &table {
                let line = self.line(key.span());
                self.found(line, Some(&name), Problem::OwnSinkHasNoSettings { key: key.get_ref().to_string() });
            }
            let inputs = inputs.unwrap_or_default();
            topology.sinks.push(SinkEntry { name, line, inputs, config: None, buffer, lines });
            return;
        }
        let whole = Spanned::new(span, DeValue::Table(table));
        match section {
            "sources" => {
                let Some(config) = self.config(&name, line, whole) else { return };
                topology.sources.push(SourceEntry { name, line, config, buffer, tenant, lines });
            }
            "transforms" => {
                let Some(config) = self.config(&name, line, whole) else { return };
                let inputs = inputs.unwrap_or_default();
                topology.transforms.push(TransformEntry { name, line, inputs, config });
            }
            _ => {
                let Some(config) = self.config(&name, line, whole) else { return };
                let (inputs, config) = (inputs.unwrap_or_default(), Some(config));
                topology.sinks.push(SinkEntry { name, line, inputs, config, buffer, lines });
            }
        }
    }

    fn tenant(&mut self, name: &str, value: Value<'t>) -> Option<Arc<str>> {
        let line = self.line(value.span());
        match value.get_ref() {
            DeValue::String(tenant) if model::schema::check_name(tenant).is_ok() => Some(tenant.as_ref().into()),
            _ => {
                self.found(line, Some(name), Problem::BadTenant);
                None
            }
        }
    }

    fn inputs(&mut self, name: &str, line: u32, table: &mut DeTable<'t>) -> Option<Vec<Input>> {
        let Some(value) = table.remove("inputs") else {
            self.found(line, Some(name), Problem::NoInputs);
            return None;
        };
        let at = self.line(value.span());
        let DeValue::Array(values) = value.get_ref() else {
            self.found(at, Some(name), Problem::BadInputs);
            return None;
        };
        let mut inputs = Vec::new();
        for value in values.iter() {
            let line = self.line(value.span());
            match value.get_ref() {
                DeValue::String(input) => inputs.push(Input { name: input.as_ref().into(), line }),
                _ => self.found(line, Some(name), Problem::BadInputs),
            }
        }
        if inputs.is_empty() {
            self.found(at, Some(name), Problem::NoInputs);
        }
        Some(inputs)
    }

    /// A component's settings; an error's line is that of the key it names, where it names one.
    fn config<T: DeserializeOwned>(&mut self, name: &str, line: u32, value: Value<'t>) -> Option<T> {
        let keys = value.get_ref().as_table().map(|table| self.lines(table)).unwrap_or_default();
        let whole = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(config) => Some(config),
            Err(error) => {
                let why = error.message().to_owned();
                // What is wrong is named first, what could be written instead after it.
                let places = keys.iter().filter_map(|(key, line)| Some((why.find(&format!("`{key}`"))?, *line)));
                let named = places.min().map(|(_, line)| line);
                let exact = error.span().filter(|span| *span != whole).map(|span| self.line(span));
                self.found(named.or(exact).unwrap_or(line), Some(name), Problem::BadSettings { why });
                None
            }
        }
    }

    fn lines(&self, table: &DeTable<'t>) -> Lines {
        table.iter().map(|(key, _)| (key.get_ref().to_string(), self.line(key.span()))).collect()
    }

    fn tests(&mut self, value: Value<'t>) -> Vec<Case> {
        let DeValue::Array(values) = value.get_ref() else {
            let line = self.line(value.span());
            self.found(line, None, Problem::BadTests);
            return Vec::new();
        };
        let mut tests = Vec::new();
        for value in values.iter() {
            let line = self.line(value.span());
            if tests.len() >= cases::CASES_MAX {
                self.found(line, None, Problem::TooMany);
                break;
            }
            if let Some(mut case) = self.config::<Case>("tests", line, value.clone()) {
                case.line = line;
                tests.push(case);
            }
        }
        tests
    }
}
