//! Rule files: YAML documents, each a rule on single events, a filter of rules, or a correlation.

use super::budget::{Budget, FILE_COST_BYTES_MAX};
use super::condition::{self, Selections};
use super::correlate;
use super::effect::Effect;
use super::error::{Reason, RuleError};
use super::matcher::{Node, Selection};
use super::modifier::{self, Reading};
use super::pipeline::Pipeline;
use super::rule::{Body, Extra, ExtraKind, Filter, FilterTarget, Rule, Taxonomy};
use super::view::FieldNames;
use super::yaml::{self, canonical, log_source, strings};
use super::{Audience, Correlation, DEPTH_MAX, FILE_SIZE_BYTES_MAX, Header, LogSourceFilter, scan};
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
    parse_with(file, text, names, &Arc::default())
}

/// Reads a rule file through a pipeline.
pub fn parse_with(
    file: &Arc<str>,
    text: &str,
    names: &mut FieldNames,
    pipeline: &Arc<Pipeline>,
) -> (Vec<Document>, Vec<RuleError>) {
    let mut budget = Budget::new(FILE_COST_BYTES_MAX);
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    if text.len() > FILE_SIZE_BYTES_MAX {
        errors.push(RuleError { file: file.clone(), line: 1, reason: Reason::TooLarge });
        return (documents, errors);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, text) in scan::documents(text) {
        let value = match yaml::read(text) {
            Ok(value) => value,
            Err((within, reason)) => {
                errors.push(RuleError { file: file.clone(), line: line + within, reason });
                continue;
            }
        };
        match document(file, line, (&value, text), names, pipeline, &mut budget) {
            Ok(document) => documents.push(document),
            Err((key, reason)) => {
                let line = key.map_or(line, |key| scan::line_of(text, line, &key));
                errors.push(RuleError { file: file.clone(), line, reason });
            }
        }
    }
    (documents, errors)
}

/// Most characters of a title, id, name or tag: every alert of the rule carries them.
const NAME_CHARACTERS_MAX: usize = 256;

fn is_too_long(text: &str) -> bool {
    text.trim().chars().nth(NAME_CHARACTERS_MAX).is_some()
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
    (value, text): (&Value, &str),
    names: &mut FieldNames,
    pipeline: &Arc<Pipeline>,
    budget: &mut Budget,
) -> Result<Document, Failure> {
    let root = value.as_mapping().ok_or((None, Reason::NotAMapping))?;
    if root.contains_key("action") {
        return Err(at("action")(Reason::Unsupported { what: "action (of Sigma 1)".to_owned() }));
    }
    if let Some(correlation) = root.get("correlation") {
        return Ok(Document::Correlation(correlate::correlation(file, line, root, correlation)?));
    }
    let source = source_of(root)?;
    let taxonomy = Taxonomy { source, pipeline: Arc::clone(pipeline) };
    match root.get("filter") {
        Some(body) => Ok(Document::Filter(filter(file, line, root, body, taxonomy.source, text)?)),
        None => Ok(Document::Rule(rule(
            file,
            line,
            root,
            &mut Reading { names, taxonomy, budget, effect: Effect::default() },
        )?)),
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
        Some(Value::String(text)) if is_too_long(text) => Err(wrong(key, "a text of at most 256 characters")),
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
        Some(Value::Sequence(tags)) if tags.iter().filter_map(Value::as_str).any(is_too_long) => {
            return Err(wrong("tags", "a list of texts of at most 256 characters"));
        }
        Some(Value::Sequence(tags)) => tags.iter().filter_map(Value::as_str).map(Arc::from).collect(),
        Some(_) => return Err(wrong("tags", "a list")),
    };
    let reference = RuleReference { id, title, semantic_hash, tags };
    let (always_alerts, shadow) = (flag(root, "alerts")?, flag(root, "shadow")?);
    let across_regions = flag(root, "across_regions")?;
    let references = root.get("references").and_then(strings).unwrap_or_default();
    let runbook = references.into_iter().find(|reference| !reference.contains("://")).map(Arc::from);
    let is_experimental = root.get("status").and_then(Value::as_str) == Some("experimental");
    let audience = Audience::Platform;
    let file = file.clone();
    Ok(Header {
        reference,
        name,
        severity,
        always_alerts,
        shadow,
        runbook,
        is_experimental,
        across_regions,
        audience,
        file,
        line,
    })
}

/// Whether a key says true; it must not say anything else than true or false.
pub(super) fn flag(mapping: &Mapping, key: &str) -> Result<bool, Failure> {
    match mapping.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(wrong(key, "true or false")),
    }
}

fn rule(file: &Arc<str>, line: u32, root: &Mapping, reading: &mut Reading<'_>) -> Result<Rule, Failure> {
    let before = reading.budget.left();
    for (key, advice) in [("generate", " (use alerts)"), ("across_regions", "")] {
        if root.contains_key(key) {
            let what = format!("{key} in a rule that is no correlation{advice}");
            return Err(at(key)(Reason::Unsupported { what }));
        }
    }
    let detection = root.get("detection").ok_or_else(|| missing("detection"))?;
    let detection = detection.as_mapping().ok_or_else(|| wrong("detection", "a mapping"))?;
    let taxonomy = reading.taxonomy.clone();
    if let Some(why) = taxonomy.pipeline.refusal(&taxonomy.source) {
        return Err(at("logsource")(Reason::Refused { why: why.to_owned() }));
    }
    let selections = selections("detection", detection, &[], reading)?;
    let texts = detection.get("condition").ok_or_else(|| missing("condition"))?;
    let texts = strings(texts).filter(|texts| !texts.is_empty());
    let texts = texts.ok_or_else(|| wrong("condition", "a text or a list of texts"))?;
    let conditions = texts
        .iter()
        .map(|text| condition::read(text, &selections, reading.budget).map_err(at("condition")))
        .collect::<Result<Vec<_>, _>>()?;
    let source = taxonomy.pipeline.source(&taxonomy.source);
    let mut hash = Digest::new("holdfast sigma rule 1");
    for part in [&source.product, &source.category, &source.service] {
        hash.part(part.as_deref().unwrap_or_default().as_bytes());
    }
    hash.part(canonical(root.get("detection")).as_bytes());
    let mut extras = Vec::new();
    for fields in taxonomy.pipeline.added(&taxonomy.source) {
        let name = "condition of the pipeline";
        let selection = Arc::new(Selection { name: name.to_owned(), node: mapping(name, fields, reading)? });
        reading.effect.added(&canonical(Some(&Value::Mapping(fields.clone()))));
        extras.push(Extra { kind: ExtraKind::Pipeline, selection });
    }
    reading.effect.mix(&mut hash);
    let header = header(file, line, root, SemanticHash::of(hash))?;
    let (extras_yet, carries) = (Vec::new(), None);
    let mut rule =
        Rule { header, source, conditions, texts, selections, extras: extras_yet, taxonomy, cost_bytes: 0, carries };
    extras.into_iter().for_each(|extra| rule.add(extra));
    rule.cost_bytes = before - reading.budget.left();
    Ok(rule)
}

fn filter(
    file: &Arc<str>,
    line: u32,
    root: &Mapping,
    body: &Value,
    source: LogSourceFilter,
    text: &str,
) -> Result<Filter, Failure> {
    let filter = body.as_mapping().ok_or_else(|| wrong("filter", "a mapping"))?;
    let target = match filter.get("rules") {
        // Left out, it would narrow everything; that must be said.
        None | Some(Value::Null) => return Err(missing("rules")),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("any") => FilterTarget::Every,
        Some(rules) => strings(rules)
            .filter(|rules| !rules.is_empty())
            .map(FilterTarget::Rules)
            .ok_or_else(|| wrong("rules", "any, or a list of ids or names"))?,
    };
    let mut hash = Digest::new("holdfast sigma filter 1");
    hash.part(canonical(Some(body)).as_bytes());
    let header = header(file, line, root, SemanticHash::of(hash))?;
    Ok(Filter { header, source, target, body: Arc::new(Body { fields: filter.clone(), text: text.to_owned() }) })
}

pub(super) fn selections(
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
    if fields.is_empty() {
        return Err(wrong(name, "a mapping of at least one field"));
    }
    let mut nodes = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        let key = key.as_str().ok_or_else(|| wrong(name, "a mapping with texts as keys"))?;
        nodes.extend(modifier::field(key, value, reading).map_err(at(key))?);
    }
    if nodes.is_empty() {
        return Err(at(name)(Reason::Emptied { name: name.to_owned() }));
    }
    Ok(Node::All(nodes))
}
