//! Notices of alerts and incidents as OCSF findings.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/ocsf.rs"]
mod ocsf;

use detection::incident::{Act, Desk, Effect, Input, Options};
use detection::normalise::OCSF_VERSION;
use detection::{Alert, Entity, EntityKind, EventId, EventSummary, RuleReference, SemanticHash, Severity};
use pipeline::sink::{Notice, Topic};
use serde_json::Value;
use std::collections::BTreeMap;

const NOW_MS: u64 = 1_795_467_600_000;

fn alert() -> Alert {
    let rule = RuleReference {
        id: "r-1".into(),
        title: "Brute force".into(),
        semantic_hash: SemanticHash::from_bytes([7; 32]),
        tags: vec!["attack.t1110".into()],
    };
    let address = Entity { kind: EntityKind::Address, name: "203.0.113.9".into() };
    let event = |number: u8| EventSummary {
        id: EventId::from_bytes([number; 16]),
        time_ms: NOW_MS + u64::from(number),
        class_uid: 3002,
        activity_id: 1,
        text: "login failed".into(),
        entities: [address.clone()].into(),
    };
    let key = BTreeMap::from([("src_endpoint.ip".to_owned(), "203.0.113.9".to_owned())]);
    Alert::new("acme".into(), rule, Severity::High, key, (0..60).map(event))
}

/// What every finding is, beside what OCSF's schema wants of it.
fn check(notice: &Notice, class_uid: u64, activity_id: u64) -> Value {
    let body: Value = serde_json::from_str(&notice.body).unwrap();
    assert_eq!(body["class_uid"], class_uid);
    assert_eq!(body["category_uid"], 2);
    assert_eq!(body["activity_id"], activity_id);
    assert_eq!(body["type_uid"], class_uid * 100 + activity_id);
    assert_eq!(body["severity_id"], 4);
    assert_eq!(body["metadata"]["version"], OCSF_VERSION);
    assert_eq!(ocsf::faults(&body), Vec::<String>::new(), "{body:#}");
    assert!(body["time"].is_u64() && body["metadata"]["product"]["vendor_name"].is_string());
    assert_eq!(body["observables"][0]["value"], "203.0.113.9");
    assert_eq!(
        (notice.tenant.as_str(), notice.severity, notice.subject.as_str()),
        ("acme", Severity::High, "Brute force")
    );
    body
}

#[test]
fn an_alert_is_a_detection_finding() {
    let notice = Notice::of_alert(&alert());
    let body = check(&notice, 2004, 1);
    assert_eq!((notice.topic, notice.clone()), (Topic::Alert, Notice::of_alert(&alert())));
    assert_eq!(body["finding_info"]["analytic"]["uid"], "r-1");
    assert_eq!((body["count"].as_u64(), body["evidences"].as_array().unwrap().len()), (Some(60), 50));
}

#[test]
fn each_change_of_an_incident_is_an_incident_finding_under_a_key_of_its_own() {
    let mut desk = Desk::new(Options::default());
    let mut notices = Vec::new();
    let mut step = |input: Input| {
        let mut effects = Vec::new();
        desk.step(NOW_MS, input, &mut effects);
        for effect in effects {
            if let Effect::Changed { incident, change } = effect {
                assert_eq!(Notice::of_incident(&incident, &change), Notice::of_incident(&incident, &change));
                notices.push((incident.id, Notice::of_incident(&incident, &change)));
            }
        }
        notices.last().unwrap().0
    };
    let incident = step(Input::Alert(alert()));
    let act = |act| Input::Act { incident, by: "ann".into(), why: None, act, seen: None };
    step(act(Act::Acknowledge));
    step(act(Act::Close { post_mortem: "a script; its address is blocked".into() }));
    let bodies: Vec<Value> =
        (0..).zip([1, 2, 3]).map(|(place, activity): (usize, u64)| check(&notices[place].1, 2005, activity)).collect();
    assert_eq!(bodies.iter().map(|body| body["status_id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 5]);
    assert_eq!(bodies[0]["finding_info_list"][0]["title"], "Brute force");
    assert_eq!(bodies[2]["unmapped"]["revision"], 3);
    let mut keys: Vec<&str> = notices.iter().map(|(_, notice)| notice.key.as_str()).collect();
    keys.dedup();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key.bytes().all(|byte| byte.is_ascii_graphic())), "a key is a header: {keys:?}");
}
