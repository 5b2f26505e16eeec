//! The state machine, step by step: what one entry does to records, changes, audit log and hashes.

use crate::driver::bed::CLUSTER;
use crate::driver::proposer::Entry;
use crate::machine::command::{
    Act, ActChange, Command, Found, Idempotency, Must, Outcome, Read, Refusal, Select, Transact,
};
use crate::machine::data::{DataMachine, Observer};
use crate::machine::keys::{self, KEYSPACES};
use crate::machine::ledger::Ledger;
use crate::machine::note::Note;
use audit::AuditEvent;
use bytes::Bytes;
use consensus::Machine as _;
use model::cluster::Cluster;
use model::codec::{decode, encode};
use model::{FieldId, GroupId, Hlc, Merge, Origin, RegionId, TableId, TenantId, Value};
use proptest::prelude::*;
use replication::Change;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use storage::{Engine as _, MemoryEngine};

const TENANT: TenantId = TenantId::new(7);
const OTHER: TenantId = TenantId::new(8);
const TABLE: TableId = TableId::new(1);
const NAME: FieldId = FieldId::new(1);
const COUNT: FieldId = FieldId::new(2);

#[derive(Default)]
struct Silent {
    refused: AtomicUsize,
}

impl Observer for Silent {
    fn command(&self, _: GroupId, _: &'static str) {}
    fn foreign(&self, _: GroupId, _: Origin, _: Hlc) {}
    fn conflict(&self, _: GroupId) {}
    fn refused(&self, _: GroupId, _: &str, _: Refusal) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// One region's only group, on a disk in memory.
pub(super) struct Bed {
    pub(super) machine: DataMachine,
    observer: Arc<Silent>,
    index: u64,
    pub(super) wall_ms: u64,
}

impl Bed {
    pub(super) fn new(region: u16) -> Self {
        let cluster = Arc::new(Cluster::parse(CLUSTER).expect("the description is sound"));
        let space = MemoryEngine::new().space("data", &KEYSPACES).expect("memory does not fail");
        let ledger = Ledger::new(cluster, "eu", GroupId::new(0));
        let origin = Origin::new(RegionId::new(region), 0);
        let observer = Arc::new(Silent::default());
        let watches = Arc::clone(&observer) as Arc<dyn Observer>;
        let machine =
            DataMachine::open(GroupId::new(0), origin, 4, space, ledger, watches).expect("an empty space opens");
        Self { machine, observer, index: 0, wall_ms: 1_000_000 }
    }

    /// Applies commands as one entry.
    fn apply(&mut self, commands: &[Command]) -> Vec<Outcome> {
        self.index += 1;
        self.wall_ms += 10;
        let commands = commands.iter().map(|command| Bytes::from(encode(command))).collect();
        let entry = encode(&Entry { wall_ms: self.wall_ms, nonce: [self.index as u8; 16], commands });
        let results = self.machine.apply(&[(self.index, &entry)], b"position").expect("memory does not fail");
        let outcomes: Vec<Bytes> = decode(&results[0]).expect("results are encoded here");
        outcomes.iter().map(|outcome| decode(outcome).expect("outcomes are encoded here")).collect()
    }

    pub(super) fn one(&mut self, command: Command) -> Outcome {
        self.apply(&[command]).remove(0)
    }

    /// As a restart does: what is in memory is read from the disk again.
    pub(super) fn reopen(&mut self) {
        self.machine.reloaded().expect("memory does not fail");
    }

    /// Transactions of reports that were refused.
    pub(super) fn refused(&self) -> usize {
        self.observer.refused.load(Ordering::Relaxed)
    }

    pub(super) fn leaves(&self) -> Vec<AuditEvent> {
        let rows =
            self.machine.read_space().scan(keys::AUDIT_LEAF, Bound::Unbounded, Bound::Unbounded, false, usize::MAX);
        let rows = rows.expect("memory does not fail");
        rows.iter().map(|(_, leaf)| AuditEvent::decode(leaf).expect("leaves are canonical")).collect()
    }

    fn changes(&self) -> Vec<Change> {
        let partition = TENANT.partition(4);
        self.machine.changes_after(partition, self.machine.origin, 0, usize::MAX).expect("memory does not fail")
    }

    fn value(&self, tenant: TenantId, key: &str, field: FieldId) -> Option<Value> {
        let found = self.machine.read_local(tenant, TABLE, &Select::Key(key.into())).expect("memory does not fail");
        let (_, record) = found.records.first()?;
        record.visible().find(|(id, _)| *id == field).map(|(_, state)| state.value())
    }
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.into())
}

fn transact(tenant: TenantId, key: &str, must: Must, change: ActChange) -> Transact {
    let act = Act {
        table: TABLE,
        key: key.into(),
        must,
        seen: None,
        change,
        resource: format!("tables/t/records/{key}"),
        names: [(NAME, "name".to_owned()), (COUNT, "count".to_owned())].into(),
    };
    Transact { tenant, schema_version: 1, acts: vec![act], idempotency: None, note: Note::default(), trace: None }
}

fn put(key: &str, value: &str) -> Command {
    let change = ActChange::Put(vec![(NAME, Merge::Lww, text(value))]);
    Command::Transact(transact(TENANT, key, Must::Nothing, change))
}

fn foreign(from: &Bed) -> Command {
    let changes = from.changes().into_iter().map(|change| (change, true)).collect();
    Command::Foreign { from: from.machine.origin.region, changes }
}

#[test]
fn a_transaction_is_a_record_a_change_and_a_leaf_with_old_and_new_value() {
    let mut bed = Bed::new(1);
    assert!(matches!(bed.one(put("a", "one")), Outcome::Written(_)));
    assert!(matches!(bed.one(put("a", "two")), Outcome::Written(_)));
    assert_eq!(bed.value(TENANT, "a", NAME), Some(text("two")));
    assert_eq!(bed.changes().len(), 2);
    let leaves = bed.leaves();
    assert_eq!(leaves.len(), 2);
    assert_eq!(leaves[1].action.as_str(), "record.put");
    let detail = bed.machine.read_space().get(keys::AUDIT_DETAIL, &keys::number(1)).expect("memory does not fail");
    let detail = audit::Detail::decode(&detail.expect("a change has a detail")).expect("details are written here");
    assert_eq!(detail.old, Some(serde_json::json!({"name": "one"})));
    assert_eq!(detail.new, Some(serde_json::json!({"name": "two"})));
    assert_eq!(leaves[1].detail_digest, Some(detail.digest()));
}

#[test]
fn a_refused_transaction_changes_nothing_and_is_recorded() {
    let mut bed = Bed::new(1);
    let absent = transact(TENANT, "a", Must::Exist, ActChange::Delete);
    assert_eq!(bed.one(Command::Transact(absent)), Outcome::Refused(Refusal::NotFound(0)));
    bed.one(put("a", "one"));
    let mut both = transact(TENANT, "b", Must::Nothing, ActChange::Put(vec![(NAME, Merge::Lww, text("x"))]));
    both.acts.extend(transact(TENANT, "a", Must::BeAbsent, ActChange::Put(vec![(NAME, Merge::Lww, text("y"))])).acts);
    assert_eq!(bed.one(Command::Transact(both)), Outcome::Refused(Refusal::PreconditionFailed(1)));
    assert_eq!(bed.value(TENANT, "b", NAME), None, "half a transaction must not stay");
    assert_eq!(bed.changes().len(), 1);
    let outcomes: Vec<bool> = bed.leaves().iter().map(|leaf| leaf.outcome == audit::Outcome::Success).collect();
    assert_eq!(outcomes, [false, true, false]);
}

#[test]
fn commands_of_one_entry_see_each_other() {
    let mut bed = Bed::new(1);
    let create = || {
        Command::Transact(transact(TENANT, "a", Must::BeAbsent, ActChange::Put(vec![(NAME, Merge::Lww, text("x"))])))
    };
    let outcomes = bed.apply(&[create(), create()]);
    assert!(matches!(outcomes[0], Outcome::Written(_)));
    assert_eq!(outcomes[1], Outcome::Refused(Refusal::PreconditionFailed(0)));
}

#[test]
fn a_retry_with_the_same_key_is_answered_and_not_done_again() {
    let mut bed = Bed::new(1);
    let increment = |digest| {
        let change = ActChange::Upsert { set: Vec::new(), increment: vec![(COUNT, 5)] };
        let idempotency = Some(Idempotency { key: "k".into(), digest: [digest; 32] });
        Command::Transact(Transact { idempotency, ..transact(TENANT, "a", Must::Nothing, change) })
    };
    let Outcome::Written(first) = bed.one(increment(1)) else { panic!("the first is done") };
    let Outcome::Written(again) = bed.one(increment(1)) else { panic!("the retry is answered") };
    assert!(again.replayed && again.stamp == first.stamp);
    assert_eq!(bed.value(TENANT, "a", COUNT), Some(Value::Int(5)));
    assert_eq!(bed.one(increment(2)), Outcome::Refused(Refusal::IdempotencyReuse));
    let leaves: Vec<String> = bed.leaves().iter().map(|leaf| format!("{} {:?}", leaf.action, leaf.outcome)).collect();
    assert_eq!(leaves, ["record.patch Success", "request.replay Success", "request.replay Failure"]);
}

#[test]
fn a_put_takes_away_what_it_leaves_out_but_only_what_its_writer_can_see() {
    let mut bed = Bed::new(1);
    let both = ActChange::Put(vec![(NAME, Merge::Lww, text("n")), (COUNT, Merge::Counter, Value::Int(3))]);
    bed.one(Command::Transact(transact(TENANT, "a", Must::Nothing, both)));
    let mut blind = transact(TENANT, "a", Must::Exist, ActChange::Put(vec![(NAME, Merge::Lww, text("m"))]));
    blind.acts[0].seen = Some([NAME].into());
    bed.one(Command::Transact(blind));
    assert_eq!(bed.value(TENANT, "a", COUNT), Some(Value::Int(3)));
    bed.one(Command::Transact(transact(TENANT, "a", Must::Exist, ActChange::Put(vec![(NAME, Merge::Lww, text("m"))]))));
    assert_eq!(bed.value(TENANT, "a", COUNT), Some(Value::Int(0)));
}

#[test]
fn a_linearizable_read_is_recorded_with_what_it_saw() {
    let mut bed = Bed::new(1);
    bed.one(put("a", "one"));
    let note = Note { action: "record.view".into(), ..Note::default() };
    let read = Read { tenant: TENANT, table: TABLE, select: Select::Key("a".into()), note };
    let Outcome::Records(Found { records, .. }) = bed.one(Command::Read(read)) else { panic!("a read finds") };
    assert_eq!(records.len(), 1);
    assert_eq!(bed.leaves().last().map(|leaf| leaf.action.as_str().to_owned()), Some("record.view".into()));
}

#[test]
fn a_tenants_keys_are_not_another_tenants() {
    let mut bed = Bed::new(1);
    bed.one(put("a", "mine"));
    assert_eq!(bed.value(OTHER, "a", NAME), None);
    let select = Select::Range { from: String::new(), to: None, after: None, limit: 100 };
    let found = bed.machine.read_local(OTHER, TABLE, &select).expect("memory does not fail");
    assert!(found.records.is_empty());
}

#[test]
fn regions_that_exchange_changes_are_equal_and_list_the_loser() {
    let (mut eu, mut us) = (Bed::new(1), Bed::new(2));
    eu.one(put("a", "from eu"));
    us.wall_ms += 5_000;
    us.one(put("a", "from us"));
    let (to_us, to_eu) = (foreign(&eu), foreign(&us));
    assert_eq!(us.one(to_us.clone()), Outcome::Taken { applied: 1, refused: None });
    assert_eq!(us.one(to_us), Outcome::Taken { applied: 0, refused: None }, "a second delivery does nothing");
    eu.one(to_eu);
    assert_eq!(eu.value(TENANT, "a", NAME), Some(text("from us")));
    let digests = |bed: &Bed| bed.machine.digests().expect("memory does not fail");
    assert_eq!(digests(&eu), digests(&us));
    for bed in [&eu, &us] {
        let conflicts = bed.machine.conflicts(TENANT, None, 10).expect("memory does not fail");
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].1.loser.value, Some(text("from eu")));
    }
}

#[test]
fn what_comes_later_in_cause_is_later_in_time_whatever_the_clock_says() {
    let (mut eu, mut us) = (Bed::new(1), Bed::new(2));
    us.wall_ms += 3_600_000;
    us.one(put("a", "from the future"));
    let to_eu = foreign(&us);
    eu.one(to_eu);
    eu.one(put("a", "after it"));
    assert_eq!(eu.value(TENANT, "a", NAME), Some(text("after it")));
}

#[test]
fn changes_of_this_region_or_with_holes_are_refused() {
    let (mut eu, mut us) = (Bed::new(1), Bed::new(2));
    eu.one(put("a", "one"));
    eu.one(put("a", "two"));
    let own = foreign(&eu);
    assert!(matches!(eu.one(own), Outcome::Taken { applied: 0, refused: Some(_) }));
    let second = eu.changes().pop().expect("there are two");
    let hole = Command::Foreign { from: RegionId::new(1), changes: vec![(second, true)] };
    assert!(matches!(us.one(hole), Outcome::Taken { applied: 0, refused: Some(_) }));
}

#[test]
fn everything_is_read_back_from_the_space() {
    let mut bed = Bed::new(1);
    bed.one(put("a", "one"));
    let (vectors, head) = (bed.machine.vectors(), bed.machine.audit_head());
    bed.machine.reloaded().expect("memory does not fail");
    assert_eq!((bed.machine.vectors(), bed.machine.audit_head()), (vectors, head));
    bed.one(put("a", "two"));
    assert_eq!(bed.changes().len(), 2);
}

proptest! {
    #[test]
    fn commands_no_one_can_read_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assume!(decode::<Command>(&bytes).is_err());
        let bed = Bed::new(1);
        let entry = encode(&Entry { wall_ms: 1, nonce: [0; 16], commands: vec![Bytes::from(bytes)] });
        let results = bed.machine.apply(&[(1, &entry)], b"p").expect("memory does not fail");
        let outcomes: Vec<Bytes> = decode(&results[0]).expect("results are encoded here");
        prop_assert_eq!(decode::<Outcome>(&outcomes[0]), Ok(Outcome::Malformed));
        prop_assert!(bed.machine.vectors().is_empty());
        prop_assert_eq!(bed.machine.audit_head().0, 0);
    }
}
