//! The Merkle tree of RFC 6962, section 2.1, grown one leaf at a time.
//!
//! [`Frontier`] holds the roots of the complete subtrees, largest first: all that appending needs.
//! Only hashes on the levels of tiles (0, 8, 16 …) are handed out to be stored: about 1.004 per leaf.
//! It must never hold or read a leaf's content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::tile::HEIGHT;

/// Bytes in a hash.
pub const HASH_SIZE_BYTES: usize = 32;

const LEAF_PREFIX: u8 = 0;
const NODE_PREFIX: u8 = 1;
const FRONTIER_VERSION: u8 = 1;

/// A SHA-256 hash. In readable formats it is standard base64, in binary ones its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; HASH_SIZE_BYTES]);

/// The place of a stored hash: the root of a complete subtree of 256^`level` leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The level of tiles: 0 is the leaves' hashes, each further one is eight levels of the tree higher.
    pub level: u8,
    /// How many such subtrees stand to its left.
    pub index: u64,
}

/// The right edge of a growing tree: its size and the roots of its complete subtrees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// One for each bit set in `size`, largest subtree first.
    peaks: Vec<Hash>,
}

/// Stored bytes are not a frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the encoding of a Merkle frontier")]
pub struct NotAFrontier;

/// The hash of a leaf: SHA-256 of 0x00 and its bytes.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([LEAF_PREFIX]);
    hasher.update(leaf);
    Hash(hasher.finalize().into())
}

/// The hash of an inner node: SHA-256 of 0x01 and both children.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut input = [NODE_PREFIX; 1 + 2 * HASH_SIZE_BYTES];
    input[1..=HASH_SIZE_BYTES].copy_from_slice(&left.0);
    input[1 + HASH_SIZE_BYTES..].copy_from_slice(&right.0);
    Hash(Sha256::digest(input).into())
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

/// The root over a complete subtree whose hashes on some level are given: their number must be a power of two.
pub(crate) fn fold(hashes: &[Hash]) -> Hash {
    assert!(hashes.len().is_power_of_two(), "a complete subtree has a power of two of nodes on each level");
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    level[0]
}

impl Hash {
    /// Takes the bytes of a hash.
    pub const fn from_bytes(bytes: [u8; HASH_SIZE_BYTES]) -> Self {
        Self(bytes)
    }

    /// Takes the bytes of a hash from a slice of its length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads standard base64.
    pub fn from_base64(text: &str) -> Option<Self> {
        Self::from_slice(&STANDARD.decode(text).ok()?)
    }

    /// Standard base64.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; HASH_SIZE_BYTES] {
        &self.0
    }
}

impl Node {
    /// A storage key: nodes of a level follow each other in the order of their index.
    pub fn to_key(self) -> [u8; 9] {
        let mut key = [self.level; 9];
        key[1..].copy_from_slice(&self.index.to_be_bytes());
        key
    }
}

impl Frontier {
    /// The tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf and returns its index. `keep` is given each hash to store, once in the life of the log,
    /// the leaf's own first.
    pub fn append(&mut self, leaf: Hash, mut keep: impl FnMut(Node, Hash)) -> u64 {
        let index = self.size;
        let mut hash = leaf;
        keep(Node { level: 0, index }, hash);
        let merges = index.trailing_ones();
        for height in 1..=merges {
            let left = self.peaks.pop().expect("each bit set in the size has a peak");
            hash = node_hash(&left, &hash);
            if height % u32::from(HEIGHT) == 0 {
                keep(Node { level: (height / u32::from(HEIGHT)) as u8, index: index >> height }, hash);
            }
        }
        self.peaks.push(hash);
        self.size = index.checked_add(1).expect("a log does not reach 2^64 entries");
        index
    }

    /// The root over all leaves so far.
    pub fn root(&self) -> Hash {
        let Some((last, larger)) = self.peaks.split_last() else { return empty_root() };
        larger.iter().rfold(*last, |right, left| node_hash(left, &right))
    }

    /// The stored form: version (1) · size (8, big endian) · one hash for each bit set in the size.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(9 + self.peaks.len() * HASH_SIZE_BYTES);
        bytes.push(FRONTIER_VERSION);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        self.peaks.iter().for_each(|peak| bytes.extend_from_slice(&peak.0));
        bytes
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAFrontier> {
        let (version, rest) = bytes.split_first().ok_or(NotAFrontier)?;
        let (size, rest) = rest.split_first_chunk::<8>().ok_or(NotAFrontier)?;
        let size = u64::from_be_bytes(*size);
        if *version != FRONTIER_VERSION || rest.len() != size.count_ones() as usize * HASH_SIZE_BYTES {
            return Err(NotAFrontier);
        }
        Ok(Self { size, peaks: rest.chunks_exact(HASH_SIZE_BYTES).filter_map(Hash::from_slice).collect() })
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.to_base64())
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::from_base64(&text).ok_or_else(|| serde::de::Error::custom("not the base64 of a SHA-256 hash"))
        } else {
            <[u8; HASH_SIZE_BYTES]>::deserialize(deserializer).map(Self)
        }
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.to_base64())
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Hash({self})")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The definition of RFC 6962, word for word.
    pub(crate) fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&naive_root(&leaves[..split]), &naive_root(&leaves[split..]))
            }
        }
    }

    pub(crate) fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    /// A tree of `count` leaves and every hash it gave out to be stored.
    pub(crate) fn grown(count: u64) -> (Frontier, BTreeMap<Node, Hash>) {
        let mut frontier = Frontier::new();
        let mut stored = BTreeMap::new();
        for leaf in leaves(count) {
            frontier.append(leaf, |node, hash| assert!(stored.insert(node, hash).is_none(), "{node:?} stored twice"));
        }
        (frontier, stored)
    }

    #[test]
    fn root_is_the_one_of_the_definition_at_every_size() {
        let all = leaves(700);
        let mut frontier = Frontier::new();
        for size in 0..=all.len() {
            assert_eq!(frontier.root(), naive_root(&all[..size]), "size {size}");
            assert_eq!(frontier.size(), size as u64);
            assert_eq!(Frontier::decode(&frontier.encode()), Ok(frontier.clone()));
            if let Some(leaf) = all.get(size) {
                assert_eq!(frontier.append(*leaf, |_, _| ()), size as u64);
            }
        }
    }

    /// The first roots of the test tree that Certificate Transparency implementations share.
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let inputs: [&[u8]; 3] = [b"", b"\x00", b"\x10"];
        let expected = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        ];
        let mut frontier = Frontier::new();
        assert_eq!(
            hex::encode(frontier.root().as_bytes()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for (input, root) in inputs.into_iter().zip(expected) {
            frontier.append(leaf_hash(input), |_, _| ());
            assert_eq!(hex::encode(frontier.root().as_bytes()), root);
        }
    }

    #[test]
    fn stored_hashes_are_those_of_tiles() {
        let (_, stored) = grown(70_000);
        let all = leaves(70_000);
        assert_eq!(stored.len(), 70_000 + 70_000 / 256 + 70_000 / 65_536);
        for (index, leaf) in all.iter().enumerate() {
            assert_eq!(stored[&Node { level: 0, index: index as u64 }], *leaf);
        }
        for (index, chunk) in all.chunks_exact(256).enumerate() {
            assert_eq!(stored[&Node { level: 1, index: index as u64 }], fold(chunk));
        }
        assert_eq!(stored[&Node { level: 2, index: 0 }], fold(&all[..65_536]));
    }

    #[test]
    fn keys_sort_as_nodes() {
        let mut nodes = [Node { level: 1, index: 0 }, Node { level: 0, index: 256 }, Node { level: 0, index: 255 }];
        nodes.sort();
        assert!(nodes.is_sorted_by_key(|node| node.to_key()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), text in ".{0,60}") {
            if let Ok(frontier) = Frontier::decode(&bytes) {
                prop_assert_eq!(frontier.encode(), bytes);
                let _ = frontier.root();
            }
            let _ = Hash::from_base64(&text);
            let _ = serde_json::from_str::<Hash>(&text);
        }
    }

    #[test]
    fn hash_comes_back_from_both_kinds_of_format() {
        let hash = leaf_hash(b"x");
        assert_eq!(serde_json::from_str::<Hash>(&serde_json::to_string(&hash).unwrap()).unwrap(), hash);
        assert_eq!(postcard::from_bytes::<Hash>(&postcard::to_stdvec(&hash).unwrap()).unwrap(), hash);
    }
}
