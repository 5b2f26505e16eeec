//! Rule files: YAML documents, each a rule on single events or a correlation.

use super::condition::{self, Selections};
use super::error::{Reason, RuleError};
use super::matcher::Node;
use super::scan;
use super::view::FieldNames;
use super::{
    Correlation, CorrelationKind, DEPTH_MAX, FILE_SIZE_BYTES_MAX, Header, LogSourceFilter, Rule, THRESHOLD_MAX,
    modifier,
};
use crate::alert::{RuleReference, Severity};
use crate::id::{Digest, SemanticHash};
use serde_yaml_ng::{Mapping, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A document of a rule file.
#[derive(Clone, Debug)]
pub enum Document {
    /// A rule on single events.
    Rule(Rule),
    /// A correlation of rules.
    Correlation(Correlation),
}

/// Reads a rule file: what is right in it and what is wrong with the rest.
pub fn parse(file: &Arc<str>, text: &str, names: &mut FieldNames) -> (Vec<Document>, Vec<RuleError>) {
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
        match document(file, line, &value, names) {
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
type Failure = (Option<String>, Reason);

fn at(key: &str) -> impl Fn(Reason) -> Failure + '_ {
    move |reason| (Some(key.to_owned()), reason)
}

fn wrong(key: &str, expected: &'static str) -> Failure {
    (Some(key.to_owned()), Reason::Wrong { key: key.to_owned(), expected })
}

fn missing(key: &str) -> Failure {
    (None, Reason::Missing { key: key.to_owned() })
}

fn document(file: &Arc<str>, line: u32, value: &Value, names: &mut FieldNames) -> Result<Document, Failure> {
    let root = value.as_mapping().ok_or((None, Reason::NotAMapping))?;
    if root.contains_key("filter") {
        return Err((Some("filter".to_owned()), Reason::Unsupported { what: "a filter document".to_owned() }));
    }
    if root.contains_key("action") {
        return Err((Some("action".to_owned()), Reason::Unsupported { what: "action".to_owned() }));
    }
    match root.get("correlation") {
        Some(correlation) => Ok(Document::Correlation(self::correlation(file, line, root, correlation)?)),
        None => Ok(Document::Rule(rule(file, line, root, names)?)),
    }
}

fn header(file: &Arc<str>, line: u32, root: &Mapping, semantic_hash: SemanticHash) -> Result<Header, Failure> {
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
    Ok(Header { reference, name, severity, always_alerts, file: file.clone(), line })
}

fn rule(file: &Arc<str>, line: u32, root: &Mapping, names: &mut FieldNames) -> Result<Rule, Failure> {
    let source = root.get("logsource").ok_or_else(|| missing("logsource"))?;
    let source = source.as_mapping().ok_or_else(|| wrong("logsource", "a mapping"))?;
    let part = |key: &str| match source.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Arc::<str>::from(text.as_str()))),
        Some(_) => Err(wrong(key, "a text")),
    };
    let source = LogSourceFilter { product: part("product")?, category: part("category")?, service: part("service")? };
    let detection = root.get("detection").ok_or_else(|| missing("detection"))?;
    let detection = detection.as_mapping().ok_or_else(|| wrong("detection", "a mapping"))?;
    let mut selections = Selections::new();
    for (name, value) in detection {
        let name = name.as_str().ok_or_else(|| wrong("detection", "a mapping with texts as keys"))?;
        match name {
            "condition" => {}
            "timeframe" => return Err(at(name)(Reason::Unsupported { what: "timeframe".to_owned() })),
            name => selections.push((name.to_owned(), Arc::new(selection(name, value, names, 0)?))),
        }
    }
    let texts = detection.get("condition").ok_or_else(|| missing("condition"))?;
    let texts = strings(texts).ok_or_else(|| wrong("condition", "a text or a list of texts"))?;
    let conditions = texts
        .iter()
        .map(|text| condition::read(text, &selections).map_err(at("condition")))
        .collect::<Result<Vec<_>, _>>()?;
    let mut hash = Digest::new("holdfast sigma rule 1");
    for part in [&source.product, &source.category, &source.service] {
        hash.part(part.as_deref().unwrap_or_default().as_bytes());
    }
    hash.part(canonical(root.get("detection")).as_bytes());
    let header = header(file, line, root, SemanticHash::of(hash))?;
    Ok(Rule { header, source, conditions })
}

fn selection(name: &str, value: &Value, names: &mut FieldNames, depth: usize) -> Result<Node, Failure> {
    if depth > DEPTH_MAX {
        return Err((Some(name.to_owned()), Reason::TooDeep));
    }
    match value {
        Value::Mapping(fields) => {
            let mut nodes = Vec::with_capacity(fields.len());
            for (key, value) in fields {
                let key = key.as_str().ok_or_else(|| wrong(name, "a mapping with texts as keys"))?;
                nodes.push(modifier::field(key, value, names).map_err(at(key))?);
            }
            Ok(Node::All(nodes))
        }
        Value::Sequence(values) if values.iter().any(|value| value.is_mapping() || value.is_sequence()) => {
            let nodes =
                values.iter().map(|value| selection(name, value, names, depth + 1)).collect::<Result<Vec<_>, _>>()?;
            Ok(Node::Any(nodes))
        }
        Value::Sequence(values) if !values.is_empty() => modifier::keywords(values).map_err(at(name)),
        Value::String(_) | Value::Number(_) => modifier::keywords(std::slice::from_ref(value)).map_err(at(name)),
        _ => Err(wrong(name, "a mapping or a list")),
    }
}

fn correlation(file: &Arc<str>, line: u32, root: &Mapping, value: &Value) -> Result<Correlation, Failure> {
    let body = value.as_mapping().ok_or_else(|| wrong("correlation", "a mapping"))?;
    let list = |key: &str| match body.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => strings(value).ok_or_else(|| wrong(key, "a text or a list of texts")),
    };
    let rules = list("rules")?;
    if rules.is_empty() {
        return Err(missing("rules"));
    }
    let timespan = body.get("timespan").or_else(|| body.get("timeframe")).ok_or_else(|| missing("timespan"))?;
    let timespan_ms = timespan
        .as_str()
        .and_then(milliseconds)
        .ok_or_else(|| wrong("timespan", "a number and s, m, h, d or w, at most 366d"))?;
    let kind = body.get("type").and_then(Value::as_str).ok_or_else(|| missing("type"))?;
    let kind = correlation_kind(kind, body.get("condition"), rules.len())?;
    let aliases = match body.get("aliases") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(aliases) => self::aliases(aliases).ok_or_else(|| wrong("aliases", "fields by alias and rule"))?,
    };
    let generate = body.get("generate").and_then(Value::as_bool) == Some(true);
    let mut hash = Digest::new("holdfast sigma correlation 1");
    hash.part(canonical(Some(value)).as_bytes());
    let header = header(file, line, root, SemanticHash::of(hash))?;
    Ok(Correlation { header, kind, rules, group_by: list("group-by")?, aliases, timespan_ms, generate })
}

fn correlation_kind(kind: &str, condition: Option<&Value>, rules: usize) -> Result<CorrelationKind, Failure> {
    let threshold = |needed: bool| -> Result<Option<u32>, Failure> {
        let Some(condition) = condition else {
            return if needed { Err(missing("condition")) } else { Ok(None) };
        };
        let Some(condition) = condition.as_mapping() else {
            return Err(at("condition")(Reason::Unsupported { what: "an extended condition".to_owned() }));
        };
        let bounds: Vec<(&str, &Value)> = condition
            .iter()
            .filter_map(|(key, value)| Some((key.as_str()?, value)))
            .filter(|(key, _)| *key != "field")
            .collect();
        let [(order, bound)] = bounds.as_slice() else { return Err(wrong("condition", "one of gt and gte")) };
        let at_least = match *order {
            "gte" => bound.as_u64(),
            "gt" => bound.as_u64().and_then(|bound| bound.checked_add(1)),
            other => {
                // These can be told only when the window is over; the engine has no such operator.
                return Err(at("condition")(Reason::Unsupported { what: format!("condition {other}") }));
            }
        };
        at_least
            .and_then(|at_least| u32::try_from(at_least).ok())
            .filter(|at_least| (1..=THRESHOLD_MAX).contains(at_least))
            .map(Some)
            .ok_or_else(|| wrong(order, "a whole number from 1 to 10000"))
    };
    match kind {
        "event_count" => Ok(CorrelationKind::EventCount { at_least: threshold(true)?.unwrap_or(1) }),
        "value_count" => {
            let fields = condition.and_then(|condition| condition.get("field")).and_then(strings);
            let fields = fields.filter(|fields| !fields.is_empty()).ok_or_else(|| missing("condition.field"))?;
            Ok(CorrelationKind::ValueCount { fields, at_least: threshold(true)?.unwrap_or(1) })
        }
        "temporal" => {
            let all = u32::try_from(rules).unwrap_or(THRESHOLD_MAX);
            let at_least = threshold(false)?.unwrap_or(all);
            if at_least > all {
                return Err(wrong("condition", "at most the number of rules"));
            }
            Ok(CorrelationKind::Temporal { at_least })
        }
        "temporal_ordered" if condition.is_none() || threshold(false)? == u32::try_from(rules).ok() => {
            Ok(CorrelationKind::TemporalOrdered)
        }
        "temporal_ordered" => {
            Err(at("condition")(Reason::Unsupported { what: "a condition of temporal_ordered".to_owned() }))
        }
        "value_sum" | "value_avg" | "value_percentile" | "value_median" => {
            Err(at("type")(Reason::Unsupported { what: kind.to_owned() }))
        }
        _ => Err(wrong("type", "a type of correlation")),
    }
}

fn aliases(value: &Value) -> Option<BTreeMap<String, BTreeMap<String, String>>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    value
        .as_mapping()?
        .iter()
        .map(|(alias, fields)| {
            let fields = fields.as_mapping()?.iter().map(|(rule, field)| Some((text(rule)?, text(field)?)));
            Some((text(alias)?, fields.collect::<Option<_>>()?))
        })
        .collect()
}

fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Sequence(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The longest timespan: state is kept for that long.
const TIMESPAN_MAX_MS: u64 = 366 * 24 * 60 * 60 * 1_000;

fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.chars().last()?;
    let count: u64 = text[..text.len() - unit.len_utf8()].trim().parse().ok()?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        'w' => 7 * 86_400_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).filter(|ms| (1..=TIMESPAN_MAX_MS).contains(ms))
}

/// One text for all that mean the same: keys sorted, every text quoted.
fn canonical(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "null".to_owned(),
        Some(Value::Mapping(fields)) => {
            let mut fields: Vec<String> =
                fields.iter().map(|(key, value)| canonical(Some(key)) + ":" + &canonical(Some(value))).collect();
            fields.sort_unstable();
            format!("{{{}}}", fields.join(","))
        }
        Some(Value::Sequence(values)) => {
            let values: Vec<String> = values.iter().map(|value| canonical(Some(value))).collect();
            format!("[{}]", values.join(","))
        }
        Some(Value::String(text)) => format!("{text:?}"),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Tagged(tagged)) => format!("!{}{}", tagged.tag, canonical(Some(&tagged.value))),
    }
}
