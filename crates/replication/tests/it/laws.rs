//! The laws of merging, and proof that each of them is really tested: a planted bug must break it.

use crate::world::{
    LWW, PARTITION, Rules, SHIPPED, SHIPPED_COLLECTING, Step, TABLE, TENANT, What, World, had_seen, lww_writes, origin,
    replay, steps,
};
use model::{FieldState, Hlc, Origin, Record, Stamp, VersionVector};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use replication::convergence::canonical_row;
use replication::{FieldWrite, Merged, Op, OpKind, Progress, Writer, merge};

const REGIONS: usize = 4;

type Law = Result<(), TestCaseError>;

/// Asserts a law over random scripts.
fn holds(cases: u32, collects: bool, law: impl Fn(&[Step], &[usize]) -> Law) {
    run(cases, 300, collects, law).expect("the law holds");
}

/// Asserts that some script breaks a law.
fn breaks(cases: u32, collects: bool, law: impl Fn(&[Step], &[usize]) -> Law) {
    run(cases, 0, collects, law).expect_err("the planted bug is found");
}

fn run(cases: u32, shrinks: u32, collects: bool, law: impl Fn(&[Step], &[usize]) -> Law) -> Result<(), String> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: shrinks, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let input = (steps(REGIONS, collects), proptest::collection::vec(0usize..1_000, 40));
    runner.run(&input, |(steps, draws)| law(&steps, &draws)).map_err(|failure| failure.to_string())
}

/// Whatever the order of delivery, regions become identical to the last byte.
fn converges(rules: Rules) -> impl Fn(&[Step], &[usize]) -> Result<(), TestCaseError> {
    move |steps, draws| {
        let mut world = World::new(REGIONS, rules);
        world.run(steps);
        world.heal();
        for region in &world.regions[1..] {
            prop_assert_eq!(&region.have, &world.regions[0].have);
            prop_assert_eq!(&region.records, &world.regions[0].records);
            prop_assert_eq!(region.bytes(), world.regions[0].bytes());
        }
        for turn in 0..3 {
            let replayed = replay(&world, &draws[turn * 10..], rules);
            prop_assert_eq!(replayed.bytes(), world.regions[0].bytes());
        }
        Ok(())
    }
}

/// Whoever collects, and whenever: readers and digests see the same everywhere, and the same as without collecting.
fn collection_is_invisible(rules: Rules) -> impl Fn(&[Step], &[usize]) -> Result<(), TestCaseError> {
    move |steps, _| {
        let mut world = World::new(REGIONS, rules);
        world.run(steps);
        world.heal();
        let kept = replay(&world, &[0], SHIPPED);
        for region in &world.regions {
            for key in ["k0", "k1"] {
                let row = |record: Option<&Record>| record.and_then(|it| canonical_row(TENANT, TABLE, key, it));
                prop_assert_eq!(row(region.records.get(key)), row(kept.records.get(key)), "{}", key);
            }
        }
        Ok(())
    }
}

/// Counters hold every increment once, less what deletions had seen.
fn counters_are_exact(rules: Rules) -> impl Fn(&[Step], &[usize]) -> Result<(), TestCaseError> {
    move |steps, draws| {
        let mut world = World::new(REGIONS, rules);
        world.run(steps);
        world.heal();
        let changes: Vec<_> = world.changes.iter().flatten().collect();
        let region = replay(&world, draws, rules);
        for key in ["k0", "k1"] {
            let ops =
                || changes.iter().flat_map(|c| c.body().into_iter().flat_map(|b| &b.ops).map(|op| (&c.header, op)));
            let ops = || ops().filter(|(_, op)| op.key == key);
            let mut expected = 0;
            for (header, op) in ops() {
                let OpKind::Upsert { fields } = &op.kind else { continue };
                let taken = ops()
                    .any(|(other, op)| matches!(op.kind, OpKind::Delete { .. }) && had_seen(other, header.stamp()));
                let added = fields.iter().filter_map(|(_, write)| match write {
                    FieldWrite::Increment { by } => Some(*by),
                    FieldWrite::Set { .. } => None,
                });
                expected += if taken { 0 } else { added.sum::<i64>() };
            }
            let states = region.records.get(key).into_iter().flat_map(|record| record.fields.values());
            let found =
                states.filter(|state| matches!(state, FieldState::Counter { .. })).map(FieldState::value).next();
            prop_assert_eq!(found.unwrap_or(model::Value::Int(0)), model::Value::Int(expected), "{}", key);
        }
        Ok(())
    }
}

/// A write that is lost without anyone having seen it is some conflict's loser; and no conflict is invented.
fn conflicts_are_exact(rules: Rules) -> impl Fn(&[Step], &[usize]) -> Result<(), TestCaseError> {
    move |steps, _| {
        // Whether a loser was unseen is known when a change is merged first; admission lets none in twice.
        let once: Vec<Step> = steps.iter().filter(|step| !matches!(step, Step::Again { .. })).cloned().collect();
        let mut world = World::new(REGIONS, rules);
        world.run(&once);
        world.heal();
        let listed: Vec<_> = world.regions.iter().flat_map(|region| &region.conflicts).collect();
        let header = |stamp: Stamp| {
            let index = (0..REGIONS).find(|region| origin(*region) == stamp.origin).expect("a region wrote it");
            &world.changes[index][stamp.sequence as usize - 1].header
        };
        for conflict in &listed {
            let (winner, loser) = (header(conflict.winner.stamp), header(conflict.loser.stamp));
            prop_assert!(conflict.winner.stamp > conflict.loser.stamp);
            prop_assert!(!had_seen(winner, loser.stamp()) && !had_seen(loser, winner.stamp()), "{:?}", conflict);
        }
        for (writer, key, field) in lww_writes(&world.changes) {
            let touches = |op: &Op| {
                op.key == key
                    && match &op.kind {
                        OpKind::Upsert { fields } => fields.iter().any(|(id, _)| *id == field),
                        OpKind::Delete { .. } => true,
                    }
            };
            let knowingly = world.changes.iter().flatten().any(|change| {
                had_seen(&change.header, writer.stamp())
                    && change.body().is_some_and(|body| body.ops.iter().any(touches))
            });
            let survives = world.regions[0].records.get(key).is_some_and(|record| {
                record.visible().any(|(id, state)| id == field && state.stamp() == writer.stamp())
            });
            let is_listed = listed.iter().any(|it| {
                it.key == key && it.field == field && it.loser.stamp == writer.stamp() && it.loser.value.is_some()
            });
            prop_assert!(knowingly || survives || is_listed, "lost unlisted: {:?} of {} {}", writer, key, field);
        }
        Ok(())
    }
}

#[test]
fn every_causal_delivery_ends_in_the_same_bytes() {
    holds(800, false, converges(SHIPPED));
}

#[test]
fn collecting_is_never_seen_and_nothing_returns() {
    holds(1_000, true, collection_is_invisible(SHIPPED_COLLECTING));
}

#[test]
fn counters_count_every_increment_once() {
    holds(600, false, counters_are_exact(SHIPPED));
}

#[test]
fn every_lost_concurrent_write_is_listed_and_no_other() {
    holds(800, false, conflicts_are_exact(SHIPPED));
}

/// Planted: writes are ordered by clock alone, and on a tie the one that arrives later wins.
fn clock_ordered(old: Option<&Record>, writer: Writer<'_>, op: &Op) -> Merged {
    let stamp = Stamp { hlc: Hlc::new(writer.stamp.hlc.wall_ms(), 0), origin: Origin::default(), sequence: 0 };
    merge(old, Writer { stamp, ..writer }, op)
}

/// Planted: tombstones go as soon as every region has them.
fn early_cut(progress: &mut Progress, partition: model::PartitionId, local: &VersionVector) -> VersionVector {
    assert_eq!(partition, PARTITION);
    progress.everywhere(partition, local)
}

/// Planted: an increment counts each time it arrives.
fn double_counting(old: Option<&Record>, writer: Writer<'_>, op: &Op) -> Merged {
    let mut merged = merge(old, writer, op);
    let OpKind::Upsert { fields } = &op.kind else { return merged };
    for (id, write) in fields {
        let (FieldWrite::Increment { by }, Some(FieldState::Counter { added, .. })) =
            (write, merged.record.fields.get_mut(id))
        else {
            continue;
        };
        let counted = old.and_then(|record| record.fields.get(id)).is_some_and(|state| match state {
            FieldState::Counter { added, .. } => {
                added.get(&writer.stamp.origin).is_some_and(|tally| tally.sequence >= writer.stamp.sequence)
            }
            _ => false,
        });
        if counted {
            added.entry(writer.stamp.origin).or_default().total += by;
        }
    }
    merged
}

/// Planted: what loses is dropped without a word.
fn silent(old: Option<&Record>, writer: Writer<'_>, op: &Op) -> Merged {
    Merged { conflicts: Vec::new(), ..merge(old, writer, op) }
}

#[test]
fn a_planted_clock_order_is_found() {
    breaks(3_000, false, converges(Rules { merge: clock_ordered, cut: None }));
}

#[test]
fn a_planted_early_tombstone_removal_is_found() {
    let write = |at, wall, what| Step::Write { at, wall, key: 0, what: vec![what] };
    let mut script = vec![write(0, 0, What::Set(0, 1))];
    script.extend((1..REGIONS).map(|to| Step::Deliver { from: 0, to }));
    // Region 2 writes before region 1's deletion reaches it, and that write is still under way to region 0.
    script.extend([write(1, 3, What::Delete), write(2, 1, What::Set(0, 2))]);
    script.extend([0, 2, 3].map(|to| Step::Deliver { from: 1, to }));
    for _ in 0..2 {
        script.extend((1..REGIONS).map(|from| Step::Acknowledge { from, to: 0 }));
        script.push(Step::Collect { at: 0 });
    }
    collection_is_invisible(SHIPPED_COLLECTING)(&script, &[]).expect("the cut waits for what is under way");
    let planted = Rules { merge, cut: Some(early_cut) };
    collection_is_invisible(planted)(&script, &[]).expect_err("the deleted record returns");
}

#[test]
fn a_planted_double_count_is_found() {
    let rules = Rules { merge: double_counting, cut: None };
    breaks(3_000, false, counters_are_exact(rules));
    breaks(3_000, false, converges(rules));
}

#[test]
fn a_planted_silent_loss_is_found() {
    breaks(3_000, false, conflicts_are_exact(Rules { merge: silent, cut: None }));
}

#[test]
fn deleted_value_is_gone_from_the_record() {
    use model::{FieldId, Merge, Value};
    let deps = VersionVector::new();
    let at = |n: u64| Writer {
        tenant: TENANT,
        stamp: Stamp { hlc: Hlc::new(n, 0), origin: origin(0), sequence: n },
        deps: &deps,
    };
    let max = FieldId::new(9);
    let write = |value| {
        Op::upsert(
            TABLE,
            "k",
            vec![
                (LWW[0], FieldWrite::Set { value: Value::Text("secret".into()), merge: Merge::Lww }),
                (max, FieldWrite::Set { value: Value::Int(value), merge: Merge::Max }),
            ],
        )
    };
    let one = merge(None, at(1), &write(10)).record;
    let deleted = merge(Some(&one), at(2), &Op::delete(TABLE, "k"));
    assert!(deleted.record.fields.is_empty() && !deleted.record.exists());
    assert_eq!(deleted.touched.len(), 2);
    assert_eq!(deleted.touched[0].before, Some(Value::Text("secret".into())));
    assert_eq!(deleted.touched[0].after, None);
    let again = merge(Some(&deleted.record), at(3), &write(3)).record;
    assert_eq!(again.fields[&max].value(), Value::Int(3));
}
