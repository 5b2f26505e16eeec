//! Flattening: nested JSON to dotted names; objects inside arrays add to one array for each name.
//!
//! Names are bounded in number and in length, so that what is flattened is never much larger than what it was made of.

use crate::event::{FIELDS_MAX, Fields, NAME_BYTES_MAX, RejectReason};
use serde_json::{Map, Value};

/// Most nesting of an event.
const DEPTH_MAX: usize = 24;
/// Most values in one flattened array; the rest are dropped.
const ARRAY_MAX: usize = 256;

/// Flattens an object into fields.
///
/// # Errors
/// [`RejectReason::TooManyFields`] where it is too large, nested too deep or has too long names.
pub fn flatten(object: &Map<String, Value>, fields: &mut Fields) -> Result<(), RejectReason> {
    let mut path = String::new();
    object.iter().try_for_each(|(name, value)| enter(&mut path, name, value, false, 0, fields))
}

/// Goes on under a name that is added to the path.
fn enter(
    path: &mut String,
    name: &str,
    value: &Value,
    in_array: bool,
    depth: usize,
    fields: &mut Fields,
) -> Result<(), RejectReason> {
    let outer = path.len();
    if outer + name.len() >= NAME_BYTES_MAX {
        return Err(RejectReason::TooManyFields);
    }
    if depth > 0 {
        path.push('.');
    }
    path.push_str(name);
    walk(path, value, in_array, depth, fields)?;
    path.truncate(outer);
    Ok(())
}

fn walk(
    path: &mut String,
    value: &Value,
    in_array: bool,
    depth: usize,
    fields: &mut Fields,
) -> Result<(), RejectReason> {
    if depth > DEPTH_MAX || fields.len() > FIELDS_MAX {
        return Err(RejectReason::TooManyFields);
    }
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                enter(path, key, value, in_array, depth + 1, fields)?;
            }
        }
        Value::Array(values) => {
            if !in_array {
                fields.entry(path.clone()).or_insert_with(|| Value::Array(Vec::new()));
            }
            for value in values {
                walk(path, value, true, depth + 1, fields)?;
            }
            // An array of nothing but objects has no values under its own name.
            if !values.is_empty() && matches!(fields.get(path), Some(Value::Array(found)) if found.is_empty()) {
                fields.remove(path);
            }
        }
        scalar if in_array => match fields.entry(path.clone()).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(found) if found.len() < ARRAY_MAX => found.push(scalar.clone()),
            Value::Array(_) => {}
            single => *single = Value::Array(vec![single.clone(), scalar.clone()]),
        },
        scalar => {
            fields.insert(path.clone(), scalar.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn flat(value: &Value) -> Result<Fields, RejectReason> {
        let mut fields = Fields::new();
        flatten(value.as_object().expect("an object"), &mut fields).map(|()| fields)
    }

    #[test]
    fn objects_become_dotted_names_and_objects_in_arrays_add_to_one_array_for_each_name() {
        let fields = flat(&json!({"a": {"b": 1, "c": [{"d": 1}, {"d": 2, "e": "x"}]}, "f": [], "g": [1, 2]})).unwrap();
        let expect = json!({"a.b": 1, "a.c.d": [1, 2], "a.c.e": ["x"], "f": [], "g": [1, 2]});
        assert_eq!(json!(fields), expect);
    }

    #[test]
    fn a_long_name_before_many_values_is_refused_and_never_repeated() {
        let inner: Map<String, Value> = (0..500).map(|number| (format!("c{number}"), json!(number))).collect();
        let bomb = json!({ "k".repeat(55_000): inner });
        assert_eq!(flat(&bomb), Err(RejectReason::TooManyFields));
        let long = json!({ "k".repeat(NAME_BYTES_MAX): 1 });
        assert_eq!(flat(&long), Err(RejectReason::TooManyFields));
        let longest = json!({ "k".repeat(NAME_BYTES_MAX - 1): 1 });
        assert_eq!(flat(&longest).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn names_are_never_longer_than_allowed(depth in 0_usize..24, key in "k{1,60}") {
            let nested = (0..depth).fold(json!(1), |inner, _| json!({ key.as_str(): inner }));
            if let Ok(fields) = flat(&json!({ key.as_str(): nested })) {
                prop_assert!(fields.keys().all(|name| name.len() <= NAME_BYTES_MAX));
            }
        }
    }
}
