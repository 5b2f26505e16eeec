//! The compiled program against the naive evaluator: random rules and random events, and public ones where they are at
//! hand. They must agree on every event, whether it is read from its bytes or from the event made of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::event::{Event, RawEvent};
use detection::normalise::normalise;
use detection::program::Program;
use detection::rules::{RuleSet, load_texts, load_tree};
use detection::sigma::{Pipeline, View};
use detection::{Position, SourceKind};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use support::{NOW_MS, data, unpacked};

/// Words that are parts of each other, in both cases, with what JSON and Sigma escape.
const WORDS: [&str; 20] = [
    "a",
    "B",
    "ab",
    "AbC",
    "abcabc",
    "foo\\bar",
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
const FIELDS: [&str; 6] = ["f", "g", "n.x", "n.y", "EventID", "class_uid"];
/// Fields of events, some of which no rule looks at.
const NAMES: [&str; 8] = ["f", "g", "x", "EventID", "n", "n.x", "class_uid", "\u{e9}"];
const MODIFIERS: [&str; 42] = [
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
];

fn word() -> impl Strategy<Value = String> {
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
        "|hour" | "|day|gte" => (0_i64..25).prop_map(Value::from).boxed(),
        "|exists" => any::<bool>().prop_map(Value::from).boxed(),
        "|cidr" => proptest::sample::select(&["10.0.0.0/8", "192.168.0.0/31", "2001:db8::/32", "0.0.0.0/0"][..])
            .prop_map(Value::from)
            .boxed(),
        "|re" | "|re|i" | "|re|m|s" => proptest::sample::select(
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
        "|cased" | "|contains|cased" | "|base64" | "|base64offset|contains" | "|wide|base64offset|contains" => {
            word().prop_map(Value::from).boxed()
        }
        "|windash|contains" => Just(json!(" -enc ")).boxed(),
        "|expand" => Just(json!("%nothing%")).boxed(),
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

fn rule() -> impl Strategy<Value = Value> {
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

fn event() -> impl Strategy<Value = String> {
    let name = prop_oneof![2 => Just("f"), 3 => proptest::sample::select(&NAMES[..])];
    let fields = proptest::collection::vec((name, event_value()), 0..6);
    let nested = proptest::option::of((event_value(), event_value()));
    let source = proptest::sample::select(&["{}", r#"{"product":"p"}"#, r#"{"product":"p","service":"s"}"#][..]);
    (fields, nested, source, any::<bool>()).prop_map(|(fields, nested, source, pretty)| {
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
        if pretty { serde_json::to_string_pretty(&event).unwrap() } else { event.to_string() }
    })
}

fn rules_of(rules: &[Value]) -> RuleSet {
    let text: Vec<String> = rules
        .iter()
        .enumerate()
        .map(|(number, rule)| {
            let mut rule = rule.clone();
            rule["title"] = json!(format!("rule {number}"));
            rule.to_string()
        })
        .collect();
    let (rules, errors) = load_texts(vec![("random.yml".to_owned(), text.join("\n---\n"))]);
    for error in &errors {
        // An encoded empty text, or a null where text is wanted, is the rule's own fault.
        assert!(error.to_string().contains("must be"), "{error}");
    }
    rules
}

fn raw_of(text: &str) -> RawEvent {
    let position = Some(Position { stream: "s".into(), sequence: 1 });
    RawEvent { source: SourceKind::Ndjson, received_ms: NOW_MS, position, bytes: text.to_owned().into() }
}

/// What the naive evaluator says.
fn naive(rules: &RuleSet, event: &Event) -> Vec<usize> {
    let view = View::new(rules.names(), event);
    let admitted = rules.rules().iter().enumerate().filter(|(_, rule)| rule.source.admits(&event.logsource));
    admitted.filter(|(_, rule)| rule.matches(&view)).map(|(place, _)| place).collect()
}

fn compiled(program: &Program, event: &Event) -> Vec<usize> {
    let mut worker = program.worker();
    program.run(&mut worker, event);
    worker.hits().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn program_and_naive_evaluator_agree(
        rules in proptest::collection::vec(rule(), 1..10),
        events in proptest::collection::vec(event(), 1..16),
    ) {
        let rules = rules_of(&rules);
        let program = rules.program();
        let mut worker = program.worker();
        for text in &events {
            let raw = raw_of(text);
            let Ok(event) = normalise(&raw) else {
                prop_assert!(program.run_raw(&mut worker, &raw).is_err());
                continue;
            };
            let expect = naive(&rules, &event);
            prop_assert_eq!(&compiled(program, &event), &expect, "event {}", text);
            let look = program.run_raw(&mut worker, &raw).unwrap();
            prop_assert_eq!(look.time_ms, event.time_ms);
            prop_assert_eq!(&worker.hits().collect::<Vec<_>>(), &expect, "raw {}", text);
        }
    }

    #[test]
    fn arbitrary_bytes_are_read_as_normalising_reads_them(bytes: Vec<u8>, text in "[\\[\\]{}\",:0-9a-c \\\\ue.-]{0,60}") {
        let (rules, _) = load_texts(vec![("r.yml".to_owned(), RULE_ON_ANY.to_owned())]);
        let mut worker = rules.program().worker();
        for bytes in [bytes, text.clone().into_bytes(), format!("{{\"a\":{text}}}").into_bytes()] {
            for source in [SourceKind::Ndjson, SourceKind::Audit, SourceKind::Syslog] {
                let raw = RawEvent { source, ..raw_of("") };
                let raw = RawEvent { bytes: bytes.clone().into(), ..raw };
                let is_read = rules.program().run_raw(&mut worker, &raw).is_ok();
                prop_assert_eq!(is_read, normalise(&raw).is_ok(), "{}", String::from_utf8_lossy(&bytes));
            }
        }
    }
}

const RULE_ON_ANY: &str = "title: t\nlogsource: {}\ndetection: {k: [a], s: {a: b}, condition: k or s}\n";

#[test]
fn a_name_given_twice_is_read_as_normalising_reads_it() {
    let rule = |field: &str| {
        format!("title: {field}\nlogsource: {{}}\ndetection:\n  s: {{{field}: evil}}\n  condition: s\n---\n")
    };
    let text: String = ["f", "n.x", "n"].map(rule).concat();
    let (rules, _) = load_texts(vec![("r.yml".to_owned(), text)]);
    for line in [
        r#"{"f":"evil","f":"good"}"#,
        r#"{"f":"good","f":"evil"}"#,
        r#"{"n":{"x":"evil"},"n":{"x":"good"}}"#,
        r#"{"n":{"x":"evil"},"n":{"y":"good"}}"#,
        r#"{"n.x":"evil","n":{"x":"good"}}"#,
        r#"{"n":{"x":"good"},"n.x":"evil"}"#,
        r#"{"n":["evil"],"n":{"x":"evil"}}"#,
        r#"{"n":{"x":"evil"},"n":"evil"}"#,
        r#"{"n":["good"],"n":["evil"]}"#,
        r#"{"n":["evil",{"x":"evil"}]}"#,
        r#"{"n":[{"x":["good"]},{"x":["evil"]}]}"#,
        r#"{"f":"evil"}"#,
        r#"{"f":"good","f":"evil"}"#,
        r#"{"f":"\ud83d\ude00"}"#,
        r#"{"":{"f":"evil"}}"#,
    ] {
        let raw = raw_of(line);
        let expect = naive(&rules, &normalise(&raw).unwrap());
        let mut worker = rules.program().worker();
        rules.program().run_raw(&mut worker, &raw).unwrap();
        assert_eq!(worker.hits().collect::<Vec<_>>(), expect, "{line}");
    }
}

#[test]
fn audit_events_are_read_as_normalising_reads_them() {
    let fields = [
        "api.operation",
        "status",
        "status_id",
        "status_detail",
        "metadata.tenant_uid",
        "actor.user.name",
        "user.name",
        "actor.session.uid",
        "session.uid",
        "src_endpoint.ip",
        "src_endpoint.name",
        "resources.name",
        "api.request.uid",
        "cloud.region",
        "unmapped.node",
        "unmapped.group",
        "unmapped.fields",
        "unmapped.detail_digest",
        "class_uid",
        "category_uid",
        "activity_id",
        "severity_id",
        "type_uid",
        "time",
        "metadata.version",
        "metadata.log_name",
        "metadata.product.name",
    ];
    let values = [
        "ann",
        "eu",
        "e\"u",
        "login",
        "login.failed",
        "user.lock",
        "a/b",
        "b",
        "Failure",
        "7",
        "3002",
        "3001",
        "1.4.0",
        "audit",
        "1",
        "2",
        "",
    ];
    let mut text = String::new();
    for field in fields {
        for value in values {
            let rule = json!({"title": format!("{field} {value}"), "logsource": {"product": "holdfast", "service": "audit"},
                "detection": {"s": {field: value}, "condition": "s"}});
            text += &format!("{rule}\n---\n");
        }
        let rule = json!({"title": format!("{field} exists"), "logsource": {"product": "holdfast"}, "detection": {"s": {format!("{field}|exists"): true}, "condition": "s"}});
        text += &format!("{rule}\n---\n");
    }
    let (rules, errors) = load_texts(vec![("r.yml".to_owned(), text)]);
    assert!(errors.is_empty(), "{errors:?}");
    let mut worker = rules.program().worker();
    let full = json!({"time_ms": 7, "region": "eu", "node": "eu-1", "group": 7, "action": "login.failed", "outcome": "failure",
        "reason": "7", "tenant": "ann", "user": "ann", "session": "1", "address": "a/b", "resource": "users/ann", "fields": ["a", "b"],
        "request_id": "2", "detail_digest": "1"});
    let mut events = vec![full.clone()];
    for action in ["login", "logout", "user.lock", "role.grant", "record.put", "denied", "x", ""] {
        for outcome in ["success", "failure", "perhaps"] {
            let mut event = full.clone();
            event["action"] = json!(action);
            event["outcome"] = json!(outcome);
            events.push(event);
        }
    }
    for key in full.as_object().unwrap().keys() {
        for value in [
            Value::Null,
            json!(""),
            json!("e\"u"),
            json!(7),
            json!(-1),
            json!({}),
            json!([]),
            json!(["ann", "b"]),
            json!([1]),
        ] {
            let mut event = full.clone();
            event[key] = value;
            event["action"] = if key == "action" { event[key].clone() } else { json!("user.lock") };
            events.push(event);
        }
        let mut event = full.clone();
        event.as_object_mut().unwrap().remove(key);
        events.push(event);
    }
    let (mut read, mut rejected) = (0, 0);
    for event in events {
        let raw = RawEvent { source: SourceKind::Audit, ..raw_of(&event.to_string()) };
        match (normalise(&raw), rules.program().run_raw(&mut worker, &raw)) {
            (Ok(event), Ok(look)) => {
                assert_eq!(worker.hits().collect::<Vec<_>>(), naive(&rules, &event), "{event:?}");
                assert_eq!(look.time_ms, event.time_ms);
                read += 1;
            }
            (Err(expect), Err(reject)) => {
                assert_eq!(reject, expect);
                rejected += 1;
            }
            (expect, got) => panic!("{event}: {expect:?}, {got:?}"),
        }
    }
    let slowly = worker.read_slowly() - rejected;
    assert!(read > 50 && rejected > 50 && slowly < 5, "{read} read, {slowly} of them slowly, {rejected} rejected");
}

#[test]
fn public_rules_and_events_give_what_the_naive_evaluator_says() {
    let (Some(archive), Some(lane)) =
        (unpacked("sigma/sigmahq-rules.tar.gz"), data("load/otrf_win_20k_mixed.ndjson.gz"))
    else {
        return;
    };
    let (rules, errors) = load_tree(&archive.path().join("rules"), &Pipeline::default());
    assert!(errors.is_empty(), "{errors:?}");
    let lane = std::process::Command::new("gzip").arg("-dc").arg(lane).output().unwrap();
    let lines = String::from_utf8(lane.stdout).unwrap();
    let mut worker = rules.program().worker();
    let (mut events, mut hits) = (0, 0);
    for line in lines.lines().step_by(23) {
        let raw = raw_of(line);
        let event = normalise(&raw).unwrap();
        let expect = naive(&rules, &event);
        rules.program().run_raw(&mut worker, &raw).unwrap();
        assert_eq!(worker.hits().collect::<Vec<_>>(), expect, "{line}");
        events += 1;
        hits += expect.len();
    }
    eprintln!(
        "{events} events, {} rules, {hits} matches, {} evaluated, {} read slowly; {:?}",
        rules.rules().len(),
        worker.evaluated(),
        worker.read_slowly(),
        rules.program().size()
    );
    assert!(worker.evaluated() < events * 40 && worker.read_slowly() * 20 < events);
}
