//! Version vectors: how far each origin's sequence is known.

use crate::Origin;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// For each origin the last sequence number known, without holes. Absent means zero.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionVector(BTreeMap<Origin, u64>);

impl VersionVector {
    /// Knows nothing.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }
    /// The last sequence number known of `origin`.
    pub fn get(&self, origin: Origin) -> u64 {
        self.0.get(&origin).copied().unwrap_or(0)
    }
    /// Raises `origin` to `sequence`; never lowers it.
    pub fn raise(&mut self, origin: Origin, sequence: u64) {
        if sequence > 0 {
            let known = self.0.entry(origin).or_insert(0);
            *known = (*known).max(sequence);
        }
    }
    /// Whether everything `other` knows is known here.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(origin, sequence)| self.get(*origin) >= *sequence)
    }
    /// Learns all that `other` knows: the least upper bound.
    pub fn join(&mut self, other: &Self) {
        for (origin, sequence) in &other.0 {
            self.raise(*origin, *sequence);
        }
    }
    /// What both know: the greatest lower bound.
    pub fn meet(&self, other: &Self) -> Self {
        let mut result = Self::new();
        for (origin, sequence) in &self.0 {
            result.raise(*origin, (*sequence).min(other.get(*origin)));
        }
        result
    }
    /// Every origin known, with its sequence, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, u64)> + '_ {
        self.0.iter().map(|(origin, sequence)| (*origin, *sequence))
    }
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Origin, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Origin, u64)>>(pairs: I) -> Self {
        let mut vector = Self::new();
        for (origin, sequence) in pairs {
            vector.raise(origin, sequence);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegionId;
    use proptest::prelude::*;

    fn vector() -> impl Strategy<Value = VersionVector> {
        proptest::collection::vec((0u16..4, 0u16..2, 0u64..9), 0..6).prop_map(|items| {
            items.into_iter().map(|(region, life, n)| (Origin::new(RegionId::new(region), life), n)).collect()
        })
    }

    proptest! {
        #[test]
        fn join_and_meet_are_the_bounds_of_a_lattice(a in vector(), b in vector()) {
            let mut join = a.clone();
            join.join(&b);
            let meet = a.meet(&b);
            prop_assert!(join.covers(&a) && join.covers(&b));
            prop_assert!(a.covers(&meet) && b.covers(&meet));
            prop_assert_eq!(meet.clone(), b.meet(&a));
            let mut back = a.clone();
            back.join(&meet);
            prop_assert_eq!(back, a);
        }
    }
}
