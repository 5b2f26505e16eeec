//! Rule files: YAML documents, each a rule on single events, a filter of rules, or a correlation.

use super::condition::{self, Selections};
use super::correlate;
use super::effect::Effect;
use super::error::{Reason, RuleError};
use super::matcher::{Node, Selection};
use super::modifier::{self, Reading};
use super::pipeline::Pipeline;
use super::view::FieldNames;
use super::yaml::{canonical, log_source, strings};
use super::{
    Audience, Correlation, DEPTH_MAX, FILE_SIZE_BYTES_MAX, Filter, FilterTarget, Header, LogSourceFilter, Rule, scan,
};
use crate::alert::{RuleReference, Severity};
use crate::id::{Digest, SemanticHash};
use serde_yaml_ng::{Mapping, Value};
use std::sync::Arc;

/// A document of a rule file.
#[derive(Clone, Debug)]
pub enum Document {
    /// A rule on single events.
    Rule(Rule),
    /// A correlation of rules.
    Correlation(Correlation),
    /// A condition added to other rules.
    Filter(Filter),
}

/// Reads a rule file: what is right in it and what is wrong with the rest.
pub fn parse(file: &Arc<str>, text: &str, names: &mut FieldNames) -> (Vec<Document>, Vec<RuleError>) {
    parse_with(file, text, names, &Pipeline::default())
}

/// Reads a rule file through a pipeline.
pub fn parse_with(
    file: &Arc<str>,
    text: &str,
    names: &mut FieldNames,
    pipeline: &Pipeline,
) -> (Vec<Document>, Vec<RuleError>) {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    if text.len() > FILE_SIZE_BYTES_MAX {
        errors.push(RuleError { file: file.clone(), line: 1, reason: Reason::TooLarge });
        return (documents, errors);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, text) in scan::documents(text) {
        let value: Value = match serde_yaml_ng::from_str(text) {
            Ok(value) => value,
            Err(error) => {
                let within = error.location().map_or(0, |place| place.line().saturating_sub(1));
                let line = line + u32::try_from(within).unwrap_or(0);
                let reason = Reason::NotYaml { cause: error.to_string() };
                errors.push(RuleError { file: file.clone(), line, reason });
                continue;
            }
        };
        match document(file, line, &value, names, pipeline) {
            Ok(document) => documents.push(document),
            Err((key, reason)) => {
                let line = key.map_or(line, |key| scan::line_of(text, line, &key));
                errors.push(RuleError { file: file.clone(), line, reason });
            }
        }
    }
    (documents, errors)
}

/// What is wrong, and the key it stands under.
pub(super) type Failure = (Option<String>, Reason);

pub(super) fn at(key: &str) -> impl Fn(Reason) -> Failure + '_ {
    move |reason| (Some(key.to_owned()), reason)
}

pub(super) fn wrong(key: &str, expected: &'static str) -> Failure {
    (Some(key.to_owned()), Reason::Wrong { key: key.to_owned(), expected })
}

pub(super) fn missing(key: &str) -> Failure {
    (None, Reason::Missing { key: key.to_owned() })
}

fn document(
    file: &Arc<str>,
    line: u32,
    value: &Value,
    names: &mut FieldNames,
    pipeline: &Pipeline,
) -> Result<Document, Failure> {
    let root = value.as_mapping().ok_or((None, Reason::NotAMapping))?;
    if root.contains_key("action") {
        return Err(at("action")(Reason::Unsupported { what: "action (of Sigma 1)".to_owned() }));
    }
    if let Some(correlation) = root.get("correlation") {
        return Ok(Document::Correlation(correlate::correlation(file, line, root, correlation)?));
    }
    let source = source_of(root)?;
    let mut reading = Reading { names, pipeline, source, effect: Effect::default() };
    match root.get("filter") {
        Some(body) => Ok(Document::Filter(filter(file, line, root, body, &mut reading)?)),
        None => Ok(Document::Rule(rule(file, line, root, &mut reading)?)),
    }
}

fn source_of(root: &Mapping) -> Result<LogSourceFilter, Failure> {
    let source = root.get("logsource").ok_or_else(|| missing("logsource"))?;
    let source = source.as_mapping().ok_or_else(|| wrong("logsource", "a mapping"))?;
    log_source(source).map_err(|key| wrong(&key, "a text"))
}

pub(super) fn header(
    file: &Arc<str>,
    line: u32,
    root: &Mapping,
    semantic_hash: SemanticHash,
) -> Result<Header, Failure> {
    let text = |key: &str| match root.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(Arc::<str>::from(text.trim()))),
        Some(_) => Err(wrong(key, "a text")),
    };
    let title = text("title")?.ok_or_else(|| missing("title"))?;
    let name = text("name")?;
    let id = text("id")?.or_else(|| name.clone()).unwrap_or_else(|| title.clone());
    let severity = match root.get("level") {
        None | Some(Value::Null) => Severity::Medium,
        Some(level) => level
            .as_str()
            .and_then(|level| Severity::from_name(&level.to_ascii_lowercase()))
            .ok_or_else(|| wrong("level", "informational, low, medium, high or critical"))?,
    };
    let tags = match root.get("tags") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Sequence(tags)) => tags.iter().filter_map(Value::as_str).map(Arc::from).collect(),
        Some(_) => return Err(wrong("tags", "a list")),
    };
    let reference = RuleReference { id, title, semantic_hash, tags };
    let always_alerts = root.get("generate").and_then(Value::as_bool) == Some(true);
    let references = root.get("references").and_then(strings).unwrap_or_default();
    let runbook = references.into_iter().find(|reference| !reference.contains("://")).map(Arc::from);
    let is_experimental = root.get("status").and_then(Value::as_str) == Some("experimental");
    let shadow = root.get("shadow").and_then(Value::as_bool) == Some(true);
    let audience = Audience::Platform;
    let file = file.clone();
    Ok(Header { reference, name, severity, always_alerts, shadow, runbook, is_experimental, audience, file, line })
}

fn rule(file: &Arc<str>, line: u32, root: &Mapping, reading: &mut Reading<'_>) -> Result<Rule, Failure> {
    let detection = root.get("detection").ok_or_else(|| missing("detection"))?;
    let detection = detection.as_mapping().ok_or_else(|| wrong("detection", "a mapping"))?;
    if let Some(why) = reading.pipeline.refusal(&reading.source) {
        return Err(at("logsource")(Reason::Refused { why: why.to_owned() }));
    }
    let selections = selections("detection", detection, &[], reading)?;
    let texts = detection.get("condition").ok_or_else(|| missing("condition"))?;
    let texts = strings(texts).filter(|texts| !texts.is_empty());
    let texts = texts.ok_or_else(|| wrong("condition", "a text or a list of texts"))?;
    let mut conditions = texts
        .iter()
        .map(|text| condition::read(text, &selections).map_err(at("condition")))
        .collect::<Result<Vec<_>, _>>()?;
    let pipeline = reading.pipeline;
    for fields in pipeline.added(&reading.source.clone()) {
        let added = mapping("condition of the pipeline", fields, reading)?;
        reading.effect.added(&canonical(Some(&Value::Mapping(fields.clone()))));
        conditions = conditions.into_iter().map(|node| Node::All(vec![node, added.clone()])).collect();
    }
    let source = pipeline.source(&reading.source);
    let mut hash = Digest::new("holdfast sigma rule 1");
    for part in [&source.product, &source.category, &source.service] {
        hash.part(part.as_deref().unwrap_or_default().as_bytes());
    }
    hash.part(canonical(root.get("detection")).as_bytes());
    reading.effect.mix(&mut hash);
    let header = header(file, line, root, SemanticHash::of(hash))?;
    Ok(Rule { header, source, conditions, texts, selections, filters: Vec::new() })
}

fn filter(
    file: &Arc<str>,
    line: u32,
    root: &Mapping,
    body: &Value,
    reading: &mut Reading<'_>,
) -> Result<Filter, Failure> {
    let filter = body.as_mapping().ok_or_else(|| wrong("filter", "a mapping"))?;
    let target = match filter.get("rules") {
        None | Some(Value::Null) => FilterTarget::Every,
        Some(Value::String(word)) if word.eq_ignore_ascii_case("any") => FilterTarget::Every,
        Some(rules) => match strings(rules) {
            Some(rules) if rules.is_empty() => FilterTarget::Every,
            Some(rules) => FilterTarget::Rules(rules),
            None => return Err(wrong("rules", "any, or a list of ids or names")),
        },
    };
    let selections = selections("filter", filter, &["rules"], reading)?;
    let text = filter.get("condition").ok_or_else(|| missing("condition"))?;
    let text = text.as_str().ok_or_else(|| wrong("condition", "a text"))?;
    let condition = condition::read(text, &selections).map_err(at("condition"))?;
    let mut hash = Digest::new("holdfast sigma filter 1");
    hash.part(canonical(Some(body)).as_bytes());
    reading.effect.mix(&mut hash);
    let header = header(file, line, root, SemanticHash::of(hash))?;
    Ok(Filter { header, source: reading.pipeline.source(&reading.source), target, condition })
}

fn selections(
    whole: &str,
    body: &Mapping,
    other_keys: &[&str],
    reading: &mut Reading<'_>,
) -> Result<Selections, Failure> {
    let mut selections = Selections::new();
    for (name, value) in body {
        let name = name.as_str().ok_or_else(|| wrong(whole, "a mapping with texts as keys"))?;
        match name {
            "condition" => {}
            "timeframe" => return Err(at(name)(Reason::Unsupported { what: "timeframe".to_owned() })),
            name if other_keys.contains(&name) => {}
            name => {
                let node = selection(name, value, reading, 0)?;
                selections.push(Arc::new(Selection { name: name.to_owned(), node }));
            }
        }
    }
    Ok(selections)
}

fn selection(name: &str, value: &Value, reading: &mut Reading<'_>, depth: usize) -> Result<Node, Failure> {
    if depth > DEPTH_MAX {
        return Err((Some(name.to_owned()), Reason::TooDeep));
    }
    match value {
        Value::Mapping(fields) => mapping(name, fields, reading),
        Value::Sequence(values) if values.iter().any(|value| value.is_mapping() || value.is_sequence()) => {
            let nodes =
                values.iter().map(|value| selection(name, value, reading, depth + 1)).collect::<Result<Vec<_>, _>>()?;
            Ok(Node::Any(nodes))
        }
        Value::Sequence(values) if !values.is_empty() => modifier::keywords(values, reading).map_err(at(name)),
        Value::String(_) | Value::Number(_) => {
            modifier::keywords(std::slice::from_ref(value), reading).map_err(at(name))
        }
        _ => Err(wrong(name, "a mapping or a list")),
    }
}

fn mapping(name: &str, fields: &Mapping, reading: &mut Reading<'_>) -> Result<Node, Failure> {
    let mut nodes = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        let key = key.as_str().ok_or_else(|| wrong(name, "a mapping with texts as keys"))?;
        nodes.extend(modifier::field(key, value, reading).map_err(at(key))?);
    }
    Ok(Node::All(nodes))
}
