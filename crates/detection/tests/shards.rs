//! A rule set and its shards: each rule in one of them, beside all it is tied to, and together the same alerts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::AlertId;
use detection::engine::{Detector, Options};
use detection::rules::{RuleSet, load_dir, load_texts};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use support::{Case, audit, feed, pack};

const ACTIONS: [&str; 4] = ["login", "login.failed", "denied", "record.view"];

/// Rules on single actions, and correlations about rules and correlations before them.
fn text_of(rules: usize, correlations: &[(bool, Vec<usize>)]) -> String {
    let mut text = String::new();
    for rule in 0..rules {
        let detection = json!({"s": {"api.operation": ACTIONS[rule % ACTIONS.len()]}, "condition": "s"});
        let rule = json!({"title": format!("rule {rule}"), "name": format!("r{rule}"), "alerts": rule % 3 == 0,
            "logsource": {"product": "holdfast"}, "detection": detection});
        text += &format!("{rule}\n---\n");
    }
    for (place, (ordered, about)) in correlations.iter().enumerate() {
        let mut about: Vec<String> = about
            .iter()
            .map(|other| other % (rules + place))
            .map(|other| if other < rules { format!("r{other}") } else { format!("c{}", other - rules) })
            .collect();
        about.dedup();
        let (kind, condition) = if *ordered && about.len() > 1 {
            ("temporal_ordered", json!(null))
        } else {
            ("event_count", json!({"gte": 2}))
        };
        let mut correlation = json!({"type": kind, "rules": about, "group-by": ["user.name"], "timespan": "1m"});
        if !condition.is_null() {
            correlation["condition"] = condition;
        }
        let rule =
            json!({"title": format!("correlation {place}"), "name": format!("c{place}"), "correlation": correlation});
        text += &format!("{rule}\n---\n");
    }
    text
}

fn load(text: String) -> RuleSet {
    let (rules, errors) = load_texts(vec![("random.yml".to_owned(), text)]);
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

fn ids(rules: &RuleSet) -> BTreeSet<String> {
    let single = rules.rules().iter().map(|rule| rule.header.reference.id.to_string());
    single.chain(rules.correlations().iter().map(|plan| plan.header.reference.id.to_string())).collect()
}

fn alerts(rules: RuleSet, events: &[detection::Event]) -> BTreeSet<AlertId> {
    feed(&mut Detector::new(rules, Options::default()), events.iter().cloned()).alerts.into_keys().collect()
}

/// For each rule, its shard.
fn homes(rules: &RuleSet, of: u32) -> BTreeMap<String, u32> {
    let mut homes = BTreeMap::new();
    for number in 0..of {
        for id in ids(&rules.shard(number, of)) {
            assert_eq!(homes.insert(id, number), None, "a rule is in two shards");
        }
    }
    homes
}

/// All alerts of all shards; none may be raised by two.
fn of_shards(rules: &RuleSet, of: u32, events: &[detection::Event]) -> BTreeSet<AlertId> {
    let mut together = BTreeSet::new();
    for number in 0..of {
        for id in alerts(rules.shard(number, of), events) {
            assert!(together.insert(id), "two shards raise an alert");
        }
    }
    together
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn shards_partition_the_set_and_raise_its_alerts(
        rules in 1_usize..12,
        correlations in proptest::collection::vec((any::<bool>(), proptest::collection::vec(0_usize..100, 1..4)), 0..8),
        of in 1_u32..7,
        events in proptest::collection::vec((0_usize..4, 0_u64..3, 0_u64..200), 0..60),
    ) {
        let whole = load(text_of(rules, &correlations));
        let homes = homes(&whole, of);
        prop_assert_eq!(&homes.keys().cloned().collect::<BTreeSet<_>>(), &ids(&whole));
        prop_assert!(whole.shard(of, of).rules().is_empty());
        let events: Vec<_> = events.iter().enumerate().map(|(place, (action, user, at_s))| {
            let outcome = if ACTIONS[*action] == "login" { "success" } else { "failure" };
            let body = json!({"action": ACTIONS[*action], "outcome": outcome, "user": format!("u{user}")});
            audit(place as u64, at_s * 1_000, body)
        }).collect();
        prop_assert_eq!(of_shards(&whole, of, &events), alerts(whole.clone(), &events));
    }

    #[test]
    fn rules_that_are_added_move_no_others(rules in 1_usize..10, more in 1_usize..5, of in 1_u32..7) {
        let about = vec![(false, vec![0]), (true, vec![0, 1])];
        let before = homes(&load(text_of(rules, &about)), of);
        let mut text = text_of(rules, &about);
        for number in 0..more {
            text += &format!("title: a{number}\nname: a{number}\nlogsource: {{}}\ndetection: {{s: {{x: y}}, condition: s}}\n---\n");
        }
        let after = homes(&load(text), of);
        for (id, home) in before {
            prop_assert_eq!(after[&id], home);
        }
    }
}

#[test]
fn shards_of_the_pack_raise_what_the_pack_raises() {
    let (rules, errors) = load_dir(&pack());
    assert!(errors.is_empty(), "{errors:?}");
    for file in std::fs::read_dir(pack().join("tests")).unwrap() {
        let cases: Vec<Case> =
            serde_yaml_ng::from_str(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        for case in cases {
            let events = case.events();
            assert_eq!(of_shards(&rules, 4, &events), alerts(rules.clone(), &events), "{}", case.name);
        }
    }
}
