//! Two ways in, one detector: events as the bytes they arrived in, and the events made of them. Effects, counts and
//! dead letters must be the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/random.rs"]
mod random;
mod support;

use detection::engine::{Detector, Input, Options};
use detection::event::{RAW_SIZE_BYTES_MAX, RawEvent};
use detection::normalise::normalise;
use detection::rules::{RuleSet, load_dir, load_texts, load_tree};
use detection::sigma::Pipeline;
use detection::{Position, SourceKind};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{NOW_MS, data, pack, unpacked};

/// One detector for each way.
struct Pair {
    raw: Detector,
    parsed: Detector,
    rejected: usize,
    effects: usize,
}

impl Pair {
    fn new(rules: RuleSet) -> Self {
        let options = Options { remembered_max: 20, ..Options::default() };
        let [raw, parsed] = [(); 2].map(|()| Detector::new(rules.clone(), options.clone()));
        Self { raw, parsed, rejected: 0, effects: 0 }
    }

    #[track_caller]
    fn take(&mut self, now_ms: u64, raw: &RawEvent) {
        let (mut of_raw, mut of_parsed) = (Vec::new(), Vec::new());
        let result = self.raw.raw(now_ms, raw, &mut of_raw);
        let expect = normalise(raw).map(|event| self.parsed.step(now_ms, Input::Event(event), &mut of_parsed));
        let text = String::from_utf8_lossy(&raw.bytes[..raw.bytes.len().min(2_000)]);
        assert_eq!(result, expect, "{text}");
        assert_eq!(of_raw, of_parsed, "{text}");
        assert_eq!(self.raw.counts(), self.parsed.counts(), "{text}");
        self.rejected += usize::from(result.is_err());
        self.effects += of_raw.len();
    }

    fn tick(&mut self, now_ms: u64) {
        let (mut of_raw, mut of_parsed) = (Vec::new(), Vec::new());
        self.raw.step(now_ms, Input::Tick, &mut of_raw);
        self.parsed.step(now_ms, Input::Tick, &mut of_parsed);
        assert_eq!(of_raw, of_parsed);
    }
}

fn rules_with_bursts(rules: &[Value]) -> RuleSet {
    let mut text = String::new();
    for (number, rule) in rules.iter().enumerate() {
        let mut rule = rule.clone();
        rule["title"] = json!(format!("rule {number}"));
        rule["name"] = json!(format!("r{number}"));
        rule["generate"] = json!(number % 2 == 0);
        let burst = json!({"title": format!("burst {number}"), "correlation": {"type": "event_count", "timespan": "5m",
            "rules": [format!("r{number}")], "group-by": ["g"], "condition": {"gte": 2}}});
        text += &format!("{rule}\n---\n{burst}\n---\n");
    }
    // Rules that are wrong, and what is about them, are left out; that they are told is tested elsewhere.
    load_texts(vec![("random.yml".to_owned(), text)]).0
}

/// The random event, with what the detector looks at whether or not rules do.
fn ndjson() -> impl Strategy<Value = Vec<u8>> {
    let host = prop_oneof![
        3 => Just(Value::Null),
        3 => proptest::sample::select(&["h1", "h2", "h\"3", "\u{e9}"][..]).prop_map(Value::from),
        1 => Just(json!(7)),
        1 => Just(json!(["h1", "h2"])),
        1 => Just(json!(["h1"])),
    ];
    let uid = proptest::option::of(proptest::sample::select(&["u1", "u2"][..]));
    let time = prop_oneof![
        8 => (0_u64..400_000).prop_map(|ago_ms| json!(NOW_MS + 100_000 - ago_ms)),
        1 => Just(json!("2026-11-23T20:59:01Z")),
        1 => Just(json!("yesterday")),
        1 => Just(json!(true)),
    ];
    (random::event(), host, uid, time, any::<bool>(), any::<bool>()).prop_map(
        |(text, host, uid, time, nested, pretty)| {
            let mut event: Value = serde_json::from_str(&text).unwrap();
            event["time"] = time;
            if nested {
                event["device"] = json!({"hostname": host});
            } else if !host.is_null() {
                event["device.hostname"] = host;
            }
            if let Some(uid) = uid {
                event["metadata"] = json!({"uid": uid});
            }
            if pretty { serde_json::to_vec_pretty(&event).unwrap() } else { serde_json::to_vec(&event).unwrap() }
        },
    )
}

fn audit() -> impl Strategy<Value = Vec<u8>> {
    let action = proptest::sample::select(
        &["login", "login.failed", "denied", "record.view", "session.refused", "role.grant", "audit.verify", "x"][..],
    );
    let odd = prop_oneof![8 => Just(None), 1 => Just(Some(json!(7))), 1 => Just(Some(json!("a\"b")))];
    (action, 0_u64..3, 0_u64..400_000, odd, proptest::sample::select(&["user", "fields", "time_ms", "action"][..]))
        .prop_map(|(action, user, ago_ms, odd, place)| {
            let mut event = json!({"time_ms": NOW_MS + 100_000 - ago_ms, "region": "eu", "node": "eu-1", "group": 1,
                "action": action, "outcome": match action { "login" => "success", "denied" => "denied", _ => "failure" },
                "user": format!("u{user}"), "address": format!("203.0.113.{user}"), "session": format!("s{user}")});
            if let Some(odd) = odd {
                event[place] = odd;
            }
            event.to_string().into_bytes()
        })
}

fn raw() -> impl Strategy<Value = RawEvent> {
    let syslog = (0_u32..60, proptest::sample::select(&["h1", "h2"][..])).prop_map(|(second, host)| {
        format!("<38>1 2026-11-23T20:59:{second:02}Z {host} sshd 1 - - Failed password for root from 203.0.113.9 port 4 ssh2")
    });
    let body = prop_oneof![
        6 => ndjson().prop_map(|bytes| (SourceKind::Ndjson, bytes)),
        4 => audit().prop_map(|bytes| (SourceKind::Audit, bytes)),
        2 => syslog.prop_map(|line| (SourceKind::Syslog, line.into_bytes())),
        1 => (any::<Vec<u8>>(), any::<bool>()).prop_map(|(bytes, is_audit)| {
            (if is_audit { SourceKind::Audit } else { SourceKind::Ndjson }, bytes)
        }),
    ];
    let position = proptest::option::of((proptest::sample::select(&["a", "b"][..]), 0_u64..50));
    (body, position, 0_u64..100_000).prop_map(|((source, bytes), position, ago_ms)| RawEvent {
        source,
        received_ms: NOW_MS - ago_ms,
        position: position.map(|(stream, sequence)| Position { stream: stream.into(), sequence }),
        bytes: bytes.into(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn raw_and_parsed_events_have_the_same_effects(
        rules in proptest::collection::vec(random::rule(), 1..6),
        events in proptest::collection::vec(raw(), 1..40),
    ) {
        let mut pair = Pair::new(rules_with_bursts(&rules));
        for (number, raw) in (0_u64..).zip(&events) {
            pair.take(NOW_MS + number * 500, raw);
        }
        pair.tick(NOW_MS + 60_000);
    }

    #[test]
    fn the_pack_finds_the_same_in_raw_and_parsed_events(events in proptest::collection::vec(raw(), 1..120)) {
        let mut pair = Pair::new(load_dir(&pack()).0);
        for raw in &events {
            pair.take(NOW_MS, raw);
        }
    }
}

#[test]
fn an_event_that_is_too_large_is_rejected_either_way() {
    let mut pair = Pair::new(load_dir(&pack()).0);
    for source in [SourceKind::Audit, SourceKind::Ndjson, SourceKind::Syslog] {
        let bytes = vec![b' '; RAW_SIZE_BYTES_MAX + 1].into();
        pair.take(NOW_MS, &RawEvent { source, received_ms: NOW_MS, position: None, bytes });
    }
    assert_eq!(pair.rejected, 3);
}

#[test]
fn real_events_have_the_same_effects_raw_and_parsed() {
    let (Some(archive), Some(lane)) =
        (unpacked("sigma/sigmahq-rules.tar.gz"), data("load/otrf_win_20k_mixed.ndjson.gz"))
    else {
        return;
    };
    let (rules, _) = load_tree(&archive.path().join("rules"), &Pipeline::default());
    let lane = std::process::Command::new("gzip").arg("-dc").arg(lane).output().unwrap();
    let lines = String::from_utf8(lane.stdout).unwrap();
    let mut pair = Pair::new(rules);
    for (sequence, line) in (0_u64..).zip(lines.lines().step_by(17)) {
        let position = (sequence % 3 > 0).then(|| Position { stream: "lane".into(), sequence });
        let bytes = line.to_owned().into();
        pair.take(NOW_MS, &RawEvent { source: SourceKind::Ndjson, received_ms: NOW_MS, position, bytes });
    }
    eprintln!("{} effects, {} rejected", pair.effects, pair.rejected);
    assert!(pair.effects > 5);
}
