//! Identifiers: each its own type, so that two of them can never be confused.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps a number that was assigned by whoever owns this kind of identifier.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }
            /// The number inside.
            pub const fn get(self) -> $inner {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number_id!(
    /// A region: assigned by the cluster description, never reused, never a hash.
    RegionId(u16), "r"
);
number_id!(
    /// A node, unique in the cluster over all regions.
    NodeId(u64), "n"
);
number_id!(
    /// A Raft group: 0 is the first data group; see [`GroupId::CONTROL`].
    GroupId(u16), "g"
);
number_id!(
    /// A partition of the tenants' data: `hash(tenant) mod partitions`.
    PartitionId(u16), "p"
);
number_id!(
    /// A tenant, as the data plane knows it: opaque, never reused.
    TenantId(u64), "t"
);
number_id!(
    /// A table inside a tenant, never reused.
    TableId(u32), "tb"
);
number_id!(
    /// A field inside a table, never reused.
    FieldId(u16), "f"
);
number_id!(
    /// A person's account, never reused.
    UserId(u64), "u"
);

impl GroupId {
    /// The control plane's group, which spans all regions.
    pub const CONTROL: Self = Self::new(u16::MAX);
}

impl TenantId {
    /// The platform itself: its sessions, alerts and incidents are records of this tenant.
    pub const PLATFORM: Self = Self::new(0);

    /// The partition that holds this tenant.
    pub fn partition(self, partitions: u16) -> PartitionId {
        let hash = blake3::hash(&self.get().to_be_bytes());
        let head = u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"));
        PartitionId::new((head % u64::from(partitions.max(1))) as u16)
    }
}

impl PartitionId {
    /// The data group that owns this partition in every region.
    pub fn group(self, groups: u16) -> GroupId {
        GroupId::new(self.get() % groups.max(1))
    }
}

/// Who began a sequence of changes: a region, and which life of it.
///
/// The incarnation is raised when a region is restored from a backup, so that its new changes are
/// never mistaken for those it forgot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The region.
    pub region: RegionId,
    /// Which life of the region.
    pub incarnation: u16,
}

impl Origin {
    /// The given life of a region.
    pub const fn new(region: RegionId, incarnation: u16) -> Self {
        Self { region, incarnation }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.region, self.incarnation)
    }
}
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A session, drawn at random when it begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Wraps 16 random bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
    /// The bytes inside.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
