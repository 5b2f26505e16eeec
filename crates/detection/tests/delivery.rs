//! However events are delivered within the allowed lateness, the same alerts stand in the end as if each had come once
//! and in its order: over every kind of correlation, through several streams, with ticks and restarts in between.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{Detector, Effect, Input, Options};
use detection::event::Event;
use detection::rules::{RuleSet, load_texts};
use detection::{AlertId, EventId, Position};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use support::{NOW_MS, plain};

const LATENESS_MS: u64 = 30_000;
const COPIES: u64 = 1 << 32;

fn rules() -> Arc<RuleSet> {
    static RULES: LazyLock<Arc<RuleSet>> = LazyLock::new(|| {
        let (rules, errors) = load_texts(vec![("state.yml".into(), include_str!("support/state.yml").into())]);
        assert!(errors.is_empty(), "{errors:?}");
        Arc::new(rules)
    });
    Arc::clone(&RULES)
}

fn options() -> Options {
    Options { allowed_lateness_ms: LATENESS_MS, ..Options::default() }
}

/// How an event is delivered a second time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Again {
    /// Under its place in its stream.
    SamePlace,
    /// Under another, by a source that says which of its events it is.
    OtherPlace,
}

#[derive(Clone, Debug)]
struct Drawn {
    kind: u8,
    user: u8,
    value: u8,
    stream: u8,
    host: u8,
    /// How much later than the one before it happened.
    gap_ms: u64,
    /// How much later than it happened it comes.
    delay_ms: u64,
    /// How it comes again, and how much later still, as far as the lateness allows.
    again: Option<(Again, u64)>,
    restarts: bool,
    ticks: bool,
}

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let what = (0..4_u8, 0..2_u8, 0..5_u8, 0..2_u8, 0..2_u8);
    // Mostly dense, with pauses after which streams are asleep and keys forgotten.
    let gap = prop_oneof![12 => 0..12_000_u64, 1 => 60_000..400_000_u64];
    let again = prop_oneof![Just(Again::SamePlace), Just(Again::OtherPlace)];
    let how = (gap, 0..=LATENESS_MS, proptest::option::weighted(0.25, (again, 0..LATENESS_MS)), 0..8_u8);
    let one = (what, how).prop_map(|((kind, user, value, stream, host), (gap_ms, delay_ms, again, luck))| Drawn {
        kind,
        user,
        value,
        stream,
        host,
        gap_ms,
        delay_ms,
        again,
        restarts: luck == 0,
        ticks: luck < 5,
    });
    proptest::collection::vec(one, 1..80)
}

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plant {
    Nothing,
    /// The watermark is ahead of what still comes.
    Hasty,
    /// What was read is remembered, what it came to is not.
    PlaceWithoutState,
    /// What comes again says nowhere that it does.
    Unrecognised,
    /// Time passes by the clock of a reader that is behind.
    Clock,
}

/// The events in the order they happened, and as they come with what follows each: a restart, a tick.
fn deliver(drawn: &[Drawn], plant: Plant) -> (Vec<Event>, Vec<(Event, bool, bool)>) {
    let mut at_ms = NOW_MS;
    let (mut happened, mut come) = (Vec::new(), Vec::new());
    for (sequence, one) in (0..).zip(drawn) {
        at_ms += one.gap_ms;
        let mut fields = json!({"kind": format!("k{}", one.kind), "user": format!("u{}", one.user),
            "value": one.value, "device.hostname": format!("h{}", one.host)});
        let is_elsewhere = one.again.is_some_and(|(again, _)| again == Again::OtherPlace);
        if is_elsewhere && plant != Plant::Unrecognised {
            fields["metadata.uid"] = format!("uid-{sequence}").into();
        }
        let event = Event { received_ms: at_ms, ..plain(sequence, at_ms, fields) };
        let event = place(event, one.stream, sequence);
        happened.push(event.clone());
        let received_ms = at_ms + one.delay_ms;
        if let Some((_, later_ms)) = one.again {
            let received_ms = (received_ms + later_ms).min(at_ms + LATENESS_MS);
            let copy = Event { received_ms, ..event.clone() };
            let copy = if is_elsewhere { place(copy, one.stream, COPIES + sequence) } else { copy };
            come.push((copy, false, false));
        }
        come.push((Event { received_ms, ..event }, one.restarts, one.ticks));
    }
    // A copy comes after what it is a copy of.
    come.sort_by_key(|(event, ..)| (event.received_ms, event.position.clone().unwrap().sequence));
    (happened, come)
}

fn place(event: Event, stream: u8, sequence: u64) -> Event {
    let id = EventId::from_bytes(u128::from(sequence).to_be_bytes());
    Event { id, position: Some(Position { stream: format!("s{stream}").into(), sequence }), ..event }
}

/// The alerts that stand after all effects.
fn standing(effects: Vec<Effect>) -> BTreeSet<AlertId> {
    let mut standing = BTreeSet::new();
    for effect in effects {
        match effect {
            Effect::Alert(alert) => drop(standing.insert(alert.id)),
            Effect::Superseded { old, .. } => drop(standing.remove(&old)),
            Effect::Extended { .. } => {}
        }
    }
    standing
}

fn in_order(happened: Vec<Event>) -> BTreeSet<AlertId> {
    let (mut detector, mut effects) = (Detector::new(rules(), options()), Vec::new());
    for event in happened {
        detector.step(event.received_ms, Input::Event(event), &mut effects);
    }
    detector.finish(u64::MAX, &mut effects);
    standing(effects)
}

fn as_delivered(come: Vec<(Event, bool, bool)>, plant: Plant) -> BTreeSet<AlertId> {
    let options = match plant {
        Plant::Hasty => Options { allowed_lateness_ms: LATENESS_MS / 10, ..options() },
        _ => options(),
    };
    let (mut detector, mut effects) = (Detector::new(rules(), options.clone()), Vec::new());
    let mut store: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (event, restarts, ticks) in come {
        let ahead_ms = if plant == Plant::Clock { 600_000 } else { 0 };
        let received_ms = event.received_ms;
        if ticks {
            detector.step(received_ms + ahead_ms, Input::Tick, &mut effects);
        }
        detector.step(received_ms, Input::Event(event), &mut effects);
        if restarts {
            for (key, row) in detector.take_rows() {
                match row {
                    _ if plant == Plant::PlaceWithoutState => None,
                    Some(row) => store.insert(key, row),
                    None => store.remove(&key),
                };
            }
            let (next, restored) = Detector::restore(rules(), options.clone(), store.clone()).unwrap();
            assert_eq!((restored.dropped, restored.damaged), (0, 0));
            detector = next;
        }
    }
    detector.finish(u64::MAX, &mut effects);
    assert!(plant != Plant::Nothing || detector.take_late().is_empty(), "nothing came too late");
    standing(effects)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_when_and_how_often_the_same_alerts_stand(drawn in drawn()) {
        let (happened, come) = deliver(&drawn, Plant::Nothing);
        prop_assert_eq!(in_order(happened), as_delivered(come, Plant::Nothing));
    }
}

#[test]
fn a_planted_bug_is_caught() {
    for plant in [Plant::Hasty, Plant::PlaceWithoutState, Plant::Unrecognised, Plant::Clock] {
        let mut runner = TestRunner::deterministic();
        let caught = (0..100).filter(|_| {
            let drawn = drawn().new_tree(&mut runner).unwrap().current();
            let (happened, come) = deliver(&drawn, plant);
            in_order(happened) != as_delivered(come, plant)
        });
        let caught = caught.count();
        assert!(caught > 5, "{plant:?} was caught in {caught} of 100");
    }
}

/// A group whose only stream is silent goes on with the clock, but no further than those that feed it have judged.
#[test]
fn a_window_that_is_yet_to_be_judged_is_counted_with_those_before_it() {
    let all = [
        (0, 0, 0, 1, 0, 0),
        (0, 0, 0, 0, 262_462, 0),
        (0, 0, 0, 0, 6_304, 0),
        (0, 0, 1, 0, 11_102, 0),
        (2, 0, 1, 0, 13_535, 0),
        (0, 0, 0, 0, 13_091, 0),
        (0, 0, 1, 0, 7_376, 0),
        (0, 0, 1, 0, 8_317, 17_814),
        (0, 0, 0, 0, 9_676, 0),
        (0, 0, 1, 1, 2_365, 0),
        (0, 0, 0, 0, 7_420, 28_353),
    ];
    let drawn = all.map(|(kind, user, stream, host, gap_ms, delay_ms)| Drawn {
        kind,
        user,
        value: 0,
        stream,
        host,
        gap_ms,
        delay_ms,
        again: None,
        restarts: false,
        ticks: true,
    });
    let (happened, come) = deliver(&drawn, Plant::Nothing);
    assert_eq!(in_order(happened), as_delivered(come, Plant::Nothing));
}
