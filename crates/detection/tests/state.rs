//! The detector's state as rows: a detector that is restored from them goes on as if nothing had happened.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{COVERAGE_DEGRADED, Detector, Effect, Input, Options, RestoreError};
use detection::event::Event;
use detection::rules::{RuleSet, load_texts};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use support::{NOW_MS, plain};

/// Every kind of correlation, one of correlations, over events that say which rule they match.
const RULES: &str = include_str!("support/state.yml");

fn rules() -> Arc<RuleSet> {
    static RULES_READ: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
        let (rules, errors) = load_texts(vec![("state.yml".into(), RULES.into())]);
        assert!(errors.is_empty(), "{errors:?}");
        Arc::new(rules)
    });
    Arc::clone(&RULES_READ)
}

/// With one correlation changed, one gone, one retitled and one more.
fn other_rules() -> Arc<RuleSet> {
    static OTHER: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
        let text = RULES
            .replace("gte: 3}}\n---\ntitle: various", "gte: 4}}\n---\ntitle: various")
            .replace("title: together\n", "title: retitled\nlevel: high\n");
        let (gone, rest) = text.split_once("title: a median").unwrap();
        let more = "title: more\nname: more\ncorrelation: {type: event_count, rules: [b, various], timespan: 60s, condition: {gte: 2}}";
        let text = format!("{gone}{more}{}", &rest[rest.find("\n---").unwrap()..]);
        let (rules, errors) = load_texts(vec![("other.yml".into(), text)]);
        assert!(errors.is_empty(), "{errors:?}");
        Arc::new(rules)
    });
    Arc::clone(&OTHER)
}

#[derive(Clone, Debug)]
struct Drawn {
    kind: u8,
    user: u8,
    value: u8,
    host: u8,
    /// How much later than the one before.
    gap_ms: u64,
    /// How much later than it happened it comes.
    delay_ms: u64,
    /// Where it carries an identity of its own.
    uid: Option<u8>,
    restart: bool,
    tick: bool,
}

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let one = (
        0..4_u8,
        0..2_u8,
        0..5_u8,
        0..2_u8,
        0..20_000_u64,
        0..40_000_u64,
        proptest::option::weighted(0.2, 0..20_u8),
        0..6_u8,
    );
    let one = one.prop_map(|(kind, user, value, host, gap_ms, delay_ms, uid, luck)| Drawn {
        kind,
        user,
        value,
        host,
        gap_ms,
        delay_ms,
        uid,
        restart: luck == 0,
        tick: luck < 3,
    });
    proptest::collection::vec(one, 1..100)
}

/// Each with the time at which it comes, by that time.
fn events(drawn: &[Drawn]) -> Vec<(u64, Drawn, Event)> {
    let mut at_ms = NOW_MS - 10_000_000;
    let mut events: Vec<(u64, Drawn, Event)> = Vec::new();
    for (sequence, one) in drawn.iter().enumerate() {
        at_ms += one.gap_ms;
        let mut fields = json!({"kind": format!("k{}", one.kind), "user": format!("u{}", one.user),
            "value": one.value, "device.hostname": format!("h{}", one.host)});
        if let Some(uid) = one.uid {
            fields["metadata.uid"] = format!("uid-{uid}").into();
        }
        let received_ms = at_ms + one.delay_ms;
        let event = Event { received_ms, ..plain(sequence as u64, at_ms, fields) };
        events.push((received_ms, one.clone(), event));
    }
    events.sort_by_key(|(at_ms, _, _)| *at_ms);
    events
}

fn options() -> Options {
    Options {
        allowed_lateness_ms: 30_000,
        idle_after_ms: 60_000,
        keys_max: 64,
        remembered_max: 8,
        ..Options::default()
    }
}

/// All effects, with a restart wherever one is drawn if there are to be any.
fn run(drawn: &[Drawn], restarts: bool, spoil: impl Fn(&mut BTreeMap<Vec<u8>, Vec<u8>>)) -> Vec<Effect> {
    let (mut detector, mut effects) = (Detector::new(rules(), options()), Vec::new());
    let mut store: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (at_ms, one, event) in events(drawn) {
        detector.step(at_ms, Input::Event(event), &mut effects);
        if one.tick {
            detector.step(at_ms + 1_000, Input::Tick, &mut effects);
        }
        if restarts && one.restart {
            for (key, row) in detector.take_rows() {
                match row {
                    Some(row) => store.insert(key, row),
                    None => store.remove(&key),
                };
            }
            spoil(&mut store);
            let (next, restored) = Detector::restore(rules(), options(), store.clone()).unwrap();
            assert_eq!(restored.dropped, 0);
            detector = next;
        }
    }
    effects
}

#[test]
fn losing_what_waits_for_the_watermark_is_noticed() {
    // Four of a kind at once, and a restart after three of them that loses those.
    let one = |kind, restart| Drawn {
        kind,
        user: 0,
        value: 0,
        host: 0,
        gap_ms: 1_000,
        delay_ms: 0,
        uid: None,
        restart,
        tick: false,
    };
    let drawn = [one(0, false), one(0, true), one(0, false)];
    let whole = run(&drawn, true, |_| {});
    let lossy = run(&drawn, true, |store| store.retain(|key, _| key.len() < 60));
    assert_eq!(run(&drawn, false, |_| {}), whole);
    assert!(!whole.is_empty() && lossy != whole);
}

#[test]
fn rows_of_a_rule_that_is_gone_are_dropped_and_others_stay() {
    let mut detector = Detector::new(rules(), options());
    for n in 0..2 {
        let event = plain(n, NOW_MS + n, json!({"kind": "k0", "user": "u", "value": n}));
        detector.step(NOW_MS, Input::Event(event), &mut Vec::new());
    }
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        detector.take_rows().into_iter().filter_map(|(k, row)| Some((k, row?))).collect();
    let (kept, _) = load_texts(vec![(
        "state.yml".into(),
        RULES.replace("gte: 3}}\n---\ntitle: various", "gte: 4}}\n---\ntitle: various"),
    )]);
    let (mut next, restored) = Detector::restore(kept, options(), rows).unwrap();
    assert_eq!((restored.dropped, restored.carried), (3, 12), "two entries and their key of the changed rule");
    let changes = next.take_rows();
    assert_eq!(changes.len(), 3);
    assert!(changes.iter().all(|(_, row)| row.is_none()));
    assert!(next.take_rows().is_empty());
}

#[test]
fn damage_costs_only_the_key_it_is_in_and_is_told() {
    let mut detector = Detector::new(rules(), options());
    for n in 0..4 {
        let fields = json!({"kind": "k0", "user": format!("u{}", n % 2), "value": n});
        detector.step(NOW_MS, Input::Event(plain(n, NOW_MS + n, fields)), &mut Vec::new());
    }
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        detector.take_rows().into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
    let keys = detector.counts().keys;
    for place in 0..rows.len() {
        let mut spoilt = rows.clone();
        spoilt[place].1 = vec![1, 255, 255];
        let (mut next, restored) = Detector::restore(rules(), options(), spoilt).unwrap();
        assert!((1..6).contains(&restored.damaged), "{restored:?}");
        assert!(restored.keys as u64 >= keys - 1);
        let mut effects = Vec::new();
        next.step(NOW_MS + 1_000, Input::Tick, &mut effects);
        let told = |effect: &Effect| matches!(effect, Effect::Alert(alert) if &*alert.rule.id == COVERAGE_DEGRADED);
        assert!(effects.iter().any(told));
        assert_eq!(next.counts().rows_lost, restored.damaged as u64);
        // It is gone from what is stored as well, but for what is stored anew.
        let changes: BTreeMap<_, _> = next.take_rows().into_iter().collect();
        assert!(changes.contains_key(&rows[place].0));
    }
    let odd = [
        (vec![9], vec![]),
        (vec![5], vec![1, 255]),
        ([&[2][..], &[0; 28]].concat(), vec![1]),
        (vec![], vec![]),
        ([&[3][..], &[0; 8]].concat(), vec![1]),
    ];
    for (key, row) in odd {
        let error = Detector::restore(rules(), options(), [(key.clone(), row)]).unwrap_err();
        assert_eq!(error, RestoreError::Unreadable { rows: 1 }, "{key:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_at_any_point_changes_no_effect(drawn in drawn()) {
        prop_assert_eq!(run(&drawn, false, |_| {}), run(&drawn, true, |_| {}));
    }

    #[test]
    fn a_reload_of_the_same_rules_changes_no_effect(drawn in drawn()) {
        let (mut detector, mut effects) = (Detector::new(rules(), options()), Vec::new());
        for (at_ms, one, event) in events(&drawn) {
            detector.step(at_ms, Input::Event(event), &mut effects);
            if one.tick {
                detector.step(at_ms + 1_000, Input::Tick, &mut effects);
            }
            if one.restart {
                let reloaded = detector.reload(rules());
                prop_assert_eq!((reloaded.begun, reloaded.dropped), (0, 0));
            }
        }
        prop_assert_eq!(run(&drawn, false, |_| {}), effects);
    }

    #[test]
    fn a_reload_of_other_rules_is_the_same_as_a_restart_with_them(drawn in drawn()) {
        let mut detectors = [Detector::new(rules(), options()), Detector::new(rules(), options())];
        let mut effects = [Vec::new(), Vec::new()];
        let mut stores = [BTreeMap::new(), BTreeMap::new()];
        let store = |detector: &mut Detector, store: &mut BTreeMap<Vec<u8>, Vec<u8>>| {
            for (key, row) in detector.take_rows() {
                match row {
                    Some(row) => store.insert(key, row),
                    None => store.remove(&key),
                };
            }
        };
        let mut is_other = false;
        for (at_ms, one, event) in events(&drawn) {
            for (detector, effects) in detectors.iter_mut().zip(&mut effects) {
                detector.step(at_ms, Input::Event(event.clone()), effects);
                if one.tick {
                    detector.step(at_ms + 1_000, Input::Tick, effects);
                }
            }
            if one.restart {
                is_other = !is_other;
                let next = if is_other { other_rules() } else { rules() };
                let [reloaded, restarted] = &mut detectors;
                reloaded.reload(next.clone());
                store(reloaded, &mut stores[0]);
                store(restarted, &mut stores[1]);
                *restarted = Detector::restore(next, options(), stores[1].clone()).unwrap().0;
                store(restarted, &mut stores[1]);
                prop_assert_eq!(&stores[0], &stores[1]);
            }
        }
        let [reloaded, restarted] = effects;
        prop_assert_eq!(reloaded, restarted);
    }

    #[test]
    fn rules_that_go_and_come_back_go_on_as_if_they_had_never_gone(drawn in drawn()) {
        let mut always = Detector::new(rules(), options());
        let mut detector = Detector::new(rules(), options());
        let (mut is_other, mut store) = (false, BTreeMap::new());
        let mut beside = detector.beside(other_rules().beyond(&rules()).in_shadow());
        for (at_ms, one, event) in events(&drawn) {
            let mut effects = [Vec::new(), Vec::new(), Vec::new()];
            for (detector, effects) in [&mut always, &mut detector, &mut beside].into_iter().zip(&mut effects) {
                detector.step(at_ms, Input::Event(event.clone()), effects);
                if one.tick {
                    detector.step(at_ms + 1_000, Input::Tick, effects);
                }
            }
            if !is_other {
                prop_assert_eq!(&effects[0], &effects[1]);
            }
            if one.restart {
                let (now, next) = if is_other { (other_rules(), rules()) } else { (rules(), other_rules()) };
                is_other = !is_other;
                let before = detector.beside(now.beyond(&next).in_shadow());
                let reloaded = detector.exchange(next.clone(), Some(&beside));
                prop_assert_eq!(reloaded.begun, 0, "all of it ran beside");
                beside = before;
                for (key, row) in detector.take_rows() {
                    match row {
                        Some(row) => store.insert(key, row),
                        None => store.remove(&key),
                    };
                }
                // What is stored is what it goes on with.
                let mut restored = Detector::restore(next, options(), store.clone()).unwrap().0;
                prop_assert_eq!(restored.take_rows(), Vec::new());
                prop_assert_eq!(restored.counts().keys, detector.counts().keys);
            }
        }
    }

    #[test]
    fn arbitrary_rows_never_panic(
        rows in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..90), proptest::collection::vec(any::<u8>(), 0..60)), 0..8),
        kind in 0..5_u8,
    ) {
        let rows = rows.into_iter().map(|(mut key, row)| {
            key.insert(0, kind);
            (key, row)
        });
        let _ = Detector::restore(rules(), options(), rows);
    }

    #[test]
    fn damaged_rows_never_panic(drawn in drawn(), place in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), bit in 0..8) {
        let mut detector = Detector::new(rules(), options());
        for (at_ms, _, event) in events(&drawn) {
            detector.step(at_ms, Input::Event(event), &mut Vec::new());
        }
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = detector.take_rows().into_iter().filter_map(|(k, row)| Some((k, row?))).collect();
        let row = place.get_mut(&mut rows);
        let at = flip.index(row.1.len());
        row.1[at] ^= 1_u8 << bit;
        let _ = Detector::restore(rules(), options(), rows);
    }
}
