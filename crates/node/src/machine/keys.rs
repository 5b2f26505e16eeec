//! Where everything lies in a group's space: keyspaces and key layouts (`docs/data-on-disk.md`).
//!
//! Numbers are big-endian, so that the order of bytes is the order of numbers.

use model::{Origin, PartitionId, RegionId, TableId, TenantId};
use storage::Keyspace;

/// The keyspaces of a space, in the order of the constants below.
pub const KEYSPACES: [&str; 11] = [
    "meta",
    "data",
    "change",
    "idempotency",
    "conflict",
    "audit_leaf",
    "audit_detail",
    "audit_node",
    "event",
    "bucket",
    "duty",
];

/// Position, version vectors, chain heads, progress, counters.
pub const META: Keyspace = Keyspace(0);
/// Records (data groups), objects (control group).
pub const DATA: Keyspace = Keyspace(1);
/// Change records by partition, origin and sequence.
pub const CHANGE: Keyspace = Keyspace(2);
/// Results by idempotency key.
pub const IDEMPOTENCY: Keyspace = Keyspace(3);
/// Lost concurrent writes.
pub const CONFLICT: Keyspace = Keyspace(4);
/// Audit leaves by index.
pub const AUDIT_LEAF: Keyspace = Keyspace(5);
/// Old and new values beside a leaf.
pub const AUDIT_DETAIL: Keyspace = Keyspace(6);
/// Hashes of the Merkle tree.
pub const AUDIT_NODE: Keyspace = Keyspace(7);
/// Ingested events of others, by sequence.
pub const EVENT: Keyspace = Keyspace(8);
/// Convergence hashes by partition and bucket.
pub const BUCKET: Keyspace = Keyspace(9);
/// Duties of the region's nodes: leases, and the state of each.
pub const DUTY: Keyspace = Keyspace(10);

/// The applied position of consensus.
pub const META_POSITION: &[u8] = b"position";
/// The scalars of a data group: last HLC, event sequence.
pub const META_SCALARS: &[u8] = b"scalars";
/// The frontier of the audit log.
pub const META_FRONTIER: &[u8] = b"frontier";

/// `c` partition origin: the chain's head.
pub fn chain(partition: PartitionId, origin: Origin) -> Vec<u8> {
    [b"c".as_slice(), &partition.get().to_be_bytes(), &origin_bytes(origin)].concat()
}

/// The partition and origin of a [`chain`] key.
pub fn parse_chain(key: &[u8]) -> Option<(PartitionId, Origin)> {
    let [b'c', p0, p1, r0, r1, i0, i1] = *key else { return None };
    let origin = Origin::new(RegionId::new(u16::from_be_bytes([r0, r1])), u16::from_be_bytes([i0, i1]));
    Some((PartitionId::new(u16::from_be_bytes([p0, p1])), origin))
}

/// The region of a [`progress`] key.
pub fn parse_progress(key: &[u8]) -> Option<RegionId> {
    let [b'p', r0, r1] = *key else { return None };
    Some(RegionId::new(u16::from_be_bytes([r0, r1])))
}

/// `p` region: what that region has made durable.
pub fn progress(region: RegionId) -> Vec<u8> {
    [b"p".as_slice(), &region.get().to_be_bytes()].concat()
}

/// tenant table key: a record.
pub fn record(tenant: TenantId, table: TableId, key: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + key.len());
    bytes.extend_from_slice(&tenant.get().to_be_bytes());
    bytes.extend_from_slice(&table.get().to_be_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// The record's own key inside [`record`].
pub fn record_key(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes.get(12..).unwrap_or_default()).expect("record keys are written from text")
}

/// The first key after every record of a table.
pub fn table_end(tenant: TenantId, table: TableId) -> Vec<u8> {
    match table.get().checked_add(1) {
        Some(next) => record(tenant, TableId::new(next), ""),
        None => (tenant.get() + 1).to_be_bytes().to_vec(),
    }
}

/// partition origin sequence: a change record.
pub fn change(partition: PartitionId, origin: Origin, sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(14);
    bytes.extend_from_slice(&partition.get().to_be_bytes());
    bytes.extend_from_slice(&origin_bytes(origin));
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes
}

/// tenant key: an idempotency row.
pub fn idempotency(tenant: TenantId, key: &str) -> Vec<u8> {
    [&tenant.get().to_be_bytes(), key.as_bytes()].concat()
}

/// tenant id: a conflict.
pub fn conflict(tenant: TenantId, id: &[u8]) -> Vec<u8> {
    [&tenant.get().to_be_bytes(), id].concat()
}

/// A row numbered from zero.
pub fn number(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// partition bucket: a convergence hash.
pub fn bucket(partition: PartitionId, bucket: u16) -> [u8; 4] {
    let (p, b) = (partition.get().to_be_bytes(), bucket.to_be_bytes());
    [p[0], p[1], b[0], b[1]]
}

/// `l` duty: its lease.
pub fn lease(duty: &str) -> Vec<u8> {
    [b"l", duty.as_bytes()].concat()
}

/// The duty of a [`lease`] key.
pub fn lease_duty(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(b"l")?).ok()
}

/// `r` duty 0 key: a row of a duty's state. Names of duties have no zero byte.
pub fn duty_row(duty: &str, key: &[u8]) -> Vec<u8> {
    [b"r", duty.as_bytes(), b"\0", key].concat()
}

/// `p` duty 0 number: a part of a report whose end has not come yet.
pub fn duty_part(duty: &str, number: u64) -> Vec<u8> {
    [b"p", duty.as_bytes(), b"\0", &number.to_be_bytes()].concat()
}

/// `a` duty: what was answered to its last report, where that was more than that it is done.
pub fn duty_answer(duty: &str) -> Vec<u8> {
    [b"a", duty.as_bytes()].concat()
}

/// `d` stream: the next sequence of a stream of events whose source may deliver again.
pub fn door(stream: &str) -> Vec<u8> {
    [b"d", stream.as_bytes()].concat()
}

/// `i` number: identities of events that were kept, by the number of the first of them.
pub fn identities(number: u64) -> Vec<u8> {
    [b"i".as_slice(), &number.to_be_bytes()].concat()
}

fn origin_bytes(origin: Origin) -> [u8; 4] {
    let (region, life) = (origin.region.get().to_be_bytes(), origin.incarnation.to_be_bytes());
    [region[0], region[1], life[0], life[1]]
}
