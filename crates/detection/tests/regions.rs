//! Correlations across regions: whatever region an event happened in, and in whatever order tuples arrive, the alerts
//! are those of one region that saw everything; and nothing but tuples travels.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{Detector, Effect, Input, Options};
use detection::normalise::normalise;
use detection::rules::{RuleSet, load_texts};
use detection::{Event, EventId, Position, RawEvent, SourceKind, Tuple};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;
use support::{NOW_MS, audit, feed};

const RULES: &str = "
title: Failed
name: failed
logsource: {product: holdfast}
detection: {s: {api.operation: login.failed}, condition: s}
---
title: In
name: in
logsource: {product: holdfast}
detection: {s: {api.operation: login}, condition: s}
---
title: Either
name: either
logsource: {product: holdfast}
detection: {s: {api.operation: [login, login.failed]}, condition: s}
---
title: Failures anywhere
name: failures
across_regions: true
correlation: {type: event_count, rules: [failed, in, either], group-by: [user.name], timespan: 5m, condition: {gte: 4}}
---
title: From many places
name: places
across_regions: true
correlation:
  type: value_count
  rules: [failed]
  group-by: [user.name]
  timespan: 5m
  condition: {field: src_endpoint.ip, gte: 3}
---
title: At last
name: at_last
across_regions: true
alerts: true
correlation: {type: temporal_ordered, rules: [failed, in], group-by: [user.name], timespan: 5m}
---
title: At last and again
name: again
across_regions: true
correlation: {type: event_count, rules: [at_last], group-by: [user.name], timespan: 20m, condition: {gte: 2}}
---
title: Failures here
name: here
correlation: {type: event_count, rules: [failed], group-by: [user.name], timespan: 5m, condition: {gte: 3}}
";

fn rules() -> RuleSet {
    let (rules, errors) = load_texts(vec![("a.yml".to_owned(), RULES.to_owned())]);
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

fn event(number: u64, after_ms: u64, user: u64, is_failed: bool) -> Event {
    let action = if is_failed { "login.failed" } else { "login" };
    let (user, address) = (format!("u{user}"), format!("10.0.0.{}", number % 5));
    let body =
        json!({"action": action, "outcome": "success", "user": user, "address": address, "detail": "secret words"});
    audit(number, after_ms, body)
}

/// What a region's detector sends, and what it raises itself.
fn sent(rules: RuleSet, events: &[Event]) -> (Vec<Tuple>, BTreeSet<String>) {
    let (mut detector, mut effects) = (Detector::new(rules, Options::default()), Vec::new());
    for event in events {
        detector.step(NOW_MS, Input::Event(event.clone()), &mut effects);
    }
    let alert = |effect: &Effect| match effect {
        Effect::Alert(alert) => Some(alert.rule.id.to_string()),
        _ => None,
    };
    (detector.take_tuples(), effects.iter().filter_map(alert).collect())
}

/// A tuple as it is read where correlations across regions are judged.
fn arrived(region: usize, place: usize, tuple: &Tuple) -> Event {
    let position = Some(Position { stream: format!("tuples/{region}").into(), sequence: place as u64 });
    let bytes = serde_json::to_vec(tuple).unwrap().into();
    normalise(&RawEvent { source: SourceKind::Tuple, received_ms: NOW_MS, position, bytes }).unwrap()
}

fn alerts(rules: RuleSet, events: impl IntoIterator<Item = Event>) -> BTreeSet<(String, Vec<EventId>)> {
    let options = Options { allowed_lateness_ms: 100_000_000, ..Options::default() };
    let net = feed(&mut Detector::new(rules, options), events);
    let alert = |alert: std::sync::Arc<detection::Alert>| {
        (alert.rule.id.to_string(), alert.events.iter().map(|event| event.id).collect())
    };
    net.alerts.into_values().map(alert).filter(|(rule, _)| rule != "here").collect()
}

proptest! {
    #[test]
    fn what_is_spread_over_regions_is_seen_as_if_it_were_not(
        events in prop::collection::vec((0..1_500_000_u64, 0..3_u64, any::<bool>(), 0..3_usize), 0..60),
        order in any::<u64>(),
    ) {
        let all: Vec<(usize, Event)> = (0..).zip(&events)
            .map(|(number, (after_ms, user, is_failed, region))| (*region, event(number, *after_ms, *user, *is_failed)))
            .collect();
        let mut read = Vec::new();
        for region in 0..3 {
            let own: Vec<Event> = all.iter().filter(|(of, _)| *of == region).map(|(_, event)| event.clone()).collect();
            let (tuples, _) = sent(rules().across_regions(), &own);
            read.extend(tuples.iter().enumerate().map(|(place, tuple)| arrived(region, place, tuple)));
            // Of what all regions see, each sends a tuple.
            let seen = tuples.iter().enumerate().step_by(3);
            read.extend(seen.map(|(place, tuple)| arrived((region + 1) % 3, 1_000 + place, tuple)));
        }
        // In any order, some of them twice.
        let hash = |n: usize| blake3::hash(&[order.to_le_bytes(), (n as u64).to_le_bytes()].concat());
        let mut shuffled: Vec<(_, Event)> = read.iter().cloned().enumerate().map(|(n, event)| (hash(n), event)).collect();
        shuffled.extend(read.iter().step_by(3).cloned().enumerate().map(|(n, event)| (hash(1_000 + n), event)));
        shuffled.sort_by_key(|(hash, _)| *hash.as_bytes());
        let there = alerts(rules().across_regions(), shuffled.into_iter().map(|(_, event)| event));
        let alone = alerts(rules(), all.into_iter().map(|(_, event)| event));
        prop_assert_eq!(there, alone);
    }
}

#[test]
fn what_is_of_one_region_stays_there_and_what_travels_is_no_event() {
    let events: Vec<Event> = (0..3).map(|n| event(n, n * 1_000, 1, true)).collect();
    let (tuples, raised) = sent(rules().across_regions(), &events);
    assert_eq!(raised, BTreeSet::from(["here".to_owned()]), "correlations of one region go on as before");
    assert_eq!(tuples.len(), 6, "one for each match of a rule, however many correlations are about it");
    let text = serde_json::to_string(&tuples).unwrap();
    assert!(text.contains("u1") && text.contains("10.0.0."), "{text}");
    assert!(!text.contains("secret words"), "{text}");
    let (tuples, _) = sent(rules(), &events);
    assert!(tuples.is_empty(), "alone, nothing travels");
    let mut beside = Detector::new(rules().across_regions(), Options::default()).beside(rules().across_regions());
    events.into_iter().for_each(|event| beside.step(NOW_MS, Input::Event(event), &mut Vec::new()));
    assert_eq!(beside.take_tuples(), [], "what runs beside another leaves sending to it");
}

#[test]
fn that_a_tuple_was_sent_sends_no_other() {
    let any = "title: Any\nname: any\nlogsource: {product: holdfast}\ndetection: {s: {api.operation: '*'}, condition: s}\n\
               ---\ntitle: Many\nname: many\nacross_regions: true\n\
               correlation: {type: event_count, rules: [any], timespan: 1m, condition: {gte: 2}}\n";
    let (rules, errors) = load_texts(vec![("a.yml".to_owned(), any.to_owned())]);
    assert!(errors.is_empty(), "{errors:?}");
    let body = json!({"action": detection::tuple::SENT, "outcome": "success", "user": "detector"});
    assert_eq!(sent(rules.across_regions(), &[audit(1, 0, body)]).0, []);
}

#[test]
fn only_correlations_of_the_platform_look_across_regions() {
    let rule =
        "title: A\nname: a\nacross_regions: true\nlogsource: {product: p}\ndetection: {s: {x: 1}, condition: s}\n";
    let (_, errors) = load_texts(vec![("a.yml".to_owned(), rule.to_owned())]);
    assert!(errors[0].to_string().contains("across_regions"), "{errors:?}");
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("packs.toml", "[[pack]]\nname = \"p\"\nfolders = [\".\"]\ntenants = [\"*\"]\n");
    write("a.yml", RULES);
    let (rules, errors) = detection::packs::load(folder.path()).unwrap();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors[0].to_string().contains("across_regions in rules for tenants"), "{errors:?}");
    assert_eq!(rules.clone().across_regions().rules().len(), rules.rules().len(), "they are judged in each region");
}
