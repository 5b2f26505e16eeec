//! Proof that regions are equal: per partition 2^12 buckets, each the sum of its rows' digests.
//!
//! A sum is kept up to date by the batch that changes a row: take the old digest away, add the new one.
//! What readers cannot see (tombstones, hidden fields, collected history) never enters a digest, so regions that
//! collect garbage at different moments still agree.

use crate::Digest;
use model::{FieldId, FieldState, Origin, Record, Stamp, TableId, TenantId, Value, codec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Buckets of a partition.
pub const BUCKETS: usize = 1 << 12;

/// A wrapping sum of digests, each taken as a 256-bit little-endian number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Sum([u64; 4]);

impl Sum {
    /// Nothing summed.
    pub const ZERO: Self = Self([0; 4]);

    /// A digest as a number.
    pub fn of(digest: Digest) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(digest.bytes().chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"));
        }
        Self(words)
    }
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut words = [0; 4];
        let mut carry = false;
        for (index, word) in words.iter_mut().enumerate() {
            let (partial, first) = self.0[index].overflowing_add(other.0[index]);
            let (total, second) = partial.overflowing_add(u64::from(carry));
            (*word, carry) = (total, first || second);
        }
        Self(words)
    }
    /// What is left when `other` is taken away.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let mut words = [0; 4];
        let mut borrow = false;
        for (index, word) in words.iter_mut().enumerate() {
            let (partial, first) = self.0[index].overflowing_sub(other.0[index]);
            let (total, second) = partial.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (total, first || second);
        }
        Self(words)
    }
    /// For storage: 32 bytes, little-endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
    /// From storage.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self::of(Digest::new(bytes))
    }
}

/// The bucket of a record, below [`BUCKETS`].
pub fn bucket(tenant: TenantId, table: TableId, key: &str) -> u16 {
    let digest = Digest::of(&[&codec::encode(&(tenant, table, key))]);
    u16::from_le_bytes([digest.bytes()[0], digest.bytes()[1]]) % BUCKETS as u16
}

/// What of a field all regions with the same history agree on.
#[derive(Serialize)]
enum CanonicalField<'a> {
    Register(&'a Value, Stamp),
    Extreme(&'a BTreeMap<Stamp, Value>),
    /// Per origin what deletions left of its increments. The history behind it may be collected.
    Counter(BTreeMap<Origin, i64>, Stamp),
}

/// A record as all regions with the same history write it; `None` when readers see no record.
pub fn canonical_row(tenant: TenantId, table: TableId, key: &str, record: &Record) -> Option<Vec<u8>> {
    let fields: BTreeMap<FieldId, CanonicalField<'_>> =
        record.visible().map(|(id, state)| (id, canonical_field(state))).collect();
    (!fields.is_empty()).then(|| codec::encode(&(tenant, table, key, fields)))
}

fn canonical_field(state: &FieldState) -> CanonicalField<'_> {
    match state {
        FieldState::Register { value, stamp } => CanonicalField::Register(value, *stamp),
        FieldState::Extreme { candidates } => CanonicalField::Extreme(candidates),
        FieldState::Counter { added, removed, stamp } => {
            let mut left: BTreeMap<Origin, i64> = BTreeMap::new();
            for (origin, tally) in added {
                left.insert(*origin, tally.total);
            }
            for (origin, tally) in removed {
                let rest = left.entry(*origin).or_default();
                *rest = rest.wrapping_sub(tally.total);
            }
            left.retain(|_, rest| *rest != 0);
            CanonicalField::Counter(left, *stamp)
        }
    }
}

/// The record's part of its bucket; zero when readers see no record.
pub fn row_sum(tenant: TenantId, table: TableId, key: &str, record: Option<&Record>) -> Sum {
    let row = record.and_then(|record| canonical_row(tenant, table, key, record));
    row.map_or(Sum::ZERO, |row| Sum::of(Digest::of(&[&row])))
}

/// What to add to the record's bucket and to the partition's sum when `old` becomes `new`.
pub fn delta(tenant: TenantId, table: TableId, key: &str, old: Option<&Record>, new: Option<&Record>) -> Sum {
    row_sum(tenant, table, key, new).minus(row_sum(tenant, table, key, old))
}

/// The buckets in which two regions with equal version vectors differ: where repair looks.
///
/// Both lists are in order of bucket and leave out empty ones.
pub fn compare(one: &BTreeMap<u16, Sum>, other: &BTreeMap<u16, Sum>) -> Vec<u16> {
    let get = |buckets: &BTreeMap<u16, Sum>, bucket| buckets.get(&bucket).copied().unwrap_or_default();
    let mut all: Vec<u16> = one.keys().chain(other.keys()).copied().collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|bucket| get(one, *bucket) != get(other, *bucket));
    all
}
