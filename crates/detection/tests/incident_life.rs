//! The life of an incident: joining, working, merging and splitting, closing, reporting, silence.

mod incident_support;

use detection::EntityKind::{Address, Node, Region, User};
use detection::incident::breach::{ClockKind, ClockState};
use detection::incident::risk::{self, Criticality, Weights};
use detection::incident::timeline::{What, timeline};
use detection::incident::{
    Act, Cause, Change, ChangeError, Deed, Desk, Effect, Input, Options, Priority, Refusal, Status,
};
use detection::{Entity, EventSummary, Severity};
use incident_support::{HOUR_MS, NOW_MS, act, alert, desk, entity, step, tagged};
use proptest::prelude::*;

fn raised(desk: &mut Desk, number: u8, severity: Severity, user: &str) -> detection::IncidentId {
    let at_ms = NOW_MS + u64::from(number) * 1_000;
    step(desk, at_ms, Input::Alert(alert(number, at_ms, severity, &[(User, user)]))).0.id
}

#[test]
fn what_is_in_alerts_hour_after_hour_joins_nothing() {
    let mut desk = Desk::new(Options::default());
    let gateway = (Address, "10.0.0.1");
    let mut ids = Vec::new();
    for number in 0..100u8 {
        let at_ms = NOW_MS + u64::from(number) * HOUR_MS / 2;
        let user = format!("user{number}");
        ids.push(
            step(&mut desk, at_ms, Input::Alert(alert(number, at_ms, Severity::Low, &[gateway, (User, &user)]))).0.id,
        );
    }
    assert_eq!(ids[0], ids[5], "at first it is rare");
    assert_ne!(ids[98], ids[99], "then it is known to be everywhere");
}

#[test]
fn an_incident_never_swallows_all() {
    let mut desk = Desk::new(Options::default());
    for number in 0..600u16 {
        let mut one = alert((number % 250) as u8, NOW_MS, Severity::Low, &[(User, "ann")]);
        one.rule.id = format!("rule{number}").into();
        let one = detection::Alert::new(one.tenant, one.rule, one.severity, one.group_key, one.events);
        step(&mut desk, NOW_MS, Input::Alert(one));
    }
    let mut sizes: Vec<usize> = desk.iter().map(|incident| incident.alerts.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [88, 256, 256]);
}

#[test]
fn a_host_of_everyone_and_names_of_nobody_join_nothing() {
    let mut desk = Desk::new(Options { stop_list: [entity(User, "monitor")].into(), ..Options::default() });
    for (name, kind) in [("127.0.0.1", Address), ("-", User), ("monitor", User)] {
        let first =
            step(&mut desk, NOW_MS, Input::Alert(alert(name.len() as u8, NOW_MS, Severity::Low, &[(kind, name)])));
        let other =
            step(&mut desk, NOW_MS, Input::Alert(alert(name.len() as u8 + 50, NOW_MS, Severity::Low, &[(kind, name)])));
        assert_ne!(first.0.id, other.0.id, "{name}");
    }
    let platform = [(Node, "n1"), (Region, "eu")];
    let first = step(&mut desk, NOW_MS, Input::Alert(alert(101, NOW_MS, Severity::Low, &platform)));
    let other = step(&mut desk, NOW_MS, Input::Alert(alert(102, NOW_MS, Severity::Low, &platform)));
    assert_eq!(first.0.id, other.0.id, "what has nothing better joins by its node");
}

#[test]
fn an_alert_that_shares_much_with_two_incidents_makes_them_one_unless_somebody_parted_them() {
    let mut desk = desk(1);
    let pair = |user: &'static str, address: &'static str| [(User, user), (Address, address)];
    let (a, _) = step(&mut desk, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::Low, &pair("ann", "10.0.0.1"))));
    let (b, _) = step(&mut desk, NOW_MS, Input::Alert(alert(2, NOW_MS, Severity::Low, &pair("bob", "10.0.0.2"))));
    let both = [(User, "ann"), (Address, "10.0.0.1"), (User, "bob"), (Address, "10.0.0.2")];
    let (kept, merge) = step(&mut desk, NOW_MS + 1, Input::Alert(alert(3, NOW_MS, Severity::Low, &both)));
    assert!(matches!(merge.change.deed, Deed::Merged { .. }));
    assert_eq!(
        (kept.alerts.len(), kept.absorbed.len(), desk.board().survivor(a.id), desk.board().survivor(b.id)),
        (3, 1, desk.get(kept.id), desk.get(kept.id))
    );
    act(&mut desk, NOW_MS + 2, kept.id, Act::Undo { change: merge.id }).unwrap();
    assert_eq!(desk.iter().filter(|incident| incident.merged_into.is_none()).count(), 2);
    step(&mut desk, NOW_MS + 3, Input::Alert(alert(4, NOW_MS, Severity::Low, &both)));
    assert_eq!(desk.iter().filter(|incident| incident.merged_into.is_none()).count(), 2, "a machine does not insist");
}

#[test]
fn a_merge_and_a_split_can_be_undone_and_done_again() {
    let mut desk = desk(1);
    let (a, b) = (raised(&mut desk, 1, Severity::Low, "ann"), raised(&mut desk, 2, Severity::High, "bob"));
    let before = (desk.get(a).unwrap().alerts.clone(), desk.get(b).unwrap().alerts.clone());
    let merge = act(&mut desk, NOW_MS, a, Act::Merge { from: b }).unwrap();
    assert_eq!(desk.get(a).unwrap().severity, Severity::High);
    assert_eq!(act(&mut desk, NOW_MS, b, Act::Merge { from: a }), Err(Refusal::NoEffect), "no circles");
    act(&mut desk, NOW_MS, b, Act::Assign { to: "eve".into() }).unwrap();
    assert_eq!(
        desk.get(a).unwrap().assignee.as_deref(),
        Some("eve"),
        "what is done to it is done to what it went up in"
    );
    let undo = act(&mut desk, NOW_MS, a, Act::Undo { change: merge.id }).unwrap();
    assert_eq!((desk.get(a).unwrap().alerts.clone(), desk.get(b).unwrap().alerts.clone()), before);
    assert_eq!(desk.get(b).unwrap().assignee.as_deref(), Some("eve"), "and to itself again when it is itself again");
    assert_eq!(act(&mut desk, NOW_MS, a, Act::Undo { change: merge.id }), Err(Refusal::NoEffect));
    act(&mut desk, NOW_MS, a, Act::Undo { change: undo.id }).unwrap();
    assert_eq!(desk.get(b).unwrap().merged_into, Some(a));
    let part = before.1.keys().copied().collect();
    let split = act(&mut desk, NOW_MS, a, Act::Split { alerts: part }).unwrap();
    let Deed::Split { into, .. } = &split.change.deed else { panic!() };
    let parted = desk.get(*into).unwrap();
    assert_eq!(
        (&parted.alerts, parted.severity, desk.get(a).unwrap().severity),
        (&before.1, Severity::High, Severity::Low)
    );
    let whole = desk.get(a).unwrap().alerts.keys().copied().collect();
    assert_eq!(act(&mut desk, NOW_MS, a, Act::Split { alerts: whole }), Err(Refusal::NotAPart));
    act(&mut desk, NOW_MS, a, Act::Undo { change: split.id }).unwrap();
    assert_eq!((desk.get(*into), desk.get(a).unwrap().alerts.len()), (None, 2));
    let comment = act(&mut desk, NOW_MS, a, Act::Comment { text: "hm".into() }).unwrap();
    assert_eq!(act(&mut desk, NOW_MS, a, Act::Undo { change: comment.id }), Err(Refusal::NotUndoable));
}

#[test]
fn an_incident_goes_only_where_its_life_leads() {
    let mut desk = desk(1);
    let id = raised(&mut desk, 1, Severity::Low, "ann");
    let set = |desk: &mut Desk, to| act(desk, NOW_MS, id, Act::SetStatus { to }).map(|_| ());
    assert_eq!(desk.get(id).unwrap().status.ocsf_id(), 1);
    assert_eq!(set(&mut desk, Status::Closed), Err(Refusal::Transition));
    assert_eq!(set(&mut desk, Status::OnHold), Ok(()));
    assert!(desk.get(id).unwrap().alarm.acknowledged.is_some(), "who works on it has seen it");
    assert_eq!(set(&mut desk, Status::New), Err(Refusal::Transition));
    assert_eq!(set(&mut desk, Status::Resolved), Ok(()));
    assert_eq!(set(&mut desk, Status::OnHold), Err(Refusal::Transition));
    assert_eq!(act(&mut desk, NOW_MS, id, Act::Close { post_mortem: String::new() }), Err(Refusal::TextRequired));
    act(&mut desk, NOW_MS, id, Act::PostMortem { text: "a script ran wild".into() }).unwrap();
    act(&mut desk, NOW_MS, id, Act::Close { post_mortem: String::new() }).unwrap();
    assert_eq!(desk.get(id).unwrap().post_mortem.as_deref(), Some("a script ran wild"));
    assert_eq!(set(&mut desk, Status::Resolved), Err(Refusal::Closed));
    let mut effects = Vec::new();
    let again = Act::SetStatus { to: Status::InProgress };
    desk.step(NOW_MS, Input::Act { incident: id, by: "soc".into(), why: None, seen: None, act: again }, &mut effects);
    assert!(matches!(effects[..], [Effect::Refused { reason: Refusal::ReasonRequired, .. }]));
    assert_eq!(set(&mut desk, Status::InProgress), Ok(()));
    assert_eq!(desk.get(id).unwrap().closed_ms, None);
}

#[test]
fn a_burst_that_goes_on_after_the_end_opens_the_incident_again() {
    let mut desk = desk(1);
    let id = raised(&mut desk, 1, Severity::Low, "ann");
    let alert = *desk.get(id).unwrap().alerts.keys().next().unwrap();
    act(&mut desk, NOW_MS + 5_000, id, Act::Close { post_mortem: "over".into() }).unwrap();
    let (still, _) = step(&mut desk, NOW_MS + 6_000, Input::Extended { alert, count: 2, last_ms: NOW_MS + 4_000 });
    assert_eq!(still.status, Status::Closed, "what came before the end was known to whoever ended it");
    let (again, _) = step(&mut desk, NOW_MS + 9_000, Input::Extended { alert, count: 4, last_ms: NOW_MS + 8_000 });
    assert_eq!(again.status, Status::New);
    assert!(matches!(again.alarm.cause, Cause::Reopened { .. }));
}

#[test]
fn nothing_is_closed_while_a_duty_to_report_is_open() {
    let mut desk = desk(1);
    let id = raised(&mut desk, 1, Severity::Low, "ann");
    let (clock, subject) = (ClockKind::GdprAuthority, String::from("authority"));
    let aware_ms = NOW_MS - HOUR_MS;
    let start = |aware_ms| Act::StartClock { clock, subject: "authority".into(), aware_ms, limit_ms: None };
    assert_eq!(act(&mut desk, NOW_MS, id, start(NOW_MS + 1)), Err(Refusal::TimeOutOfRange));
    act(&mut desk, NOW_MS, id, start(aware_ms)).unwrap();
    let incident = desk.get(id).unwrap();
    assert_eq!(incident.clocks[0].state(NOW_MS), ClockState::Running { left_ms: 71 * HOUR_MS });
    let risk = risk::of_incident(incident, &Weights::default(), NOW_MS);
    assert_eq!(risk::priority(incident, &risk), Priority::High);
    let close = || Act::Close { post_mortem: "done".into() };
    assert_eq!(act(&mut desk, NOW_MS, id, close()), Err(Refusal::ClockRunning));
    let met = Act::MeetClock { clock, subject, at_ms: NOW_MS, reference: "EDPB-1".into() };
    act(&mut desk, NOW_MS, id, met.clone()).unwrap();
    assert_eq!(act(&mut desk, NOW_MS, id, met), Err(Refusal::Unknown), "reported once");
    act(&mut desk, NOW_MS, id, close()).unwrap();
    assert_eq!(desk.get(id).unwrap().clocks[0].state(NOW_MS + 99 * HOUR_MS), ClockState::Met);
}

#[test]
fn suppression_rests_notifications_and_never_risk() {
    let mut desk = desk(1);
    let id = raised(&mut desk, 1, Severity::Medium, "ann");
    let weights = Weights::default();
    let too_long = Act::Suppress { until_ms: NOW_MS + 30 * 24 * HOUR_MS };
    assert_eq!(act(&mut desk, NOW_MS, id, too_long), Err(Refusal::TimeOutOfRange));
    let until_ms = NOW_MS + 2 * HOUR_MS;
    act(&mut desk, NOW_MS + 2_000, id, Act::Suppress { until_ms }).unwrap();
    let before = risk::of_incident(desk.get(id).unwrap(), &weights, NOW_MS).score;
    assert_eq!(desk.get(id).unwrap().quiet_until_ms(NOW_MS + 9_000), Some(until_ms));
    raised(&mut desk, 3, Severity::Medium, "ann");
    let suppressed = desk.get(id).unwrap();
    assert!(risk::of_incident(suppressed, &weights, NOW_MS).score > before);
    let ann = entity(User, "ann");
    assert!(risk::of_entity(desk.iter(), &ann, &weights, NOW_MS).score > before);
    assert_eq!(suppressed.quiet_until_ms(until_ms), None, "it ends by itself");
    raised(&mut desk, 4, Severity::Critical, "ann");
    assert_eq!(desk.get(id).unwrap().quiet_until_ms(NOW_MS + 9_000), None, "what is graver breaks through");
}

#[test]
fn risk_saturates_per_rule_fades_and_grows_with_criticality_and_tactics() {
    let score = |alerts: &[detection::Alert], weights: &Weights, now_ms: u64| {
        let mut desk = desk(1);
        let last = alerts.iter().map(|alert| step(&mut desk, NOW_MS, Input::Alert(alert.clone())).0).last().unwrap();
        risk::of_incident(&last, weights, now_ms).score
    };
    let plain = Weights::default();
    let same_rule = |number: u8| {
        let mut one = alert(number, NOW_MS, Severity::Medium, &[(User, "ann")]);
        one.rule.id = "same".into();
        detection::Alert::new(one.tenant, one.rule, one.severity, one.group_key, one.events)
    };
    let noisy: Vec<detection::Alert> = (0..100).map(same_rule).collect();
    assert_eq!(score(&noisy[..1], &plain, NOW_MS), 30);
    assert!(score(&noisy, &plain, NOW_MS) <= 60, "a rule never counts more than twice");
    let two =
        [alert(1, NOW_MS, Severity::Medium, &[(User, "ann")]), alert(2, NOW_MS, Severity::Medium, &[(User, "ann")])];
    assert_eq!(score(&two, &plain, NOW_MS), 60);
    assert_eq!(score(&two, &plain, NOW_MS + plain.half_life_ms), 30);
    let vital = Weights { assets: [(entity(User, "ann"), Criticality::Vital)].into(), ..Weights::default() };
    assert_eq!(score(&two, &vital, NOW_MS), 120);
    let row = |tags: [&str; 2]| {
        [0, 1].map(|n| tagged(n, NOW_MS + u64::from(n), Severity::Medium, &[(User, "ann")], &[tags[usize::from(n)]]))
    };
    assert_eq!(score(&row(["attack.initial-access", "attack.exfiltration"]), &plain, NOW_MS), 75);
    assert_eq!(score(&row(["attack.exfiltration", "attack.initial-access"]), &plain, NOW_MS), 60, "not in that order");
}

#[test]
fn severity_and_priority_are_two_things() {
    let mut desk = desk(1);
    let id = raised(&mut desk, 1, Severity::Critical, "ann");
    let incident = desk.get(id).unwrap();
    let old = risk::of_incident(incident, &Weights::default(), NOW_MS + 30 * 24 * HOUR_MS);
    assert_eq!((incident.severity, risk::priority(incident, &old)), (Severity::Critical, Priority::Low));
    act(&mut desk, NOW_MS, id, Act::SetSeverity { to: Some(Severity::Low) }).unwrap();
    act(&mut desk, NOW_MS, id, Act::SetPriority { to: Some(Priority::Critical) }).unwrap();
    let incident = desk.get(id).unwrap();
    assert_eq!((incident.severity, incident.gravest()), (Severity::Low, Severity::Critical));
    assert_eq!(risk::priority(incident, &old), Priority::Critical);
    act(&mut desk, NOW_MS, id, Act::SetSeverity { to: None }).unwrap();
    assert_eq!(desk.get(id).unwrap().severity, Severity::Critical);
}

#[test]
fn people_are_called_again_only_when_it_becomes_graver() {
    let mut desk = desk(1);
    let id = raised(&mut desk, 1, Severity::Medium, "ann");
    act(&mut desk, NOW_MS + 1_500, id, Act::Acknowledge).unwrap();
    assert_eq!(act(&mut desk, NOW_MS + 1_600, id, Act::Acknowledge), Err(Refusal::AlreadyAcknowledged));
    raised(&mut desk, 2, Severity::Medium, "ann");
    assert_eq!(desk.get(id).unwrap().alarm.cause, Cause::Opened);
    raised(&mut desk, 3, Severity::Critical, "ann");
    let alarm = &desk.get(id).unwrap().alarm;
    assert_eq!((alarm.cause, alarm.acknowledged.is_none()), (Cause::Graver { severity: Severity::Critical }, true));
    act(&mut desk, NOW_MS + 4_000, id, Act::Acknowledge).unwrap();
}

#[test]
fn the_timeline_has_events_alerts_and_acts_in_the_order_of_time() {
    let mut desk = desk(1);
    let one = alert(1, NOW_MS, Severity::Low, &[(User, "ann")]);
    let other = alert(2, NOW_MS + 1_000, Severity::Low, &[(User, "bob")]);
    let (a, _) = step(&mut desk, NOW_MS + 10, Input::Alert(one.clone()));
    let (b, _) = step(&mut desk, NOW_MS + 1_010, Input::Alert(other.clone()));
    act(&mut desk, NOW_MS + 1_020, b.id, Act::Comment { text: "the same?".into() }).unwrap();
    act(&mut desk, NOW_MS + 1_030, a.id, Act::Merge { from: b.id }).unwrap();
    let line = timeline(desk.board(), desk.get(a.id).unwrap(), [&one, &other]);
    let kinds: Vec<&str> = line
        .moments
        .iter()
        .map(|moment| match &moment.what {
            What::Event { .. } => "event",
            What::Alert { .. } => "alert",
            What::Act { entry } => match &entry.change.deed {
                Deed::Opened { .. } => "opened",
                Deed::Commented { .. } => "commented",
                _ => "merged",
            },
        })
        .collect();
    assert_eq!(kinds, ["event", "alert", "opened", "event", "alert", "opened", "commented", "merged"]);
    assert!(line.moments.is_sorted_by_key(|moment| moment.time_ms) && line.left_out == 0);
}

#[test]
fn memory_of_settled_incidents_is_bounded_and_open_ones_stay() {
    let mut desk = Desk::new(Options { closed_max: 20, ..Options::default() });
    let open = raised(&mut desk, 0, Severity::Low, "open");
    for number in 1..=200 {
        let id = raised(&mut desk, number, Severity::Low, &format!("user{number}"));
        act(&mut desk, NOW_MS + 1_000_000, id, Act::Close { post_mortem: "done".into() }).unwrap();
    }
    assert!(desk.iter().count() <= 22);
    assert!(desk.get(open).is_some());
}

#[test]
fn the_largest_alert_and_the_longest_texts_are_stored_or_refused() {
    let mut desk = desk(1);
    let long = "\u{1f}\"ö".repeat(100);
    let entities = (0..60).map(|n| Entity { kind: User, name: format!("{n}{long}").into() }).collect();
    let summary = |n: u8| EventSummary {
        id: detection::EventId::from_bytes([n; 16]),
        time_ms: NOW_MS,
        class_uid: 0,
        activity_id: 0,
        text: long.clone(),
        entities: std::collections::BTreeSet::clone(&entities),
    };
    let small = alert(1, NOW_MS, Severity::Low, &[(User, "ann")]);
    let large = detection::Alert::new(small.tenant, small.rule, small.severity, small.group_key, (0..9).map(summary));
    // Events that were left out when it was stored count.
    let large = detection::Alert { events_left_out: 991, ..large };
    let (incident, entry) = step(&mut desk, NOW_MS, Input::Alert(large));
    assert!(entry.change.encode().is_ok());
    assert_eq!(incident.alerts.values().map(|line| line.count).collect::<Vec<_>>(), [1_000]);
    let comment = |bytes: usize, with: &str| Act::Comment { text: with.repeat(bytes) };
    assert_eq!(act(&mut desk, NOW_MS, incident.id, comment(16 * 1024 + 1, "x")), Err(Refusal::TextTooLong));
    assert_eq!(act(&mut desk, NOW_MS, incident.id, comment(16 * 1024, "\u{1}")), Err(Refusal::TextTooLong));
    assert!(act(&mut desk, NOW_MS, incident.id, comment(16 * 1024, "x")).is_ok());
}

/// Written by version 1 of the stored form: what was stored must be readable forever.
const GOLDEN: &str = r#"{"version":1,"incident":"01010101010101010101010101010101","hlc":117667764633600007,"region":2,"by":"ann","why":"same burst","deed":{"kind":"merged","from":"02020202020202020202020202020202"}}"#;

#[test]
fn the_stored_form_stays_as_it_is() {
    let change = Change::decode(GOLDEN.as_bytes()).unwrap();
    assert_eq!(change.encode().unwrap(), GOLDEN);
    assert_eq!(change.id().to_string(), "42b248b66a44bb1bd4ff0720901a29cb");
    assert!(change.key().starts_with("01010101010101010101010101010101/01"));
    let newer = GOLDEN.replace("\"version\":1", "\"version\":2");
    assert_eq!(Change::decode(newer.as_bytes()), Err(ChangeError::Version { found: 2 }));
    assert_eq!(Change::decode(&vec![b' '; 70_000]), Err(ChangeError::TooLarge));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_change_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..180usize, to in any::<u8>()) {
        let _ = Change::decode(&bytes);
        let mut near = GOLDEN.as_bytes().to_vec();
        near[at] = to;
        if let Ok(change) = Change::decode(&near) {
            prop_assert_eq!(Change::decode(change.encode().unwrap().as_bytes()), Ok(change));
        }
    }
}

/// The burst of an alert goes on at a time.
fn goes_on(desk: &mut Desk, alert: detection::AlertId, count: u64, last_ms: u64) {
    let mut effects = Vec::new();
    desk.step(last_ms, Input::Extended { alert, count, last_ms }, &mut effects);
}

#[test]
fn what_goes_on_after_it_was_resolved_opens_again_and_calls_people() {
    let mut desk = desk(1);
    let one = alert(1, NOW_MS, Severity::High, &[(User, "ann")]);
    let id = step(&mut desk, NOW_MS, Input::Alert(one.clone())).0.id;
    act(&mut desk, NOW_MS + 10, id, Act::SetStatus { to: Status::Resolved }).unwrap();
    goes_on(&mut desk, one.id, 5, NOW_MS + 5);
    assert_eq!(desk.get(id).unwrap().status, Status::Resolved, "what happened before its end is no news");
    goes_on(&mut desk, one.id, 9, NOW_MS + 20);
    let incident = desk.get(id).unwrap();
    assert_eq!((incident.status, incident.alarm.acknowledged.is_none()), (Status::New, true));
    assert!(matches!(incident.alarm.cause, Cause::Reopened { .. }));
}

#[test]
fn whoever_calls_it_graver_than_people_were_called_for_calls_them_again() {
    let mut desk = desk(1);
    let id = raised(&mut desk, 1, Severity::Low, "ann");
    act(&mut desk, NOW_MS + 2_000, id, Act::Acknowledge).unwrap();
    let set = |to| Act::SetSeverity { to: Some(to) };
    let change = act(&mut desk, NOW_MS + 3_000, id, set(Severity::Critical)).unwrap();
    let alarm = desk.get(id).unwrap().alarm.clone();
    assert_eq!(change.change.was.as_deref(), Some("low"), "the change says what it replaced");
    assert_eq!((alarm.cause, alarm.severity), (Cause::Graver { severity: Severity::Critical }, Severity::Critical));
    assert!(alarm.acknowledged.is_none());
    act(&mut desk, NOW_MS + 4_000, id, set(Severity::Low)).unwrap();
    assert_eq!(desk.get(id).unwrap().alarm, alarm, "calling it less grave calls nobody");
}

#[test]
fn closing_adds_to_a_post_mortem_and_needs_none_where_one_is_written() {
    let mut desk = desk(1);
    let (one, other) = (raised(&mut desk, 1, Severity::Low, "ann"), raised(&mut desk, 2, Severity::Low, "bob"));
    let close = |text: &str| Act::Close { post_mortem: text.into() };
    assert_eq!(act(&mut desk, NOW_MS, one, close("")), Err(Refusal::TextRequired));
    for id in [one, other] {
        act(&mut desk, NOW_MS, id, Act::PostMortem { text: "a whole page".into() }).unwrap();
    }
    act(&mut desk, NOW_MS, one, close("")).unwrap();
    act(&mut desk, NOW_MS, other, close("Cause: c")).unwrap();
    assert_eq!(desk.get(one).unwrap().post_mortem.as_deref(), Some("a whole page"));
    assert_eq!(desk.get(other).unwrap().post_mortem.as_deref(), Some("a whole page\n\nCause: c"));
}

#[test]
fn however_long_its_history_an_incident_can_be_acknowledged_and_closed() {
    let mut desk = desk(1);
    let one = alert(1, NOW_MS, Severity::High, &[(User, "ann")]);
    let id = step(&mut desk, NOW_MS, Input::Alert(one.clone())).0.id;
    for count in 0..2_100 {
        goes_on(&mut desk, one.id, 2 + count, NOW_MS + count);
    }
    act(&mut desk, NOW_MS + 4_000, id, Act::Comment { text: "what machines do takes no room".into() }).unwrap();
    let comment = |number: usize| Act::Comment { text: number.to_string() };
    let refused = (0..3_000).find_map(|number| act(&mut desk, NOW_MS + 5_000, id, comment(number)).err());
    assert_eq!(refused, Some(Refusal::HistoryFull));
    act(&mut desk, NOW_MS + 6_000, id, Act::Acknowledge).unwrap();
    act(&mut desk, NOW_MS + 7_000, id, Act::Close { post_mortem: "done".into() }).unwrap();
}

#[test]
fn one_node_with_a_clock_that_is_ahead_does_not_put_an_alarm_into_the_future() {
    let mut ahead = desk(1);
    let year_ms = 365 * 24 * HOUR_MS;
    let (incident, opened) =
        step(&mut ahead, NOW_MS + year_ms, Input::Alert(alert(1, NOW_MS, Severity::High, &[(User, "ann")])));
    assert!(incident.alarm.begun_ms > NOW_MS + HOUR_MS);
    let stored = Change::decode(opened.change.encode().unwrap().as_bytes()).unwrap();
    let stored = stored.committed(model::Hlc::new(NOW_MS, 0));
    let mut right = desk(1);
    right.restore([stored]);
    assert_eq!(right.get(incident.id).unwrap().alarm.begun_ms, NOW_MS);
    assert_eq!(right.clock().wall_ms(), NOW_MS, "what others do is not stamped after it");
    act(&mut right, NOW_MS + 1_000, incident.id, Act::Acknowledge).unwrap();
    assert!(right.get(incident.id).unwrap().alarm.acknowledged.is_some());
}

#[test]
fn what_joins_is_said_while_it_runs() {
    let mut desk = desk(1);
    desk.join_by([entity(User, "ann")].into(), HOUR_MS);
    assert_ne!(raised(&mut desk, 1, Severity::Low, "ann"), raised(&mut desk, 2, Severity::Low, "ann"));
    desk.join_by([].into(), HOUR_MS);
    assert_eq!(raised(&mut desk, 3, Severity::Low, "bob"), raised(&mut desk, 4, Severity::Low, "bob"));
}
