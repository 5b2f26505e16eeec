//! Counters are exact: every acknowledged addition once, every unknown one once or not at all.

use super::Finding;
use crate::history::{Act, Operation, Outcome};
use std::collections::BTreeMap;

/// Judges the counters' values in every region against what was added.
pub fn check(history: &[Operation], found: &BTreeMap<String, BTreeMap<String, i64>>) -> Finding {
    let mut finding = Finding::new("counters exact");
    let mut added: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for operation in history {
        let Act::Add { key } = &operation.act else { continue };
        let (least, most) = added.entry(key).or_default();
        match operation.outcome {
            Outcome::Ok => {
                *least += 1;
                *most += 1;
            }
            Outcome::Unknown => *most += 1,
            Outcome::Failed => {}
        }
    }
    for (key, (least, most)) in added {
        for (region, values) in found {
            finding.examined += 1;
            let value = values.get(key).copied().unwrap_or(0);
            if !(least..=most).contains(&value) {
                finding.violate(|| format!("{key} is {value} in {region}; between {least} and {most} were added"));
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::made::operation;

    fn add(outcome: Outcome) -> Operation {
        operation(Act::Add { key: "n".into() }, 1, 2, outcome)
    }
    fn holds(value: i64) -> bool {
        let history = [add(Outcome::Ok), add(Outcome::Ok), add(Outcome::Unknown), add(Outcome::Failed)];
        let found = BTreeMap::from([("eu".to_owned(), BTreeMap::from([("n".to_owned(), value)]))]);
        check(&history, &found).holds()
    }

    #[test]
    fn exact_and_perhaps_the_unknown_holds() {
        assert!(holds(2) && holds(3));
    }

    #[test]
    fn a_lost_and_a_doubled_addition_are_rejected() {
        assert!(!holds(1), "an acknowledged addition is lost");
        assert!(!holds(4), "an addition counted twice, or one that failed counted");
    }

    #[test]
    fn a_counter_that_is_not_there_is_rejected() {
        let found = BTreeMap::from([("eu".to_owned(), BTreeMap::new())]);
        assert!(!check(&[add(Outcome::Ok)], &found).holds());
    }
}
