//! Who is on call, who is told when, and that nobody is told twice.

mod incident_support;

use detection::EntityKind::User;
use detection::escalation::{Book, Due, Notification, Standing, State, Stop, due, parse};
use detection::incident::{Act, Cause, Desk, Input, Status};
use detection::{IncidentId, NotificationId, Severity};
use incident_support::{HOUR_MS, act, alert, desk, step};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MINUTE_MS: u64 = 60_000;

fn at(text: &str) -> u64 {
    let at: jiff::Timestamp = text.parse().expect("a time of these tests");
    u64::try_from(at.as_millisecond()).expect("after 1970")
}

fn book(schedule: &str, policy: &str) -> Book {
    let text = format!(
        "version = 1\n\
         [[webhook]]\nname = \"pager\"\nurl = \"https://pager.example/in\"\n\
         [[person]]\nlogin = \"ann\"\nemail = \"ann@example.org\"\n\
         [[person]]\nlogin = \"bob\"\nemail = \"bob@example.org\"\n\
         [[person]]\nlogin = \"eve\"\nemail = \"eve@example.org\"\nwebhook = \"pager\"\n\
         [[team]]\nname = \"soc\"\nmembers = [\"ann\", \"bob\", \"eve\"]\n\
         [[schedule]]\nname = \"primary\"\n{schedule}\n\
         [[policy]]\nname = \"all\"\nseverity_min = \"low\"\nfallback = [\"person:eve\"]\n{policy}\n"
    );
    parse("test.toml", text.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

const WEEKLY: &str = "time_zone = \"Europe/Berlin\"\n[[schedule.layer]]\nmembers = [\"ann\", \"bob\"]\n\
     from = \"2026-03-02\"\nhand_over = \"09:00\"\nevery_days = 7";
const STEPS: &str = "repeats = 1\n[[policy.step]]\nnotify = [\"schedule:primary\"]\nacknowledge_within = \"10m\"\n\
     [[policy.step]]\nnotify = [\"team:soc\"]\nacknowledge_within = \"20m\"";

fn on_call(book: &Book, text: &str) -> Option<String> {
    book.schedules["primary"].on_call(at(text)).map(str::to_owned)
}

#[test]
fn turns_change_at_nine_in_winter_and_in_summer() {
    let book = book(WEEKLY, STEPS);
    assert_eq!(on_call(&book, "2026-03-02T07:59:59Z"), None, "before the first turn");
    assert_eq!(on_call(&book, "2026-03-02T08:00:00Z").as_deref(), Some("ann"), "nine in Berlin's winter");
    assert_eq!(on_call(&book, "2026-03-09T07:59:59Z").as_deref(), Some("ann"));
    assert_eq!(on_call(&book, "2026-03-09T08:00:00Z").as_deref(), Some("bob"));
    // Clocks change on the 29th; the turn of the 30th begins at nine by the new time.
    assert_eq!(on_call(&book, "2026-03-30T06:59:59Z").as_deref(), Some("bob"));
    assert_eq!(on_call(&book, "2026-03-30T07:00:00Z").as_deref(), Some("ann"));
    let next = book.schedules["primary"].next_hand_over(at("2026-03-28T12:00:00Z"));
    assert_eq!(next, Some((at("2026-03-30T07:00:00Z"), Some("ann"))));
}

#[test]
fn hours_pass_midnight_and_the_last_layer_that_has_somebody_is_the_one() {
    let night = "\n[[schedule.layer]]\nmembers = [\"eve\"]\nfrom = \"2026-03-02\"\nhand_over = \"09:00\"\nevery_days = 1\n\
         days = [\"friday\"]\nhours = [\"22:00\", \"06:00\"]";
    let book = book(&format!("{WEEKLY}{night}"), STEPS);
    assert_eq!(on_call(&book, "2026-03-06T20:59:00Z").as_deref(), Some("ann"));
    assert_eq!(on_call(&book, "2026-03-06T21:00:00Z").as_deref(), Some("eve"), "Friday, ten at night");
    assert_eq!(on_call(&book, "2026-03-07T04:59:00Z").as_deref(), Some("eve"), "still Friday's shift");
    assert_eq!(on_call(&book, "2026-03-07T05:00:00Z").as_deref(), Some("ann"));
    assert_eq!(on_call(&book, "2026-03-06T04:00:00Z").as_deref(), Some("ann"), "Thursday's night is not covered");
    let next = book.schedules["primary"].next_hand_over(at("2026-03-06T12:00:00Z"));
    assert_eq!(next, Some((at("2026-03-06T21:00:00Z"), Some("eve"))));
}

#[test]
fn who_stands_in_comes_before_all_layers() {
    let over = "\n[[schedule.override]]\nlogin = \"eve\"\nfrom = \"2026-03-04T09:00\"\nto = \"2026-03-05T09:00\"";
    let book = book(&format!("{WEEKLY}{over}"), STEPS);
    assert_eq!(on_call(&book, "2026-03-04T07:59:59Z").as_deref(), Some("ann"));
    assert_eq!(on_call(&book, "2026-03-04T08:00:00Z").as_deref(), Some("eve"));
    assert_eq!(on_call(&book, "2026-03-05T08:00:00Z").as_deref(), Some("ann"));
    assert_eq!(book.schedules["primary"].on_call(u64::MAX), None, "a time that is none");
}

#[test]
fn a_hand_over_in_the_hour_that_is_skipped_or_comes_twice_happens_once() {
    let daily = |from: &str| {
        format!(
            "time_zone = \"Europe/Berlin\"\n[[schedule.layer]]\nmembers = [\"ann\", \"bob\"]\nfrom = \"{from}\"\n\
             hand_over = \"02:30\"\nevery_days = 1"
        )
    };
    for (from, skipped, then) in [
        ("2026-03-28", "2026-03-29T01:29:59Z", "2026-03-29T01:30:00Z"),
        ("2026-10-24", "2026-10-25T00:29:59Z", "2026-10-25T00:30:00Z"),
    ] {
        let book = book(&daily(from), STEPS);
        assert_eq!(on_call(&book, skipped).as_deref(), Some("ann"), "{from}");
        assert_eq!(on_call(&book, then).as_deref(), Some("bob"), "{from}");
        let hour_later = at(then) + HOUR_MS;
        assert_eq!(book.schedules["primary"].on_call(hour_later), Some("bob"), "{from}");
    }
}

fn opened(desk: &mut Desk, severity: Severity) -> (IncidentId, u64) {
    let begun_ms = at("2026-03-03T12:00:00Z");
    let (incident, _) = step(desk, begun_ms, Input::Alert(alert(1, begun_ms, severity, &[(User, "mallory")])));
    (incident.id, incident.alarm.begun_ms)
}

fn asked(book: &Book, desk: &Desk, id: IncidentId, now_ms: u64) -> Due {
    due(book, &State::of(desk.get(id).expect("an incident of this test")), now_ms)
}

fn told(due: &Due) -> Vec<(u32, u32, &str)> {
    due.notifications.iter().map(|one| (one.round, one.step, one.target.as_str())).collect()
}

fn send(desk: &mut Desk, now_ms: u64, one: &Notification) {
    let act = Act::Notified { notification: one.id, target: one.target.clone() };
    incident_support::act(desk, now_ms, one.incident, act).expect("not sent before");
}

#[test]
fn steps_come_in_order_repeat_and_end_with_the_fallback() {
    let (book, mut desk) = (book(WEEKLY, STEPS), desk(1));
    let (id, begun_ms) = opened(&mut desk, Severity::High);
    let mut seen = Vec::new();
    let mut now_ms = begun_ms;
    loop {
        let due = asked(&book, &desk, id, now_ms);
        for one in &due.notifications {
            seen.push((now_ms - begun_ms) / MINUTE_MS);
            send(&mut desk, now_ms, one);
        }
        assert!(asked(&book, &desk, id, now_ms).notifications.is_empty(), "what was sent is not due");
        match due.next_ms {
            Some(next_ms) => now_ms = next_ms,
            None => break assert_eq!(due.standing, Standing::Exhausted),
        }
    }
    // Ann; then all three, Eve by mail and pager; the same again; then Eve as the fallback.
    assert_eq!(seen, [0, 10, 10, 10, 10, 30, 40, 40, 40, 40, 60, 60]);
}

#[test]
fn an_acknowledgement_stops_everything_until_it_becomes_graver() {
    let (book, mut desk) = (book(WEEKLY, STEPS), desk(1));
    let (id, begun_ms) = opened(&mut desk, Severity::Medium);
    assert_eq!(told(&asked(&book, &desk, id, begun_ms)), [(0, 0, "schedule:primary")]);
    act(&mut desk, begun_ms + 1, id, Act::Acknowledge).unwrap();
    for later_ms in [1, 10 * MINUTE_MS, 1_000 * HOUR_MS] {
        let due = asked(&book, &desk, id, begun_ms + later_ms);
        assert_eq!((due.notifications.len(), due.next_ms), (0, None));
        assert_eq!(due.standing, Standing::Stopped(Stop::Acknowledged));
    }
    let graver = alert(2, begun_ms, Severity::Critical, &[(User, "mallory")]);
    let (incident, _) = step(&mut desk, begun_ms + HOUR_MS, Input::Alert(graver));
    assert_eq!(incident.alarm.cause, Cause::Graver { severity: Severity::Critical });
    assert_eq!(told(&asked(&book, &desk, id, begun_ms + HOUR_MS)), [(0, 0, "schedule:primary")]);
    act(&mut desk, begun_ms + HOUR_MS, id, Act::SetStatus { to: Status::Resolved }).unwrap();
    assert_eq!(asked(&book, &desk, id, begun_ms + HOUR_MS).standing, Standing::Stopped(Stop::Ended));
}

#[test]
fn suppressed_incidents_call_nobody_and_call_again_afterwards() {
    let (book, mut desk) = (book(WEEKLY, STEPS), desk(1));
    let (id, begun_ms) = opened(&mut desk, Severity::Medium);
    let until_ms = begun_ms + HOUR_MS;
    act(&mut desk, begun_ms + 1, id, Act::Suppress { until_ms }).unwrap();
    let quiet = asked(&book, &desk, id, begun_ms + MINUTE_MS);
    assert_eq!((quiet.standing, quiet.next_ms, quiet.notifications.len()), (Standing::Quiet, Some(until_ms), 0));
    assert!(!asked(&book, &desk, id, until_ms).notifications.is_empty());
    step(&mut desk, begun_ms + 2, Input::Alert(alert(2, begun_ms, Severity::Critical, &[(User, "mallory")])));
    assert!(!asked(&book, &desk, id, begun_ms + MINUTE_MS).notifications.is_empty(), "what is graver breaks through");
}

#[test]
fn where_nobody_is_on_call_the_fallback_is_told() {
    let gap = "time_zone = \"UTC\"\n[[schedule.layer]]\nmembers = [\"ann\"]\nfrom = \"2099-01-01\"\nhand_over = \"09:00\"\nevery_days = 1";
    let (book, mut desk) = (book(gap, STEPS), desk(1));
    let (id, begun_ms) = opened(&mut desk, Severity::High);
    assert_eq!(told(&asked(&book, &desk, id, begun_ms)), [(0, 0, "person:eve"), (0, 0, "person:eve")]);
    let (info, _) =
        step(&mut desk, begun_ms, Input::Alert(alert(9, begun_ms, Severity::Informational, &[(User, "x")])));
    assert_eq!(asked(&book, &desk, info.id, begun_ms).standing, Standing::NoPolicy);
}

#[test]
fn after_an_outage_each_is_told_once_by_the_latest_step() {
    let (book, mut desk) = (book(WEEKLY, STEPS), desk(1));
    let (id, begun_ms) = opened(&mut desk, Severity::High);
    let late = asked(&book, &desk, id, begun_ms + 45 * MINUTE_MS);
    let mut names: Vec<_> = told(&late);
    names.sort_unstable();
    assert_eq!(names, [(1, 1, "team:soc/ann"), (1, 1, "team:soc/bob"), (1, 1, "team:soc/eve"), (1, 1, "team:soc/eve")]);
}

#[test]
fn whoever_takes_over_after_a_hand_over_does_not_tell_a_step_again() {
    let (book, mut desk) = (book(WEEKLY, STEPS), desk(1));
    let begun_ms = at("2026-03-09T07:55:00Z");
    let (incident, _) = step(&mut desk, begun_ms, Input::Alert(alert(1, begun_ms, Severity::High, &[(User, "m")])));
    let first = asked(&book, &desk, incident.id, begun_ms);
    let taken_over = asked(&book, &desk, incident.id, begun_ms + 6 * MINUTE_MS);
    assert_eq!(first.notifications[0].id, taken_over.notifications[0].id, "one id for whoever is on call");
    assert_ne!(first.notifications[0].channel, taken_over.notifications[0].channel, "who is on call now is told");
    send(&mut desk, begun_ms + 1, &first.notifications[0]);
    assert!(asked(&book, &desk, incident.id, begun_ms + 6 * MINUTE_MS).notifications.is_empty());
}

proptest! {
    /// Nodes ask at any times, send, and crash before or after they wrote down what they sent.
    #[test]
    fn failover_sends_no_id_twice_to_who_tells_repetitions_by_it(
        asks in prop::collection::vec((0..90 * MINUTE_MS, any::<bool>()), 1..40),
        acknowledged_after in prop::option::of(0..90 * MINUTE_MS),
    ) {
        // Whoever is on call is told by both steps: each time under another id.
        let steps = STEPS.replace("[\"team:soc\"]", "[\"schedule:primary\", \"team:soc\"]");
        let (book, mut desk) = (book(WEEKLY, &steps), desk(1));
        let (id, begun_ms) = opened(&mut desk, Severity::High);
        let mut received: BTreeMap<NotificationId, (u32, u32, String)> = BTreeMap::new();
        let mut recorded: BTreeSet<NotificationId> = BTreeSet::new();
        let mut asks = asks;
        asks.sort_unstable();
        let mut is_acknowledged = false;
        for (after_ms, is_recorded) in asks {
            if acknowledged_after.is_some_and(|stop_ms| after_ms >= stop_ms) && !is_acknowledged {
                is_acknowledged = true;
                act(&mut desk, begun_ms + after_ms, id, Act::Acknowledge).unwrap();
            }
            let due = asked(&book, &desk, id, begun_ms + after_ms);
            prop_assert!(!is_acknowledged || due.notifications.is_empty());
            prop_assert_eq!(&asked(&book, &desk, id, begun_ms + after_ms), &due, "two who ask at once say the same");
            for one in due.notifications {
                prop_assert!(!recorded.contains(&one.id), "sent again though it was recorded");
                prop_assert!(one.due_ms <= begun_ms + after_ms);
                let place = (one.round, one.step, one.target.clone());
                let known = received.insert(one.id, place.clone());
                prop_assert!(known.is_none_or(|known| known == place), "one id for two things");
                if is_recorded {
                    recorded.insert(one.id);
                    send(&mut desk, begun_ms + after_ms, &one);
                }
            }
        }
        let places: BTreeSet<_> = received.values().collect();
        // Eve is told by mail and by pager: two ids, one place each in the team's step, in the fallback.
        prop_assert!(received.len() <= places.len() + 3);
    }
}
