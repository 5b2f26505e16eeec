//! No acknowledged write is lost, and nothing exists that nobody wrote.

use super::Finding;
use crate::history::{Act, Operation, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Judges what a region holds in the end against what was acknowledged anywhere.
pub fn check(history: &[Operation], found: &BTreeMap<String, BTreeSet<String>>) -> Finding {
    let mut finding = Finding::new("no acknowledged write lost");
    let mut possible = BTreeSet::new();
    for operation in history {
        let Act::Create { key } = &operation.act else { continue };
        if operation.outcome != Outcome::Failed {
            possible.insert(key.as_str());
        }
        if operation.is_ok() {
            finding.examined += 1;
            for (region, keys) in found {
                if !keys.contains(key) {
                    finding.violate(|| format!("{key} was acknowledged and is not in {region}"));
                }
            }
        }
    }
    for (region, keys) in found {
        for key in keys.iter().filter(|key| !possible.contains(key.as_str())) {
            finding.violate(|| format!("{key} is in {region}, and its write certainly failed or never was"));
        }
    }
    finding
}

/// Acknowledged creations that a region does not hold, with the moment of their acknowledgement.
pub fn missing<'a>(history: &'a [Operation], held: &BTreeSet<String>) -> Vec<&'a Operation> {
    let is_missing = |operation: &&Operation| matches!(&operation.act, Act::Create { key } if operation.is_ok() && !held.contains(key));
    history.iter().filter(is_missing).collect()
}

/// Judges the records that all regions write: everywhere the same value, and one that somebody wrote.
pub fn check_hot(history: &[Operation], found: &BTreeMap<String, BTreeMap<String, Option<u64>>>) -> Finding {
    let mut finding = Finding::new("one last writer");
    let mut written: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut acknowledged = BTreeSet::new();
    for operation in history {
        let Act::HotWrite { key, value } = &operation.act else { continue };
        if operation.outcome != Outcome::Failed {
            written.entry(key).or_default().insert(*value);
        }
        if operation.is_ok() {
            acknowledged.insert(key.as_str());
        }
    }
    let mut everywhere: BTreeMap<&str, BTreeSet<Option<u64>>> = BTreeMap::new();
    for (region, values) in found {
        for (key, value) in values {
            finding.examined += 1;
            everywhere.entry(key).or_default().insert(*value);
            match value {
                Some(value) if !written.get(key.as_str()).is_some_and(|written| written.contains(value)) => {
                    finding.violate(|| format!("{key} is {value} in {region}, which nobody wrote"));
                }
                None if acknowledged.contains(key.as_str()) => {
                    finding.violate(|| format!("{key} is unset in {region}, though writes were acknowledged"));
                }
                _ => {}
            }
        }
    }
    for (key, values) in everywhere.iter().filter(|(_, values)| values.len() > 1) {
        finding.violate(|| format!("{key} differs between regions: {values:?}"));
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::made::{create, operation};

    fn held(keys: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
        BTreeMap::from([("eu".to_owned(), keys.iter().map(|key| (*key).to_owned()).collect())])
    }

    #[test]
    fn a_history_without_loss_holds() {
        let history = [create("a", 1, Outcome::Ok), create("b", 2, Outcome::Unknown), create("c", 3, Outcome::Failed)];
        assert!(check(&history, &held(&["a"])).holds());
        assert!(check(&history, &held(&["a", "b"])).holds(), "unknown stays possible");
    }

    #[test]
    fn a_lost_write_is_rejected() {
        let history = [create("a", 1, Outcome::Ok), create("b", 2, Outcome::Ok)];
        assert!(!check(&history, &held(&["a"])).holds());
        assert_eq!(missing(&history, &held(&["a"])["eu"]).len(), 1);
        let mut both = held(&["a", "b"]);
        both.insert("us".into(), BTreeSet::from(["a".into()]));
        assert!(!check(&history, &both).holds(), "one region is enough");
    }

    #[test]
    fn what_nobody_wrote_is_rejected() {
        assert!(!check(&[create("a", 1, Outcome::Ok)], &held(&["a", "ghost"])).holds());
        assert!(!check(&[create("a", 1, Outcome::Failed)], &held(&["a"])).holds(), "a refused write took effect");
    }

    fn hot(value: u64, outcome: Outcome) -> Operation {
        operation(Act::HotWrite { key: "h".into(), value }, 1, 2, outcome)
    }
    fn values(values: &[(&str, Option<u64>)]) -> BTreeMap<String, BTreeMap<String, Option<u64>>> {
        let one = |value: &Option<u64>| BTreeMap::from([("h".to_owned(), *value)]);
        values.iter().map(|(region, value)| ((*region).to_owned(), one(value))).collect()
    }

    #[test]
    fn one_last_writer_everywhere_holds() {
        let history = [hot(1, Outcome::Ok), hot(2, Outcome::Unknown)];
        assert!(check_hot(&history, &values(&[("eu", Some(1)), ("us", Some(1))])).holds());
        assert!(check_hot(&history, &values(&[("eu", Some(2)), ("us", Some(2))])).holds());
    }

    #[test]
    fn regions_that_differ_and_values_from_nowhere_are_rejected() {
        let history = [hot(1, Outcome::Ok), hot(2, Outcome::Ok), hot(3, Outcome::Failed)];
        assert!(!check_hot(&history, &values(&[("eu", Some(1)), ("us", Some(2))])).holds());
        assert!(!check_hot(&history, &values(&[("eu", Some(9))])).holds());
        assert!(!check_hot(&history, &values(&[("eu", Some(3))])).holds());
        assert!(!check_hot(&history, &values(&[("eu", None)])).holds());
    }
}
