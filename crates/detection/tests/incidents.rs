//! Incidents and what is told about them.

mod incident_support;

use detection::incident::{Act, Deed, Desk, Effect, Input, Options, Refusal, Status};
use detection::{EntityKind, Severity};
use incident_support::{NOW_MS, alert, step, tagged};

#[test]
fn alerts_that_share_an_address_are_one_incident_and_others_are_not() {
    let mut desk = Desk::new(Options::default());
    let region = (EntityKind::Region, "eu");
    let (first, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(1, 1_000, Severity::Medium, &[(EntityKind::Address, "a"), region])));
    let (second, change) =
        step(&mut desk, NOW_MS, Input::Alert(alert(2, 2_000, Severity::High, &[(EntityKind::Address, "a"), region])));
    assert_eq!((first.id, second.severity, second.alerts.len()), (second.id, Severity::High, 2));
    assert!(matches!(change.change.deed, Deed::AlertJoined { .. }));
    let (third, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(3, 3_000, Severity::Low, &[(EntityKind::Address, "b"), region])));
    assert_ne!(third.id, first.id, "a region alone joins nothing that has better");
    let late = 3_000 + 2 * 60 * 60 * 1_000;
    let (fourth, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(4, late, Severity::Low, &[(EntityKind::Address, "a")])));
    assert_ne!(fourth.id, first.id, "too long after");
    let mut effects = Vec::new();
    desk.step(9, Input::Alert(alert(1, 1_000, Severity::Medium, &[(EntityKind::Address, "a"), region])), &mut effects);
    assert!(effects.is_empty(), "an alert raised again changes nothing");
}

#[test]
fn an_incident_lives_from_open_to_closed_and_keeps_its_history() {
    let mut desk = Desk::new(Options::default());
    let (incident, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(1, 1_000, Severity::High, &[(EntityKind::User, "ann")])));
    let act = |act: Act| Input::Act { incident: incident.id, by: "soc".into(), why: None, seen: None, act };
    let refused = |desk: &mut Desk, input| {
        let mut effects = Vec::new();
        desk.step(8, input, &mut effects);
        match effects.as_slice() {
            [Effect::Refused { reason, .. }] => *reason,
            other => panic!("{other:?}"),
        }
    };
    let (now, _) = step(&mut desk, NOW_MS, act(Act::Acknowledge));
    assert_eq!(now.status, Status::InProgress);
    assert_eq!(refused(&mut desk, act(Act::Acknowledge)), Refusal::AlreadyAcknowledged);
    step(&mut desk, NOW_MS, act(Act::Assign { to: "bob".into() }));
    step(&mut desk, NOW_MS, act(Act::Comment { text: "seen before".into() }));
    assert_eq!(refused(&mut desk, act(Act::Close { post_mortem: "  ".into() })), Refusal::TextRequired);
    let (closed, _) =
        step(&mut desk, NOW_MS, act(Act::Close { post_mortem: "a script; its address is blocked".into() }));
    assert_eq!(closed.status, Status::Closed);
    assert_eq!(refused(&mut desk, act(Act::Assign { to: "eve".into() })), Refusal::Closed);
    let revisions: Vec<u64> = closed.history.iter().map(|entry| entry.revision).collect();
    assert_eq!(revisions, [1, 2, 3, 4, 5]);
    let (next, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(2, 1_500, Severity::High, &[(EntityKind::User, "ann")])));
    assert_ne!(next.id, closed.id, "a closed incident takes no alerts");
    let mut restored = Desk::new(Options::default());
    restored.restore(closed.history.iter().chain(&next.history).map(|entry| (*entry.change).clone()));
    assert_eq!(restored.get(closed.id), Some(&closed));
    let (joined, _) =
        step(&mut restored, NOW_MS, Input::Alert(alert(3, 1_600, Severity::High, &[(EntityKind::User, "ann")])));
    assert_eq!(joined.id, next.id);
}

#[test]
fn an_alert_whose_texts_are_long_is_filed_all_the_same() {
    let mut desk = Desk::new(Options::default());
    let long = "\u{1}".repeat(10_000);
    let names: Vec<String> = (0..64).map(|number| format!("{number}{}", "\u{10ffff}".repeat(300))).collect();
    let entities: Vec<(EntityKind, &str)> = names.iter().map(|name| (EntityKind::Session, name.as_str())).collect();
    let mut alert = tagged(1, 1_000, Severity::High, &entities, &[long.as_str(); 64]);
    (alert.rule.id, alert.rule.title) = (long.as_str().into(), long.as_str().into());
    let (incident, entry) = step(&mut desk, NOW_MS, Input::Alert(alert.clone()));
    assert!(entry.change.encode().is_ok() && incident.alerts.contains_key(&alert.id));
}
