//! Every operator of a correlation against a naive evaluation of its definition, for every order of arrival.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{Detector, Effect, Input, Options};
use detection::event::Event;
use detection::rules::{RuleSet, load_texts};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use support::{NOW_MS, feed, plain};

/// The first `count` of the rules `a`, `b`, `c`, each by the field `kind`, and a correlation about them; of a condition
/// over rules, about those it names, as it must.
fn rules(count: usize, correlation: &str) -> RuleSet {
    let (_, condition) = correlation.split_once("condition: ").unwrap_or_default();
    let is_over_rules = !condition.is_empty() && !condition.starts_with('{');
    let is_named = |name: &str| condition.split([' ', '(', ')']).any(|word| word == name);
    let names = ["a", "b", "c"].into_iter().take(count).filter(|name| !is_over_rules || is_named(name));
    let names: Vec<&str> = names.collect();
    let rule = |name| {
        format!("title: {name}\nname: {name}\nlogsource: {{}}\ndetection: {{s: {{kind: {name}}}, condition: s}}\n---\n")
    };
    let mut text: String = names.iter().map(rule).collect();
    let names = names.join(", ");
    text += &format!(
        "title: x\nname: x\ncorrelation: {{rules: [{names}], group-by: user, timespan: 60s, {correlation}}}\n"
    );
    let (rules, errors) = load_texts(vec![("o.yml".into(), text)]);
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

/// What matched when: the second, the rule, a value.
type Seen = (u64, usize, i64);

fn event(place: usize, (second, rule, value): Seen) -> Event {
    let kind = ["a", "b", "c", "d"][rule];
    plain(place as u64, NOW_MS - 10_000_000 + second * 1_000, json!({"kind": kind, "user": "u", "value": value}))
}

/// The seconds of the events that each alert names.
fn alerts(rules: &RuleSet, seen: &[Seen]) -> Vec<Vec<u64>> {
    let options = Options { allowed_lateness_ms: 1_000, ..Options::default() };
    let events = seen.iter().enumerate().map(|(place, one)| event(place, *one));
    let net = feed(&mut Detector::new(rules.clone(), options), events);
    let mut told: Vec<Vec<u64>> = net
        .alerts
        .values()
        .map(|alert| alert.events.iter().map(|event| (event.time_ms - (NOW_MS - 10_000_000)) / 1_000).collect())
        .collect();
    told.sort();
    told
}

#[track_caller]
fn check(count: usize, correlation: &str, seen: &[Seen], expect: &[&[u64]]) {
    assert_eq!(alerts(&rules(count, correlation), seen), expect, "{correlation} on {seen:?}");
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

#[test]
fn counts_within_bounds_are_judged_window_by_window() {
    let five: &[Seen] = &[(0, A, 1), (10, A, 2), (20, A, 3), (100, A, 4), (170, A, 5)];
    check(1, "type: event_count, condition: {lt: 2}", five, &[&[100], &[170]]);
    check(1, "type: event_count, condition: {lte: 3}", five, &[&[0, 10, 20], &[100], &[170]]);
    check(1, "type: event_count, condition: {eq: 3}", five, &[&[0, 10, 20]]);
    check(1, "type: event_count, condition: {neq: 3}", five, &[&[100], &[170]]);
    check(1, "type: event_count, condition: {gte: 2, lt: 4}", five, &[&[0, 10, 20]]);
    // The window's last moment belongs to it.
    check(1, "type: event_count, condition: {eq: 2}", &[(0, A, 1), (60, A, 1), (61, A, 1)], &[&[0, 60]]);
}

#[test]
fn values_are_counted_alone_and_together() {
    let seen: &[Seen] = &[(0, A, 1), (1, A, 1), (2, B, 1), (3, A, 2), (100, A, 7)];
    check(2, "type: value_count, condition: {field: value, lt: 2}", seen, &[&[100]]);
    check(2, "type: value_count, condition: {field: [kind, value], gte: 3}", seen, &[&[1, 2, 3]]);
    check(2, "type: value_count, condition: {field: [kind, value], eq: 3}", seen, &[&[0, 1, 2, 3]]);
}

#[test]
fn values_are_reckoned_with() {
    let seen: &[Seen] = &[(0, A, 10), (5, A, 20), (10, A, 60), (80, A, 100), (200, A, 3)];
    check(1, "type: value_sum, condition: {field: value, gte: 80}", seen, &[&[5, 10], &[80]]);
    check(1, "type: value_sum, condition: {field: value, gt: 80}", seen, &[&[0, 5, 10], &[80]]);
    check(1, "type: value_sum, condition: {field: value, lt: 80}", seen, &[&[200]]);
    check(1, "type: value_avg, condition: {field: value, gt: 30}", seen, &[&[80]]);
    check(1, "type: value_avg, condition: {field: value, lte: 30}", seen, &[&[0, 5, 10], &[200]]);
    check(1, "type: value_median, condition: {field: value, eq: 20}", seen, &[&[0, 5, 10]]);
    check(1, "type: value_percentile, condition: {field: value, percentile: 99, gte: 60}", seen, &[&[0, 5, 10], &[80]]);
    // The bound of a percentile that names none is of each value's share: one in six is less than a fifth.
    let rare: Vec<Seen> = [1, 1, 1, 2, 1, 1].into_iter().zip(0..).map(|(value, second)| (second, A, value)).collect();
    check(1, "type: value_percentile, condition: {field: value, lt: 20}", &rare, &[&[3]]);
}

#[test]
fn rules_are_counted_within_bounds_and_in_order() {
    let seen: &[Seen] = &[(0, A, 0), (1, B, 0), (100, B, 0), (101, A, 0), (200, C, 0)];
    check(3, "type: temporal, condition: {gte: 2}", seen, &[&[0, 1], &[100, 101]]);
    check(3, "type: temporal, condition: {lt: 2}", seen, &[&[200]]);
    check(3, "type: temporal_ordered, condition: {gte: 2}", seen, &[&[0, 1]]);
    check(3, "type: temporal_ordered, condition: {eq: 1}", seen, &[&[100, 101], &[200]]);
    check(3, "type: temporal_ordered", &[(0, A, 0), (1, C, 0), (2, B, 0), (3, C, 0)], &[&[0, 2, 3]]);
}

#[test]
fn conditions_over_rules_say_which_match_and_which_do_not() {
    let seen: &[Seen] = &[(0, A, 0), (1, C, 0), (100, B, 0), (101, C, 0), (200, C, 0)];
    check(3, "type: temporal, condition: (a or b) and c", seen, &[&[0, 1], &[100, 101]]);
    check(
        3,
        "type: temporal_ordered, condition: (a or b) and c",
        &[(0, C, 0), (1, A, 0), (90, A, 0), (91, C, 0)],
        &[&[90, 91]],
    );
    // Without an order, what must not match must not within a timespan, before or after.
    check(3, "type: temporal, condition: c and not a", seen, &[&[101], &[200]]);
    check(
        2,
        "type: temporal, condition: a and not b",
        &[(0, A, 0), (60, B, 0), (100, B, 0), (150, A, 0), (300, A, 0)],
        &[&[300]],
    );
    // With one, only at its place.
    let seen: &[Seen] = &[(0, A, 0), (10, B, 0), (20, C, 0), (200, A, 0), (201, C, 0), (202, B, 0)];
    check(3, "type: temporal_ordered, condition: a and not b and c", seen, &[&[200, 201]]);
    check(
        2,
        "type: temporal_ordered, condition: a and not b",
        &[(0, B, 0), (1, A, 0), (100, A, 0), (120, B, 0)],
        &[&[1]],
    );
    check(2, "type: temporal_ordered, condition: not a and b", &[(0, B, 0), (90, A, 0), (100, B, 0)], &[&[0]]);
    // Of a key that was never seen nothing is said, and what nothing can fulfil is refused.
    check(2, "type: temporal, condition: not a and (b or not b)", &[(0, B, 0), (100, A, 0)], &[&[0]]);
    let text = "title: a\nname: a\nlogsource: {}\ndetection: {s: {k: 1}, condition: s}\n---\ntitle: x\ncorrelation: {type: temporal, rules: a, timespan: 1m, condition: a and not a}\n";
    assert_eq!(load_texts(vec![("n.yml".into(), text.into())]).1.len(), 1);
}

#[test]
fn what_a_closed_window_says_feeds_other_correlations() {
    let text = |above: &str| {
        format!(
            "title: a\nname: a\nlogsource: {{}}\ndetection: {{s: {{kind: a}}, condition: s}}\n---\n\
        title: few\nname: few\ncorrelation: {{type: event_count, rules: a, group-by: user, timespan: 60s, condition: {{lt: 3}}}}\n---\n\
        title: above\nname: above\ncorrelation: {{type: event_count, rules: few, group-by: user, timespan: 300s, condition: {above}}}\n"
        )
    };
    let seen: &[Seen] = &[(0, A, 0), (100, A, 0), (110, A, 0), (120, A, 0), (200, A, 0), (1000, A, 0)];
    for (above, expect) in [("{gte: 2}", vec![vec![0, 200]]), ("{eq: 1}", vec![vec![1000]])] {
        let (rules, errors) = load_texts(vec![("n.yml".into(), text(above))]);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(alerts(&rules, seen), expect, "{above}");
    }
}

#[test]
fn windows_of_several_correlations_that_one_event_begins_or_ends_count_each() {
    let text = "title: a\nname: a\nlogsource: {}\ndetection: {s: {kind: a}, condition: s}\n---\n\
        title: b\nname: b\nlogsource: {}\ndetection: {s: {kind: b}, condition: s}\n---\n\
        title: few\nname: few\ncorrelation: {type: event_count, rules: a, group-by: user, timespan: 60s, condition: {lt: 3}}\n---\n\
        title: lone\nname: lone\ncorrelation: {type: temporal, rules: [a, b], group-by: user, timespan: 60s, condition: a and not b}\n---\n\
        title: above\nname: above\ncorrelation: {type: event_count, rules: [few, lone], group-by: user, timespan: 300s, condition: {gte: 2}}\n";
    let (rules, errors) = load_texts(vec![("n.yml".into(), text.into())]);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(alerts(&rules, &[(0, A, 0), (500, C, 0)]), [[0]]);
    assert_eq!(alerts(&rules, &[(0, A, 0), (10, B, 0), (500, C, 0)]), Vec::<Vec<u64>>::new());
    let text = "title: a\nname: a\nlogsource: {}\ndetection: {s: {kind: a}, condition: s}\n---\n\
        title: b\nname: b\nlogsource: {}\ndetection: {s: {kind: b}, condition: s}\n---\n\
        title: two\nname: two\ncorrelation: {type: event_count, rules: [a, b], group-by: user, timespan: 60s, condition: {gte: 2}}\n---\n\
        title: both\nname: both\ncorrelation: {type: temporal, rules: [a, b], group-by: user, timespan: 60s}\n---\n\
        title: above\nname: above\ncorrelation: {type: event_count, rules: [two, both], group-by: user, timespan: 300s, condition: {gte: 2}}\n";
    let (rules, errors) = load_texts(vec![("n.yml".into(), text.into())]);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(alerts(&rules, &[(0, A, 0), (10, B, 0)]), [[0, 10]]);
    // An event that two rules match is one.
    let text = "title: a\nname: a\nlogsource: {}\ndetection: {s: {kind: a}, condition: s}\n---\n\
        title: b\nname: b\nlogsource: {}\ndetection: {s: {user: u}, condition: s}\n---\n\
        title: two\nname: two\ncorrelation: {type: event_count, rules: [a, b], group-by: user, timespan: 60s, condition: {gte: 2}}\n";
    let (rules, errors) = load_texts(vec![("n.yml".into(), text.into())]);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(alerts(&rules, &[(0, A, 0), (100, A, 0), (110, A, 0)]), [[100, 110]]);
}

#[test]
fn a_window_of_a_stream_that_fell_silent_is_judged() {
    let rules = rules(2, "type: temporal, condition: a and not b");
    let mut detector = Detector::new(rules, Options::default());
    let (mut effects, at_ms) = (Vec::new(), NOW_MS - 10_000_000);
    detector.step(at_ms, Input::Event(Event { received_ms: at_ms, ..event(0, (0, A, 0)) }), &mut effects);
    for second in 0..300 {
        detector.step(at_ms + second * 1_000, Input::Tick, &mut effects);
        let is_due = second > 120;
        assert!(is_due || effects.is_empty(), "told after {second} s, before the window and the lateness were over");
    }
    assert_eq!(effects.len(), 1);
    assert_eq!(detector.counts().keys, 0);
}

#[test]
fn the_examples_of_the_specification_run() {
    let Some(folder) = support::data("sigma/schema/correlation") else { return };
    let base = |name: &str| {
        format!("title: {name}\nname: {name}\nlogsource: {{}}\ndetection: {{s: {{rid: {name}}}, condition: s}}\n---\n")
    };
    let mut run = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let yaml: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
        let names: Vec<&str> =
            yaml["correlation"]["rules"].as_sequence().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let bases: String = names.iter().copied().map(base).collect();
        let (rules, errors) = load_texts(vec![("example.yml".into(), bases + &text)]);
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        // As many events as each asks for: of every rule, for users and processes enough, one of them rare.
        let events = (0..150_u64).map(|n| {
            let fields = json!({"rid": names[n as usize % names.len()], "ComputerName": "c", "WorkstationName": "w", "SourceIP": "ip",
                "dns.question.name": "d", "User": if path.ends_with("value_count.yml") { format!("u{n}") } else { "u".into() },
                "BytesOut": 600, "bytes_sent": 10_000, "Image": if n == 70 { "rare" } else { "usual" }});
            plain(n, NOW_MS - 10_000_000 + n * 1_000, fields)
        });
        let net = feed(&mut Detector::new(rules, Options::default()), events);
        assert_eq!(net.alerts.len(), 1, "{}", path.display());
        run += 1;
    }
    assert_eq!(run, 8);
}

/// The correlations that the property is held for, each with how many rules it is about.
const OPERATORS: &[(usize, &str)] = &[
    (1, "type: event_count, condition: {gte: 3}"),
    (1, "type: event_count, condition: {lte: 2}"),
    (2, "type: event_count, condition: {eq: 2}"),
    (1, "type: value_count, condition: {field: value, gte: 3}"),
    (1, "type: value_count, condition: {field: value, lt: 3}"),
    (2, "type: value_sum, condition: {field: value, gte: 9}"),
    (2, "type: value_sum, condition: {field: value, lt: 9}"),
    (2, "type: value_avg, condition: {field: value, gt: 2}"),
    (2, "type: value_median, condition: {field: value, gte: 3}"),
    (2, "type: value_percentile, condition: {field: value, lte: 25}"),
    (3, "type: temporal"),
    (3, "type: temporal, condition: {lt: 3}"),
    (3, "type: temporal_ordered"),
    (3, "type: temporal_ordered, condition: {gte: 2}"),
    (3, "type: temporal_ordered, condition: {lte: 1}"),
    (3, "type: temporal, condition: (a or b) and c"),
    (3, "type: temporal_ordered, condition: a and (b or c)"),
    (3, "type: temporal, condition: a and b and not c"),
    (3, "type: temporal, condition: a and not c"),
    (3, "type: temporal_ordered, condition: a and not b and c"),
    (3, "type: temporal_ordered, condition: a and not c"),
];

/// The events of each alert, by the definition and nothing else. Of eager ones only the last is given: which others
/// an alert rests on is the automaton's choice.
fn naive(operator: usize, seen: &[Seen]) -> Vec<Vec<u64>> {
    let near = |from: u64, to: u64| to >= from && to - from <= 60;
    let until =
        |place: usize| -> Vec<&Seen> { seen[..=place].iter().filter(|one| near(one.0, seen[place].0)).collect() };
    let slots = |window: &[&Seen]| window.iter().map(|one| one.1).collect::<BTreeSet<_>>();
    let values = |window: &[&Seen]| window.iter().map(|one| one.2).collect::<BTreeSet<_>>();
    let in_order = |window: &[&Seen]| -> BTreeSet<Vec<usize>> {
        let mut all = BTreeSet::from([Vec::new()]);
        for one in window {
            let longer: Vec<Vec<usize>> = all
                .iter()
                .filter(|way| way.last().is_none_or(|last| *last < one.1))
                .map(|way| [&way[..], &[one.1]].concat())
                .collect();
            all.extend(longer);
        }
        all
    };
    let eager = |place: usize| -> Option<bool> {
        let window = until(place);
        let ends = |way: &[usize]| {
            let (last, rest) = way.split_last().unwrap();
            *last == seen[place].1 && in_order(&window[..window.len() - 1]).contains(rest)
        };
        let has = |way: &[usize]| way.contains(&seen[place].1) && way.iter().all(|slot| slots(&window).contains(slot));
        Some(match operator {
            0 => window.len() >= 3,
            3 => values(&window).len() >= 3,
            5 => seen[place].2 > 0 && window.iter().map(|one| one.2).sum::<i64>() >= 9,
            10 => slots(&window).len() == 3,
            12 => ends(&[A, B, C]),
            13 => ends(&[A, B]) || ends(&[A, C]) || ends(&[B, C]),
            15 => has(&[A, C]) || has(&[B, C]),
            16 => ends(&[A, B]) || ends(&[A, C]),
            _ => return None,
        })
    };
    let burst = |ends: Vec<(u64, Vec<u64>)>| {
        let (mut last, mut told) = (None, Vec::new());
        for (end, events) in ends {
            if last.is_none_or(|last| end - last > 60) {
                told.push(events);
            }
            last = Some(end);
        }
        told
    };
    if !seen.is_empty() && eager(0).is_some() {
        return burst(
            (0..seen.len())
                .filter(|place| eager(*place) == Some(true))
                .map(|place| (seen[place].0, vec![seen[place].0]))
                .collect(),
        );
    }
    if operator >= 17 {
        let mut ends = Vec::new();
        for (place, first) in seen.iter().enumerate() {
            let after: Vec<&Seen> = seen[place..].iter().filter(|one| near(first.0, one.0)).collect();
            let at = |slot| after.iter().find(|one| one.1 == slot).map(|one| one.0);
            let clear =
                |slot, from: u64, to: u64| !seen.iter().any(|one| one.1 == slot && one.0 >= from && one.0 <= to);
            let end = first.0 + 60;
            let events = match operator {
                17 if first.1 != C => at(A)
                    .zip(at(B))
                    .filter(|(a, b)| clear(C, a.max(b).saturating_sub(60), end))
                    .map(|(a, b)| vec![a, b]),
                18 if first.1 == A => Some(vec![first.0]).filter(|_| clear(C, first.0.saturating_sub(60), end)),
                19 if first.1 == A => {
                    // The sequence is broken by the first `b`.
                    let rest = after.iter().skip(1).take_while(|one| one.1 != B);
                    rest.filter(|one| one.1 == C).last().map(|one| vec![first.0, one.0])
                }
                20 if first.1 == A => Some(vec![first.0]).filter(|_| !after.iter().any(|one| one.1 == C)),
                _ => None,
            };
            ends.extend(events.map(|mut events| {
                events.sort_unstable();
                (first.0, events)
            }));
        }
        return burst(ends);
    }
    let (mut told, mut place) = (Vec::new(), 0);
    while place < seen.len() {
        let window: Vec<&Seen> = seen[place..].iter().take_while(|one| near(seen[place].0, one.0)).collect();
        place += window.len();
        let sum: i64 = window.iter().map(|one| one.2).sum();
        let mut sorted: Vec<i64> = window.iter().map(|one| one.2).collect();
        sorted.sort_unstable();
        let share = |one: &&&Seen| 100 * window.iter().filter(|other| other.2 == one.2).count() <= 25 * window.len();
        let holds = match operator {
            1 => window.len() <= 2,
            2 => window.len() == 2,
            4 => values(&window).len() < 3,
            6 => sum < 9,
            7 => sum > 2 * window.len() as i64,
            8 => sorted[(window.len() - 1) / 2] >= 3,
            9 => window.iter().any(|one| share(&one)),
            11 => slots(&window).len() < 3,
            14 => in_order(&window).iter().all(|way| way.len() <= 1),
            _ => unreachable!(),
        };
        if holds {
            told.push(window.iter().filter(|one| operator != 9 || share(one)).map(|one| one.0).collect());
        }
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_operator_says_what_its_definition_says_whatever_comes_when(
        operator in 0..OPERATORS.len(),
        drawn in proptest::collection::btree_map(0_u64..600, (0..3_usize, 0..5_i64, 0_u64..30_000, any::<bool>(), 0..8_u8), 1..40),
    ) {
        let (count, correlation) = OPERATORS[operator];
        let rules = rules(count, correlation);
        let seen: Vec<Seen> = drawn.iter().map(|(second, one)| (*second, one.0 % count, one.1)).collect();
        // Each comes as late as is drawn, less than the allowed lateness, some of them twice, with restarts between.
        let mut arrivals: Vec<(u64, Event, bool)> = Vec::new();
        for (place, (second, (_, _, delay_ms, again, luck))) in drawn.iter().enumerate() {
            let event = event(place, seen[place]);
            if *again {
                arrivals.push((second * 1_000 + delay_ms / 2, event.clone(), false));
            }
            arrivals.push((second * 1_000 + delay_ms, event, *luck == 0));
        }
        arrivals.sort_by_key(|(at_ms, _, _)| *at_ms);
        let options = Options { allowed_lateness_ms: 30_000, ..Options::default() };
        let (mut detector, mut effects) = (Detector::new(rules.clone(), options.clone()), Vec::new());
        let mut store: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (at_ms, event, restart) in arrivals {
            let received_ms = NOW_MS + at_ms;
            detector.step(received_ms, Input::Event(Event { received_ms, ..event }), &mut effects);
            detector.step(NOW_MS + at_ms, Input::Tick, &mut effects);
            if restart {
                for (key, row) in detector.take_rows() {
                    match row {
                        Some(row) => store.insert(key, row),
                        None => store.remove(&key),
                    };
                }
                detector = Detector::restore(rules.clone(), options.clone(), store.clone()).unwrap().0;
            }
        }
        detector.finish(NOW_MS + 1_000_000, &mut effects);
        let mut told: BTreeMap<detection::AlertId, Vec<u64>> = BTreeMap::new();
        for effect in &effects {
            match effect {
                Effect::Alert(alert) => {
                    let seconds = alert.events.iter().map(|event| (event.time_ms - (NOW_MS - 10_000_000)) / 1_000).collect();
                    told.insert(alert.id, seconds);
                }
                Effect::Superseded { old, .. } => {
                    told.remove(old);
                }
                _ => {}
            }
        }
        let expect = naive(operator, &seen);
        let is_eager = !matches!(operator, 1 | 2 | 4 | 6 | 7 | 8 | 9 | 11 | 14 | 17..);
        let mut got: Vec<Vec<u64>> = told.into_values().map(|events| if is_eager { vec![*events.last().unwrap()] } else { events }).collect();
        got.sort();
        prop_assert_eq!(detector.counts().late, 0);
        prop_assert_eq!(&got, &expect, "{}: {:?}", correlation, seen);
        // In order and at once, the alerts are the same ones, not only alike.
        let events = seen.iter().enumerate().map(|(place, one)| event(place, *one));
        let net = feed(&mut Detector::new(rules, options), events);
        let ids: BTreeSet<_> = effects.iter().filter_map(|effect| if let Effect::Alert(alert) = effect { Some(alert.id) } else { None }).collect();
        prop_assert!(net.alerts.keys().all(|id| ids.contains(id)) && net.alerts.len() == got.len());
    }
}
