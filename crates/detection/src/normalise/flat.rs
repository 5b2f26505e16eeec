//! Flattening: nested JSON to dotted names; objects inside arrays add to one array for each name.

use crate::event::{FIELDS_MAX, Fields, RejectReason};
use serde_json::Value;

/// Most nesting of an event.
const DEPTH_MAX: usize = 24;
/// Most values in one flattened array; the rest are dropped.
const ARRAY_MAX: usize = 256;

/// Flattens an object into fields.
///
/// # Errors
/// [`RejectReason::TooManyFields`] where it is too large or nested too deep.
pub fn flatten(object: &serde_json::Map<String, Value>, fields: &mut Fields) -> Result<(), RejectReason> {
    for (name, value) in object {
        walk(name, value, false, 0, fields)?;
    }
    Ok(())
}

fn walk(name: &str, value: &Value, in_array: bool, depth: usize, fields: &mut Fields) -> Result<(), RejectReason> {
    if depth > DEPTH_MAX || fields.len() > FIELDS_MAX {
        return Err(RejectReason::TooManyFields);
    }
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                walk(&format!("{name}.{key}"), value, in_array, depth + 1, fields)?;
            }
        }
        Value::Array(values) => {
            if !in_array {
                fields.entry(name.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
            }
            for value in values {
                walk(name, value, true, depth + 1, fields)?;
            }
            // An array of nothing but objects has no values under its own name.
            if !values.is_empty() && matches!(fields.get(name), Some(Value::Array(found)) if found.is_empty()) {
                fields.remove(name);
            }
        }
        scalar if in_array => match fields.entry(name.to_owned()).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(found) if found.len() < ARRAY_MAX => found.push(scalar.clone()),
            Value::Array(_) => {}
            single => *single = Value::Array(vec![single.clone(), scalar.clone()]),
        },
        scalar => {
            fields.insert(name.to_owned(), scalar.clone());
        }
    }
    Ok(())
}
