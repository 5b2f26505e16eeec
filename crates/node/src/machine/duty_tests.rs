//! Duties, step by step: a lease that has ended changes nothing, and what is reported twice is done once.

use super::tests::{Bed, text};
use crate::driver::record::{ONLY, record};
use crate::machine::command::{
    Act, ActChange, Command, Must, Outcome, Refusal, Refused, Report, Row, Select, Transact,
};
use crate::machine::control::platform;
use crate::machine::note::Note;
use model::codec::encode;
use model::{Merge, NodeId, TenantId};
use proptest::prelude::*;
use std::collections::BTreeMap;

const DUTY: &str = "detect/0";

fn assign(to: u64) -> Command {
    Command::Assign { duty: DUTY.into(), to: NodeId::new(to) }
}

fn claim(epoch: u64) -> Command {
    Command::Claim { duty: DUTY.into(), epoch, life: 7 }
}

fn alert(key: &str) -> Transact {
    let note = Note { action: "alert.raised".into(), ..Note::default() };
    record(platform::ALERTS, key.into(), Must::BeAbsent, vec![(ONLY, Merge::Lww, text("{}"))], note)
}

fn report(epoch: u64, number: u64, rows: Vec<Row>, writes: Vec<Transact>) -> Command {
    Command::Report(Report { duty: DUTY.into(), epoch, number, is_whole: true, rows, writes })
}

fn part(epoch: u64, number: u64, rows: Vec<Row>, writes: Vec<Transact>) -> Command {
    Command::Report(Report { duty: DUTY.into(), epoch, number, is_whole: false, rows, writes })
}

fn row(key: &str, value: &str) -> Row {
    (key.into(), Some(value.into()))
}

impl Bed {
    /// Gives the duty to a node, which claims it.
    fn take(&mut self, to: u64) {
        self.one(assign(to));
        let epoch = self.machine.leases().expect("memory does not fail")[DUTY].epoch;
        assert_eq!(self.one(claim(epoch)), Outcome::Noted);
    }

    fn rows(&self) -> Vec<(String, String)> {
        let rows = self.machine.duty_rows(DUTY, b"").expect("memory does not fail");
        let text = |bytes| String::from_utf8(bytes).expect("these rows are text");
        rows.into_iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    fn alerts(&self) -> Vec<String> {
        let select = Select::Range { from: String::new(), to: None, after: None, limit: 100 };
        let found = self.machine.read_local(TenantId::PLATFORM, platform::ALERTS, &select);
        found.expect("memory does not fail").records.into_iter().map(|(key, _)| key).collect()
    }

    fn raised(&self) -> usize {
        self.leaves().iter().filter(|leaf| leaf.action.as_str() == "alert.raised").count()
    }
}

#[test]
fn what_is_reported_under_a_lease_that_has_ended_is_not_done() {
    let mut bed = Bed::new(1);
    assert_eq!(bed.one(report(1, 1, vec![row("a", "x")], vec![alert("one")])), Outcome::Fenced, "no lease at all");
    bed.one(assign(1));
    assert_eq!(bed.one(report(1, 1, vec![row("a", "x")], vec![])), Outcome::Fenced, "not claimed");
    bed.take(1);
    assert_eq!(bed.one(report(3, 1, vec![row("a", "1")], vec![alert("one")])), Outcome::Noted);
    bed.take(2);
    assert_eq!(bed.one(report(3, 2, vec![row("a", "old")], vec![alert("two")])), Outcome::Fenced);
    assert_eq!(bed.one(report(5, 1, vec![row("b", "2")], vec![alert("three")])), Outcome::Noted);
    let leases = bed.machine.leases().unwrap();
    assert_eq!((leases[DUTY].holder, leases[DUTY].epoch, leases[DUTY].number), (NodeId::new(2), 5, 1));
    assert_eq!(bed.rows(), [("a".into(), "1".into()), ("b".into(), "2".into())]);
    assert_eq!(bed.alerts(), ["one", "three"]);
}

#[test]
fn what_an_earlier_life_of_the_holder_sent_is_not_taken_for_what_this_one_does() {
    let mut bed = Bed::new(1);
    bed.take(1);
    let late = report(2, 1, vec![row("a", "early")], vec![alert("one")]);
    // The process died with that on its way, and came back.
    assert_eq!(bed.one(claim(1)), Outcome::Fenced, "that lease is claimed");
    assert_eq!(bed.one(claim(2)), Outcome::Noted);
    assert_eq!(bed.one(late), Outcome::Fenced);
    assert_eq!(bed.one(report(3, 1, vec![row("a", "now")], vec![alert("one"), alert("two")])), Outcome::Noted);
    assert_eq!((bed.rows(), bed.alerts().len()), (vec![("a".into(), "now".into())], 2));
}

#[test]
fn the_same_report_twice_and_the_same_alert_twice_are_done_once() {
    let mut bed = Bed::new(1);
    bed.take(1);
    for _ in 0..2 {
        assert_eq!(bed.one(report(2, 1, vec![row("a", "1")], vec![alert("one")])), Outcome::Noted);
    }
    bed.one(report(2, 2, vec![(b"a".to_vec(), None)], vec![alert("one"), alert("two")]));
    assert_eq!((bed.rows(), bed.alerts(), bed.raised()), (Vec::new(), vec!["one".into(), "two".into()], 2));
}

#[test]
fn a_report_in_parts_takes_effect_with_its_end_and_goes_with_the_lease() {
    let mut bed = Bed::new(1);
    bed.take(1);
    bed.one(part(2, 1, vec![row("a", "lost"), row("b", "lost")], vec![alert("lost")]));
    assert_eq!((bed.rows(), bed.alerts()), (Vec::new(), Vec::new()), "a part that is not the whole says nothing");
    bed.take(1);
    bed.one(part(4, 1, vec![row("a", "1")], vec![alert("one")]));
    bed.one(part(4, 2, vec![row("a", "2"), row("c", "3")], vec![alert("one"), alert("two")]));
    assert_eq!((bed.alerts(), bed.raised()), (Vec::new(), 0), "nor does another");
    bed.one(report(4, 3, vec![row("d", "4")], vec![alert("three")]));
    assert_eq!((bed.alerts(), bed.raised()), (vec!["one".into(), "three".into(), "two".into()], 3));
    let rows = bed.rows();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(rows, [("a", "2"), ("c", "3"), ("d", "4")]);
}

#[test]
fn what_is_deleted_already_is_no_mistake_of_a_report() {
    let mut bed = Bed::new(1);
    bed.take(1);
    let gone = || Transact {
        acts: alert("one")
            .acts
            .into_iter()
            .map(|act| Act { must: Must::Nothing, change: ActChange::Delete, ..act })
            .collect(),
        ..alert("one")
    };
    bed.one(report(2, 1, Vec::new(), vec![alert("one")]));
    bed.one(report(2, 2, Vec::new(), vec![gone(), gone(), alert("two")]));
    assert_eq!((bed.alerts(), bed.refused()), (vec!["two".to_owned()], 0));
}

#[test]
fn what_is_added_to_an_alert_that_was_never_stored_is_no_mistake_of_a_report() {
    let mut bed = Bed::new(1);
    bed.take(1);
    let added = |key: &str| {
        let acts = alert(key).acts.into_iter().map(|act| Act { must: Must::Exist, ..act }).collect();
        Transact { acts, ..alert(key) }
    };
    bed.one(report(2, 1, Vec::new(), vec![alert("one")]));
    let leaves = bed.leaves().len();
    assert_eq!(bed.one(report(2, 2, Vec::new(), vec![added("held back"), added("one")])), Outcome::Noted);
    assert_eq!((bed.alerts(), bed.refused()), (vec!["one".to_owned()], 0));
    assert_eq!(bed.leaves().len(), leaves + 1, "and nothing of it is on record");
}

#[test]
fn a_part_of_a_report_that_is_refused_is_told_to_whoever_watches() {
    let mut bed = Bed::new(1);
    bed.take(1);
    let one = alert("one");
    let many = (0..129).flat_map(|number| alert(&number.to_string()).acts).collect();
    let outcome = bed.one(report(2, 1, Vec::new(), vec![Transact { acts: many, ..one.clone() }, one]));
    assert!(matches!(outcome, Outcome::Partly(Refused { count: 1, .. })), "{outcome:?}");
    assert_eq!((bed.alerts(), bed.refused()), (vec!["one".to_owned()], 1));
}

#[test]
fn writes_that_are_refused_are_answered_also_when_the_report_comes_again() {
    let mut bed = Bed::new(1);
    bed.take(1);
    let large = || {
        let note = Note { action: "alert.raised".into(), resource: Some("alerts/large".into()), ..Note::default() };
        let value = text(&"x".repeat(model::limit::VALUE_BYTES_MAX + 1));
        record(platform::ALERTS, "large".into(), Must::BeAbsent, vec![(ONLY, Merge::Lww, value)], note)
    };
    bed.one(part(2, 1, Vec::new(), vec![large()]));
    let first = vec![("alerts/large".to_owned(), Refusal::TooLarge), ("alerts/large".to_owned(), Refusal::TooLarge)];
    let refused = Outcome::Partly(Refused { count: 2, first });
    for _ in 0..2 {
        let whole = report(2, 2, vec![row("a", "1")], vec![large(), alert("one")]);
        assert_eq!(bed.one(whole), refused);
    }
    assert_eq!((bed.rows(), bed.alerts()), (vec![("a".into(), "1".into())], vec!["one".into()]));
    let next = || report(2, 3, vec![row("a", "2")], Vec::new());
    assert_eq!((bed.one(next()), bed.one(next())), (Outcome::Noted, Outcome::Noted));
}

#[test]
fn parts_that_an_earlier_version_set_aside_are_read() {
    let rows = vec![row("a", "1"), (b"b".to_vec(), None)];
    assert_eq!(super::duty::set_aside(&encode(&rows)).unwrap(), (rows.clone(), Vec::new()));
    let both = (rows, vec![alert("one")]);
    assert_eq!(super::duty::set_aside(&encode(&both)).unwrap(), both);
}

#[test]
fn names_of_duties_are_bounded() {
    let mut bed = Bed::new(1);
    for duty in ["", "a\0b", &"x".repeat(129)] {
        assert_eq!(bed.one(Command::Assign { duty: duty.into(), to: NodeId::new(1) }), Outcome::Malformed);
    }
}

proptest! {
    /// Two nodes that both believe in their lease, in any order of their reports: the state is that of the reports
    /// under the lease of the moment, each once.
    #[test]
    fn only_the_holder_of_the_moment_counts(acts in proptest::collection::vec((0u8..3, 0u64..3, 0u64..4), 1..40)) {
        let mut bed = Bed::new(1);
        let (mut epoch, mut number, mut value) = (0u64, 0u64, 0u64);
        let mut expected: BTreeMap<String, String> = BTreeMap::new();
        for (kind, back, key) in acts {
            if kind == 0 {
                bed.take(1);
                (epoch, number) = (epoch + 2, 0);
                continue;
            }
            value += 1;
            let under = epoch.saturating_sub(back);
            let numbered = if kind == 1 { number + 1 } else { number };
            let rows = vec![row(&key.to_string(), &value.to_string())];
            let outcome = bed.one(report(under, numbered, rows, Vec::new()));
            if epoch == 0 || under != epoch {
                prop_assert_eq!(outcome, Outcome::Fenced);
            } else {
                prop_assert_eq!(outcome, Outcome::Noted);
                if numbered > number {
                    number = numbered;
                    expected.insert(key.to_string(), value.to_string());
                }
            }
        }
        prop_assert_eq!(bed.rows(), expected.into_iter().collect::<Vec<_>>());
    }
}
