//! What others ask of a data group's state: changes for other regions, hashes, conflicts, events.

use crate::machine::command::Lease;
use crate::machine::data::{DataMachine, stored};
use crate::machine::keys;
use model::{Origin, PartitionId, TenantId, VersionVector};
use replication::{Change, Conflict, convergence};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

/// Most duties of a region.
pub const DUTIES_MAX: usize = 1_024;
/// Rows of a duty's state read at once.
const DUTY_ROWS_AT_ONCE: usize = 4_096;

impl DataMachine {
    /// The changes of `origin` in `partition` after `after`, at most `limit`.
    pub fn changes_after(
        &self,
        partition: PartitionId,
        origin: Origin,
        after: u64,
        limit: usize,
    ) -> io::Result<Vec<Change>> {
        self.changes_from(partition, origin, Bound::Excluded(after), false, limit)
    }

    /// The changes of `origin` in `partition` from `at` on, or backwards from there, at most `limit`.
    pub fn changes_from(
        &self,
        partition: PartitionId,
        origin: Origin,
        at: Bound<u64>,
        backwards: bool,
        limit: usize,
    ) -> io::Result<Vec<Change>> {
        let key = |sequence| keys::change(partition, origin, sequence);
        let (at, first, last) = (at.map(key), key(0), key(u64::MAX));
        let at = at.as_ref().map(|key| &key[..]);
        let (from, to) = if backwards { (Bound::Included(&first[..]), at) } else { (at, Bound::Included(&last[..])) };
        let rows = self.space.scan(keys::CHANGE, from, to, backwards, limit)?;
        rows.iter().map(|(_, value)| stored(value)).collect()
    }

    /// The convergence hashes of a partition, by bucket.
    pub fn buckets(&self, partition: PartitionId) -> io::Result<BTreeMap<u16, convergence::Sum>> {
        let (from, to) = (keys::bucket(partition, 0), keys::bucket(partition, u16::MAX));
        let rows =
            self.space.scan(keys::BUCKET, Bound::Included(&from), Bound::Included(&to), false, convergence::BUCKETS)?;
        let sum = |bytes: Vec<u8>| {
            <[u8; 32]>::try_from(bytes).map(convergence::Sum::from_bytes).unwrap_or(convergence::Sum::ZERO)
        };
        Ok(rows.into_iter().map(|(key, value)| (u16::from_be_bytes([key[2], key[3]]), sum(value))).collect())
    }

    /// Vector and digest of every partition with changes, as of one moment.
    pub fn digests(&self) -> io::Result<Vec<(PartitionId, VersionVector, [u8; 32])>> {
        // While the state is held nothing is applied: hashes and vectors belong together.
        let state = self.state.lock();
        let mut digests = Vec::with_capacity(state.positions.len());
        for partition in state.positions.keys() {
            let buckets = self.buckets(*partition)?;
            let total = buckets.values().fold(convergence::Sum::ZERO, |total, sum| total.plus(*sum));
            digests.push((*partition, state.vector(*partition), total.to_bytes()));
        }
        Ok(digests)
    }

    /// A tenant's conflicts, newest first, after the given row.
    pub fn conflicts(
        &self,
        tenant: TenantId,
        after: Option<&[u8]>,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Conflict)>> {
        let start = keys::conflict(tenant, after.unwrap_or_default());
        let end = (tenant.get() + 1).to_be_bytes();
        let from = if after.is_some() { Bound::Excluded(start.as_slice()) } else { Bound::Included(start.as_slice()) };
        let rows = self.space.scan(keys::CONFLICT, from, Bound::Excluded(&end), false, limit)?;
        rows.into_iter().map(|(key, value)| Ok((key[8..].to_vec(), stored(&value)?))).collect()
    }

    /// Ingested events from `from` on.
    pub fn events(&self, from: u64, limit: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let rows =
            self.space.scan(keys::EVENT, Bound::Included(&keys::number(from)), Bound::Unbounded, false, limit)?;
        Ok(rows
            .into_iter()
            .filter_map(|(key, value)| Some((u64::from_be_bytes(key.try_into().ok()?), value)))
            .collect())
    }

    /// Who has which duty.
    pub fn leases(&self) -> io::Result<BTreeMap<String, Lease>> {
        let rows = self.space.scan(keys::DUTY, Bound::Included(b"l"), Bound::Excluded(b"m"), false, DUTIES_MAX)?;
        rows.into_iter()
            .filter_map(|(key, value)| Some((keys::lease_duty(&key)?.to_owned(), value)))
            .map(|(duty, value)| Ok((duty, stored(&value)?)))
            .collect()
    }

    /// The rows of a duty's state whose keys begin with `prefix`, in order.
    pub fn duty_rows(&self, duty: &str, prefix: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let from = keys::duty_row(duty, prefix);
        let skip = from.len() - prefix.len();
        let (mut rows, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let start = after.as_deref().map_or(Bound::Included(from.as_slice()), Bound::Excluded);
            let part = self.space.scan(keys::DUTY, start, Bound::Unbounded, false, DUTY_ROWS_AT_ONCE)?;
            let count = part.len();
            after = part.last().map(|(key, _)| key.clone());
            let ours = part.into_iter().take_while(|(key, _)| key.starts_with(&from));
            let before = rows.len();
            rows.extend(ours.map(|(key, value)| (key[skip..].to_vec(), value)));
            if rows.len() - before < DUTY_ROWS_AT_ONCE || count < DUTY_ROWS_AT_ONCE {
                return Ok(rows);
            }
        }
    }
}
