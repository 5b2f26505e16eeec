//! What documents are made of: texts, lists of texts, log sources, spans of time, and one text for all that mean the same.

mod weigh;

use super::LogSourceFilter;
use super::error::Reason;
use serde_yaml_ng::{Mapping, Value};
use std::sync::Arc;

pub(crate) use weigh::weigh;

/// Most that a document's aliases may make of it, as [`weigh`] counts; more than any file of rules is without them.
pub(crate) const WEIGHT_MAX: usize = 16 * 1024 * 1024;

/// The longest timespan: state is kept for that long.
const TIMESPAN_MAX_MS: u64 = 366 * 24 * 60 * 60 * 1_000;

/// A document, and what is wrong with it: the line within its text, from 0, and the reason.
pub(super) fn read(text: &str) -> Result<Value, (u32, Reason)> {
    weigh(text, WEIGHT_MAX).map_err(|reason| (0, reason))?;
    serde_yaml_ng::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |place| place.line().saturating_sub(1));
        (u32::try_from(line).unwrap_or(0), Reason::NotYaml { cause: error.to_string() })
    })
}

/// A text, or a list of texts.
pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Sequence(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// Product, category and service; the key of the one that is not a text.
pub(super) fn log_source(source: &Mapping) -> Result<LogSourceFilter, String> {
    let part = |key: &str| match source.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Arc::<str>::from(text.as_str()))),
        Some(_) => Err(key.to_owned()),
    };
    Ok(LogSourceFilter { product: part("product")?, category: part("category")?, service: part("service")? })
}

/// `5m`, `24h` and their like, in milliseconds.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.chars().last()?;
    let count: u64 = text[..text.len() - unit.len_utf8()].trim().parse().ok()?;
    let unit_ms = match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        'w' => 7 * 86_400_000,
        // As in the specification: a month of 30 days and a year of 365.
        'M' => 30 * 86_400_000,
        'y' => 365 * 86_400_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).filter(|ms| (1..=TIMESPAN_MAX_MS).contains(ms))
}

/// One text for all that mean the same: keys sorted, every text quoted.
pub(super) fn canonical(value: Option<&Value>) -> String {
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
