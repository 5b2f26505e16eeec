//! Rules on trial, step by step and in any order of what can happen.

use super::*;
use bytes::Bytes;
use detection::SourceKind;
use detection::engine::Options;
use detection::report::Forecast;
use proptest::prelude::*;

fn rules_of(threshold: u32, level: &str, more: &str) -> Arc<RuleSet> {
    let text = format!(
        "title: Knock\nname: knock\nlogsource: {{product: doors}}\ndetection: {{s: {{door: '*'}}, condition: s}}\n\
         level: low\n---\ntitle: Knocks\nname: knocks\nlevel: {level}\n{more}correlation: {{type: event_count, \
         rules: [knock], group-by: [door], timespan: 5m, condition: {{gte: {threshold}}}}}\n"
    );
    let (rules, errors) = detection::rules::load_texts(vec![("a.yml".into(), text)]);
    assert!(errors.is_empty(), "{errors:?}");
    Arc::new(rules)
}

fn rules(threshold: u32) -> Arc<RuleSet> {
    rules_of(threshold, "medium", "")
}

fn knock_at(number: u64, door: u64) -> RawEvent {
    let text = format!("{{\"product\":\"doors\",\"door\":\"d{door}\",\"time\":{}}}", 1_000 + number);
    let position = Some(detection::Position { stream: "events/eu".into(), sequence: number });
    RawEvent { source: SourceKind::Ndjson, received_ms: 1_000 + number, position, bytes: Bytes::from(text) }
}

/// A shard without a node: its detector and its trial.
struct Shard {
    trial: Trial,
    detector: Detector,
    number: u64,
}

impl Shard {
    fn new(known: Arc<RuleSet>, care: Care) -> Self {
        let detector = Detector::new(Arc::clone(&known), Options::default());
        Self { trial: Trial::new(known, care), detector, number: 0 }
    }

    fn knock(&mut self, now_ms: u64, door: u64) -> Vec<Effect> {
        let (mut effects, raw) = (Vec::new(), knock_at(self.number, door));
        self.number += 1;
        self.detector.raw(now_ms, &raw, &mut effects).unwrap();
        self.trial.take(now_ms, &raw, detection::Owner::Itself);
        self.trial.saw(now_ms, 1, &effects);
        effects
    }

    /// Rules of which nothing is expected.
    fn propose(&mut self, now_ms: u64, new: &Arc<RuleSet>) {
        self.trial.propose(now_ms, Arc::clone(new), Some(&Forecasts::new()));
    }

    /// Rules whose backtest takes a while.
    fn propose_early(&mut self, now_ms: u64, new: &Arc<RuleSet>) {
        self.trial.propose(now_ms, Arc::clone(new), None);
    }

    /// What changed, in words.
    fn settle(&mut self) -> Vec<String> {
        let told = self.trial.changes();
        self.trial.settle(&mut self.detector);
        told.iter().map(|change| change.to_string().split_once(' ').unwrap().1.to_owned()).collect()
    }

    fn works_with(&self, rules: &RuleSet) -> bool {
        self.detector.rules().identity() == rules.identity() && self.trial.in_charge().identity() == rules.identity()
    }
}

fn care(shadow_ms: u64) -> Care {
    Care { shadow_ms, watch_ms: 100_000, alerts_free: 5, ..Care::default() }
}

#[test]
fn new_rules_run_in_shadow_and_then_are_in_charge() {
    let (old, new) = (rules(3), rules(4));
    let mut shard = Shard::new(Arc::clone(&old), care(10_000));
    shard.propose(0, &old);
    assert_eq!(shard.settle(), Vec::<String>::new(), "the same rules are nothing new");
    shard.propose(0, &new);
    shard.trial.tick(5_000, 5_000);
    assert_eq!(shard.settle(), ["runs in shadow"]);
    assert!(shard.works_with(&old));
    shard.trial.tick(10_000, 10_000);
    assert_eq!(shard.settle(), ["is in charge"]);
    assert!(shard.works_with(&new));
    assert!(shard.trial.take_row().is_some() && shard.trial.take_row().is_none(), "a row is stored once");
}

#[test]
fn rules_that_would_raise_too_much_never_come_into_charge_and_are_not_tried_again() {
    let (old, new) = (rules(3), rules(1));
    let mut shard = Shard::new(Arc::clone(&old), care(10_000));
    shard.propose(0, &new);
    shard.settle();
    for number in 0..6 {
        shard.knock(number, number);
    }
    let changes = shard.trial.changes();
    assert!(matches!(&changes[..], [Change::Discarded { .. }]), "{changes:?}");
    assert!(changes[0].refusal().unwrap().contains("knocks") && changes[0].alert(0).is_some(), "{changes:?}");
    shard.settle();
    assert!(shard.works_with(&old));
    shard.propose(10, &new);
    assert_eq!(shard.settle(), Vec::<String>::new());
    // What repairs it means the same, and is tried all the same.
    let repaired = rules_of(1, "medium", "shadow: true\n");
    shard.propose(20, &repaired);
    assert_eq!(shard.settle(), ["runs in shadow"]);
    for number in 0..6 {
        shard.knock(20 + number, 100 + number);
    }
    shard.trial.tick(10_020, 10_020);
    assert_eq!(shard.settle(), ["is in charge"], "a rule in shadow raises nothing that would be too much");
    assert!(shard.works_with(&repaired));
}

#[test]
fn what_is_raised_in_no_rules_name_says_nothing_about_rules_that_are_watched() {
    let (old, new) = (rules(3), rules(4));
    let mut shard = Shard::new(old, care(10_000));
    shard.propose(0, &new);
    shard.settle();
    shard.trial.tick(10_000, 10_000);
    assert_eq!(shard.settle(), ["is in charge"]);
    let degraded = |n: u64| detection::engine::coverage_degraded("platform".into(), n, "a", format!("{n} were lost"));
    let effects: Vec<Effect> = (0..100).map(|n| Effect::Alert(Arc::new(degraded(n)))).collect();
    shard.trial.saw(10_001, 100, &effects);
    assert_eq!(shard.settle(), Vec::<String>::new());
    assert!(shard.works_with(&new));
}

#[test]
fn what_a_backtest_saw_may_be_raised_and_until_it_is_known_rules_stay_in_shadow() {
    for (expected, change) in [(24_000, "is in charge"), (0, "is discarded")] {
        let (old, new) = (rules(3), rules(1));
        let mut shard = Shard::new(Arc::clone(&old), care(10_000));
        shard.propose_early(0, &new);
        shard.settle();
        (0..100).for_each(|number| assert_eq!(shard.knock(number, number), Vec::new()));
        shard.trial.tick(50_000, 50_000);
        assert_eq!(shard.settle(), Vec::<String>::new(), "whatever it would raise");
        assert!(shard.works_with(&old));
        let of = |rule: &str| (rule.into(), Forecast::of(expected, 86_400_000));
        let forecast = Forecasts::from([of("knocks"), of("another shard's")]);
        shard.trial.propose(50_000, Arc::clone(&new), Some(&forecast));
        let told = shard.settle();
        assert!(told.len() == 1 && told[0].starts_with(change), "{told:?}");
        let row = String::from_utf8(shard.trial.take_row().unwrap().1.unwrap()).unwrap();
        assert!(!row.contains("another"), "only what the trial is judged by is stored: {row}");
    }
}

#[test]
fn rules_in_charge_that_raise_too_much_are_rolled_back() {
    let (old, new) = (rules(3), rules(1));
    let mut shard = Shard::new(Arc::clone(&old), care(0));
    shard.propose(0, &new);
    shard.settle();
    shard.trial.tick(0, 0);
    shard.settle();
    assert!(shard.works_with(&new));
    for number in 0..6 {
        shard.knock(10, number);
    }
    let changes = shard.trial.changes();
    assert!(matches!(&changes[..], [Change::Back { .. }]) && changes[0].alert(0).is_some(), "{changes:?}");
    shard.settle();
    assert!(shard.works_with(&old));
}

#[test]
fn rules_may_change_again_while_those_before_are_watched() {
    let sets = [rules(3), rules(4), rules(5)];
    let mut shard = Shard::new(Arc::clone(&sets[0]), care(10_000));
    for (place, now_ms) in [(1, 0), (2, 20_000)] {
        shard.propose(now_ms, &sets[place]);
        shard.settle();
        shard.trial.tick(now_ms + 10_000, now_ms + 10_000);
        shard.settle();
        assert!(shard.works_with(&sets[place]), "{place}");
    }
}

#[test]
fn a_change_that_is_taken_back_is_over_in_shadow_and_in_charge() {
    let (old, new) = (rules(3), rules(4));
    let mut shard = Shard::new(Arc::clone(&old), care(10_000));
    shard.propose(0, &new);
    shard.settle();
    shard.propose(1_000, &old);
    let changes = shard.trial.changes();
    assert!(matches!(&changes[..], [Change::Discarded { why: Fault::TakenBack, .. }]), "{changes:?}");
    assert!(changes[0].alert(0).is_none() && changes[0].refusal().is_none(), "that is what was asked for");
    shard.trial.tick(20_000, 20_000);
    shard.settle();
    assert!(shard.works_with(&old));
    // Taken back and wanted after all.
    shard.propose(20_000, &new);
    shard.settle();
    shard.trial.tick(30_000, 30_000);
    shard.settle();
    assert!(shard.works_with(&new));
    shard.propose(31_000, &old);
    shard.settle();
    assert!(shard.works_with(&old), "the rules before are at hand: they need no trial");
}

#[test]
fn rules_that_mean_the_same_take_their_place_at_once() {
    let (old, new) = (rules(2), rules_of(2, "high", ""));
    let mut shard = Shard::new(Arc::clone(&old), care(10_000));
    shard.knock(0, 7);
    shard.propose(0, &new);
    assert_eq!(shard.settle(), ["is said otherwise"]);
    assert!(shard.works_with(&new));
    let effects = shard.knock(1, 7);
    assert!(matches!(&effects[..], [Effect::Alert(alert)] if alert.severity == Severity::High), "{effects:?}");
}

#[test]
fn what_began_under_one_set_goes_on_under_the_next_and_back_again() {
    let (old, new) = (rules(3), rules(4));
    let mut shard = Shard::new(Arc::clone(&old), care(10_000));
    shard.propose(0, &new);
    shard.settle();
    (0..2).for_each(|_| assert!(shard.knock(1, 1).is_empty()));
    shard.trial.tick(10_000, 10_000);
    shard.settle();
    assert!(shard.works_with(&new));
    // The fourth knock, counted from those that were seen in shadow.
    (0..2).for_each(|_| assert_eq!(shard.knock(10_001, 2), Vec::new()));
    assert_eq!(shard.knock(10_001, 1), Vec::new());
    assert_eq!(shard.knock(10_002, 1).len(), 1);
    shard.propose(10_003, &old);
    shard.settle();
    assert!(shard.works_with(&old));
    assert_eq!(shard.knock(10_004, 2).len(), 1, "the third knock, of which two were while the others were in charge");
}

/// What can happen to a shard.
#[derive(Clone, Debug)]
enum Happening {
    Propose(usize),
    /// The backtest of what was asked for last is done.
    Foretell(u64),
    Knock(u64),
    Tick(u64),
    /// The node does what was decided.
    Settle,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        (0..6_usize).prop_map(Happening::Propose),
        (0..9_u64).prop_map(Happening::Knock),
        prop_oneof![Just(0_u64), Just(10_000)].prop_map(Happening::Foretell),
        prop_oneof![Just(100_u64), Just(10_000), Just(50_000), Just(100_000)].prop_map(Happening::Tick),
        Just(Happening::Settle),
    ];
    proptest::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn whatever_happens_a_set_is_in_charge_and_in_the_end_the_one_asked_for(happenings in happenings()) {
        let sets = [
            rules(1), rules(3), rules(4), rules_of(3, "high", ""), rules_of(4, "low", "shadow: true\n"),
            rules_of(1, "low", "shadow: true\n"),
        ];
        let mut shard = Shard::new(Arc::clone(&sets[1]), care(10_000));
        let (mut now_ms, mut asked) = (0, Arc::clone(&sets[1]));
        for happening in happenings {
            match happening {
                Happening::Propose(place) => {
                    asked = Arc::clone(&sets[place]);
                    shard.propose_early(now_ms, &asked);
                }
                Happening::Foretell(alerts) => {
                    let forecast = Forecasts::from([("knocks".into(), Forecast::of(alerts, 86_400_000))]);
                    shard.trial.propose(now_ms, Arc::clone(&asked), Some(&forecast));
                }
                Happening::Knock(door) => {
                    shard.knock(now_ms, door);
                }
                Happening::Tick(ms) => {
                    now_ms += ms;
                    shard.detector.step(now_ms, detection::engine::Input::Tick, &mut Vec::new());
                    shard.trial.tick(now_ms, now_ms);
                }
                Happening::Settle => {
                    shard.settle();
                }
            }
            let in_charge = shard.trial.in_charge().fingerprint();
            prop_assert_eq!(in_charge, shard.trial.stored.rollout.in_charge());
            prop_assert!(shard.trial.sets.len() <= 2, "no more sets are kept than are needed");
        }
        // Nothing more happens than that its backtest is done and time passes.
        shard.propose(now_ms, &asked);
        for _ in 0..3 {
            now_ms += 100_000;
            shard.trial.tick(now_ms, now_ms);
            shard.settle();
        }
        let is_rejected = shard.trial.stored.rejected == Some(asked.identity());
        prop_assert!(is_rejected || shard.works_with(&asked));
        prop_assert_eq!((shard.trial.phase(), shard.trial.beside.is_none()), ("steady", true));
    }
}
