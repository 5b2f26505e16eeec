//! A session that moves between regions with its token reads what it wrote and never goes back.

use super::Finding;
use crate::history::{Act, Operation, Outcome};
use std::collections::BTreeMap;

/// What a session must see at least and can see at most.
#[derive(Default)]
struct Seen {
    least: u64,
    most: u64,
}

/// Judges every roaming session; each does one thing after the other.
pub fn check(history: &[Operation]) -> Finding {
    let mut finding = Finding::new("session guarantees across regions");
    let mut roaming: Vec<&Operation> =
        history.iter().filter(|one| matches!(one.act, Act::RoamWrite { .. } | Act::RoamRead { .. })).collect();
    roaming.sort_by_key(|operation| operation.invoked_us);
    let mut sessions: BTreeMap<&str, Seen> = BTreeMap::new();
    for operation in roaming {
        let seen = sessions.entry(operation.act.key()).or_default();
        match (&operation.act, operation.outcome) {
            (_, Outcome::Failed) => {}
            (Act::RoamWrite { value, .. }, Outcome::Ok) => {
                (seen.least, seen.most) = (seen.least.max(*value), seen.most.max(*value));
            }
            (Act::RoamWrite { value, .. }, Outcome::Unknown) => seen.most = seen.most.max(*value),
            (Act::RoamRead { key, value }, Outcome::Ok) => {
                finding.examined += 1;
                let value = value.unwrap_or(0);
                if !(seen.least..=seen.most).contains(&value) {
                    finding.violate(|| {
                        format!(
                            "{key}: the session read {value}; it had seen {}, written up to {}",
                            seen.least, seen.most
                        )
                    });
                }
                seen.least = seen.least.max(value);
            }
            _ => {}
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::made::operation;

    fn write(value: u64, at: u64, outcome: Outcome) -> Operation {
        operation(Act::RoamWrite { key: "s".into(), value }, at, at + 1, outcome)
    }
    fn read(value: Option<u64>, at: u64) -> Operation {
        operation(Act::RoamRead { key: "s".into(), value }, at, at + 1, Outcome::Ok)
    }
    fn holds(history: &[Operation]) -> bool {
        check(history).holds()
    }

    #[test]
    fn a_session_that_reads_its_writes_holds() {
        assert!(holds(&[read(None, 1), write(1, 2, Outcome::Ok), read(Some(1), 4), write(2, 6, Outcome::Unknown)]));
        assert!(holds(&[write(1, 1, Outcome::Ok), write(2, 3, Outcome::Unknown), read(Some(1), 5), read(Some(2), 7)]));
    }

    #[test]
    fn a_session_that_misses_its_write_is_rejected() {
        assert!(!holds(&[write(1, 1, Outcome::Ok), read(None, 3)]));
        assert!(!holds(&[write(1, 1, Outcome::Ok), write(2, 3, Outcome::Ok), read(Some(1), 5)]));
    }

    #[test]
    fn a_session_that_goes_back_is_rejected() {
        let history = [write(1, 1, Outcome::Ok), write(2, 3, Outcome::Unknown), read(Some(2), 5), read(Some(1), 7)];
        assert!(!holds(&history));
    }

    #[test]
    fn a_session_that_reads_the_future_is_rejected() {
        assert!(!holds(&[write(1, 1, Outcome::Ok), read(Some(2), 3)]));
        assert!(!holds(&[write(1, 1, Outcome::Failed), read(Some(1), 3)]));
    }
}
