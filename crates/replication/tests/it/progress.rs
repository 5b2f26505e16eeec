//! What others have: durability, truncation, exposure; clocks of leaders.

use crate::world::{PARTITION, origin};
use model::{Hlc, VersionVector};
use replication::{Progress, stamp};
use std::collections::BTreeMap;

fn vector(pairs: &[(usize, u64)]) -> VersionVector {
    pairs.iter().map(|(region, sequence)| (origin(*region), *sequence)).collect()
}

fn acknowledge(progress: &mut Progress, from: usize, pairs: &[(usize, u64)]) {
    progress.acknowledge(origin(from).region, &BTreeMap::from([(PARTITION, vector(pairs))]));
}

fn of_three() -> Progress {
    Progress::new(origin(0), (0..3).map(|region| origin(region).region))
}

#[test]
fn durability_counts_other_regions_that_have_the_change() {
    let mut progress = of_three();
    acknowledge(&mut progress, 1, &[(0, 5)]);
    acknowledge(&mut progress, 2, &[(0, 3)]);
    acknowledge(&mut progress, 0, &[(0, 99)]);
    acknowledge(&mut progress, 9, &[(0, 99)]);
    assert_eq!(progress.acked_by(PARTITION, origin(0), 3), 2);
    assert_eq!(progress.acked_by(PARTITION, origin(0), 5), 1);
    assert_eq!(progress.acked_by(PARTITION, origin(0), 6), 0);
    acknowledge(&mut progress, 1, &[(0, 2)]);
    assert_eq!(progress.acked_by(PARTITION, origin(0), 5), 1, "an acknowledgement is never taken back");
}

#[test]
fn only_what_every_member_has_may_be_truncated() {
    let mut progress = of_three();
    let local = vector(&[(0, 9), (1, 4)]);
    acknowledge(&mut progress, 1, &[(0, 5), (1, 6)]);
    assert!(progress.everywhere(PARTITION, &local).is_empty(), "a silent member has nothing");
    acknowledge(&mut progress, 2, &[(0, 7), (1, 2)]);
    assert_eq!(progress.everywhere(PARTITION, &local), vector(&[(0, 5), (1, 2)]));
    progress.set_members(&[origin(0).region, origin(2).region].into());
    assert_eq!(progress.everywhere(PARTITION, &local), vector(&[(0, 7), (1, 2)]));
}

#[test]
fn a_cut_is_stable_only_after_everything_known_then_has_arrived() {
    let mut progress = of_three();
    acknowledge(&mut progress, 1, &[(0, 1), (1, 3)]);
    acknowledge(&mut progress, 2, &[(0, 1)]);
    let early = vector(&[(0, 1), (1, 2)]);
    assert_eq!(progress.stable(PARTITION, &early), VersionVector::new(), "the first call only begins a round");
    assert_eq!(progress.stable(PARTITION, &early), VersionVector::new(), "change 3 of region 1 is under way");
    assert_eq!(progress.stable(PARTITION, &vector(&[(0, 1), (1, 3)])), vector(&[(0, 1)]));
}

#[test]
fn exposure_is_the_age_of_the_oldest_change_that_no_one_else_has() {
    let mut progress = of_three();
    for sequence in 1..=10 {
        progress.committed(PARTITION, sequence, 1_000 * sequence);
    }
    assert_eq!(progress.exposure_ms(PARTITION, 10, 11_000), 10_000);
    acknowledge(&mut progress, 1, &[(0, 4)]);
    assert_eq!(progress.exposure_ms(PARTITION, 10, 11_000), 6_000);
    acknowledge(&mut progress, 2, &[(0, 10)]);
    assert_eq!(progress.exposure_ms(PARTITION, 10, 11_000), 0);
}

#[test]
fn exposure_is_never_too_low_behind_a_long_cut() {
    let mut progress = of_three();
    for sequence in 1..=10_000 {
        progress.committed(PARTITION, sequence, 100 * sequence);
    }
    assert_eq!(progress.exposure_ms(PARTITION, 10_000, 1_000_000), 999_900);
    acknowledge(&mut progress, 1, &[(0, 5_000)]);
    let exact = 1_000_000 - 100 * 5_001;
    let found = progress.exposure_ms(PARTITION, 10_000, 1_000_000);
    assert!(found >= exact && found < exact + 100_000, "{found}");
}

#[test]
fn a_leader_with_a_wrong_clock_does_not_stamp() {
    assert!(stamp::check_leader(1_000_000, &[]).is_ok());
    assert!(stamp::check_leader(1_000_400, &[1_000_000, 1_000_010]).is_ok());
    assert_eq!(stamp::check_leader(1_001_000, &[1_000_000, 1_000_010]), Err(stamp::ClockOff { skew_ms: 990 }));
    assert!(stamp::check_leader(999_000, &[1_000_000, 1_000_010]).is_err());
}

#[test]
fn what_is_causally_later_compares_later_whatever_the_clock_says() {
    let seen = stamp::observe(Hlc::new(10, 0), Hlc::new(500, 7));
    assert!(stamp::next(seen, 20) > Hlc::new(500, 7));
    assert!(stamp::is_from_the_future(Hlc::new(1_501, 0), 1_000, 500));
    assert!(!stamp::is_from_the_future(Hlc::new(1_500, 0), 1_000, 500));
}
