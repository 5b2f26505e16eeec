//! An escalation that changes hands in the middle: each step once, none lost, an acknowledgement stops everything.

mod incident_support;

use detection::EntityKind::{Host, User};
use detection::escalation::{Book, Mark, Run, Standing, State, Stop, advance, parse, remind};
use detection::incident::breach::ClockKind;
use detection::incident::risk::Criticality;
use detection::incident::{Act, Desk, Input};
use detection::{IncidentId, NotificationId, Severity};
use incident_support::{HOUR_MS, NOW_MS, act, alert, desk, entity, step};
use proptest::prelude::*;
use std::collections::BTreeMap;

const MINUTE_MS: u64 = 60_000;

fn book() -> Book {
    let text = "version = 1\n\
         [[person]]\nlogin = \"ann\"\nemail = \"ann@example.org\"\n\
         [[person]]\nlogin = \"bob\"\nemail = \"bob@example.org\"\n\
         [[team]]\nname = \"soc\"\nmembers = [\"ann\", \"bob\"]\n\
         [[policy]]\nname = \"all\"\nseverity_min = \"low\"\nrepeats = 1\nfallback = [\"person:bob\"]\n\
         [[policy.step]]\nnotify = [\"person:ann\"]\nacknowledge_within = \"5m\"\n\
         [[policy.step]]\nnotify = [\"team:soc\"]\nacknowledge_within = \"10m\"\n";
    parse("test.toml", text.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// The region's store: a run with its version, and what left after it was stored.
#[derive(Default)]
struct Store {
    run: Option<(u64, Run)>,
    left: BTreeMap<NotificationId, (u32, u32, String)>,
}

/// A node that has, or believes it has, the duty.
struct Leader {
    seen: u64,
    run: Option<Run>,
}

impl Leader {
    fn take_over(store: &Store) -> Self {
        Self { seen: store.run.as_ref().map_or(0, |(version, _)| *version), run: store.run.clone().map(|(_, run)| run) }
    }

    /// One turn; `false` where another leader was faster. What is stored and what leaves are one.
    fn turn(&mut self, store: &mut Store, book: &Book, state: &State, now_ms: u64) -> bool {
        let next = advance(self.run.as_ref(), book, state, now_ms);
        let Some(run) = next.run else {
            assert!(next.notifications.is_empty(), "nothing leaves that is not stored");
            return true;
        };
        if self.seen != store.run.as_ref().map_or(0, |(version, _)| *version) {
            return false;
        }
        self.seen += 1;
        self.run = Some(run.clone());
        store.run = Some((self.seen, run));
        for one in next.notifications {
            let known = store.left.insert(one.id, (one.round, one.step, one.target));
            assert_eq!(known, None, "a step is made once");
        }
        true
    }
}

fn opened(desk: &mut Desk) -> IncidentId {
    step(desk, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::High, &[(User, "mallory")]))).0.id
}

fn state(desk: &Desk, id: IncidentId) -> State {
    State::of(desk.get(id).expect("an incident of this test"))
}

#[test]
fn whoever_takes_over_goes_on_where_the_other_was() {
    let (book, mut desk) = (book(), desk(1));
    let id = opened(&mut desk);
    let mut store = Store::default();
    let mut first = Leader::take_over(&store);
    assert!(first.turn(&mut store, &book, &state(&desk, id), NOW_MS));
    let steps = |store: &Store| store.left.values().map(|(round, step, _)| (*round, *step)).collect::<Vec<_>>();
    assert_eq!(steps(&store), [(0, 0)]);
    let mut second = Leader::take_over(&store);
    assert!(second.turn(&mut store, &book, &state(&desk, id), NOW_MS + MINUTE_MS), "nothing is due");
    assert_eq!(store.left.len(), 1);
    assert!(second.turn(&mut store, &book, &state(&desk, id), NOW_MS + 5 * MINUTE_MS));
    assert_eq!(store.left.len(), 3, "the deadline has passed: the team");
    assert!(!first.turn(&mut store, &book, &state(&desk, id), NOW_MS + 5 * MINUTE_MS), "the first is fenced off");
    let run = &store.run.as_ref().unwrap().1;
    assert_eq!((run.standing, run.told.len()), (Standing::Running, 2));
    assert_eq!(run.reached.map(|reached| (reached.round, reached.step)), Some((0, 1)));

    act(&mut desk, NOW_MS + 6 * MINUTE_MS, id, Act::Acknowledge).unwrap();
    let mut third = Leader::take_over(&store);
    for later_ms in [6, 15, 20, 600] {
        assert!(third.turn(&mut store, &book, &state(&desk, id), NOW_MS + later_ms * MINUTE_MS));
    }
    assert_eq!(store.left.len(), 3, "an acknowledgement stops everything");
    assert_eq!(store.run.as_ref().unwrap().1.standing, Standing::Stopped(Stop::Acknowledged));
}

#[test]
fn an_incident_for_which_nobody_is_called_leaves_no_run() {
    let mut desk = desk(1);
    let id = opened(&mut desk);
    let none = advance(None, &Book::default(), &state(&desk, id), NOW_MS);
    assert_eq!((none.run, none.notifications.len()), (None, 0));
}

#[test]
fn a_run_survives_its_stored_form() {
    let mut desk = desk(1);
    let id = opened(&mut desk);
    let run = advance(None, &book(), &state(&desk, id), NOW_MS).run.unwrap();
    let json = serde_json::to_string(&run).unwrap();
    assert_eq!(serde_json::from_str::<Run>(&json).unwrap(), run);
}

#[test]
fn those_on_call_are_reminded_of_a_duty_at_half_three_quarters_and_the_end() {
    let (book, mut desk) = (book(), desk(1));
    let id = opened(&mut desk);
    let clock = ClockKind::GdprAuthority;
    let start = Act::StartClock { clock, subject: "CNIL".into(), aware_ms: NOW_MS, limit_ms: None };
    act(&mut desk, NOW_MS, id, start).unwrap();
    act(&mut desk, NOW_MS, id, Act::Acknowledge).unwrap();
    let asked = |desk: &Desk, hours: u64| remind(&book, desk.get(id).unwrap(), NOW_MS + hours * HOUR_MS);
    let marks = |desk: &Desk, hours| asked(desk, hours).0.iter().map(|one| one.mark).collect::<Vec<_>>();
    assert_eq!((marks(&desk, 35), asked(&desk, 35).1), (vec![], Some(NOW_MS + 36 * HOUR_MS)));
    assert_eq!(marks(&desk, 36), [Mark::Half], "an acknowledgement does not end a duty");
    assert_eq!(asked(&desk, 37).0[0].id, asked(&desk, 53).0[0].id, "one id whenever it is asked");
    assert_eq!((marks(&desk, 54), marks(&desk, 100)), (vec![Mark::ThreeQuarters], vec![Mark::Over]));
    assert_eq!(asked(&desk, 100).1, None);
    let met = Act::MeetClock { clock, subject: "CNIL".into(), at_ms: NOW_MS, reference: "C-1".into() };
    act(&mut desk, NOW_MS + 1, id, met).unwrap();
    assert_eq!(asked(&desk, 100), (vec![], None));
}

#[test]
fn assets_are_named_once_each_and_by_what_they_are() {
    let with = |asset: &str| {
        let policy = "[[policy]]\nname = \"p\"\nseverity_min = \"low\"\n[[policy.step]]\nnotify = [\"person:a\"]\n\
             acknowledge_within = \"1m\"\n[[person]]\nlogin = \"a\"\nemail = \"a@b.c\"\n";
        parse("test.toml", format!("version = 1\n{policy}{asset}").as_bytes())
    };
    let vital = "[[asset]]\nentity = \"host:DB-1.\"\ncriticality = \"vital\"\n";
    let assets = with(vital).unwrap().assets;
    assert_eq!(assets.into_iter().collect::<Vec<_>>(), [(entity(Host, "db-1"), Criticality::Vital)]);
    let wrong = [
        ("[[asset]]\nentity = \"db-1\"\ncriticality = \"vital\"\n", "test.toml:12: db-1 is not an entity"),
        ("[[asset]]\nentity = \"host:x\"\ncriticality = \"much\"\n", "test.toml:13: there is no criticality"),
        (&format!("{vital}{vital}"), "test.toml:15: host:DB-1. is there twice"),
    ];
    for (asset, expect) in wrong {
        let errors = with(asset).unwrap_err();
        assert!(errors[0].to_string().starts_with(expect), "{errors:?}");
    }
}

proptest! {
    /// Two nodes that both believe they have the duty, taking over from each other at any time.
    #[test]
    fn each_step_is_made_once_and_none_is_lost(
        turns in prop::collection::vec((0..2usize, 0..40 * MINUTE_MS, any::<bool>()), 1..60),
        acknowledged_after in prop::option::of(0..40 * MINUTE_MS),
    ) {
        let (book, mut desk) = (book(), desk(1));
        let id = opened(&mut desk);
        let mut store = Store::default();
        let mut leaders = [Leader::take_over(&store), Leader::take_over(&store)];
        let mut turns = turns;
        turns.sort_unstable_by_key(|(_, after_ms, _)| *after_ms);
        let mut left_when_acknowledged = None;
        for (who, after_ms, takes_over) in turns {
            if acknowledged_after.is_some_and(|stop_ms| after_ms >= stop_ms) && left_when_acknowledged.is_none() {
                act(&mut desk, NOW_MS + after_ms, id, Act::Acknowledge).unwrap();
                left_when_acknowledged = Some(store.left.len());
            }
            if takes_over {
                leaders[who] = Leader::take_over(&store);
            }
            leaders[who].turn(&mut store, &book, &state(&desk, id), NOW_MS + after_ms);
        }
        if let Some(count) = left_when_acknowledged {
            prop_assert_eq!(store.left.len(), count);
            return Ok(());
        }
        // Whatever happened before: who has the duty at last tells whoever is still to be told.
        let mut last = Leader::take_over(&store);
        let end_ms = NOW_MS + 30 * MINUTE_MS;
        prop_assert!(last.turn(&mut store, &book, &state(&desk, id), end_ms + 10 * MINUTE_MS));
        let fallback = store.left.values().filter(|(round, _, target)| *round == 2 && target == "person:bob").count();
        prop_assert_eq!(fallback, 1, "the fallback at the end comes, and once");
        let mut places: Vec<_> = store.left.values().collect();
        let count = places.len();
        places.dedup();
        prop_assert_eq!(places.len(), count);
    }
}

#[test]
fn a_notification_that_nobody_took_in_time_is_known_and_told_once() {
    let (book, mut desk) = (book(), desk(1));
    let id = step(&mut desk, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::High, &[(User, "ann")]))).0.id;
    let state = |desk: &Desk| State::of(desk.get(id).unwrap());
    let begun = advance(None, &book, &state(&desk), NOW_MS);
    let run = begun.run.unwrap();
    assert_eq!(begun.next_ms, Some(NOW_MS + 5 * MINUTE_MS));
    let (waiting, late) = run.heard(NOW_MS + 1, |_| false);
    assert_eq!((&waiting, late.len()), (&run, 0), "there is time left");
    let (told, late) = run.heard(NOW_MS + 10 * MINUTE_MS, |_| true);
    assert_eq!((told.waiting.len(), late.len()), (0, 0));
    let (after, late) = run.heard(NOW_MS + 5 * MINUTE_MS, |_| false);
    assert_eq!((after.waiting.len(), late.len()), (0, 1));
    act(&mut desk, NOW_MS + 1, id, Act::Acknowledge).unwrap();
    let stopped = advance(Some(&run), &book, &state(&desk), NOW_MS + 2).run.unwrap();
    assert!(stopped.waiting.is_empty(), "who has acknowledged need not be told");
}

/// Written before it was known whether anybody was told.
const GOLDEN: &str = r#"{"version":1,"incident":"01010101010101010101010101010101","cause":{"kind":"opened"},"begun_ms":5,"policy":"all","standing":"running","reached":null,"told":["person:ann"],"sent":[]}"#;

#[test]
fn a_run_of_before_is_read() {
    let run: Run = serde_json::from_str(GOLDEN).unwrap();
    assert!(run.waiting.is_empty() && run.standing == Standing::Running);
}
