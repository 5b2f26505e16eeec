//! Random rules and events: words that are parts of each other, in every shape that rules and JSON allow.
#![allow(clippy::unwrap_used, dead_code, reason = "a test that cannot go on has failed; each test uses some of it")]

use super::support::NOW_MS;
use detection::rules::{RuleSet, load_texts_with};
use detection::sigma::Pipeline;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Words that are parts of each other, in both cases, with what JSON and Sigma escape.
const WORDS: [&str; 21] = [
    "a",
    "B",
    "ab",
    "AbC",
    "abcabc",
    "foo\\bar",
    "foo/bar",
    "\\",
    "\"q\"",
    "10.1.2.3",
    "192.168.0.1",
    "2001:db8::5",
    "7",
    "-3",
    "12.5",
    "é",
    "ſtrasse",
    "K\u{212a}",
    "2026-11-24T01:07:09Z",
    "a -enc b",
    "line\r\nbreak\tx",
];
/// `h` is a field that events have under two other names.
const FIELDS: [&str; 7] = ["f", "g", "n.x", "n.y", "EventID", "class_uid", "h"];
/// Fields of events, some of which no rule looks at.
const NAMES: [&str; 8] = ["f", "g", "x", "EventID", "n", "n.x", "class_uid", "\u{e9}"];
const MODIFIERS: [&str; 57] = [
    "",
    "",
    "|contains",
    "|contains",
    "|startswith",
    "|startswith",
    "|startswith",
    "|startswith",
    "|endswith",
    "|endswith",
    "|endswith",
    "|endswith",
    "",
    "",
    "",
    "|contains",
    "|contains",
    "|startswith",
    "|endswith",
    "|contains|all",
    "|all",
    "|cased",
    "|contains|cased",
    "|re",
    "|re|i",
    "|re|m|s",
    "|cidr",
    "|gt",
    "|gte",
    "|lt",
    "|lte",
    "|exists",
    "|neq",
    "|fieldref",
    "|fieldref|contains",
    "|base64",
    "|base64offset|contains",
    "|wide|base64offset|contains",
    "|windash|contains",
    "|hour",
    "|day|gte",
    "|expand",
    "|expand|contains",
    "|expand|re",
    "|minute",
    "|week|lt",
    "|month|neq",
    "|year|lte",
    "|wide",
    "|utf16le|contains",
    "|utf16be|base64|contains",
    "|utf16|base64offset|contains",
    "|windash|base64offset|contains",
    "|contains|neq",
    "|cidr|neq",
    "|re|neq",
    "|exists|neq",
];

pub fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => proptest::sample::select(&WORDS[..]).prop_map(str::to_owned),
        2 => (proptest::sample::select(&WORDS[..]), proptest::sample::select(&WORDS[..])).prop_map(|(a, b)| format!("{a}{b}")),
        1 => "[a-cA-C]{0,4}",
    ]
}

fn rule_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => word().prop_map(Value::from),
        2 => (word(), word()).prop_map(|(a, b)| Value::from(format!("{a}*{b}"))),
        1 => (word(), word()).prop_map(|(a, b)| Value::from(format!("*{a}?{b}*"))),
        1 => Just(Value::Null),
        1 => (-5_i64..15).prop_map(Value::from),
        1 => Just(json!("")),
        1 => Just(json!("*")),
    ]
}

/// A value that fits a modifier; what does not fit is an error of the rule, and tested elsewhere.
fn fitting(modifier: &'static str) -> BoxedStrategy<Value> {
    match modifier {
        "|gt" | "|gte" | "|lt" | "|lte" => (-5_i64..15).prop_map(Value::from).boxed(),
        "|hour" | "|day|gte" | "|minute" | "|week|lt" | "|month|neq" => (0_i64..60).prop_map(Value::from).boxed(),
        "|year|lte" => (2025_i64..2028).prop_map(Value::from).boxed(),
        "|exists" | "|exists|neq" => any::<bool>().prop_map(Value::from).boxed(),
        "|cidr" | "|cidr|neq" => {
            proptest::sample::select(&["10.0.0.0/8", "192.168.0.0/31", "2001:db8::/32", "0.0.0.0/0"][..])
                .prop_map(Value::from)
                .boxed()
        }
        "|re" | "|re|i" | "|re|m|s" | "|re|neq" => proptest::sample::select(
            &[
                "^a",
                "b$",
                "a.c",
                "(foo|AB)",
                "[0-9]+",
                "s{2}",
                "(?i)strasse",
                "k",
                "(ab){2}",
                "x?y?",
                "line.break",
                "^x?$",
            ][..],
        )
        .prop_map(Value::from)
        .boxed(),
        "|fieldref" | "|fieldref|contains" => proptest::sample::select(&FIELDS[..]).prop_map(Value::from).boxed(),
        "|cased"
        | "|contains|cased"
        | "|base64"
        | "|base64offset|contains"
        | "|wide|base64offset|contains"
        | "|wide"
        | "|utf16le|contains"
        | "|utf16be|base64|contains"
        | "|utf16|base64offset|contains" => word().prop_map(Value::from).boxed(),
        "|windash|contains" | "|windash|base64offset|contains" => Just(json!(" -enc ")).boxed(),
        "|expand" | "|expand|contains" | "|expand|re" => {
            proptest::sample::select(&["%some%", "a%some%", "%some%%one%", r"\%some\%"][..])
                .prop_map(Value::from)
                .boxed()
        }
        _ => rule_value().boxed(),
    }
}

fn item() -> impl Strategy<Value = (String, Value)> {
    // Most rules ask the same field, so that they often match.
    let field = prop_oneof![3 => Just("f"), 1 => proptest::sample::select(&FIELDS[..])];
    (field, proptest::sample::select(&MODIFIERS[..])).prop_flat_map(|(field, modifier)| {
        proptest::collection::vec(fitting(modifier), 1..9).prop_map(move |mut values| {
            let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
            (format!("{field}{modifier}"), value)
        })
    })
}

fn selection() -> impl Strategy<Value = Value> {
    let map = proptest::collection::vec(item(), 1..3)
        .prop_map(|items| Value::Object(items.into_iter().collect::<Map<String, Value>>()))
        .boxed();
    prop_oneof![
        6 => map.clone(),
        1 => proptest::collection::vec(map, 1..3).prop_map(Value::Array),
        1 => proptest::collection::vec(word().prop_map(Value::from), 1..3).prop_map(Value::Array),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("c".to_owned()),
        Just("1 of them".to_owned()),
        Just("all of *".to_owned()),
    ];
    let simple = prop_oneof![Just("a"), Just("a and b"), Just("1 of them"), Just("a or not b")].prop_map(str::to_owned);
    let nested = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("not ({inner})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) and ({b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a}) or not ({b})")),
        ]
    });
    prop_oneof![simple, nested]
}

pub fn rule() -> impl Strategy<Value = Value> {
    let source = proptest::sample::select(&["{}", r#"{"product":"p"}"#, r#"{"product":"p","service":"s"}"#][..]);
    (selection(), selection(), selection(), condition(), source).prop_map(|(a, b, c, condition, source)| {
        let source: Value = serde_json::from_str(source).unwrap();
        json!({"logsource": source, "detection": {"a": a, "b": b, "c": c, "condition": condition}})
    })
}

fn event_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        8 => word().prop_map(Value::from),
        2 => (-5_i64..15).prop_map(Value::from),
        1 => Just(json!(12.5)),
        1 => Just(json!(-0.0)),
        1 => Just(json!(12345678901234567890_u64)),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!("")),
        1 => word().prop_map(|word| Value::from(format!("x{}y", base64(&word)))),
        2 => proptest::collection::vec(word(), 10..60).prop_map(|words| Value::from(words.concat())),
    ];
    prop_oneof![
        6 => scalar.clone(),
        1 => proptest::collection::vec(scalar.clone(), 0..3).prop_map(Value::Array),
        1 => proptest::collection::vec(scalar, 0..3)
            .prop_map(|values| Value::Array(values.into_iter().map(|value| json!({"x": value, "y": [1]})).collect())),
    ]
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

pub fn event() -> impl Strategy<Value = String> {
    let name = prop_oneof![2 => Just("f"), 3 => proptest::sample::select(&NAMES[..])];
    let fields = proptest::collection::vec((name, event_value()), 0..6);
    let nested = proptest::option::of((event_value(), event_value()));
    let source = proptest::sample::select(
        &[
            "{}",
            r#"{"product":"p"}"#,
            r#"{"product":"p","service":"s"}"#,
            r#"{"product":"p","service":["s"]}"#,
            r#"{"product":"p","service":["t","s"],"logsource":{"service":[]}}"#,
            r#"{"product":["p"],"logsource":[{"product":"p","service":"s"}]}"#,
            r#"{"product":"p","activity_id":[]}"#,
            r#"{"product":"p","type_uid":[7]}"#,
        ][..],
    );
    (fields, nested, source, any::<(bool, bool)>()).prop_map(|(fields, nested, source, (pretty, unusual))| {
        let mut event: Map<String, Value> = serde_json::from_str(source).unwrap();
        event.insert("time".to_owned(), json!(NOW_MS));
        for (name, value) in fields {
            // Numbers that rules' log sources and classes rest on must be numbers, or the event is rejected.
            let value = if name == "class_uid" { json!(3002) } else { value };
            event.insert(name.to_owned(), value);
        }
        if let Some((x, y)) = nested {
            event.insert("n".to_owned(), json!({"x": x, "y": y}));
        }
        let event = Value::Object(event);
        let text = if pretty { serde_json::to_string_pretty(&event).unwrap() } else { event.to_string() };
        // Escapes that nobody needs mean the same.
        if unusual { text.replace('/', "\\/").replace("foo", "\\u0066oo").replace('é', "\\u00E9") } else { text }
    })
}

/// Narrows the rules of one log source.
const FILTER: &str = "title: filter\nlogsource: {product: p}\nfilter: {rules: any, s: {EventID: 7}, t: {h: ['a*', null]}, condition: not s or t}\n";

/// Placeholders with values, and a field that events have under two names.
fn pipeline() -> Pipeline {
    let text = "vars: {some: [a, 'b*', B], one: c}\ntransformations:\n  - {type: value_placeholders}\n  \
                - {type: field_name_mapping, mapping: {h: [f, n.x]}}\n";
    Pipeline::read(&"random.yml".into(), text).unwrap()
}

pub fn rules_of(rules: &[Value]) -> RuleSet {
    let text: Vec<String> = rules
        .iter()
        .enumerate()
        .map(|(number, rule)| {
            let mut rule = rule.clone();
            rule["title"] = json!(format!("rule {number}"));
            rule.to_string()
        })
        .collect();
    let text = [text.join("\n---\n"), FILTER.to_owned()].join("\n---\n");
    let (rules, errors) = load_texts_with(vec![("random.yml".to_owned(), text)], &pipeline());
    for error in &errors {
        // An encoded empty text, or a null where text is wanted, is the rule's own fault.
        assert!(error.to_string().contains("must be"), "{error}");
    }
    rules
}
