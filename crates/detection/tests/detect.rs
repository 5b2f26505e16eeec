//! The detector from bytes to alerts: the rule pack and its tests, Sigma's language, correlation for every order of
//! arrival, real logs and public rules where they are at hand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{Detector, Effect, Input, Options};
use detection::event::{Event, Fields, LogSource};
use detection::rules::{load_dir, load_texts};
use detection::sigma::{Document, FieldNames, Pipeline, Reason, RuleError, View, parse, parse_with};
use detection::{EventId, Position, RawEvent, SourceKind};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use support::{NOW_MS, Net, audit, data, feed, pack, unpacked};

#[test]
fn every_rule_of_the_pack_does_what_its_tests_say() {
    let (rules, errors) = load_dir(&pack());
    assert!(errors.is_empty(), "{errors:?}");
    let mut tested = BTreeSet::new();
    for file in std::fs::read_dir(pack().join("tests")).unwrap() {
        let file = file.unwrap().path();
        let cases: Vec<support::Case> = serde_yaml_ng::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for case in cases {
            let net = feed(&mut Detector::new(rules.clone(), Options::default()), case.events());
            let raised: BTreeSet<&str> = net.alerts.values().map(|alert| alert.rule.id.as_ref()).collect();
            let expect: BTreeSet<&str> = case.expect.iter().map(String::as_str).collect();
            assert_eq!(raised, expect, "{}: {}", file.display(), case.name);
            tested.extend(case.expect);
        }
    }
    let alerting = rules.correlations().iter().filter(|plan| plan.raises_alerts());
    let alerting: BTreeSet<String> = alerting.map(|plan| plan.header.reference.id.to_string()).collect();
    assert!(alerting.is_subset(&tested), "untested: {:?}", alerting.difference(&tested).collect::<Vec<_>>());
}

#[track_caller]
fn check(detection: &str, fields: Value, expect: bool) {
    let text = format!("title: t\nlogsource: {{product: p}}\ndetection:\n{detection}");
    let mut names = FieldNames::default();
    let (documents, errors) = parse(&"t.yml".into(), &text, &mut names);
    assert!(errors.is_empty(), "{errors:?}");
    let Document::Rule(rule) = &documents[0] else { panic!("not a rule") };
    let event = event(fields.as_object().unwrap().clone().into_iter().collect());
    assert_eq!(rule.matches(&View::new(&names, &event)), expect, "{detection} on {fields}");
}

fn event(fields: Fields) -> Event {
    Event {
        id: EventId::from_bytes([0; 16]),
        position: None,
        time_ms: 0,
        received_ms: 0,
        class_uid: 0,
        activity_id: 0,
        category_uid: 0,
        severity_id: 0,
        logsource: LogSource { product: Some("p".into()), ..LogSource::default() },
        fields,
        raw: bytes::Bytes::new(),
    }
}

#[test]
fn conditions_follow_the_specification() {
    let two = "  a1: {x: 1}\n  a2: {y: 2}\n  b: {z: 3}\n  _c: {w: 4}\n  condition: ";
    let check = |condition: &str, fields: Value, expect| check(&format!("{two}{condition}"), fields, expect);
    check("a1 and a2", json!({"x": 1, "y": 2}), true);
    check("a1 and a2", json!({"x": 1}), false);
    check("a1 or a2 and b", json!({"x": 1}), true);
    check("(a1 or a2) and b", json!({"x": 1}), false);
    check("not a1 and not (a2 or b)", json!({}), true);
    check("not not a1", json!({"x": "1"}), true);
    check("1 of a*", json!({"y": 2}), true);
    check("all of a*", json!({"y": 2}), false);
    check("any of them", json!({"w": 4}), false);
    check("all of them", json!({"x": 1, "y": 2, "z": 3}), true);
    check("ALL OF a* AND NOT b", json!({"x": 1, "y": 2}), true);
}

#[test]
fn modifiers_follow_the_specification() {
    let check = |selection: &str, fields: Value, expect| {
        check(&format!("  s:\n    {selection}\n  condition: s"), fields, expect);
    };
    check("x: AbC", json!({"x": "aBc"}), true);
    check("x|cased: AbC", json!({"x": "aBc"}), false);
    check("x|contains: b", json!({"x": "aBc"}), true);
    check("x|startswith: A", json!({"x": "abc"}), true);
    check("x|endswith: [z, C]", json!({"x": "abc"}), true);
    check("x|contains|all: [a, c]", json!({"x": "abc"}), true);
    check("x|contains|all: [a, z]", json!({"x": "abc"}), false);
    check("x|contains: [p, q, r, s, b]", json!({"x": "ABC"}), true);
    check("x|contains: ['p*q', q, r, s, t, u]", json!({"x": "..p..q"}), true);
    check("x|re: '^a.c$'", json!({"x": "abc"}), true);
    check("x|re: '^A.c$'", json!({"x": "abc"}), false);
    check("x|re|i: '^A.c$'", json!({"x": "abc"}), true);
    check("x|re|m: '^b$'", json!({"x": "a\nb"}), true);
    check("x|re|s: 'a.b'", json!({"x": "a\nb"}), true);
    check("x|cidr: 10.0.0.0/8", json!({"x": "10.1.2.3"}), true);
    check("x|cidr: 10.0.0.0/8", json!({"x": "11.1.2.3"}), false);
    check("x|cidr: '2001:db8::/32'", json!({"x": "2001:db8::1"}), true);
    check("x|cidr: 0.0.0.0/0", json!({"x": "11.1.2.3"}), true);
    check("x|gt: 3", json!({"x": 3}), false);
    check("x|gte: 3", json!({"x": "3"}), true);
    check("x|lt: 3.5", json!({"x": 3}), true);
    check("x|lte: 3", json!({"x": 4}), false);
    check("x|exists: true", json!({"x": null}), true);
    check("x|exists: false", json!({"y": 1}), true);
    check("x: null", json!({"y": 1}), true);
    check("x: null", json!({"x": ""}), false);
    check("x: ''", json!({"x": ""}), true);
    check("x: ''", json!({"y": ""}), false);
    check("x|neq: a", json!({"x": "b"}), true);
    check("x|fieldref: y", json!({"x": "A", "y": "a"}), true);
    check("x|fieldref|endswith: y", json!({"x": "ba", "y": "a"}), true);
    check("x|base64: foobar", json!({"x": "Zm9vYmFy"}), true);
    check("x|base64offset|contains: foobar", json!({"x": "..mb29iYX.."}), true);
    check("x|wide|base64offset|contains: ab", json!({"x": "YQBiA"}), true);
    check("x|windash|contains: ' -enc '", json!({"x": "a /ENC b"}), true);
    check("x|windash|contains|all: [' -a', ' -b']", json!({"x": "c /a \u{2013}b"}), true);
    check("x: [a, b]", json!({"x": ["q", "B"]}), true);
    check("x: true", json!({"x": true}), true);
    check("x|re: ['(?i)A', b]", json!({"x": "a"}), true);
    check("'|contains': needle", json!({"x": "hay needle hay"}), true);
}

#[test]
fn keywords_are_found_in_any_field() {
    check("  k: [foo, 'b*r']\n  condition: k", json!({"x": "a FOO b"}), true);
    check("  k: [foo, 'b*r']\n  condition: k", json!({"x": "a baar c"}), true);
    check("  k: [foo]\n  condition: k", json!({"x": "fo"}), false);
    check("  k:\n    '|all': [foo, bar]\n  condition: k", json!({"x": "bar", "y": "foo"}), true);
    check("  s:\n    - {x: 1}\n    - {y: 2, z: 3}\n  condition: s", json!({"y": 2, "z": 3}), true);
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_reason() {
    let text = "title: good\nlogsource: {}\ndetection:\n  s: {x: 1}\n  condition: s\n---\ntitle: bad\nlogsource: {}\n\
                detection:\n  s:\n    x|nonsense: 1\n  condition: s\n---\ntitle: [\n---\ntitle: c\ncorrelation:\n  type: event_count\n  \
                rules: nobody\n  timespan: 5m\n  condition: {gte: 2}\n---\ntitle: d\nlogsource: {}\ndetection:\n  s: {x: 1}\n  condition: s and t\n";
    let (rules, errors) = load_texts(vec![("r.yml".into(), text.into())]);
    assert_eq!(rules.rules().len(), 1);
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(told[0], "r.yml:11: unknown modifier nonsense");
    assert!(told[1].starts_with("r.yml:14: not YAML") || told[1].starts_with("r.yml:15: not YAML"), "{told:?}");
    assert_eq!(told[2], "r.yml:27: the condition names t, which no selection is called");
    assert_eq!(told[3], "r.yml:16: refers to nobody, which no rule is called");
    let circle = "title: a\nname: a\ncorrelation: {type: temporal, rules: [b], timespan: 1m}\n---\ntitle: b\nname: b\n\
                  correlation: {type: temporal, rules: [a], timespan: 1m}\n";
    let (_, errors) = load_texts(vec![("c.yml".into(), circle.into())]);
    assert!(errors.len() == 2 && errors.iter().all(|error| error.reason == Reason::Circular), "{errors:?}");
}

#[test]
fn the_correlation_cases_of_others_have_their_known_answers() {
    let Some(path) = data("correlation/cases.json") else { return };
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 27);
    for case in &cases {
        let mut text = String::new();
        for rule in case["sigma"]["rules"].as_array().unwrap() {
            let rule = rule.as_str().unwrap();
            text += &format!(
                "title: {rule}\nname: {rule}\nlogsource: {{product: p}}\ndetection:\n  s: {{rid: {rule}}}\n  condition: s\n---\n"
            );
        }
        text += &json!({"title": "case", "name": "case", "correlation": case["sigma"]}).to_string();
        let (rules, errors) = load_texts(vec![("case.yml".into(), text)]);
        assert!(errors.is_empty(), "{errors:?}");
        let events = case["events"].as_array().unwrap();
        let first = events.iter().map(|event| event[0].as_f64().unwrap()).fold(f64::INFINITY, f64::min);
        let events: Vec<Event> = events
            .iter()
            .enumerate()
            .map(|(sequence, pair)| {
                let fields = pair[1].as_object().unwrap().clone().into_iter().collect();
                let time_ms = NOW_MS - 100_000_000_000 + ((pair[0].as_f64().unwrap() - first) * 60_000.0) as u64;
                let id = EventId::from_bytes((sequence as u128).to_be_bytes());
                let position = Some(Position { stream: "s".into(), sequence: sequence as u64 });
                Event { id, position, time_ms, received_ms: NOW_MS, ..event(fields) }
            })
            .collect();
        for reversed in [false, true] {
            let options = Options { allowed_lateness_ms: 100_000_000, ..Options::default() };
            let mut events = events.clone();
            if reversed {
                events.reverse();
            }
            let net = feed(&mut Detector::new(rules.clone(), options), events);
            let fired = net.alerts.values().any(|alert| &*alert.rule.id == "case");
            assert_eq!(fired, case["expected"].as_bool().unwrap(), "{} / {}", case["rule"], case["test"]);
        }
    }
}

/// What rules of the public archive leave to whoever uses them.
const PLACEHOLDERS: [&str; 25] = [
    "Administrators",
    "Admins_Workstations",
    "ApprovedUserUpn",
    "Approved_Inviters",
    "DC-MACHINE-NAME",
    "DomainControllers",
    "HomeTenantID",
    "Important_AppIds",
    "KNOWN_LOCATION",
    "Known_Location",
    "Legitimate_Countries",
    "Legitimate_IP_Ranges",
    "ServerSystems",
    "UnApprovedDevice",
    "UnApprovedIp",
    "UnLegitCountries",
    "Workstations",
    "dc_ip_addresses",
    "dc_machine_accounts",
    "domain_controller_hostnames",
    "internal_domains",
    "known_cdcs",
    "legit_ips",
    "legtimate_identifiers",
    "userdomain",
];

#[test]
fn every_rule_of_the_public_archive_parses_exactly() {
    let Some(folder) = unpacked("sigma/sigmahq-rules.tar.gz") else { return };
    let (mut files, mut folders) = (Vec::new(), vec![folder.path().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yml") {
                files.push(path);
            }
        }
    }
    files.sort();
    // A placeholder is filled by whoever uses a rule; those that are given nothing are refused.
    let values = |pipeline: Pipeline, name: &&str| pipeline.with_values(name, vec!["value".to_owned()]);
    let filled = Arc::new(PLACEHOLDERS.iter().fold(Pipeline::default(), values));
    let (mut parsed, mut unfilled) = (0, 0);
    for file in &files {
        let within = file.strip_prefix(folder.path()).unwrap().display().to_string();
        if within.contains("unsupported/") || within.contains("deprecated/") {
            continue;
        }
        let (name, text) = (Arc::from(within.as_str()), std::fs::read_to_string(file).unwrap());
        let (documents, errors) = parse_with(&name, &text, &mut FieldNames::default(), &filled);
        assert!(errors.is_empty() && documents.len() == 1, "{within}: {errors:?}");
        parsed += documents.len();
        let (_, errors) = parse(&name, &text, &mut FieldNames::default());
        unfilled += errors.len();
        let is_placeholder = |error: &RuleError| matches!(&error.reason, Reason::UnfilledPlaceholder { .. });
        assert!(errors.iter().all(is_placeholder), "{errors:?}");
    }
    assert_eq!((parsed, unfilled), (3_780, 25));
}

#[test]
fn a_real_log_yields_its_brute_force_attacks() {
    let Some(path) = data("loghub/Linux_2k.log") else { return };
    let (rules, _) = load_dir(&pack());
    let text = std::fs::read_to_string(path).unwrap();
    let raws: Vec<RawEvent> = text
        .lines()
        .enumerate()
        .map(|(sequence, line)| RawEvent {
            source: SourceKind::Syslog,
            received_ms: NOW_MS,
            position: Some(Position { stream: "log".into(), sequence: sequence as u64 }),
            bytes: line.to_owned().into(),
        })
        .collect();
    let events: Vec<Event> = raws.iter().map(|raw| detection::normalise::normalise(raw).unwrap()).collect();
    let logins = events.iter().filter(|event| event.class_uid == 3002).count();
    let net = feed(&mut Detector::new(rules, Options::default()), events.clone());
    let brute: Vec<_> = net.alerts.values().filter(|alert| &*alert.rule.id == "ssh_brute_force").collect();
    eprintln!("{} lines, {logins} on logins, {} alerts, {} told", events.len(), brute.len(), net.told);
    assert_eq!(events.len(), 2_000);
    // Counted by a script of its own over the same lines: bursts of five within five minutes, by address.
    assert_eq!(brute.len(), support::bursts(&events));
    assert!(brute.len() > 10 && brute.iter().all(|alert| alert.events.len() == 5));
}

fn mixed() -> impl Strategy<Value = Vec<(u64, u8, bool)>> {
    proptest::collection::vec((0_u64..900, 0_u8..3, any::<bool>()), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn shuffled_and_repeated_events_give_the_same_alerts(
        drawn in mixed(),
        order in proptest::collection::vec(any::<u32>(), 80),
        again in proptest::collection::vec(any::<bool>(), 80),
    ) {
        let (rules, _) = load_dir(&pack());
        let events: Vec<Event> = drawn
            .iter()
            .enumerate()
            .map(|(sequence, (second, address, failed))| {
                let action = if *failed { "login.failed" } else { "login" };
                let outcome = if *failed { "failure" } else { "success" };
                let body = json!({"action": action, "outcome": outcome, "user": format!("u{}", second % 11),
                    "address": format!("203.0.113.{address}")});
                audit(sequence as u64, second * 1_000, body)
            })
            .collect();
        let options = Options { allowed_lateness_ms: 1_000_000, ..Options::default() };
        let mut in_order = events.clone();
        in_order.sort_by_key(|event| (event.time_ms, event.position.as_ref().unwrap().sequence));
        let undisturbed: Net = feed(&mut Detector::new(rules.clone(), options.clone()), in_order);
        let mut disturbed: Vec<(u32, Event)> = Vec::new();
        for (place, event) in events.into_iter().enumerate() {
            if again[place] {
                disturbed.push((order[place].rotate_left(7), event.clone()));
            }
            disturbed.push((order[place], event));
        }
        disturbed.sort_by_key(|(order, _)| *order);
        let net = feed(&mut Detector::new(rules, options), disturbed.into_iter().map(|(_, event)| event));
        prop_assert_eq!(
            undisturbed.alerts.keys().collect::<Vec<_>>(),
            net.alerts.keys().collect::<Vec<_>>()
        );
    }

    #[test]
    fn folding_at_the_watermark_changes_no_alert(drawn in mixed()) {
        let (rules, _) = load_dir(&pack());
        let mut events: Vec<Event> = drawn
            .iter()
            .enumerate()
            .map(|(sequence, (second, address, _))| {
                let body = json!({"action": "login.failed", "outcome": "failure", "user": "u", "address": format!("203.0.113.{address}")});
                audit(sequence as u64, second * 1_000, body)
            })
            .collect();
        events.sort_by_key(|event| (event.time_ms, event.position.as_ref().unwrap().sequence));
        let alerts = |lateness| {
            let options = Options { allowed_lateness_ms: lateness, ..Options::default() };
            feed(&mut Detector::new(rules.clone(), options), events.clone()).alerts.into_keys().collect::<Vec<_>>()
        };
        prop_assert_eq!(alerts(0), alerts(10_000_000));
    }

    #[test]
    fn arbitrary_rule_files_never_panic(text in "\\PC*", condition in "[()a-c *|1of_and not them]{0,40}", key in "[a-z|]{0,30}", value in "\\PC{0,20}") {
        let _ = load_texts(vec![("a".into(), text)]);
        let rule = format!("title: t\nlogsource: {{}}\ndetection:\n  a:\n    {key:?}: {value:?}\n  condition: {condition:?}\n");
        let _ = load_texts(vec![("b".into(), rule)]);
    }
}

#[test]
fn a_burst_is_one_alert_and_its_growth_is_told_seldom() {
    let (rules, _) = load_dir(&pack());
    let body = json!({"action": "login.failed", "outcome": "failure", "user": "ann", "address": "203.0.113.1"});
    let events: Vec<Event> = (0..1_000).map(|n| audit(n, n * 1_000, body.clone())).collect();
    let mut detector = Detector::new(rules, Options::default());
    let mut effects = Vec::new();
    for event in events {
        detector.step(NOW_MS, Input::Event(event), &mut effects);
    }
    let alerts = effects.iter().filter(|effect| matches!(effect, Effect::Alert(_))).count();
    let extended = effects.iter().filter(|effect| matches!(effect, Effect::Extended { .. })).count();
    assert_eq!((alerts, extended), (1, 7));
}

#[test]
fn state_over_its_bound_is_evicted_and_told() {
    let (rules, _) = load_dir(&pack());
    let mut detector = Detector::new(rules, Options { keys_max: 8, ..Options::default() });
    let events = (0..100).map(|n| {
        audit(
            n,
            n,
            json!({"action": "login.failed", "outcome": "failure", "user": "ann", "address": format!("203.0.113.{n}")}),
        )
    });
    let net = feed(&mut detector, events);
    assert!(detector.counts().keys_evicted > 0 && detector.counts().keys <= 8 * 12);
    assert!(net.alerts.values().any(|alert| &*alert.rule.id == detection::engine::COVERAGE_DEGRADED));
}

#[test]
fn a_late_event_moves_the_beginning_of_a_burst() {
    let (rules, _) = load_dir(&pack());
    let body = json!({"action": "login.failed", "outcome": "failure", "user": "ann", "address": "203.0.113.1"});
    let mut detector = Detector::new(rules, Options::default());
    let mut effects = Vec::new();
    for n in [1, 2, 3, 4, 5, 0] {
        detector.step(NOW_MS, Input::Event(audit(n, n * 1_000, body.clone())), &mut effects);
    }
    let [Effect::Alert(first), Effect::Alert(second), Effect::Superseded { old, by }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!((*old, *by), (first.id, second.id));
    assert_eq!(second.first_ms + 1_000, first.first_ms);
}

#[test]
fn an_event_beyond_the_allowed_lateness_is_matched_but_not_correlated() {
    let (rules, _) = load_dir(&pack());
    let mut detector = Detector::new(rules, Options::default());
    let grant = json!({"action": "role.grant", "outcome": "success", "reason": "CHG-1", "user": "root", "resource": "users/ann"});
    let net = feed(&mut detector, [audit(1, 100_000, grant.clone()), audit(0, 0, grant)]);
    assert_eq!(net.alerts.values().filter(|alert| alert.late).count(), 1);
    assert_eq!((net.alerts.len(), detector.counts().late), (2, 1));
}

#[test]
fn nobody_outside_speaks_for_the_platform() {
    let body = json!({"product": "holdfast", "service": "audit", "api.operation": "role.grant"}).to_string();
    let raw = RawEvent { source: SourceKind::Ndjson, received_ms: NOW_MS, position: None, bytes: body.into() };
    assert_eq!(detection::normalise::normalise(&raw).unwrap_err().reason.label(), "bad_field");
}

#[test]
fn a_replayed_log_is_not_late_because_other_hosts_are_live() {
    let (rules, _) = load_dir(&pack());
    let line = |sequence: u64, time: &str, host: &str| {
        let text = format!("<38>1 {time} {host} sshd 1 - - Failed password for root from 203.0.113.9 port 4 ssh2");
        let position = Some(Position { stream: "events/eu".into(), sequence });
        let raw = RawEvent { source: SourceKind::Syslog, received_ms: NOW_MS, position, bytes: text.into() };
        detection::normalise::normalise(&raw).unwrap()
    };
    let live = line(0, "2026-11-23T20:59:00Z", "live");
    let old = (1..6).map(|n| line(n, &format!("2026-06-14T15:16:0{n}Z"), "combo"));
    let net = feed(&mut Detector::new(rules, Options::default()), std::iter::once(live).chain(old));
    assert_eq!(net.alerts.len(), 1);
}
