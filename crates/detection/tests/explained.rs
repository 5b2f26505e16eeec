//! What is said of correlations: those that can never fire, and why one fired among events or what was missing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::event::Event;
use detection::report::{CorrelationExplained, FindingKind, Known, check, explain, explain_correlations};
use detection::rules::{RuleSet, load_dir, load_texts, load_texts_with};
use detection::sigma::Pipeline;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::{NOW_MS, audit, pack, plain};

fn base(name: &str) -> String {
    format!(
        "title: {name}\nname: {name}\nlogsource: {{product: holdfast}}\ndetection: {{s: {{api.operation: {name}}}, condition: s}}\n---\n"
    )
}

fn load(correlations: &[(&str, &str)]) -> RuleSet {
    let dead = base("dead").replace("condition: s}", "condition: s and not s}");
    let mut text = ["a", "b", "c"].map(base).concat() + &dead;
    for (name, body) in correlations {
        text += &format!("title: {name}\nname: {name}\ncorrelation: {{timespan: 60s, {body}}}\n---\n");
    }
    let (rules, errors) = load_texts(vec![("r.yml".to_owned(), text)]);
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

#[test]
fn correlations_that_can_never_fire_are_reported() {
    let rules = load(&[
        ("good", "type: event_count, rules: [a, dead], group-by: [src_endpoint.ip], condition: {gte: 2}"),
        ("typo", "type: event_count, rules: a, group-by: [src_endpoint.ipp], condition: {gte: 2}"),
        ("no_value", "type: value_count, rules: [a, b], condition: {field: usr.name, gte: 2}"),
        (
            "half",
            "type: event_count, rules: [a, b], group-by: [who], aliases: {who: {a: actor.user.name}}, condition: {gte: 2}",
        ),
        (
            "other",
            "type: event_count, rules: a, group-by: [who], aliases: {who: {a: actor.user.name, b: actor.user.name}, idle: {a: x}}, condition: {gte: 2}",
        ),
        ("of_dead", "type: event_count, rules: dead, condition: {gte: 2}"),
        ("both", "type: temporal, rules: [a, dead]"),
        ("either", "type: temporal, rules: [a, b, dead], condition: (a or dead) and b"),
        ("without", "type: temporal, rules: [a, dead], condition: a and not dead"),
        ("order", "type: temporal_ordered, rules: [a, dead, b], condition: {gte: 3}"),
        ("empty", "type: event_count, rules: a, condition: {gt: 5, lt: 3}"),
        ("above", "type: event_count, rules: [both], condition: {gte: 1}"),
        ("above_good", "type: event_count, rules: [good, both], group-by: [src_endpoint.ip], condition: {gte: 2}"),
    ]);
    let report = check(&rules, &[], &Known::platform());
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for finding in report.findings.iter().filter(|finding| finding.rule != "dead") {
        let what = match &finding.kind {
            FindingKind::UnknownField { field, never } => format!("{field} {never}"),
            FindingKind::OddAlias { why } => why.clone(),
            kind => format!("{kind:?}"),
        };
        found.entry(&finding.rule).or_default().push(what);
    }
    let expect: BTreeMap<&str, Vec<String>> = [
        ("typo", vec!["src_endpoint.ipp true"]),
        ("no_value", vec!["usr.name true"]),
        ("half", vec!["the alias who does not say which field of b it stands for", "who false"]),
        (
            "other",
            vec!["nothing uses the alias idle", "the alias who tells a field of b, which is not among its rules"],
        ),
        ("of_dead", vec!["NeverFed"]),
        ("both", vec!["NeverFed"]),
        ("order", vec!["NeverFed"]),
        ("empty", vec!["EmptyBounds"]),
        ("above", vec!["NeverFed"]),
    ]
    .into_iter()
    .map(|(rule, what)| (rule, what.into_iter().map(str::to_owned).collect()))
    .collect();
    assert_eq!(found, expect);
}

fn events(seen: &[(u64, &str, &str)]) -> Vec<Event> {
    let one = |(place, (second, action, user)): (usize, &(u64, &str, &str))| {
        audit(place as u64, second * 1_000, json!({"action": action, "outcome": "success", "user": user}))
    };
    seen.iter().enumerate().map(one).collect()
}

#[track_caller]
fn explained(body: &str, seen: &[(u64, &str, &str)]) -> CorrelationExplained {
    let rules = load(&[("x", body)]);
    let told = explain_correlations(&rules, Some("x"), &events(seen));
    let [told] = told.as_slice() else { panic!("{told:?}") };
    told.clone()
}

#[test]
fn an_explanation_says_why_a_correlation_fired_or_what_was_missing() {
    let seen =
        [(0, "a", "ann"), (10, "a", "ann"), (20, "b", "bob"), (200, "a", "bob"), (210, "b", "bob"), (300, "a", "")];
    let told = explained("type: event_count, rules: [a, b], group-by: [actor.user.name], condition: {gte: 2}", &seen);
    let groups: Vec<_> = told.groups.iter().map(|g| (g.group["actor.user.name"].as_str(), g.fired, g.events)).collect();
    assert_eq!((told.fired, groups), (2, vec![("bob", 1, 3), ("ann", 1, 2)]));
    assert_eq!((told.feeds[0].matched, told.feeds[0].left_out), (4, 1));
    assert_eq!(told.feeds[0].lacking, ["actor.user.name".to_owned()].into());
    let told = explained("type: event_count, rules: [a, b], group-by: [actor.user.name], condition: {gte: 3}", &seen);
    assert_eq!((told.fired, told.groups[0].best.as_str()), (0, "at most 2 of 3 events within the timespan"));
    let told = explained("type: temporal_ordered, rules: [b, a, c], group-by: [actor.user.name]", &seen);
    assert_eq!(told.groups[0].best, "at most 1 rules matched within the timespan; then was missing: a");
    let told = explained("type: temporal, rules: [a, b, c], condition: a and b and c", &seen);
    assert_eq!(told.groups[0].best, "at most 2 rules matched within the timespan; missing were: c");
    let told = explained("type: value_count, rules: a, condition: {field: actor.user.name, gte: 2}", &seen);
    assert_eq!(told.groups[0].best, "at most 1 of 2 different values within the timespan");
    let told = explained("type: event_count, rules: a, condition: {eq: 5}", &seen);
    assert_eq!(told.groups[0].best, "from 1 to 2 events in a window");
    assert_eq!(told.waits_for, "a window whose number of events is = 5");
    let nothing = explained("type: event_count, rules: c, condition: {gte: 1}", &seen);
    assert_eq!((nothing.fired, nothing.groups.len(), nothing.feeds[0].matched), (0, 0, 0));
}

#[test]
fn a_correlation_of_correlations_is_explained_by_how_often_those_fired() {
    let rules = load(&[
        ("often", "type: event_count, rules: a, group-by: [actor.user.name], condition: {gte: 2}"),
        ("above", "type: event_count, rules: often, group-by: [actor.user.name], condition: {gte: 2}"),
    ]);
    let seen = events(&[(0, "a", "ann"), (1, "a", "ann"), (5, "b", "ann")]);
    let told = explain_correlations(&rules, None, &seen);
    assert_eq!(told.iter().map(|one| (one.rule.as_str(), one.fired)).collect::<Vec<_>>(), [("often", 1), ("above", 0)]);
    assert_eq!((told[1].feeds[0].matched, told[1].groups[0].events), (1, 1));
    assert!(explain_correlations(&rules, Some("nobody"), &seen).is_empty());
}

#[test]
fn what_the_pack_raises_is_explained() {
    let (rules, _) = load_dir(&pack());
    let failed = |n: u64| {
        audit(
            n,
            n * 1_000,
            json!({"action": "login.failed", "outcome": "failure", "user": "ann", "address": "203.0.113.9"}),
        )
    };
    let few: Vec<Event> = (0..4).map(failed).collect();
    let told = explain_correlations(&rules, Some("api_brute_force"), &few);
    assert_eq!((told[0].fired, told[0].groups[0].best.as_str()), (0, "at most 4 of 5 events within the timespan"));
    let enough: Vec<Event> = (0..5).map(failed).collect();
    let told = explain_correlations(&rules, Some("api_brute_force"), &enough);
    assert_eq!((told[0].fired, told[0].groups[0].fired), (1, 1));
}

#[test]
fn fields_are_told_as_the_rule_has_them_and_what_a_pipeline_added_is_shown() {
    let pipeline = "transformations:\n  - {type: field_name_mapping, mapping: {User: actor.user.name}}\n  - {type: add_condition, conditions: {zone: inner}}\n";
    let pipeline = Pipeline::read(&"p.yml".into(), pipeline).unwrap();
    let text = "title: r\nlogsource: {}\ndetection: {s: {User: ann, other: 1}, condition: s}\n";
    let (rules, errors) = load_texts_with(vec![("r.yml".to_owned(), text.to_owned())], &pipeline);
    assert!(errors.is_empty(), "{errors:?}");
    let told = explain(&rules, 0, &plain(0, NOW_MS, json!({"actor.user.name": "ann", "other": 1}))).unwrap();
    assert!(!told.matches && told.conditions[0].holds_alone && !told.conditions[0].holds);
    assert_eq!((told.added.len(), told.added[0].is_filter, told.added[0].selection.holds), (1, false, false));
    let told = serde_json::to_value(&told).unwrap();
    let parts = told["selections"][0]["part"]["parts"].as_array().unwrap();
    let written: Vec<(&str, &Value)> =
        parts.iter().map(|part| (part["field"].as_str().unwrap(), &part["written"])).collect();
    assert_eq!(written, [("actor.user.name", &json!(["User"])), ("other", &json!([]))]);
}
