//! Replicas with equal version vectors have equal contents, and in the end all vectors are equal.

use super::Finding;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What one node holds of one partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Digest {
    /// For each origin the last change applied.
    pub vector: BTreeMap<String, u64>,
    /// The hash of all records with their merge state.
    pub hash: String,
}

/// What one node holds: a digest for each partition that holds anything.
pub type Replica = BTreeMap<u64, Digest>;

/// Judges replicas, by the names of their nodes, after everything was healed.
pub fn check(replicas: &BTreeMap<String, Replica>) -> Finding {
    let mut finding = Finding::new("replicas equal");
    let partitions: BTreeSet<u64> = replicas.values().flat_map(|replica| replica.keys().copied()).collect();
    for partition in partitions {
        let mut contents: BTreeMap<Option<&BTreeMap<String, u64>>, BTreeMap<&str, &str>> = BTreeMap::new();
        for (node, replica) in replicas {
            finding.examined += 1;
            let digest = replica.get(&partition);
            let hash = digest.map_or("nothing", |digest| &digest.hash);
            contents.entry(digest.map(|digest| &digest.vector)).or_default().insert(node, hash);
        }
        if contents.len() > 1 {
            let sides: Vec<String> =
                contents.iter().map(|(vector, nodes)| format!("{:?} have {vector:?}", nodes.keys())).collect();
            finding.violate(|| format!("partition {partition} has not arrived everywhere: {}", sides.join("; ")));
        }
        for nodes in contents.values() {
            if nodes.values().collect::<BTreeSet<_>>().len() > 1 {
                finding.violate(|| format!("partition {partition}: equal vectors, different contents: {nodes:?}"));
            }
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(sequence: u64, hash: &str) -> Replica {
        let digest = Digest { vector: BTreeMap::from([("1.0".into(), sequence)]), hash: hash.into() };
        BTreeMap::from([(7, digest)])
    }
    fn holds(replicas: &[(&str, Replica)]) -> bool {
        check(&replicas.iter().map(|(name, replica)| ((*name).to_owned(), replica.clone())).collect()).holds()
    }

    #[test]
    fn equal_replicas_hold() {
        assert!(holds(&[("eu-1", replica(3, "aa")), ("us-1", replica(3, "aa"))]));
    }

    #[test]
    fn equal_vectors_with_different_contents_are_rejected() {
        assert!(!holds(&[("eu-1", replica(3, "aa")), ("us-1", replica(3, "ab"))]));
    }

    #[test]
    fn a_replica_that_stayed_behind_is_rejected() {
        assert!(!holds(&[("eu-1", replica(3, "aa")), ("us-1", replica(2, "aa"))]));
        assert!(!holds(&[("eu-1", replica(3, "aa")), ("us-1", Replica::new())]), "a partition is missing");
    }
}
