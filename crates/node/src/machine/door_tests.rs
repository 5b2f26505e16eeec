//! The door of the region's log: whatever is delivered again, and whoever reads the log afterwards, each event is
//! there once.

use super::door::{REMEMBERED_MAX, REMEMBERED_MS};
use super::tests::Bed;
use crate::machine::command::{Command, Door, Idempotency, Identity, Ingest, Outcome, Refusal};
use crate::machine::note::Note;
use model::codec::{decode, encode};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

fn ingest(events: &[&str], door: Door) -> Command {
    let events = events.iter().map(|event| event.as_bytes().to_vec()).collect();
    Command::Ingest(Ingest { events, door, note: Note { action: "ingest".into(), ..Note::default() } })
}

fn by_identity(events: &[&str]) -> Command {
    ingest(events, Door::Identities(events.iter().map(|event| Some(of(event))).collect()))
}

fn of(event: &str) -> Identity {
    Identity::of("test", &[event.as_bytes()])
}

fn request(key: &str, events: &[&str]) -> Command {
    let digest = *blake3::hash(events.concat().as_bytes()).as_bytes();
    ingest(events, Door::Request(Idempotency { key: key.into(), digest }))
}

fn took(applied: u32) -> Outcome {
    Outcome::Taken { applied, refused: None }
}

impl Bed {
    fn events(&self) -> Vec<String> {
        let kept = self.machine.events(0, usize::MAX).expect("memory does not fail");
        assert!(kept.iter().map(|(number, _)| *number).eq(0..kept.len() as u64), "numbers have no hole");
        kept.into_iter().map(|(_, event)| String::from_utf8(event).expect("these events are text")).collect()
    }
}

#[test]
fn events_that_their_source_delivers_again_are_kept_once() {
    let mut bed = Bed::new(1);
    let places = |stream: &str, places: &[u64]| {
        let events: Vec<String> = places.iter().map(u64::to_string).collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        ingest(&events, Door::Places(stream.into(), places.to_vec()))
    };
    bed.one(places("file/a", &[0, 17, 40]));
    assert_eq!(bed.one(places("file/a", &[17, 40, 77])), took(1));
    bed.one(places("file/b", &[17]));
    bed.one(ingest(&["17"], Door::Open));
    assert_eq!(bed.events(), ["0", "17", "40", "77", "17", "17"]);
    assert_eq!(bed.leaves().len(), 4, "what was delivered again is recorded too");
}

#[test]
fn an_event_that_comes_again_by_its_identity_is_kept_once_also_after_a_restart() {
    let mut bed = Bed::new(1);
    assert_eq!(bed.one(by_identity(&["a", "b", "a"])), took(2));
    assert_eq!(bed.one(by_identity(&["b", "c"])), took(1));
    bed.reopen();
    assert_eq!(bed.one(by_identity(&["a", "c", "d"])), took(1));
    assert_eq!(bed.one(ingest(&["a", "a"], Door::Identities(vec![None, None]))), took(2), "nothing to be known by");
    assert_eq!(bed.events(), ["a", "b", "c", "d", "a", "a"]);
}

#[test]
fn a_request_that_comes_again_is_kept_once_and_its_key_is_no_other_s() {
    let mut bed = Bed::new(1);
    assert_eq!(bed.one(request("k", &["a", "a"])), took(2));
    assert_eq!(bed.one(request("k", &["a", "a"])), took(0));
    bed.reopen();
    assert_eq!(bed.one(request("k", &["b"])), Outcome::Refused(Refusal::IdempotencyReuse));
    assert_eq!(bed.one(request("l", &["a", "a"])), took(2));
    assert_eq!(bed.events(), ["a", "a", "a", "a"]);
    let refused = bed.leaves().into_iter().filter(|leaf| leaf.outcome == audit::Outcome::Failure);
    assert_eq!(refused.count(), 1, "a refusal is recorded");
}

#[test]
fn identities_are_remembered_for_a_bounded_time_and_no_longer() {
    let mut bed = Bed::new(1);
    bed.one(by_identity(&["a"]));
    bed.wall_ms += REMEMBERED_MS - 10;
    assert_eq!(bed.one(by_identity(&["a", "b"])), took(1));
    bed.wall_ms += 1;
    bed.one(by_identity(&["c"]));
    assert_eq!(bed.one(by_identity(&["a", "b"])), took(1), "a is forgotten, b is not");
    bed.reopen();
    assert_eq!(bed.one(by_identity(&["a", "b", "c"])), took(0));
}

#[test]
fn a_flood_makes_the_door_forget_the_oldest_and_nothing_else() {
    let mut bed = Bed::new(1);
    bed.one(by_identity(&["first"]));
    bed.one(by_identity(&["second"]));
    let flood: Vec<String> = (0..REMEMBERED_MAX - 1).map(|number| number.to_string()).collect();
    bed.one(by_identity(&flood.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(bed.one(by_identity(&["second", "0", "1"])), took(0));
    assert_eq!(bed.one(by_identity(&["first"])), took(1));
}

#[test]
fn what_earlier_versions_wrote_of_a_door_is_read() {
    #[derive(Serialize, Deserialize)]
    struct Before {
        events: Vec<Vec<u8>>,
        door: Option<(String, Vec<u64>)>,
        note: Note,
    }
    let before = |door| encode(&Before { events: vec![b"a".to_vec()], door, note: Note::default() });
    let now = |door| Ok(Ingest { events: vec![b"a".to_vec()], door, note: Note::default() });
    assert_eq!(decode(&before(None)), now(Door::Open));
    assert_eq!(decode(&before(Some(("s".into(), vec![3])))), now(Door::Places("s".into(), vec![3])));
}

proptest! {
    /// However batches are cut and repeated, and whenever the node restarts.
    #[test]
    fn each_identity_is_there_once(batches in proptest::collection::vec(
        (proptest::collection::vec(0u8..20, 1..6), any::<bool>()), 1..30))
    {
        let mut bed = Bed::new(1);
        let mut expected: Vec<String> = Vec::new();
        for (batch, reopens) in batches {
            let events: Vec<String> = batch.iter().map(u8::to_string).collect();
            bed.one(by_identity(&events.iter().map(String::as_str).collect::<Vec<_>>()));
            for event in events {
                if !expected.contains(&event) {
                    expected.push(event);
                }
            }
            if reopens {
                bed.reopen();
            }
        }
        prop_assert_eq!(bed.events(), expected);
    }
}
