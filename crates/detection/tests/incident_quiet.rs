//! What rests, what does not, and whether an incident is still as it was seen.

mod incident_support;

use detection::EntityKind::{Address, User};
use detection::Severity;
use detection::incident::graph::graph;
use detection::incident::mute::{Mute, NotMuted, Subject, VERSION, quiet_until_ms};
use detection::incident::risk::{self, Weights};
use detection::incident::{Act, Effect, Input, Refusal};
use incident_support::{HOUR_MS, NOW_MS, act, alert, desk, entity, step};

fn mute(subject: Subject, until_ms: u64) -> Mute {
    Mute { version: VERSION, subject, tenant: None, until_ms, by: "soc".into(), why: "a drill".into() }
}

#[test]
fn a_muted_entity_calls_nobody_while_its_risk_accrues() {
    let mut desk = desk(1);
    let (until_ms, ann) = (NOW_MS + HOUR_MS, entity(User, "ann"));
    let mutes = [mute(Subject::Entity(ann.clone()), until_ms)];
    let mut scores = Vec::new();
    for number in 1..4u8 {
        let at_ms = NOW_MS + u64::from(number);
        let (incident, _) =
            step(&mut desk, at_ms, Input::Alert(alert(number, at_ms, Severity::Medium, &[(User, "ann")])));
        assert_eq!(quiet_until_ms(&incident, &mutes, NOW_MS + 9), Some(until_ms));
        assert_eq!(quiet_until_ms(&incident, &mutes, until_ms), None, "it ends by itself");
        scores.push(risk::of_entity(desk.iter(), &ann, &Weights::default(), NOW_MS + 9).score);
    }
    assert!(scores.is_sorted_by(|one, other| one < other), "{scores:?}");
}

#[test]
fn one_alert_that_is_not_muted_calls_people_and_mutes_of_others_do_not_count() {
    let mut desk = desk(1);
    step(&mut desk, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::Medium, &[(User, "ann")])));
    let (both, _) = step(&mut desk, NOW_MS, Input::Alert(alert(2, NOW_MS, Severity::Medium, &[(User, "ann")])));
    let until_ms = NOW_MS + HOUR_MS;
    let rule = |name: &str, until_ms| mute(Subject::Rule(name.into()), until_ms);
    assert_eq!(quiet_until_ms(&both, &[rule("rule1", until_ms)], NOW_MS), None);
    assert_eq!(
        quiet_until_ms(&both, &[rule("rule1", until_ms), rule("rule2", until_ms - 5)], NOW_MS),
        Some(until_ms - 5)
    );
    let elsewhere = Mute { tenant: Some("acme".into()), ..mute(Subject::Entity(entity(User, "ann")), until_ms) };
    assert_eq!(quiet_until_ms(&both, std::slice::from_ref(&elsewhere), NOW_MS), None);
    assert_ne!(elsewhere.id(), Mute { tenant: None, ..elsewhere.clone() }.id());
}

#[test]
fn a_mute_has_an_end_and_a_reason() {
    let good = mute(Subject::Rule("r".into()), NOW_MS + 1);
    assert_eq!(good.check(NOW_MS), Ok(()));
    assert_eq!(good.check(NOW_MS + 1), Err(NotMuted::TimeOutOfRange));
    assert_eq!(good.check(NOW_MS - 8 * 24 * HOUR_MS), Err(NotMuted::TimeOutOfRange));
    assert_eq!(Mute { why: " ".into(), ..good.clone() }.check(NOW_MS), Err(NotMuted::ReasonRequired));
    assert_eq!(Mute { subject: Subject::Rule("".into()), ..good }.check(NOW_MS), Err(NotMuted::RuleRequired));
}

#[test]
fn nothing_is_done_to_an_incident_that_is_not_as_it_was_seen() {
    let mut desk = desk(1);
    let (a, _) = step(&mut desk, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::Low, &[(User, "ann")])));
    let (b, _) = step(&mut desk, NOW_MS, Input::Alert(alert(2, NOW_MS, Severity::Low, &[(User, "bob")])));
    let seen = desk.board().version(a.id).unwrap();
    let act_as_seen = |desk: &mut detection::incident::Desk, seen| {
        let mut effects = Vec::new();
        let act = Act::Assign { to: format!("p{}", desk.get(a.id).unwrap().history.len()) };
        let input = Input::Act { incident: a.id, by: "soc".into(), why: None, seen: Some([seen].into()), act };
        desk.step(NOW_MS + 1, input, &mut effects);
        match effects.pop() {
            Some(Effect::Refused { reason, .. }) => Err(reason),
            _ => Ok(()),
        }
    };
    let extended = Input::Extended { alert: *a.alerts.keys().next().unwrap(), count: 9, last_ms: NOW_MS + 1 };
    step(&mut desk, NOW_MS + 1, extended);
    assert_eq!(act_as_seen(&mut desk, seen), Ok(()), "a burst that goes on is in nobody's way");
    assert_eq!(act_as_seen(&mut desk, seen), Err(Refusal::Changed));
    act(&mut desk, NOW_MS + 2, b.id, Act::Merge { from: a.id }).unwrap();
    let merged = desk.board().version(a.id).unwrap();
    act(&mut desk, NOW_MS + 3, b.id, Act::Acknowledge).unwrap();
    assert_eq!(act_as_seen(&mut desk, merged), Err(Refusal::Changed), "what is done to what it went up in is seen too");
}

#[test]
fn entities_of_the_same_alerts_are_joined_in_the_graph() {
    let mut desk = desk(1);
    let pair = [(User, "ann"), (Address, "10.0.0.1")];
    step(&mut desk, NOW_MS, Input::Alert(alert(1, NOW_MS, Severity::Low, &pair)));
    let (incident, _) = step(&mut desk, NOW_MS, Input::Alert(alert(2, NOW_MS, Severity::Low, &pair[..1])));
    let graph = graph(&incident);
    assert_eq!(graph.entities, [(entity(User, "ann"), 2), (entity(Address, "10.0.0.1"), 1)]);
    assert_eq!(graph.edges, [(entity(User, "ann"), entity(Address, "10.0.0.1"), 1)]);
}
