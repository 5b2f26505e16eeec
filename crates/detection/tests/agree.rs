//! The compiled program against the naive evaluator: random rules and random events, and public ones where they are at
//! hand. They must agree on every event, whether it is read from its bytes or from the event made of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/random.rs"]
mod random;
mod support;

use detection::event::{Event, RawEvent};
use detection::normalise::{normalise, normalise_for};
use detection::program::Program;
use detection::rules::{RuleSet, load_texts, load_tree};
use detection::sigma::{Pipeline, View};
use detection::{Owner, Position, SourceKind};
use proptest::prelude::*;
use random::{event, rule, rules_of};
use serde_json::{Value, json};
use support::{NOW_MS, data, unpacked};

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

#[test]
fn whose_an_event_is_says_whoever_brought_it_however_it_is_read() {
    let rule = |number: usize, detection: &str| {
        format!("title: t{number}\nlogsource: {{}}\ndetection: {{s: {detection}, condition: s}}\n---\n")
    };
    let named = ["{metadata.tenant_uid: acme}", "{metadata.tenant_uid|contains: olt}", "{metadata.tenant_uid: null}"];
    let anywhere = ["[acme]", "{user: ann, metadata.tenant_uid|startswith: a}"];
    for fields in [&named[..], &anywhere, &[named, ["[bolt]", "{user: ann}", "{user: bob}"]].concat()] {
        let text: String = (0..).zip(fields).map(|(number, fields)| rule(number, fields)).collect();
        let (rules, errors) = load_texts(vec![("r.yml".to_owned(), text)]);
        assert!(errors.is_empty(), "{errors:?}");
        let mut worker = rules.program().worker();
        for line in [
            json!({"user": "ann"}),
            json!({"user": "acme, who is not the tenant"}),
            json!({"metadata": {"tenant_uid": "acme"}}),
            json!({"metadata.tenant_uid": "bolt", "user": "ann"}),
            json!({"metadata": {"tenant_uid": ["acme", "bolt"]}}),
            json!({"metadata": {"tenant_uid": {"a": "acme"}}}),
            json!({"metadata": {"tenant_uid": []}}),
        ] {
            let raw = raw_of(&line.to_string());
            for owner in [Owner::Itself, Owner::Nobody, Owner::Tenant("acme"), Owner::Tenant("bolt")] {
                let event = normalise_for(&raw, owner).unwrap();
                if let Owner::Tenant(tenant) = owner {
                    assert_eq!(event.text("metadata.tenant_uid"), Some(tenant));
                }
                rules.program().run_raw_for(&mut worker, &raw, owner).unwrap();
                let hits: Vec<usize> = worker.hits().collect();
                assert_eq!(hits, naive(&rules, &event), "{line} of {owner:?} under {fields:?}");
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
fn lists_where_one_value_is_expected_are_read_as_normalising_reads_them() {
    let rule = |source: &str, field: &str| {
        let rule = json!({"title": format!("{source} {field}"), "logsource": {source: "s"}, "detection": {"s": {format!("{field}|exists"): true}, "condition": "s"}});
        format!("{rule}\n---\n")
    };
    let fields =
        ["f", "class_uid", "category_uid", "type_uid", "activity_id", "severity_id", "time", "device.hostname"];
    let text =
        ["product", "category", "service"].map(|source| fields.map(|field| rule(source, field)).concat()).concat();
    let (rules, errors) = load_texts(vec![("r.yml".to_owned(), text)]);
    assert!(errors.is_empty(), "{errors:?}");
    let mut worker = rules.program().worker();
    for field in [
        "product",
        "category",
        "service",
        "class_uid",
        "category_uid",
        "type_uid",
        "activity_id",
        "severity_id",
        "time",
        "time_ms",
        "device.hostname",
    ] {
        for value in [
            "[]",
            "[\"s\"]",
            "[\"s\",\"t\"]",
            "[7]",
            "[[]]",
            "[[\"s\"]]",
            "[{}]",
            "{}",
            "{\"x\":1}",
            "[{\"x\":1}]",
            "null",
            "[null]",
        ] {
            for rest in [
                "",
                r#","service":"s""#,
                r#","product":"s","logsource":{"category":"s"}"#,
                r#","logsource":[{"product":"s","service":"s"}]"#,
            ] {
                let nested =
                    format!(r#"{{"logsource":{{"{field}":{value}}},"f":1{}}}"#, rest.replace("logsource", "source"));
                for line in [format!(r#"{{"{field}":{value},"f":1{rest}}}"#), nested] {
                    let raw = raw_of(&line);
                    let expect = normalise(&raw).map(|event| naive(&rules, &event));
                    let told = rules.program().run_raw(&mut worker, &raw).map(|_| worker.hits().collect::<Vec<_>>());
                    assert_eq!(told, expect, "{line}");
                }
            }
        }
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
        "src_endpoint.location.country",
        "resources.name",
        "api.request.uid",
        "cloud.region",
        "cloud.provider",
        "user.uid",
        "src_endpoint.svc_name",
        "actor.app_name",
        "database.type_id",
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
        "unknown",
        "Holdfast",
        "6",
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
        "request_id": "2", "detail_digest": "1", "country": "ann"});
    let mut events = vec![full.clone()];
    for action in ["login", "logout", "user.lock", "role.grant", "record.put", "denied", "x", ""] {
        for outcome in ["success", "failure", "denied", "perhaps"] {
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
    assert!(read > 50 && rejected > 50 && slowly < 6, "{read} read, {slowly} of them slowly, {rejected} rejected");
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
