//! Correlation documents: types, thresholds, conditions over rules.

use super::document::{Failure, at, flag, header, missing, wrong};
use super::error::Reason;
use super::grammar::{self, Formula};
use super::yaml::{canonical, milliseconds, strings};
use super::{Aggregate, Bound, Comparison, Correlation, CorrelationKind, RuleExpression, THRESHOLD_MAX};
use crate::id::{Digest, SemanticHash};
use serde_yaml_ng::{Mapping, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most rules that one correlation is about.
pub(super) const RULES_MAX: usize = 256;

pub(super) fn correlation(file: &Arc<str>, line: u32, root: &Mapping, value: &Value) -> Result<Correlation, Failure> {
    let body = value.as_mapping().ok_or_else(|| wrong("correlation", "a mapping"))?;
    let list = |key: &str| match body.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => strings(value).ok_or_else(|| wrong(key, "a text or a list of texts")),
    };
    let mut rules = list("rules")?;
    if rules.is_empty() {
        // An extended condition names its rules itself.
        rules = body.get("condition").and_then(expression_of).map(grammar::names).unwrap_or_default();
    }
    if rules.is_empty() {
        return Err(missing("rules"));
    }
    if rules.len() > RULES_MAX {
        return Err(wrong("rules", "a list of at most 256"));
    }
    let timespan = body.get("timespan").or_else(|| body.get("timeframe")).ok_or_else(|| missing("timespan"))?;
    let timespan_ms = timespan
        .as_str()
        .and_then(milliseconds)
        .ok_or_else(|| wrong("timespan", "a number and s, m, h, d, w, M or y, at most 366d"))?;
    let kind = body.get("type").and_then(Value::as_str).ok_or_else(|| missing("type"))?;
    let kind = correlation_kind(kind, body.get("condition"), &rules)?;
    let aliases = match body.get("aliases") {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(aliases) => self::aliases(aliases).ok_or_else(|| wrong("aliases", "fields by alias and rule"))?,
    };
    // Where the specification's schema has it, and where its text has had it.
    let generate = flag(root, "generate")? || flag(body, "generate")?;
    let mut hash = Digest::new("holdfast sigma correlation 1");
    hash.part(canonical(Some(value)).as_bytes());
    let header = header(file, line, root, SemanticHash::of(hash))?;
    Ok(Correlation { header, kind, rules, group_by: list("group-by")?, aliases, timespan_ms, generate })
}

fn correlation_kind(kind: &str, condition: Option<&Value>, rules: &[String]) -> Result<CorrelationKind, Failure> {
    let count = u32::try_from(rules.len()).unwrap_or(THRESHOLD_MAX);
    let bounds = condition.and_then(Value::as_mapping).map(bounds).transpose()?;
    let needed = || bounds.clone().filter(|bounds| !bounds.is_empty()).ok_or_else(|| missing("condition"));
    let fields = || {
        let fields = condition.and_then(|condition| condition.get("field")).and_then(strings);
        fields.filter(|fields| !fields.is_empty()).ok_or_else(|| missing("condition.field"))
    };
    let field = || match fields()?.as_slice() {
        [field] => Ok(field.clone()),
        _ => Err(wrong("field", "one field")),
    };
    let aggregate = |of| Ok(CorrelationKind::Value { of, field: field()?, bounds: needed()? });
    match kind {
        "event_count" => {
            let bounds = needed()?;
            Ok(match at_least(&bounds)? {
                Some(at_least) => CorrelationKind::EventCount { at_least },
                None => CorrelationKind::Count { fields: Vec::new(), bounds },
            })
        }
        "value_count" => {
            let (fields, bounds) = (fields()?, needed()?);
            Ok(match at_least(&bounds)? {
                Some(at_least) => CorrelationKind::ValueCount { fields, at_least },
                None => CorrelationKind::Count { fields, bounds },
            })
        }
        "temporal" | "temporal_ordered" => {
            let ordered = kind == "temporal_ordered";
            if let Some(text) = condition.and_then(expression_of) {
                let condition = expression(text, rules).map_err(at("condition"))?;
                let named = grammar::names(text);
                if let Some(unnamed) = rules.iter().find(|rule| !named.contains(rule)) {
                    return Err(at(unnamed)(Reason::UnnamedRule { name: unnamed.clone() }));
                }
                return Ok(CorrelationKind::Expression { condition, ordered });
            }
            if condition.is_some_and(|condition| !condition.is_mapping()) {
                return Err(wrong("condition", "bounds, or an expression over rules"));
            }
            let at_least = match bounds.filter(|bounds| !bounds.is_empty()) {
                None => count,
                Some(bounds) => match at_least(&bounds)? {
                    Some(at_least) => at_least,
                    None => return Ok(CorrelationKind::Rules { ordered, bounds }),
                },
            };
            match ordered {
                _ if at_least > count => Err(wrong("condition", "at most the number of rules")),
                false => Ok(CorrelationKind::Temporal { at_least }),
                true => Ok(CorrelationKind::TemporalOrdered { at_least }),
            }
        }
        "value_sum" => aggregate(Aggregate::Sum),
        "value_avg" => aggregate(Aggregate::Average),
        "value_median" => aggregate(Aggregate::Percentile(50.0)),
        "value_percentile" => {
            // As in the specification's example: the bound is of each value's share, unless a percentile is named.
            let of = match condition.and_then(|condition| condition.get("percentile")) {
                None => Aggregate::Share,
                Some(value) => value
                    .as_f64()
                    .filter(|percentile| (0.0..=100.0).contains(percentile))
                    .map(Aggregate::Percentile)
                    .ok_or_else(|| wrong("percentile", "a number from 0 to 100"))?,
            };
            aggregate(of)
        }
        _ => Err(wrong("type", "a type of correlation")),
    }
}

fn bounds(condition: &Mapping) -> Result<Vec<Bound>, Failure> {
    let mut bounds = Vec::new();
    for (key, value) in condition {
        let key = key.as_str().unwrap_or_default();
        let comparison = match key {
            "gt" => Comparison::Greater,
            "gte" => Comparison::GreaterOrEqual,
            "lt" => Comparison::Less,
            "lte" => Comparison::LessOrEqual,
            "eq" => Comparison::Equal,
            "neq" => Comparison::NotEqual,
            "field" | "percentile" | "expression" => continue,
            _ => return Err(wrong(key, "one of gt, gte, lt, lte, eq, neq, field, percentile and expression")),
        };
        let value = value.as_f64().filter(|value| value.is_finite()).ok_or_else(|| wrong(key, "a number"))?;
        bounds.push(Bound { comparison, value });
    }
    Ok(bounds)
}

/// The one threshold that more events can only reach, never leave; nothing where the bounds say something else.
fn at_least(bounds: &[Bound]) -> Result<Option<u32>, Failure> {
    let (key, value) = match bounds {
        [Bound { comparison: Comparison::GreaterOrEqual, value }] => ("gte", *value),
        [Bound { comparison: Comparison::Greater, value }] => ("gt", value.floor() + 1.0),
        _ => return Ok(None),
    };
    let whole = (1.0..=f64::from(THRESHOLD_MAX)).contains(&value).then_some(value.ceil() as u32);
    whole.map(Some).ok_or_else(|| wrong(key, "a whole number from 1 to 100000"))
}

/// The text of an extended condition, where it is one.
fn expression_of(condition: &Value) -> Option<&str> {
    match condition {
        Value::Mapping(parts) => parts.get("expression").and_then(Value::as_str),
        other => other.as_str(),
    }
}

/// An extended condition: `and`, `or`, `not` and parentheses over the correlation's rules.
fn expression(text: &str, rules: &[String]) -> Result<RuleExpression, Reason> {
    grammar::read(text, |words| {
        let name = words.name()?;
        let rule = rules.iter().position(|rule| rule == name);
        let rule = rule.ok_or_else(|| Reason::UnknownSelection { name: name.to_owned() })?;
        words.pass(1);
        Ok(RuleExpression::Rule(rule))
    })
}

impl Formula for RuleExpression {
    fn all(parts: Vec<Self>) -> Self {
        Self::All(parts)
    }
    fn any(parts: Vec<Self>) -> Self {
        Self::Any(parts)
    }
    fn not(part: Self) -> Self {
        Self::Not(Box::new(part))
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
