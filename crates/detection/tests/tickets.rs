//! Tickets: the same in whatever order they are told, and honest about what the others know.

use detection::IncidentId;
use detection::escalation::ticket::{
    CHANGES_MAX, NotDone, OUTBOX, Sync, SyncState, Ticket, TicketAct, TicketChange, TicketState, VERSION, ticket_id,
};
use model::{Hlc, RegionId};
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW_MS: u64 = 1_795_467_600_000;

fn incident() -> IncidentId {
    IncidentId::from_bytes([1; 16])
}

fn change(after_ms: u64, region: u16, act: TicketAct) -> TicketChange {
    let hlc = Hlc::new(NOW_MS + after_ms, 0);
    TicketChange { hlc, region: RegionId::new(region), version: VERSION, by: "soc".into(), act }
}

fn opened() -> TicketChange {
    let act = TicketAct::Opened {
        incident: incident(),
        queue: "jira".into(),
        title: "A door was forced".into(),
        description: "Look at it.".into(),
    };
    change(0, 1, act)
}

fn sent(revision: u64) -> TicketAct {
    TicketAct::Sent { sink: "jira".into(), revision }
}

fn failed(revision: u64) -> TicketAct {
    TicketAct::Failed { sink: "jira".into(), revision, reason: "no such project".into() }
}

#[test]
fn a_ticket_says_whether_the_others_know_its_newest_revision() {
    let none = BTreeSet::new();
    let mut ticket = Ticket::fold([opened()]).expect("it was opened");
    assert_eq!((ticket.id, ticket.revision, ticket.sync(&none)), (ticket_id(incident(), "jira"), 1, Sync::Pending));
    ticket.apply(&change(1, 1, sent(1))).unwrap();
    assert_eq!(ticket.sync(&none), Sync::Sent);
    ticket.apply(&change(2, 1, TicketAct::StateSet { to: TicketState::Done })).unwrap();
    assert_eq!((ticket.revision, ticket.sync(&none)), (2, Sync::Pending), "it has changed since");
    ticket.apply(&change(3, 1, failed(2))).unwrap();
    let reason = String::from("no such project");
    assert_eq!(ticket.sync["jira"], SyncState::Failed { revision: 2, at_ms: NOW_MS + 3, reason });
    assert_eq!(ticket.sync(&none), Sync::Failed);
    ticket.apply(&change(4, 1, TicketAct::Retried)).unwrap();
    assert_eq!((ticket.revision, ticket.sync(&none)), (3, Sync::Pending), "what is told again has another key");
    ticket.apply(&change(5, 1, TicketAct::Retried)).unwrap();
    ticket.apply(&change(6, 1, sent(4))).unwrap();
    assert_eq!(ticket.apply(&change(7, 1, failed(2))), Err(NotDone::NoEffect), "old news");
    assert_eq!(ticket.sync(&none), Sync::Sent);
    let both = BTreeSet::from(["jira".to_owned(), "servicenow".to_owned()]);
    assert_eq!(ticket.sync(&both), Sync::Pending, "one that never answers does not hide behind one that did");
}

#[test]
fn a_sink_that_took_what_it_had_refused_has_taken_it() {
    let mut ticket = Ticket::fold([opened()]).expect("it was opened");
    ticket.apply(&change(1, 1, failed(1))).unwrap();
    ticket.apply(&change(2, 1, sent(1))).unwrap();
    assert_eq!(ticket.sync(&BTreeSet::new()), Sync::Sent);
    assert_eq!(
        ticket.apply(&change(3, 1, failed(1))),
        Err(NotDone::NoEffect),
        "what was taken is not refused any more"
    );
}

#[test]
fn what_changes_nothing_is_not_a_revision_and_a_ticket_is_never_too_full() {
    let mut ticket = Ticket::fold([opened()]).expect("it was opened");
    let field = |value: Option<&str>| TicketAct::FieldSet { name: "project".into(), value: value.map(str::to_owned) };
    let link = TicketAct::Linked { to: "https://jira.example/T-1".into() };
    for act in [field(Some("SOC")), link.clone(), TicketAct::Commented { text: "seen".into() }] {
        ticket.apply(&change(1, 1, act)).unwrap();
    }
    for act in [field(Some("SOC")), link, TicketAct::StateSet { to: TicketState::Open }, opened().act] {
        assert_eq!(ticket.apply(&change(2, 1, act)), Err(NotDone::NoEffect));
    }
    assert_eq!(ticket.revision, 4);
    for number in 4..CHANGES_MAX as u64 {
        ticket.apply(&change(number, 1, TicketAct::Commented { text: "more".into() })).unwrap();
    }
    assert_eq!(ticket.apply(&change(9, 1, field(None))), Err(NotDone::Full));
    ticket.apply(&change(9, 1, sent(CHANGES_MAX as u64))).unwrap();
}

#[test]
fn texts_are_there_and_short() {
    let long = "x".repeat(9_000);
    for wrong in [
        TicketAct::Titled { title: " ".into() },
        TicketAct::Commented { text: long.clone() },
        TicketAct::FieldSet { name: long.clone(), value: None },
        TicketAct::Linked { to: String::new() },
    ] {
        assert_eq!(wrong.check(), Err(NotDone::BadText));
    }
    assert_eq!(opened().act.check(), Ok(()));
}

/// Written by version 1 of the stored form: what was stored must be readable forever.
const GOLDEN: &str = r#"{"hlc":117667764633600000,"region":1,"version":1,"by":"outbox","act":{"kind":"sent","sink":"jira","revision":3}}"#;

#[test]
fn the_stored_form_stays_as_it_is() {
    let stored: TicketChange = serde_json::from_str(GOLDEN).unwrap();
    assert_eq!((stored.by.as_str(), &stored.act), (OUTBOX, &sent(3)));
    assert_eq!(serde_json::to_string(&stored).unwrap(), GOLDEN);
}

fn any_change() -> impl Strategy<Value = TicketChange> {
    let act = prop_oneof![
        Just(opened().act),
        (1..6u64).prop_map(sent),
        (1..6u64).prop_map(failed),
        "[ab]".prop_map(|title| TicketAct::Titled { title }),
        ("[ab]", prop::option::of("[xy]")).prop_map(|(name, value)| TicketAct::FieldSet { name, value }),
        "[ab]".prop_map(|to| TicketAct::Linked { to }),
        "[ab]".prop_map(|to| TicketAct::Unlinked { to }),
        Just(TicketAct::StateSet { to: TicketState::Done }),
        Just(TicketAct::Retried),
    ];
    (0..20u64, 0..3u16, act).prop_map(|(after_ms, region, act)| change(after_ms, region, act))
}

proptest! {
    #[test]
    fn a_ticket_is_the_same_in_whatever_order_its_changes_come(
        (changes, shuffled) in prop::collection::vec(any_change(), 0..30)
            .prop_flat_map(|changes| (Just(changes.clone()), Just(changes).prop_shuffle())),
    ) {
        prop_assert_eq!(Ticket::fold(changes), Ticket::fold(shuffled));
    }

    #[test]
    fn arbitrary_bytes_are_no_change_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..120usize, to in any::<u8>()) {
        let _ = serde_json::from_slice::<TicketChange>(&bytes);
        let mut near = GOLDEN.as_bytes().to_vec();
        if let Some(byte) = near.get_mut(at) {
            *byte = to;
        }
        if let Ok(change) = serde_json::from_slice::<TicketChange>(&near) {
            let _ = (change.act.check(), Ticket::fold([opened(), change]));
        }
    }
}
