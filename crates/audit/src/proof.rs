//! Proofs that a leaf is in a tree, and that one tree continues another (RFC 9162, sections 2.1.3 and 2.1.4).
//!
//! Generation reads stored hashes through a closure; verification needs nothing but the proof.
//! Verification must never trust a length or index it was not given by the caller.

use crate::merkle::{Hash, empty_root, fold, node_hash};
use crate::tile::HEIGHT;

/// Hashes in the longest proof there is: one for each level, and one more for consistency.
pub const PROOF_HASHES_MAX: usize = 65;

/// A run of stored hashes of one level of tiles, inside one tile: [`crate::Node`]s from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The level of tiles.
    pub level: u8,
    /// The index of the first hash on that level.
    pub first: u64,
    /// How many hashes: a power of two, at most 128.
    pub count: u16,
}

/// Why no proof could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError<E> {
    /// The index or the earlier size does not lie inside the tree.
    #[error("outside of the tree")]
    OutOfRange,
    /// Stored hashes are not there.
    #[error("{} hashes of level {} from {} on are not stored", .0.count, .0.level, .0.first)]
    Missing(Span),
    /// Reading failed.
    #[error("stored hashes could not be read")]
    Read(#[source] E),
}

/// A proof does not prove what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("proof does not verify")]
pub struct Unproven;

/// The audit path of leaf `index` in the tree of `size` leaves, the leaf's sibling first.
pub fn inclusion<E>(
    index: u64,
    size: u64,
    mut read: impl FnMut(Span) -> Result<Vec<Hash>, E>,
) -> Result<Vec<Hash>, ProofError<E>> {
    if index >= size {
        return Err(ProofError::OutOfRange);
    }
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(subtree(middle, high, &mut read)?);
            high = middle;
        } else {
            path.push(subtree(low, middle, &mut read)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of `size` leaves continues the one of `earlier` leaves.
/// Empty when both are the same or the earlier one has no leaf.
pub fn consistency<E>(
    earlier: u64,
    size: u64,
    mut read: impl FnMut(Span) -> Result<Vec<Hash>, E>,
) -> Result<Vec<Hash>, ProofError<E>> {
    if earlier > size {
        return Err(ProofError::OutOfRange);
    }
    let mut path = Vec::new();
    if earlier == 0 || earlier == size {
        return Ok(path);
    }
    let (mut low, mut high) = (0, size);
    // The verifier knows the earlier root itself, so a subtree that is all of the earlier tree is left out.
    let mut known = true;
    while earlier != high {
        let middle = low + split(high - low);
        if earlier <= middle {
            path.push(subtree(middle, high, &mut read)?);
            high = middle;
        } else {
            path.push(subtree(low, middle, &mut read)?);
            low = middle;
            known = false;
        }
    }
    if !known {
        path.push(subtree(low, high, &mut read)?);
    }
    path.reverse();
    Ok(path)
}

/// The root of the tree of `size` leaves, from stored hashes.
pub fn root<E>(size: u64, mut read: impl FnMut(Span) -> Result<Vec<Hash>, E>) -> Result<Hash, ProofError<E>> {
    if size == 0 { Ok(empty_root()) } else { subtree(0, size, &mut read) }
}

/// Checks that the leaf with this hash has this index in the tree of this size and root.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), Unproven> {
    if index >= size || proof.len() > PROOF_HASHES_MAX {
        return Err(Unproven);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(Unproven);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(Unproven) }
}

/// Checks that the tree of `size` leaves and this root continues the one of `earlier` leaves and root.
pub fn verify_consistency(
    earlier: u64,
    earlier_root: &Hash,
    size: u64,
    root: &Hash,
    proof: &[Hash],
) -> Result<(), Unproven> {
    if earlier > size || proof.len() > PROOF_HASHES_MAX {
        return Err(Unproven);
    }
    if earlier == size {
        return if proof.is_empty() && earlier_root == root { Ok(()) } else { Err(Unproven) };
    }
    if earlier == 0 {
        return if proof.is_empty() && *earlier_root == empty_root() { Ok(()) } else { Err(Unproven) };
    }
    let mut rest = proof.iter();
    let first = if earlier.is_power_of_two() { earlier_root } else { rest.next().ok_or(Unproven)? };
    let (mut node, mut last) = (earlier - 1, size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut before, mut after) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(Unproven);
        }
        if node & 1 == 1 || node == last {
            before = node_hash(sibling, &before);
            after = node_hash(sibling, &after);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            after = node_hash(&after, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 && before == *earlier_root && after == *root { Ok(()) } else { Err(Unproven) }
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// The root over the leaves from `low` up to `high`, which must be a subtree of some tree.
fn subtree<E>(low: u64, high: u64, read: &mut impl FnMut(Span) -> Result<Vec<Hash>, E>) -> Result<Hash, ProofError<E>> {
    let count = high - low;
    if !count.is_power_of_two() {
        let middle = low + split(count);
        let left = subtree(low, middle, read)?;
        return Ok(node_hash(&left, &subtree(middle, high, read)?));
    }
    let height = count.trailing_zeros();
    let (level, inside) = ((height / u32::from(HEIGHT)) as u8, height % u32::from(HEIGHT));
    let span = Span { level, first: (low >> height) << inside, count: 1 << inside };
    let hashes = read(span).map_err(ProofError::Read)?;
    if hashes.len() == usize::from(span.count) { Ok(fold(&hashes)) } else { Err(ProofError::Missing(span)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::merkle::Node;
    use crate::merkle::tests::{grown, leaves, naive_root};

    fn reader(stored: &BTreeMap<Node, Hash>) -> impl FnMut(Span) -> Result<Vec<Hash>, Infallible> + '_ {
        |span| {
            let nodes = (span.first..).take(usize::from(span.count)).map(|index| Node { level: span.level, index });
            Ok(nodes.map_while(|node| stored.get(&node).copied()).collect())
        }
    }

    #[test]
    fn every_leaf_of_every_size_is_proven() {
        let (_, stored) = grown(70);
        let all = leaves(70);
        for size in 1..=70 {
            let root = naive_root(&all[..size as usize]);
            assert_eq!(super::root(size, reader(&stored)), Ok(root));
            for index in 0..size {
                let proof = inclusion(index, size, reader(&stored)).unwrap();
                let leaf = &all[index as usize];
                assert_eq!(verify_inclusion(leaf, index, size, &proof, &root), Ok(()), "{index} of {size}");
                for other in (0..size).filter(|other| *other != index) {
                    assert_eq!(verify_inclusion(leaf, other, size, &proof, &root), Err(Unproven));
                }
            }
        }
    }

    #[test]
    fn every_size_is_proven_to_continue_every_earlier_one() {
        let (_, stored) = grown(70);
        let all = leaves(70);
        for size in 0..=70 {
            let root = naive_root(&all[..size as usize]);
            for earlier in 0..=size {
                let before = naive_root(&all[..earlier as usize]);
                let proof = consistency(earlier, size, reader(&stored)).unwrap();
                assert_eq!(verify_consistency(earlier, &before, size, &root, &proof), Ok(()), "{earlier} of {size}");
            }
        }
    }

    #[test]
    fn asking_outside_of_the_tree_is_refused() {
        let (_, stored) = grown(5);
        assert_eq!(inclusion(5, 5, reader(&stored)), Err(ProofError::OutOfRange));
        assert_eq!(consistency(6, 5, reader(&stored)), Err(ProofError::OutOfRange));
        assert!(matches!(inclusion(0, 9, reader(&stored)), Err(ProofError::Missing(_))));
    }

    /// All ways to change a proof a little.
    fn mutations(proof: &[Hash], bit: usize) -> Vec<Vec<Hash>> {
        let mut all = Vec::new();
        for at in 0..proof.len() {
            let mut flipped = proof.to_vec();
            let mut bytes = *flipped[at].as_bytes();
            bytes[bit / 8 % 32] ^= 1 << (bit % 8);
            flipped[at] = Hash::from_bytes(bytes);
            all.push(flipped);
            let mut shorter = proof.to_vec();
            shorter.remove(at);
            all.push(shorter);
            let mut longer = proof.to_vec();
            longer.insert(at, proof[at]);
            all.push(longer);
            let mut swapped = proof.to_vec();
            swapped.swap(at, (at + 1) % proof.len());
            if swapped != proof {
                all.push(swapped);
            }
        }
        all.push([proof, &[empty_root()]].concat());
        all
    }

    proptest! {
        #[test]
        fn every_mutation_of_a_proof_fails(size in 2_u64..700, at in any::<u64>(), bit in any::<usize>()) {
            let (frontier, stored) = grown(size);
            let (all, index) = (leaves(size), at % size);
            let root = frontier.root();
            let proof = inclusion(index, size, reader(&stored)).unwrap();
            let leaf = &all[index as usize];
            prop_assert_eq!(verify_inclusion(leaf, index, size, &proof, &root), Ok(()));
            prop_assert_eq!(verify_inclusion(&empty_root(), index, size, &proof, &root), Err(Unproven));
            prop_assert_eq!(verify_inclusion(leaf, index, size, &proof, leaf), Err(Unproven));
            for mutant in mutations(&proof, bit) {
                prop_assert_eq!(verify_inclusion(leaf, index, size, &mutant, &root), Err(Unproven));
            }

            let earlier = index.max(1);
            let before = naive_root(&all[..earlier as usize]);
            let proof = consistency(earlier, size, reader(&stored)).unwrap();
            prop_assert_eq!(verify_consistency(earlier, &before, size, &root, &proof), Ok(()));
            prop_assert_eq!(verify_consistency(earlier, &empty_root(), size, &root, &proof), Err(Unproven));
            prop_assert_eq!(verify_consistency(earlier, &before, size, &empty_root(), &proof), Err(Unproven));
            for mutant in mutations(&proof, bit) {
                prop_assert_eq!(verify_consistency(earlier, &before, size, &root, &mutant), Err(Unproven));
            }
        }

        #[test]
        fn arbitrary_proofs_never_panic(
            numbers in any::<[u64; 3]>(),
            proof in proptest::collection::vec(any::<[u8; 32]>().prop_map(Hash::from_bytes), 0..70),
        ) {
            let [index, size, earlier] = numbers;
            let root = empty_root();
            let _ = verify_inclusion(&root, index, size, &proof, &root);
            let _ = verify_consistency(earlier, &root, size, &root, &proof);
        }
    }
}
