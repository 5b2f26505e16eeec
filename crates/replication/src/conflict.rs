//! Conflicts: a write that lost to one its writer had not seen. Never dropped silently, and restorable by a write.

use crate::Digest;
use model::{FieldId, Stamp, TableId, TenantId, Value, codec};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names a conflict: the same in every region that sees the same loser.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConflictId([u8; 16]);

impl ConflictId {
    /// Wraps the bytes of an id read from storage or from a request.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
    /// The bytes inside.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}
impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the two writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Which change wrote.
    pub stamp: Stamp,
    /// What it wrote; `None` for a deletion.
    pub value: Option<Value>,
}

/// Two concurrent writes of one field, or a write and a concurrent deletion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// From tenant, record, field and loser.
    pub id: ConflictId,
    /// Whose record.
    pub tenant: TenantId,
    /// Its table.
    pub table: TableId,
    /// Its key.
    pub key: String,
    /// The field both touched.
    pub field: FieldId,
    /// What readers see, or would see before anything later.
    pub winner: Side,
    /// What they do not see.
    pub loser: Side,
}

impl Conflict {
    /// Orders two sides by their stamps and names the conflict.
    pub fn between(tenant: TenantId, table: TableId, key: &str, field: FieldId, one: Side, other: Side) -> Self {
        let (winner, loser) = if one.stamp > other.stamp { (one, other) } else { (other, one) };
        let digest = Digest::of(&[&codec::encode(&(tenant, table, key, field, loser.stamp))]);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.bytes()[..16]);
        Self { id: ConflictId(id), tenant, table, key: key.to_owned(), field, winner, loser }
    }
}
