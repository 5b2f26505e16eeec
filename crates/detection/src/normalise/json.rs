//! Events that are JSON already: flattened, with time, class and log source read from the fields that hold them.

use super::{Draft, class, flat};
use crate::event::{Fields, LogSource, RejectReason};
use crate::source::syslog::rfc3339_ms;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fields that hold the time, the first found counts: milliseconds or RFC 3339.
pub(crate) const TIME_FIELDS: [&str; 6] = ["time", "time_ms", "@timestamp", "timestamp", "TimeCreated", "UtcTime"];
/// Numbers below this are seconds, not milliseconds: it is the year 1973 in one and 5138 in the other.
const SECONDS_BELOW: f64 = 1e11;

pub(super) fn draft(bytes: &[u8], received_ms: u64) -> Result<Draft, RejectReason> {
    of_object(&parse(bytes)?, received_ms)
}

/// The object that bytes hold.
pub(super) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, RejectReason> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(RejectReason::Empty);
    }
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| RejectReason::NotJson { column: error.column() as u64 })?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(RejectReason::NotAnObject),
    }
}

/// An event whose fields are those of an object.
pub(super) fn of_object(object: &Map<String, Value>, received_ms: u64) -> Result<Draft, RejectReason> {
    let mut draft = Draft { time_ms: received_ms, ..Draft::default() };
    flat::flatten(object, &mut draft.fields)?;
    if let Some((field, value)) = TIME_FIELDS.iter().find_map(|field| Some((field, draft.fields.get(*field)?))) {
        draft.time_ms = time_ms(value).ok_or_else(|| RejectReason::BadField { field: (*field).to_owned() })?;
    }
    let number = |field: &str, default: u32| match draft.fields.get(field) {
        None => Ok(default),
        Some(value) => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            // type_uid is class times a hundred plus activity: it must fit.
            .filter(|number| *number <= 1_000_000)
            .ok_or_else(|| RejectReason::BadField { field: field.to_owned() }),
    };
    let (class_uid, activity_id) = (number("class_uid", class::BASE)?, number("activity_id", 0)?);
    let severity_id = number("severity_id", 0)?;
    (draft.class_uid, draft.activity_id, draft.severity_id) = (class_uid, activity_id, severity_id);
    let text = |field: &str| -> Option<Arc<str>> {
        let nested = format!("logsource.{field}");
        let value = draft.fields.get(&nested).or_else(|| draft.fields.get(field))?;
        value.as_str().map(Arc::from)
    };
    draft.logsource =
        LogSource { product: text("product"), category: text("category"), services: services(&draft.fields) };
    // Only the audit stream speaks for the platform: nobody from outside forges what its rules look at.
    if draft.logsource.product.as_deref() == Some(super::OWN_PRODUCT) {
        return Err(RejectReason::BadField { field: "product".to_owned() });
    }
    Ok(draft)
}

/// Whether an object says itself when it happened.
pub fn says_when(bytes: &[u8]) -> bool {
    let fields: Result<BTreeMap<String, IgnoredAny>, _> = serde_json::from_slice(bytes);
    fields.is_ok_and(|fields| TIME_FIELDS.iter().any(|field| fields.contains_key(*field)))
}

/// One service, or all that the event counts as.
fn services(fields: &Fields) -> Vec<Arc<str>> {
    let value = fields.get("logsource.service").or_else(|| fields.get("service"));
    let values = value.map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
    values.unwrap_or_default().iter().filter_map(Value::as_str).map(Arc::from).collect()
}

/// Milliseconds since 1970 of a number of seconds or milliseconds, or of a text in the manner of RFC 3339.
pub fn time_ms(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_f64().and_then(time_of_number),
        Value::String(text) => time_of_text(text),
        _ => None,
    }
}

/// Seconds or milliseconds since 1970.
pub(crate) fn time_of_number(number: f64) -> Option<u64> {
    let number = Some(number).filter(|number| (0.0..1e15).contains(number))?;
    Some(if number < SECONDS_BELOW { number * 1_000.0 } else { number } as u64)
}

/// RFC 3339, also with a space for the `T` and without an offset.
pub(crate) fn time_of_text(text: &str) -> Option<u64> {
    rfc3339_ms(text).or_else(|| rfc3339_ms(&format!("{}Z", text.replacen(' ', "T", 1))))
}
