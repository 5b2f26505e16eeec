//! OCSF's own schema, and what is wrong with an event under it.

use serde_json::{Map, Value};
use std::sync::LazyLock;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../tests/third-party/ocsf/schema.json"))
        .expect("it was made by a program")
});

/// Everything that is wrong with an event, each with its place.
pub fn faults(event: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let class = &SCHEMA["classes"][event["class_uid"].to_string()];
    if class.is_null() {
        return vec![format!("class_uid: {} is no class that is known here", event["class_uid"])];
    }
    match event.as_object() {
        Some(event) => object("", class, event, &mut faults),
        None => faults.push("no object".to_owned()),
    }
    faults
}

fn object(path: &str, known: &Value, found: &Map<String, Value>, faults: &mut Vec<String>) {
    let attributes = known["attributes"].as_object().expect("classes and objects have attributes");
    for (name, attribute) in attributes {
        if attribute["required"] == true && !found.contains_key(name) {
            faults.push(format!("{path}{name}: is missing"));
        }
    }
    for (rule, names) in known["constraints"].as_object().into_iter().flatten() {
        let names = names.as_array().expect("a constraint has names");
        let count = names.iter().filter(|name| name.as_str().is_some_and(|name| found.contains_key(name))).count();
        if count == 0 || rule == "just_one" && count > 1 {
            faults.push(format!("{path}: {rule} of {names:?}"));
        }
    }
    for (name, value) in found {
        let path = format!("{path}{name}");
        let attribute = match attributes.get(name) {
            Some(attribute) => attribute,
            // The base event has no words of its own for who did what to what: it borrows those of others.
            None if known["name"] == "base_event" => match borrowed(name) {
                Some(attribute) => attribute,
                None => {
                    faults.push(format!("{path}: is not in the schema"));
                    continue;
                }
            },
            None if attributes.is_empty() => continue,
            None => {
                faults.push(format!("{path}: is not in the schema"));
                continue;
            }
        };
        match (attribute["array"] == true, value) {
            (true, Value::Array(values)) => values.iter().for_each(|value| one(&path, attribute, value, faults)),
            (true, _) => faults.push(format!("{path}: is no list")),
            (false, value) => one(&path, attribute, value, faults),
        }
    }
}

fn borrowed(name: &str) -> Option<&'static Value> {
    let classes = SCHEMA["classes"].as_object().expect("there are classes");
    classes.values().find_map(|class| class["attributes"].get(name))
}

fn one(path: &str, attribute: &Value, value: &Value, faults: &mut Vec<String>) {
    let kind = attribute["type"].as_str().expect("every attribute has a type");
    if let Some(kind) = kind.strip_prefix("object:") {
        match value.as_object() {
            // A free-form object.
            Some(_) if kind == "object" => {}
            Some(value) => object(&format!("{path}."), &SCHEMA["objects"][kind], value, faults),
            None => faults.push(format!("{path}: is no object")),
        }
        return;
    }
    let base = SCHEMA["types"][kind].as_str().expect("every type has a base");
    let fits = match base {
        "string_t" => value.is_string(),
        "integer_t" | "long_t" => value.is_i64() || value.is_u64(),
        "float_t" => value.is_number(),
        "boolean_t" => value.is_boolean(),
        "json_t" => true,
        other => panic!("the schema has a type that is not known here: {other}"),
    };
    let fits = fits && (kind != "ip_t" || value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()));
    if !fits {
        faults.push(format!("{path}: {value} is no {kind}"));
    }
    if let Some(values) = attribute["enum"].as_array() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if !values.iter().any(|value| *value == text) {
            faults.push(format!("{path}: {value} is none of {values:?}"));
        }
    }
}
