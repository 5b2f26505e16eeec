//! Events that come too late, clocks that are ahead, and budgets: nothing of it is silent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{COVERAGE_DEGRADED, Detector, Effect, Input, LateLane, Options, judge_again};
use detection::event::Event;
use detection::rules::{RuleSet, load_texts};
use detection::{Alert, AlertId};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
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

fn run(detector: &mut Detector, events: &[Event]) -> (Vec<Arc<Alert>>, Vec<LateLane>) {
    let mut effects = Vec::new();
    for event in events {
        detector.step(NOW_MS, Input::Event(event.clone()), &mut effects);
    }
    (alerts(effects), detector.take_late())
}

fn alerts(effects: Vec<Effect>) -> Vec<Arc<Alert>> {
    let alert = |effect| if let Effect::Alert(alert) = effect { Some(alert) } else { None };
    effects.into_iter().filter_map(alert).collect()
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
        let mut told: Vec<Arc<Alert>> = Vec::new();
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
        let late = alerts(judge_again(&rules, &options(), &lane, &stored));
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
fn a_span_is_judged_again_for_the_correlation_and_group_that_asked_and_for_what_is_about_it() {
    let mut text = "title: a\nname: a\nlogsource: {}\ndetection: {s: {kind: a}, condition: s}\n".to_owned();
    for (name, of, group) in [("x", "a", "user"), ("other", "a", "user"), ("above", "x", "user"), ("host", "a", "host")]
    {
        text += &format!(
            "---\ntitle: {name}\nname: {name}\ncorrelation: {{type: event_count, rules: [{of}], generate: true, \
             group-by: {group}, timespan: 60s, condition: {{gte: {}}}}}\n",
            if of == "a" { 2 } else { 1 }
        );
    }
    let (rules, errors) = load_texts(vec![("o.yml".into(), text)]);
    assert!(errors.is_empty(), "{errors:?}");
    let event = |n: u64, user: &str| {
        let mut event = event(n, 10 + n, "a", user);
        event.fields.insert("host".into(), "h".into());
        event
    };
    let stored = [event(0, "ann"), event(1, "ann"), event(2, "bob"), event(3, "bob")];
    let events = BTreeSet::from([stored[1].id, stored[3].id]);
    let group = BTreeMap::from([("user".to_owned(), "ann".to_owned())]);
    let (from_ms, to_ms) = (stored[0].time_ms - 60_000, stored[3].time_ms + 60_000);
    let lane = LateLane { rule: "x".into(), group, from_ms, to_ms, events, apart: false };
    let late = alerts(judge_again(&rules, &options(), &lane, &stored));
    let told: BTreeSet<(&str, &str)> =
        late.iter().map(|alert| (&*alert.rule.id, alert.group_key["user"].as_str())).collect();
    assert_eq!(told, [("above", "ann"), ("above", "bob"), ("x", "ann")].into());
}

#[test]
fn a_clock_that_is_ahead_is_clamped_and_the_alerts_say_so() {
    let mut detector = Detector::new(rules(THREE), options());
    let ahead = |n: u64| plain(n, NOW_MS + 3_600_000, json!({"kind": "a", "user": "ann"}));
    let (alerts, _) = run(&mut detector, &[ahead(0), ahead(1), ahead(2)]);
    assert_eq!(detector.counts().ahead, 3);
    assert!(alerts.len() == 1 && alerts[0].clamped && alerts[0].last_ms <= NOW_MS);
}

/// As `event`, from a host, received so many seconds after the first moment.
fn from(host: &str, received: u64, (place, second, kind, user): (u64, u64, &str, &str)) -> Event {
    let mut event = event(place, second, kind, user);
    event.fields.insert("device.hostname".into(), host.into());
    Event { received_ms: NOW_MS - 10_000_000 + received * 1_000, ..event }
}

/// Steps through events, the reader keeping up with them; what followed, and the spans to be read again.
fn live(detector: &mut Detector, events: &[Event]) -> (Vec<Effect>, Vec<LateLane>) {
    let mut effects = Vec::new();
    for event in events {
        detector.step(event.received_ms, Input::Tick, &mut effects);
        detector.step(event.received_ms, Input::Event(event.clone()), &mut effects);
    }
    (effects, detector.take_late())
}

#[test]
fn whether_a_clock_is_ahead_does_not_depend_on_when_the_event_is_read() {
    let ahead = from("h", 0, (0, 70, "a", "ann"));
    for read_s in [0, 20, 600] {
        let mut detector = Detector::new(rules(THREE), options());
        detector.step(ahead.received_ms + read_s * 1_000, Input::Event(ahead.clone()), &mut Vec::new());
        assert_eq!(detector.counts().ahead, 1, "read {read_s} s after it was received");
    }
    // And it is taken for as old where spans are read again.
    assert_eq!(options().believed_ms(ahead.time_ms, ahead.received_ms), ahead.received_ms);
}

#[test]
fn a_reader_that_is_behind_forgets_and_judges_nothing_before_it_has_read_what_follows() {
    for (correlation, expect) in [(THREE, 1), ("type: temporal, condition: a and not b", 0)] {
        let mut detector = Detector::new(rules(correlation), options());
        let (mut effects, first) = (Vec::new(), from("h", 0, (0, 0, "a", "ann")));
        detector.step(first.received_ms, Input::Event(first.clone()), &mut effects);
        // An outage: the clock is hours on, what was read is not.
        for event in [from("h", 5, (1, 5, "b", "ann")), from("h", 20, (2, 20, "a", "ann"))] {
            detector.step(event.received_ms, Input::Tick, &mut effects);
            detector.step(NOW_MS, Input::Event(event), &mut effects);
        }
        assert_eq!((alerts(effects).len(), detector.take_late().len()), (expect, 0), "{correlation}");
    }
}

#[test]
fn what_comes_after_its_key_was_forgotten_is_judged_again_from_stored_events() {
    // Two of three, then the forwarder is offline for seven minutes, then the third, a second after the second.
    let events = [from("h", 0, (0, 0, "a", "ann")), from("h", 1, (1, 1, "a", "ann"))];
    let third = from("h", 420, (2, 2, "a", "ann"));
    let mut detector = Detector::new(rules(THREE), options());
    let (effects, lanes) = live(&mut detector, &events);
    assert!(effects.is_empty() && lanes.is_empty());
    for second in 0..400 {
        detector.step(events[0].received_ms + second * 1_000, Input::Tick, &mut Vec::new());
    }
    assert_eq!(detector.counts().keys, 0, "nothing that belongs to it should come any more");
    // Also where another takes over in between.
    let rows = detector.take_rows().into_iter().filter_map(|(key, row)| Some((key, row?)));
    let mut detector = Detector::restore(rules(THREE), options(), rows).unwrap().0;
    let (_, lanes) = live(&mut detector, std::slice::from_ref(&third));
    assert_eq!(lanes.len(), 1);
    let stored = [&events[..], &[third]].concat();
    let late = alerts(judge_again(&rules(THREE), &options(), &lanes[0], &stored));
    assert_eq!((late.len(), late[0].events.len()), (1, 3));
}

#[test]
fn a_host_that_lags_behind_another_is_correlated_with_it() {
    let mut detector = Detector::new(rules("type: temporal"), options());
    // The relay of host b is two minutes behind, and known to be so.
    let events = [
        from("b", 120, (0, 0, "a", "bob")),
        from("a", 121, (1, 121, "a", "ann")),
        from("b", 140, (2, 20, "a", "bob")),
        from("a", 160, (3, 160, "a", "eve")),
        from("b", 165, (4, 45, "a", "bob")),
        from("a", 190, (5, 190, "a", "eve")),
        from("b", 194, (6, 74, "a", "bob")),
        from("b", 219, (9, 99, "a", "bob")),
        from("a", 220, (7, 220, "a", "eve")),
        from("b", 243, (8, 123, "b", "ann")),
    ];
    let (effects, lanes) = live(&mut detector, &events);
    let told = alerts(effects);
    assert_eq!((told.len(), lanes.len(), detector.counts().late), (1, 0, 0), "{told:?}");
    assert_eq!(told[0].group_key["user"], "ann");
}

#[test]
fn what_comes_too_long_after_others_moved_on_is_judged_again_with_theirs() {
    for correlation in ["type: temporal", "type: event_count, condition: {gte: 2}"] {
        let rules = rules(correlation);
        let mut detector = Detector::new(rules.clone(), options());
        // Host b was never heard of before: nothing waited for it.
        let events = [
            from("a", 0, (0, 0, "a", "ann")),
            from("a", 40, (1, 40, "b", "bob")),
            from("a", 45, (2, 45, "a", "ann")),
            from("b", 46, (3, 5, "b", "ann")),
        ];
        let (_, lanes) = live(&mut detector, &events);
        assert_eq!(lanes.len(), 1, "{correlation}");
        let late = alerts(judge_again(&rules, &options(), &lanes[0], &events));
        assert_eq!(late.iter().filter(|alert| alert.events.len() == 2).count(), 1, "{correlation}: {late:?}");
    }
}

#[test]
fn a_log_that_is_replayed_raises_what_it_holds_once() {
    let rules = rules(THREE);
    let mut detector = Detector::new(rules.clone(), options());
    let mut events = vec![from("live", 5_000, (0, 5_000, "a", "ann")), from("live", 5_060, (1, 5_060, "a", "ann"))];
    events.extend((0..6).map(|n| from("old", 5_061 + n, (2 + n, n * 20, "a", "ann"))));
    let (effects, lanes) = live(&mut detector, &events);
    let told = alerts(effects);
    assert_eq!(told.len(), 1);
    for lane in lanes {
        let is_within = |event: &&Event| (lane.from_ms..=lane.to_ms).contains(&event.time_ms);
        let stored: Vec<Event> = events.iter().filter(is_within).cloned().collect();
        assert!(judge_again(&rules, &options(), &lane, &stored).is_empty(), "of its own events all was told");
    }
}

#[test]
fn a_clock_that_stands_or_lies_far_behind_blinds_no_other_and_one_that_stands_is_told() {
    for (stands, told) in [(true, 1), (false, 0)] {
        let mut detector = Detector::new(rules("type: event_count, condition: {lt: 3}"), options());
        let mut effects = Vec::new();
        let dead_ms = |second: u64| if stands { 1_000 } else { 1_000 + second * 1_000 };
        for second in 0..400_u64 {
            let mut dead = from("dead", second, (1_000 + second, 0, "c", "ann"));
            dead.time_ms = dead_ms(second);
            if second == 0 {
                dead.fields.insert("kind".into(), "a".into());
            }
            let live = from("live", second, (second, second, if second == 10 { "a" } else { "c" }, "ann"));
            for event in [dead, live] {
                detector.step(event.received_ms, Input::Tick, &mut effects);
                detector.step(event.received_ms, Input::Event(event), &mut effects);
            }
        }
        let alerts = alerts(effects);
        let of = |rule: &str| alerts.iter().filter(|alert| &*alert.rule.id == rule).count();
        assert_eq!((of("x"), of(COVERAGE_DEGRADED)), (2, told), "{stands}: {alerts:?}");
        assert_eq!(detector.counts().standing, told as u64);
        assert!(detector.counts().behind >= 399);
    }
}

#[test]
fn windows_of_hosts_that_were_forgotten_are_judged_by_the_clock() {
    let mut detector = Detector::new(rules("type: event_count, condition: {lt: 3}"), options());
    let mut effects = Vec::new();
    detector.step(0, Input::Event(from("first", 0, (0, 0, "a", "ann"))), &mut effects);
    for n in 0..20_000 {
        let event = from(&format!("h{n}"), 1, (n + 1, 1, "c", "bob"));
        detector.step(event.received_ms, Input::Event(event), &mut effects);
    }
    for second in 0..400 {
        detector.step(NOW_MS - 10_000_000 + second * 1_000, Input::Tick, &mut effects);
    }
    let alerts = alerts(effects);
    assert_eq!(alerts.iter().filter(|alert| &*alert.rule.id == "x").count(), 1, "{alerts:?}");
    assert!(detector.counts().forgotten_early > 0 && detector.counts().keys == 0);
}

#[test]
fn a_late_event_before_a_burst_supersedes_what_was_told_of_it() {
    let rules = rules(THREE);
    let mut detector = Detector::new(rules.clone(), options());
    let events = [
        from("h", 100, (0, 100, "a", "ann")),
        from("h", 110, (1, 110, "a", "ann")),
        from("h", 120, (2, 120, "a", "ann")),
        from("h", 300, (3, 300, "a", "bob")),
    ];
    let (effects, _) = live(&mut detector, &events);
    let before = alerts(effects).remove(0);
    let late = from("h", 301, (4, 90, "b", "ann"));
    let (_, lanes) = live(&mut detector, std::slice::from_ref(&late));
    let stored = [&events[..3], &[late]].concat();
    let effects = judge_again(&rules, &options(), &lanes[0], &stored);
    let [Effect::Alert(alert), Effect::Superseded { old, by }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((alert.late, alert.events.len(), *old, *by), (true, 3, before.id, alert.id));
}

#[test]
fn a_window_that_a_late_event_undoes_no_longer_stands() {
    let rules = rules("type: temporal, condition: a and not b");
    let mut detector = Detector::new(rules.clone(), options());
    let events = [from("h", 0, (0, 0, "a", "ann")), from("h", 200, (1, 200, "a", "bob"))];
    let (effects, _) = live(&mut detector, &events);
    let mut effects = effects;
    detector.step(events[1].received_ms + 6_000, Input::Tick, &mut effects);
    let before = alerts(effects).remove(0);
    let late = from("h", 210, (2, 10, "b", "ann"));
    let (_, lanes) = live(&mut detector, std::slice::from_ref(&late));
    let effects = judge_again(&rules, &options(), &lanes[0], &[events[0].clone(), late]);
    assert_eq!(effects, [Effect::Superseded { old: before.id, by: before.id }]);
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
    let is_told = |effect: &&Effect| matches!(effect, Effect::Alert(alert) if &*alert.rule.id == COVERAGE_DEGRADED);
    assert_eq!(effects.iter().filter(is_told).count(), 1);
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

#[test]
fn an_event_that_is_delivered_again_when_it_is_late_is_still_recognised() {
    let (rules, errors) = load_texts(vec![(
        "s.yml".into(),
        "title: a\nid: a\nlogsource: {}\ndetection: {s: {kind: a}, condition: s}\n".into(),
    )]);
    assert!(errors.is_empty(), "{errors:?}");
    let mut detector = Detector::new(rules, options());
    let first = |place| {
        let mut event = from("h", 0, (place, 0, "a", "ann"));
        event.fields.insert("metadata.uid".into(), "u-1".into());
        event.id = detection::EventId::from_bytes([place as u8; 16]);
        event
    };
    let (effects, _) = live(&mut detector, &[first(1), from("h", 90, (2, 90, "c", "bob")), first(3)]);
    assert_eq!((alerts(effects).len(), detector.counts().duplicates), (1, 1));
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
        let mut told: BTreeMap<AlertId, Arc<Alert>> = BTreeMap::new();
        for place in 0..events.len() {
            let (raised, lanes) = run(&mut detector, &events[place..=place]);
            told.extend(raised.into_iter().map(|alert| (alert.id, alert)));
            for lane in lanes {
                // What is stored by now, late ones included.
                let stored: Vec<Event> = events[..=place].iter().filter(|event| (lane.from_ms..=lane.to_ms).contains(&event.time_ms)).cloned().collect();
                let late = alerts(judge_again(&rules, &options(), &lane, &stored));
                told.extend(late.into_iter().map(|alert| (alert.id, alert)));
            }
        }
        // What an undisturbed reader is told of, someone was told of: an alert of the same group within the timespan.
        let mut in_order = events.clone();
        in_order.sort_by_key(|event| (event.time_ms, event.position.as_ref().unwrap().sequence));
        for alert in feed(&mut Detector::new(rules, options()), in_order).alerts.values() {
            let near = |other: &Alert| other.group_key == alert.group_key && other.first_ms <= alert.last_ms + 60_000 && alert.first_ms <= other.last_ms + 60_000;
            prop_assert!(told.values().any(|other| near(other)), "{alert:?}");
        }
    }
}
