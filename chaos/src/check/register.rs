//! Registers are linearizable in their region.
//!
//! Every written value is unique, so a value names its write, and a write with its reads is a cluster that must
//! stand undivided in any order. One cluster must precede another when an operation of it ended before one of the
//! other began. The history is linearizable exactly when no read ended before its write began and no two clusters
//! must each precede the other (Gibbons and Korach, Testing Shared Memories, 1997).

use super::Finding;
use crate::history::{Act, Operation, Outcome};
use std::collections::BTreeMap;

/// A write and the reads of its value.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    value: Option<u64>,
    /// When the write began.
    began_us: u64,
    /// When the first of its operations ended.
    first_end_us: u64,
    /// When the last of its operations began.
    last_begin_us: u64,
    was_read: bool,
    is_unknown: bool,
}

/// Judges every register of a history.
pub fn check(history: &[Operation]) -> Finding {
    let mut finding = Finding::new("linearizable in a region");
    let mut registers: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if let Act::RegisterWrite { key, .. } | Act::RegisterRead { key, .. } = &operation.act {
            registers.entry(key).or_default().push(operation);
        }
    }
    for (key, operations) in registers {
        finding.examined += operations.len() as u64;
        check_register(key, &operations, &mut finding);
    }
    finding
}

fn check_register(key: &str, operations: &[&Operation], finding: &mut Finding) {
    let mut clusters = written(operations);
    for operation in operations {
        let Act::RegisterRead { value, .. } = &operation.act else { continue };
        if operation.outcome != Outcome::Ok {
            continue;
        }
        let Some(cluster) = clusters.get_mut(value) else {
            finding.violate(|| format!("{key}: {value:?} was read and never written"));
            continue;
        };
        if operation.completed_us < cluster.began_us {
            finding.violate(|| format!("{key}: {value:?} was read before it was written"));
        }
        cluster.was_read = true;
        cluster.first_end_us = cluster.first_end_us.min(operation.completed_us);
        cluster.last_begin_us = cluster.last_begin_us.max(operation.invoked_us);
    }
    // A write of unknown outcome that nobody read need not have happened.
    let clusters: Vec<Cluster> =
        clusters.into_values().filter(|cluster| cluster.was_read || !cluster.is_unknown).collect();
    for (index, one) in clusters.iter().enumerate() {
        for other in &clusters[index + 1..] {
            if one.first_end_us < other.last_begin_us && other.first_end_us < one.last_begin_us {
                finding.violate(|| {
                    format!(
                        "{key}: {:?} and {:?} were each read after the other had replaced it",
                        one.value, other.value
                    )
                });
            }
        }
    }
}

/// A cluster for the first value and for each value that was perhaps written.
fn written(operations: &[&Operation]) -> BTreeMap<Option<u64>, Cluster> {
    let first =
        Cluster { value: None, began_us: 0, first_end_us: 0, last_begin_us: 0, was_read: false, is_unknown: false };
    let mut clusters = BTreeMap::from([(None, first)]);
    for operation in operations {
        let Act::RegisterWrite { value, .. } = &operation.act else { continue };
        let is_unknown = operation.outcome == Outcome::Unknown;
        if operation.outcome == Outcome::Failed {
            continue;
        }
        let cluster = Cluster {
            value: Some(*value),
            began_us: operation.invoked_us,
            first_end_us: if is_unknown { u64::MAX } else { operation.completed_us },
            last_begin_us: operation.invoked_us,
            was_read: false,
            is_unknown,
        };
        clusters.insert(Some(*value), cluster);
    }
    clusters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::made::{lost_write, operation, read, write};
    use proptest::prelude::*;

    fn holds(history: &[Operation]) -> bool {
        check(history).holds()
    }

    #[test]
    fn a_plain_history_holds() {
        assert!(holds(&[
            read(None, 1, 2),
            write(1, 3, 6),
            read(Some(1), 5, 8),
            write(2, 9, 10),
            read(Some(2), 11, 12)
        ]));
        assert!(holds(&[write(1, 1, 10), write(2, 2, 9), read(Some(1), 11, 12)]), "concurrent writes: either may win");
    }

    #[test]
    fn a_stale_read_is_rejected() {
        assert!(!holds(&[write(1, 1, 2), write(2, 3, 4), read(Some(1), 5, 6)]));
        assert!(!holds(&[write(1, 1, 2), read(None, 3, 4)]));
    }

    #[test]
    fn a_value_that_goes_and_returns_is_rejected() {
        let history = [write(1, 1, 20), write(2, 1, 20), read(Some(1), 2, 3), read(Some(2), 4, 5), read(Some(1), 6, 7)];
        assert!(!holds(&history));
    }

    #[test]
    fn two_readers_that_disagree_on_the_order_are_rejected() {
        let history = [
            write(1, 1, 30),
            write(2, 1, 30),
            read(Some(1), 2, 3),
            read(Some(2), 4, 5),
            read(Some(2), 2, 3),
            read(Some(1), 4, 5),
        ];
        assert!(!holds(&history));
    }

    #[test]
    fn a_read_of_nothing_written_is_rejected() {
        assert!(!holds(&[write(1, 1, 2), read(Some(7), 3, 4)]));
        let failed = operation(Act::RegisterWrite { key: "r".into(), value: 7 }, 1, 2, Outcome::Failed);
        assert!(!holds(&[failed, read(Some(7), 3, 4)]), "a write that certainly failed was read");
    }

    #[test]
    fn a_read_before_its_write_is_rejected() {
        assert!(!holds(&[read(Some(1), 1, 2), write(1, 3, 4)]));
    }

    #[test]
    fn an_unknown_write_may_happen_late_or_never_but_not_both() {
        assert!(holds(&[write(1, 1, 2), lost_write(2, 3), read(Some(1), 20, 21)]));
        assert!(holds(&[write(1, 1, 2), lost_write(2, 3), read(Some(1), 20, 21), read(Some(2), 22, 23)]));
        assert!(!holds(&[write(1, 1, 2), lost_write(2, 3), read(Some(2), 20, 21), read(Some(1), 22, 23)]));
    }

    /// Tries every order: right by definition, and slow.
    fn is_linearizable(history: &[Operation], value: Option<u64>) -> bool {
        let Some(first_end) = history.iter().map(end).min() else { return true };
        (0..history.len()).any(|index| {
            let operation = &history[index];
            if operation.invoked_us > first_end {
                return false;
            }
            let next = match &operation.act {
                Act::RegisterWrite { value, .. } => Some(*value),
                Act::RegisterRead { value: seen, .. } if *seen == value => value,
                _ => return false,
            };
            let mut rest = history.to_vec();
            rest.remove(index);
            is_linearizable(&rest, next)
        }) || history.iter().any(|operation| operation.outcome == Outcome::Unknown) && {
            let index = history.iter().position(|operation| operation.outcome == Outcome::Unknown);
            let mut rest = history.to_vec();
            rest.remove(index.expect("there is one"));
            is_linearizable(&rest, value)
        }
    }
    fn end(operation: &Operation) -> u64 {
        if operation.outcome == Outcome::Unknown { u64::MAX } else { operation.completed_us }
    }

    proptest! {
        #[test]
        fn the_verdict_is_that_of_trying_every_order(
            shapes in proptest::collection::vec((0u8..5, 1u64..12, 0u64..8, 0u64..4), 1..6),
        ) {
            let history: Vec<Operation> = shapes
                .iter()
                .enumerate()
                .map(|(index, (kind, begin, length, seen))| match kind {
                    0 | 1 => write(index as u64, *begin, begin + length),
                    2 => lost_write(index as u64, *begin),
                    _ => read(if *seen == 3 { None } else { Some(*seen) }, *begin, begin + length),
                })
                .collect();
            prop_assert_eq!(holds(&history), is_linearizable(&history, None));
        }
    }
}
