//! Events that come too late, clocks that are ahead, and budgets: nothing of it is silent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{COVERAGE_DEGRADED, Detector, Effect, Input, LateLane, Options, reconsider};
use detection::event::Event;
use detection::rules::{RuleSet, load_texts};
use detection::{Alert, AlertId};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use support::{NOW_MS, feed, plain};

fn rules(correlation: &str) -> RuleSet {
    let mut text = String::new();
    for name in ["a", "b"] {
        text += &format!(
            "title: {name}\nname: {name}\nlogsource: {{}}\ndetection: {{s: {{kind: {name}}}, condition: s}}\n---\n"
        );
    }
    text +=
        &format!("title: x\nname: x\ncorrelation: {{rules: [a, b], group-by: user, timespan: 60s, {correlation}}}\n");
    let (rules, errors) = load_texts(vec![("o.yml".into(), text)]);
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

fn event(place: u64, second: u64, kind: &str, user: &str) -> Event {
    plain(place, NOW_MS - 10_000_000 + second * 1_000, json!({"kind": kind, "user": user}))
}

fn options() -> Options {
    Options { allowed_lateness_ms: 30_000, ..Options::default() }
}

fn run(detector: &mut Detector, events: &[Event]) -> (Vec<Alert>, Vec<LateLane>) {
    let mut effects = Vec::new();
    for event in events {
        detector.step(NOW_MS, Input::Event(event.clone()), &mut effects);
    }
    let alerts =
        effects.into_iter().filter_map(|effect| if let Effect::Alert(alert) = effect { Some(alert) } else { None });
    (alerts.collect(), detector.take_late())
}

const THREE: &str = "type: event_count, condition: {gte: 3}";

#[test]
fn a_late_event_is_correlated_where_the_state_still_can() {
    // The group has been watched for longer than the timespan, and nothing after its event is folded.
    let mut detector = Detector::new(rules(THREE), options());
    let events =
        [(0, 0, "a", "ann"), (1, 75, "a", "ann"), (2, 76, "a", "ann"), (3, 100, "a", "bob"), (4, 60, "b", "ann")];
    let (alerts, lanes) = run(&mut detector, &events.map(|(n, second, kind, user)| event(n, second, kind, user)));
    assert_eq!((alerts.len(), lanes.len(), detector.counts().late), (1, 0, 1));
    assert!(alerts[0].late);
}

#[test]
fn what_no_state_can_take_in_is_judged_again_from_stored_events() {
    for (correlation, expect) in [
        (THREE, 1),
        ("type: event_count, condition: {eq: 3}", 1),
        ("type: temporal_ordered", 1),
        ("type: temporal, condition: b and not a", 0),
    ] {
        let rules = rules(correlation);
        let events =
            [(0, 10, "a", "ann"), (1, 12, "a", "ann"), (2, 120, "a", "ann"), (3, 300, "a", "bob"), (4, 11, "b", "ann")]
                .map(|(n, second, kind, user)| event(n, second, kind, user));
        let mut detector = Detector::new(rules.clone(), options());
        let mut told: Vec<Alert> = Vec::new();
        for (place, event) in events.iter().enumerate() {
            told.extend(run(&mut detector, std::slice::from_ref(event)).0.into_iter().filter(|_| place < 4));
            detector.step(NOW_MS + 6_000 * place as u64, Input::Tick, &mut Vec::new());
            if place == 4 {
                break;
            }
        }
        // The lane was taken with the last step's alerts; ask again with the same late event.
        let (_, lanes) =
            run(&mut detector, &[Event { id: detection::EventId::from_bytes([9; 16]), ..events[4].clone() }]);
        assert_eq!(lanes.len(), 1, "{correlation}");
        let lane = LateLane { events: BTreeSet::from([events[4].id]), ..lanes[0].clone() };
        assert_eq!((&*lane.rule, lane.group["user"].as_str()), ("x", "ann"));
        let stored: Vec<Event> =
            events.iter().filter(|event| (lane.from_ms..=lane.to_ms).contains(&event.time_ms)).cloned().collect();
        let late = reconsider(&rules, &options(), &lane, &stored);
        assert_eq!(late.len(), expect, "{correlation}: {late:?}");
        assert!(late.iter().all(|alert| alert.late && alert.group_key["user"] == "ann"));
        let whole = feed(&mut Detector::new(rules, Options { allowed_lateness_ms: 1_000_000, ..options() }), events);
        assert!(
            late.iter().all(|alert| whole.alerts.contains_key(&alert.id)),
            "{correlation}: the same as if it had come in time"
        );
    }
}

#[test]
fn a_clock_that_is_ahead_is_clamped_and_the_alerts_say_so() {
    let mut detector = Detector::new(rules(THREE), options());
    let ahead = |n: u64| plain(n, NOW_MS + 3_600_000, json!({"kind": "a", "user": "ann"}));
    let (alerts, _) = run(&mut detector, &[ahead(0), ahead(1), ahead(2)]);
    assert_eq!(detector.counts().ahead, 3);
    assert!(alerts.len() == 1 && alerts[0].clamped && alerts[0].last_ms <= NOW_MS);
}

#[test]
fn what_a_budget_makes_it_forget_is_told_at_once_and_then_by_the_hour() {
    let mut detector = Detector::new(rules(THREE), Options { entries_max: 20, ..options() });
    let mut effects = Vec::new();
    for n in 0..200 {
        detector.step(NOW_MS, Input::Event(event(n, n / 10, "a", &format!("u{n}"))), &mut effects);
    }
    let told = |effects: &[Effect]| -> Vec<String> {
        effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Alert(alert) if &*alert.rule.id == COVERAGE_DEGRADED => Some(alert.events[0].text.clone()),
                _ => None,
            })
            .collect()
    };
    let first = detector.counts();
    assert!(first.keys_evicted > 100 && first.keys <= 20);
    assert_eq!(told(&effects).len(), 1);
    for minute in 0..180 {
        detector.step(NOW_MS + minute * 60_000, Input::Tick, &mut effects);
    }
    let told = told(&effects);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("5 group keys") && told[1].contains("group keys"), "{told:?}");
}

#[test]
fn identities_beyond_the_budget_make_events_late_and_are_told() {
    let mut detector = Detector::new(rules(THREE), Options { remembered_max: 4, ..options() });
    let mut effects = Vec::new();
    for n in 0..10 {
        let event =
            plain(n, NOW_MS - 1_000_000 + n, json!({"kind": "a", "user": "ann", "metadata.uid": format!("{n}")}));
        detector.step(NOW_MS, Input::Event(event), &mut effects);
    }
    detector.step(NOW_MS + 10_000, Input::Tick, &mut effects);
    assert_eq!((detector.counts().remembered, detector.counts().forgotten_early), (4, 6));
    assert!(matches!(effects.last(), Some(Effect::Alert(alert)) if &*alert.rule.id == COVERAGE_DEGRADED));
}

#[test]
fn an_event_that_comes_again_long_after_the_watermark_passed_it_is_not_counted_twice() {
    let two = "type: event_count, condition: {gte: 2}";
    let of = |place: u64, second: u64, user: &str, uid: &str| {
        let fields = json!({"kind": "a", "user": user, "metadata.uid": uid});
        plain(place, NOW_MS - 10_000_000 + second * 1_000, fields)
    };
    let mut detector = Detector::new(rules(two), options());
    let (alerts, lanes) = run(&mut detector, &[of(0, 0, "ann", "x"), of(1, 61, "bob", "y"), of(2, 0, "ann", "x")]);
    assert_eq!((alerts.len(), lanes.len(), detector.counts().duplicates), (0, 0, 1));
    let (alerts, _) = run(&mut detector, &[of(3, 62, "bob", "z")]);
    assert_eq!(alerts.len(), 1, "another event is counted");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_attack_is_missed_however_late_its_events_come(
        drawn in proptest::collection::vec((0_u64..400, any::<bool>(), 0_u8..3, any::<u16>()), 1..30),
        kind in 0..3_usize,
    ) {
        let correlation = [THREE, "type: temporal", "type: temporal_ordered"][kind];
        let rules = rules(correlation);
        let mut events: Vec<(u16, Event)> = drawn.iter().enumerate().map(|(n, (second, is_a, user, order))| {
            (*order, event(n as u64, *second, if *is_a { "a" } else { "b" }, &format!("u{user}")))
        }).collect();
        events.sort_by_key(|(order, _)| *order);
        let events: Vec<Event> = events.into_iter().map(|(_, event)| event).collect();
        let mut detector = Detector::new(rules.clone(), options());
        let mut told: BTreeMap<AlertId, Alert> = BTreeMap::new();
        for place in 0..events.len() {
            let (alerts, lanes) = run(&mut detector, &events[place..=place]);
            told.extend(alerts.into_iter().map(|alert| (alert.id, alert)));
            for lane in lanes {
                // What is stored by now, late ones included.
                let stored: Vec<Event> = events[..=place].iter().filter(|event| (lane.from_ms..=lane.to_ms).contains(&event.time_ms)).cloned().collect();
                told.extend(reconsider(&rules, &options(), &lane, &stored).into_iter().map(|alert| (alert.id, alert)));
            }
        }
        // What an undisturbed reader is told of, someone was told of: an alert of the same group within the timespan.
        let mut in_order = events.clone();
        in_order.sort_by_key(|event| (event.time_ms, event.position.as_ref().unwrap().sequence));
        for alert in feed(&mut Detector::new(rules, options()), in_order).alerts.values() {
            let near = |other: &Alert| other.group_key == alert.group_key && other.first_ms <= alert.last_ms + 60_000 && alert.first_ms <= other.last_ms + 60_000;
            prop_assert!(told.values().any(near), "{alert:?}");
        }
    }
}
