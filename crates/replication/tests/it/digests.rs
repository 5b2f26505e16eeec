//! Sums of digests: kept up to date by differences, they equal what a full count gives.

use crate::world::{SHIPPED, TABLE, TENANT, World, replay, steps};
use model::Record;
use proptest::prelude::*;
use replication::convergence::{BUCKETS, Sum, bucket, compare, delta, row_sum};
use replication::{Digest, merge};
use std::collections::BTreeMap;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sum_kept_by_differences_is_the_sum_of_all_rows(steps in steps(3, false)) {
        let mut world = World::new(3, SHIPPED);
        world.run(&steps);
        world.heal();
        let mut records: BTreeMap<String, Record> = BTreeMap::new();
        let mut sum = Sum::ZERO;
        let region = replay(&world, &[0], SHIPPED);
        for change in world.changes.iter().flatten() {
            for op in &change.body().expect("content").ops {
                let old = records.get(&op.key).cloned();
                let new = merge(old.as_ref(), change.header.writer(), op).record;
                sum = sum.plus(delta(TENANT, TABLE, &op.key, old.as_ref(), Some(&new)));
                records.insert(op.key.clone(), new);
            }
        }
        let full = |records: &BTreeMap<String, Record>| {
            records.iter().fold(Sum::ZERO, |sum, (key, record)| sum.plus(row_sum(TENANT, TABLE, key, Some(record))))
        };
        prop_assert_eq!(sum, full(&records));
        prop_assert_eq!(sum, full(&region.records));
    }

    #[test]
    fn sums_are_a_group(one in any::<[u8; 32]>(), other in any::<[u8; 32]>()) {
        let (one, other) = (Sum::of(Digest::new(one)), Sum::of(Digest::new(other)));
        prop_assert_eq!(one.plus(other), other.plus(one));
        prop_assert_eq!(one.plus(other).minus(other), one);
        prop_assert_eq!(Sum::from_bytes(one.to_bytes()), one);
        prop_assert_eq!(Sum::ZERO.minus(one).plus(one), Sum::ZERO);
    }
}

#[test]
fn comparing_names_the_buckets_that_differ() {
    let sum = |n: u8| Sum::of(Digest::of(&[&[n]]));
    let one = BTreeMap::from([(1, sum(1)), (2, sum(2)), (3, sum(3))]);
    let other = BTreeMap::from([(2, sum(2)), (3, sum(9)), (7, sum(7)), (8, Sum::ZERO)]);
    assert_eq!(compare(&one, &other), vec![1, 3, 7]);
    assert!(usize::from(bucket(TENANT, TABLE, "k")) < BUCKETS);
}
