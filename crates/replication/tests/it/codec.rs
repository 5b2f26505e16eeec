//! Every decoder gives a value or an error, whatever the bytes; chains show every alteration.

use crate::world::{SHIPPED, World, steps};
use proptest::prelude::*;
use replication::op::{check, fold};
use replication::wire::{Answer, Ask};
use replication::{Change, Digest, FieldWrite, Op, OpError};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        for version in [None, Some(1)] {
            if let (Some(version), Some(first)) = (version, bytes.first_mut()) {
                *first = version;
            }
            let _ = Change::decode(&bytes);
            let _ = Ask::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }

    #[test]
    fn a_change_survives_its_encoding_and_any_altered_byte_shows(
        steps in steps(3, false), place in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let mut world = World::new(3, SHIPPED);
        world.run(&steps);
        for changes in &world.changes {
            let mut previous = Digest::ZERO;
            for change in changes {
                let mut bytes = change.encode();
                prop_assert_eq!(&Change::decode(&bytes), &Ok(change.clone()));
                prop_assert!(change.follows(previous) && change.clone().withheld().follows(previous));
                let place = place.index(bytes.len());
                bytes[place] ^= 1 << bit;
                if let Ok(altered) = Change::decode(&bytes) {
                    prop_assert!(altered == *change || !altered.follows(previous));
                }
                previous = change.chain;
            }
        }
    }
}

#[test]
fn a_withheld_change_says_nothing_of_its_content() {
    let mut world = World::new(3, SHIPPED);
    let what = vec![crate::world::What::Set(0, 4_242_424_242)];
    world.run(&[crate::world::Step::Write { at: 0, wall: 1, key: 0, what }]);
    let change = world.changes[0][0].clone();
    let withheld = change.clone().withheld();
    assert!(withheld.body().is_none() && withheld.weight() < change.weight());
    assert_eq!(withheld.clone().withheld(), withheld);
}

#[test]
fn operations_on_one_record_fold_into_one() {
    use model::{FieldId, Merge, TableId, Value};
    let (table, field) = (TableId::new(1), FieldId::new(1));
    let set = |n| vec![(field, FieldWrite::Set { value: Value::Int(n), merge: Merge::Lww })];
    let add = |by| vec![(field, FieldWrite::Increment { by })];
    let upsert = |fields| Op::upsert(table, "k", fields);
    assert_eq!(fold(vec![upsert(set(1)), upsert(set(2))]), Ok(vec![upsert(set(2))]));
    assert_eq!(fold(vec![upsert(add(1)), upsert(add(2))]), Ok(vec![upsert(add(3))]));
    assert_eq!(fold(vec![upsert(set(1)), Op::delete(table, "k")]), Ok(vec![Op::delete(table, "k")]));
    assert_eq!(fold(vec![Op::delete(table, "k"), upsert(set(1))]), Err(OpError::Repeated { index: 1 }));
    assert_eq!(check(&[upsert(set(1)), upsert(set(2))]), Err(OpError::Repeated { index: 1 }));
    assert_eq!(check(&[Op::delete(table, "")]), Err(OpError::Key { index: 0 }));
    let counter = vec![(field, FieldWrite::Set { value: Value::Int(1), merge: Merge::Counter })];
    assert_eq!(check(&[upsert(counter)]), Err(OpError::SetOfCounter { index: 0 }));
}
