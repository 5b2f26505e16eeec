//! New rule sets step by step: shadow, charge, watch, and back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::engine::{Detector, Input as DetectorInput, Options};
use detection::report::{Forecast, backtest};
use detection::rollout::{Care, Effect, Fault, Input, Phase, Rollout, SetId};
use detection::rules::{RuleSet, load_texts};
use detection::{RawEvent, SourceKind};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{NOW_MS, audit};

const HOUR_MS: u64 = 3_600_000;

fn rules(action: &str) -> RuleSet {
    let text = format!(
        "title: r\nname: r\nlogsource: {{product: holdfast}}\ndetection: {{s: {{api.operation: {action}}}, condition: s}}\n"
    );
    load_texts(vec![("r.yml".to_owned(), text)]).0
}

fn seen(alerts: u64) -> Input {
    Input::Seen { events: 100, alerts: BTreeMap::from([("r".into(), alerts)]) }
}

fn propose(set: SetId) -> Input {
    Input::Propose { set, refused: 0 }
}

/// A backtest over a day saw so many alerts.
fn forecast(set: SetId, alerts: u64) -> Input {
    Input::Forecast { set, forecast: BTreeMap::from([("r".into(), Forecast::of(alerts, 24 * HOUR_MS))]) }
}

struct Run {
    rollout: Rollout,
    old: SetId,
    new: SetId,
}

fn begin() -> Run {
    let (old, new) = (rules("login").fingerprint(), rules("denied").fingerprint());
    assert_ne!(old, new);
    Run { rollout: Rollout::new(old, Care::default()), old, new }
}

impl Run {
    fn step(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.rollout.step(now_ms, input, &mut effects);
        effects
    }

    /// A set of which so many alerts a day are expected.
    fn propose(&mut self, now_ms: u64, set: SetId, alerts: u64) -> Vec<Effect> {
        let mut effects = self.step(now_ms, propose(set));
        effects.extend(self.step(now_ms, forecast(set, alerts)));
        effects
    }
}

#[test]
fn a_set_that_behaves_is_promoted_after_its_time_in_shadow_and_settles() {
    let mut run = begin();
    let (old, new) = (run.old, run.new);
    assert_eq!(run.propose(0, new, 48), [Effect::Shadow(new)]);
    assert_eq!(run.step(HOUR_MS - 1, seen(2)), []);
    assert_eq!(run.rollout.in_charge(), old);
    assert_eq!(run.step(HOUR_MS, Input::Tick), [Effect::Promote(new)]);
    assert_eq!(run.rollout.in_charge(), new);
    assert_eq!(run.step(20 * HOUR_MS, seen(40)), []);
    assert_eq!(run.step(25 * HOUR_MS, Input::Tick), [Effect::Settled(new)]);
    assert_eq!(run.rollout.phase(), &Phase::Steady);
}

#[test]
fn a_rule_beyond_its_forecast_never_gets_in_charge() {
    let mut run = begin();
    run.propose(0, run.new, 10);
    let effects = run.step(60_000, seen(1_000));
    assert!(
        matches!(&effects[..], [Effect::Discard { set, why: Fault::Volume { alerts: 1_000, .. } }] if *set == run.new)
    );
    assert_eq!((run.rollout.in_charge(), run.rollout.phase()), (run.old, &Phase::Steady));
}

#[test]
fn a_set_in_charge_is_rolled_back_for_volume_and_for_failure() {
    for fault in [seen(5_000), Input::Failed { rule: "r".into(), why: "state evicted".into() }] {
        let mut run = begin();
        run.propose(0, run.new, 10);
        run.step(HOUR_MS, Input::Tick);
        let effects = run.step(2 * HOUR_MS, fault);
        assert!(
            matches!(&effects[..], [Effect::RollBack { from, to, .. }] if (*from, *to) == (run.new, run.old)),
            "{effects:?}"
        );
        assert_eq!(run.rollout.in_charge(), run.old);
        assert_eq!(run.step(3 * HOUR_MS, seen(5_000)), []);
    }
}

#[test]
fn a_rule_may_raise_factor_times_what_was_forecast_and_no_more() {
    let forecast = Forecast::of(240, 24 * HOUR_MS);
    let allowed = (3.0 * forecast.at_most_per_day / 24.0 * 2.0).ceil() as u64;
    for (alerts, is_fine) in [(allowed, true), (allowed + 1, false)] {
        let mut run = begin();
        run.rollout = Rollout::new(run.old, Care { shadow_ms: 10 * HOUR_MS, ..Care::default() });
        run.propose(0, run.new, 240);
        assert_eq!(run.step(2 * HOUR_MS, seen(alerts)).is_empty(), is_fine);
    }
}

#[test]
fn before_its_forecast_a_set_is_neither_promoted_nor_discarded_for_volume() {
    for (expected, is_fine) in [(24_000, true), (10, false)] {
        let mut run = begin();
        let (old, new) = (run.old, run.new);
        assert_eq!(run.step(0, propose(new)), [Effect::Shadow(new)]);
        assert_eq!(run.step(HOUR_MS, seen(1_000)), []);
        assert_eq!(run.step(30 * HOUR_MS, Input::Tick), []);
        assert_eq!(run.step(30 * HOUR_MS, forecast(old, 24_000)), [], "of another set");
        assert_eq!(run.rollout.in_charge(), old);
        let effects = run.step(30 * HOUR_MS, forecast(new, expected));
        if is_fine {
            assert_eq!(effects, [Effect::Promote(new)], "noisy, as was to be expected");
        } else {
            assert!(matches!(&effects[..], [Effect::Discard { why: Fault::Volume { .. }, .. }]), "{effects:?}");
        }
    }
}

#[test]
fn the_first_forecast_of_a_set_stays() {
    let mut run = begin();
    run.propose(0, run.new, 10);
    assert_eq!(run.step(1, forecast(run.new, 1_000_000)), []);
    assert!(matches!(run.step(2, seen(1_000))[..], [Effect::Discard { why: Fault::Volume { .. }, .. }]));
}

#[test]
fn a_set_without_a_forecast_goes_all_the_same_when_it_fails_or_is_wanted_no_longer() {
    for (input, is_wish) in [
        (Input::Failed { rule: "r".into(), why: "state evicted".into() }, false),
        (Input::Abandon, false),
        (propose(rules("login").fingerprint()), true),
    ] {
        let mut run = begin();
        run.step(0, propose(run.new));
        let effects = run.step(1, input);
        assert!(matches!(&effects[..], [Effect::Discard { why, .. }] if why.is_wish() == is_wish), "{effects:?}");
        assert_eq!(run.step(2, forecast(run.new, 10)), [], "it comes too late");
        assert_eq!((run.rollout.in_charge(), run.rollout.phase()), (run.old, &Phase::Steady));
    }
}

#[test]
fn enough_events_shorten_the_shadow() {
    let mut run = begin();
    run.propose(0, run.new, 10);
    let events = Input::Seen { events: 10_000_000, alerts: BTreeMap::new() };
    assert_eq!(run.step(1, events), [Effect::Promote(run.new)]);
}

#[test]
fn a_set_with_refused_documents_is_not_rolled_out_and_a_newer_one_replaces_one_in_shadow() {
    let mut run = begin();
    let refused = Input::Propose { set: run.new, refused: 2 };
    assert!(matches!(run.step(0, refused)[..], [Effect::Discard { why: Fault::Refused { documents: 2 }, .. }]));
    run.propose(0, run.new, 1);
    assert_eq!(run.propose(1, run.new, 1), [], "told twice");
    let newer = rules("logout").fingerprint();
    let effects = run.propose(2, newer, 1);
    assert_eq!(effects, [Effect::Discard { set: run.new, why: Fault::Replaced }, Effect::Shadow(newer)]);
    assert!(matches!(run.step(3, Input::Abandon)[..], [Effect::Discard { why: Fault::Abandoned, .. }]));
    assert_eq!(run.propose(4, run.old, 1), [], "it is in charge");
}

#[test]
fn a_change_that_is_taken_back_leaves_the_shadow_and_the_watch() {
    let mut run = begin();
    run.propose(0, run.new, 10);
    let taken_back = Effect::Discard { set: run.new, why: Fault::TakenBack };
    assert_eq!(run.propose(1, run.old, 10), [taken_back]);
    assert_eq!((run.step(2 * HOUR_MS, Input::Tick), run.rollout.phase()), (Vec::new(), &Phase::Steady));
    run.propose(2 * HOUR_MS, run.new, 10);
    run.step(3 * HOUR_MS, Input::Tick);
    assert_eq!(run.propose(3 * HOUR_MS, run.new, 10), [], "it is watched");
    let back = Effect::RollBack { from: run.new, to: run.old, why: Fault::TakenBack };
    assert_eq!(run.propose(4 * HOUR_MS, run.old, 10), [back]);
    assert_eq!((run.rollout.in_charge(), run.rollout.phase()), (run.old, &Phase::Steady));
}

#[test]
fn a_bound_of_confidence_holds_what_poisson_tables_say() {
    // The exact bounds are 4.605, 11.605 and 126.5 (99 %, one side).
    for (count, expect) in [(0, 4.605), (4, 11.605), (100, 126.5)] {
        let bound = Forecast::of(count, 24 * HOUR_MS).at_most_per_day;
        assert!((bound - expect).abs() / expect < 0.02, "{count}: {bound}");
    }
}

#[test]
fn a_set_in_shadow_counts_what_its_backtest_forecasts_while_the_old_one_raises() {
    let (old, new) = (rules("login"), rules("denied"));
    let event = |n: u64| {
        let action = if n.is_multiple_of(2) { "denied" } else { "login" };
        audit(n, n * 60_000, json!({"action": action, "outcome": "success", "user": "ann"}))
    };
    let raws: Vec<RawEvent> = (0..100)
        .map(|n| {
            let event = event(n);
            RawEvent { source: SourceKind::Audit, received_ms: NOW_MS, position: event.position, bytes: event.raw }
        })
        .collect();
    let forecast = backtest(&new, &raws).forecast();
    assert_eq!(forecast["r"].alerts, 50);
    let mut detectors = [old, new.in_shadow()].map(|rules| Detector::new(rules, Options::default()));
    let mut effects = Vec::new();
    for n in 0..100 {
        for detector in &mut detectors {
            detector.step(NOW_MS, DetectorInput::Event(event(n)), &mut effects);
        }
    }
    assert_eq!((effects.len(), detectors[1].shadows()["r"].alerts), (50, 50));
    assert_eq!(detectors[1].rules().fingerprint(), new.fingerprint(), "shadow is not part of what a set means");
}

proptest! {
    #[test]
    fn there_is_always_one_set_in_charge_and_every_set_that_came_goes(
        inputs in proptest::collection::vec((0_u8..8, 0_u64..3 * HOUR_MS, 0_u64..400), 0..60)
    ) {
        let sets: Vec<SetId> = ["login", "denied", "logout"].iter().map(|action| rules(action).fingerprint()).collect();
        let mut rollout = Rollout::new(sets[0], Care::default());
        let (mut now_ms, mut in_charge) = (0, sets[0]);
        let mut shadow: Option<SetId> = None;
        let mut before: Option<SetId> = None;
        let mut is_foretold = false;
        for (kind, after_ms, number) in inputs {
            now_ms += after_ms;
            let set = sets[usize::try_from(number % 3).unwrap()];
            let input = match kind {
                0 => propose(set),
                1 => seen(number),
                2 => Input::Failed { rule: Arc::from("r"), why: String::new() },
                3 => Input::Abandon,
                4 | 5 => forecast(set, number),
                _ => Input::Tick,
            };
            is_foretold |= matches!(&input, Input::Forecast { set, .. } if shadow == Some(*set));
            let mut effects = Vec::new();
            rollout.step(now_ms, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Shadow(set) => {
                        prop_assert!(shadow.is_none() && set != in_charge);
                        (shadow, is_foretold) = (Some(set), false);
                    }
                    Effect::Promote(set) => {
                        prop_assert_eq!((shadow.take(), is_foretold), (Some(set), true));
                        before = Some(std::mem::replace(&mut in_charge, set));
                    }
                    Effect::Discard { set, why } => {
                        prop_assert_eq!(shadow.take(), Some(set));
                        let is_for_volume = matches!(why, Fault::Volume { .. });
                        prop_assert!(is_foretold || !is_for_volume);
                    }
                    Effect::RollBack { from, to, .. } => {
                        prop_assert_eq!((in_charge, before.take()), (from, Some(to)));
                        in_charge = to;
                    }
                    Effect::Settled(set) => prop_assert!(set == in_charge && before.take().is_some()),
                }
            }
            prop_assert_eq!(rollout.in_charge(), in_charge);
        }
    }
}
