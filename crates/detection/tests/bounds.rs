//! What the detector keeps is bounded, in entries and in bytes, and whatever a bound costs is told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{COVERAGE_DEGRADED, Detector, Effect, Input, Options};
use detection::event::Event;
use detection::rules::{RuleSet, load_texts};
use serde_json::json;
use std::collections::BTreeSet;
use support::{NOW_MS, plain};

const BEGIN_MS: u64 = NOW_MS - 10_000_000;

fn rules(correlations: &[&str]) -> RuleSet {
    let mut text = String::new();
    for name in ["a", "b"] {
        text += &format!(
            "title: {name}\nname: {name}\nlogsource: {{}}\ndetection: {{s: {{kind: {name}}}, condition: s}}\n---\n"
        );
    }
    for (place, correlation) in correlations.iter().enumerate() {
        text += &format!("title: x{place}\nname: x{place}\ncorrelation: {{{correlation}}}\n---\n");
    }
    let (rules, errors) = load_texts(vec![("o.yml".into(), text)]);
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

fn event(place: u64, time_ms: u64, kind: &str, user: &str) -> Event {
    plain(place, BEGIN_MS + time_ms, json!({"kind": kind, "user": user}))
}

fn step(detector: &mut Detector, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
    let mut effects = Vec::new();
    for event in events {
        detector.step(NOW_MS, Input::Event(event), &mut effects);
    }
    effects
}

fn is_told(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Alert(alert) if &*alert.rule.id == COVERAGE_DEGRADED))
}

#[test]
fn entries_of_one_moment_do_not_wait_without_end() {
    let rules = rules(&["type: value_count, rules: a, timespan: 60s, condition: {field: user, gte: 3}"]);
    let mut detector = Detector::new(rules, Options::default());
    let effects = step(&mut detector, (0..66_000).map(|n| event(n, 0, "a", &format!("u{}", n % 2))));
    assert!(detector.counts().early > 30_000, "{:?}", detector.counts());
    assert!(is_told(&effects));
}

#[test]
fn what_late_entries_push_out_unjudged_is_told() {
    let rules = rules(&["type: temporal, rules: [a, b], group-by: user, timespan: 60s, condition: a and not b"]);
    let mut detector = Detector::new(rules, Options { allowed_lateness_ms: 30_000, ..Options::default() });
    let in_time = [event(0, 100_000, "a", "ann"), event(1, 150_000, "a", "bob"), event(2, 150_001, "a", "ann")];
    let mut effects = step(&mut detector, in_time);
    assert!(effects.is_empty());
    effects = step(&mut detector, (0..5_000).map(|n| event(3 + n, 101_000 + n, "a", "ann")));
    assert!(detector.counts().entries_lost > 800, "{:?}", detector.counts());
    assert!(is_told(&effects));
}

#[test]
fn bytes_are_bounded_as_well_as_entries() {
    let rules = rules(&["type: event_count, rules: a, group-by: user, timespan: 60s, condition: {gte: 3}"]);
    let mut detector = Detector::new(rules, Options { bytes_max: 200_000, ..Options::default() });
    let effects = step(&mut detector, (0..1_000).map(|n| event(n, n, "a", &format!("{n}{}", "x".repeat(200)))));
    let counts = detector.counts();
    assert!(counts.keys < 150 && counts.keys_evicted > 850, "{counts:?}");
    assert!(is_told(&effects));
    // What is let go is not counted on: the same again, for as long as one likes, evicts no more than it adds.
    let mut detector = Detector::new(detector.rules().clone(), Options { bytes_max: 200_000, ..Options::default() });
    step(&mut detector, (0..10_000).map(|n| event(n, n * 900, "a", &format!("u{}", n % 7))));
    assert_eq!(detector.counts().keys_evicted, 0);
}

#[test]
fn long_texts_are_cut_and_still_told_apart() {
    let rules = rules(&[
        "type: event_count, rules: a, group-by: user, timespan: 60s, condition: {gte: 2}",
        "type: value_count, rules: b, timespan: 60s, condition: {field: user, gte: 2}",
    ]);
    let long = "\u{e9}".repeat(50_000);
    let users = [&long, &format!("{long}1"), &format!("{long}2"), &format!("{long}1")];
    let mut detector = Detector::new(rules, Options::default());
    let of_a = users.iter().zip(0..).map(|(user, n)| event(n, n, "a", user));
    let of_b = users[..2].iter().zip(4..).map(|(user, n)| event(n, n, "b", user));
    let effects = step(&mut detector, of_a.chain(of_b));
    let alerts = effects.iter().map(|effect| if let Effect::Alert(alert) = effect { alert } else { panic!() });
    let alerts: Vec<_> = alerts.collect();
    assert_eq!(alerts.iter().map(|alert| alert.events.len()).collect::<Vec<_>>(), [2, 2]);
    let user = &alerts[0].group_key["user"];
    assert!(user.len() <= 256 && user.starts_with("\u{e9}\u{e9}\u{e9}"));
    assert!(detector.take_rows().iter().all(|(_, row)| row.as_ref().is_none_or(|row| row.len() < 2_000)));
}

#[test]
fn no_row_grows_with_the_windows_that_a_correlation_counts() {
    let rules = rules(&[
        "type: event_count, rules: a, group-by: user, timespan: 60s, condition: {gte: 1000}",
        "type: event_count, rules: x0, group-by: user, timespan: 60s, condition: {gte: 2}, generate: true",
    ]);
    let mut detector = Detector::new(rules, Options::default());
    let text = "x".repeat(256);
    let events = (0..1_100).map(|n| {
        let mut event = event(n, n, "a", "ann");
        event.fields.insert("message".into(), text.clone().into());
        event
    });
    let effects = step(&mut detector, events);
    let sizes: BTreeSet<usize> = effects
        .iter()
        .filter_map(|effect| if let Effect::Alert(alert) = effect { Some(alert.events.len()) } else { None })
        .collect();
    assert_eq!(sizes, BTreeSet::from([101, 1_000]), "a window of a thousand, and two of which a hundred are known");
    let largest = detector.take_rows().iter().filter_map(|(_, row)| Some(row.as_ref()?.len())).max();
    assert!(largest.unwrap() < 64 * 1024, "{largest:?} bytes");
}
