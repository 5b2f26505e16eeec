//! The role catalogue, the actions that policies speak about, and grants.
//!
//! A permission belongs to a role, never to a person: a person holds grants, and a grant names a role and may narrow
//! it to tables and fields.

use crate::FieldMask;
use model::{FieldId, TableId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

// The order of the words is part of the stored form: new ones go last.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
        }
        impl $name {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// The word used in policies, in the API and in the audit log.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
            /// The one with this name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words! {
    /// A role. What each may do is written in `policy/roles.cedar`, nowhere else.
    Role {
        /// Runs the platform: tenants, accounts, the cluster. Never customers' data. Needs a second factor.
        PlatformAdmin = "platform-admin",
        /// Runs one tenant: its tables and accounts, not its records. Needs a second factor.
        TenantAdmin = "tenant-admin",
        /// Reads, writes and deletes records.
        Agent = "agent",
        /// Reads records.
        Reader = "reader",
        /// Works on alerts and incidents, and sends events in.
        Soc = "soc",
        /// Reads the audit log.
        Auditor = "auditor",
    }
}

words! {
    /// Something a person asks the platform to do.
    Action {
        /// See records of a table, and its conflicts.
        RecordRead = "record.read",
        /// Create and change records of a table.
        RecordWrite = "record.write",
        /// Delete records of a table; all of its fields must be granted.
        RecordDelete = "record.delete",
        /// See a table's fields.
        TableRead = "table.read",
        /// Create and change a tenant's tables.
        TableManage = "table.manage",
        /// See, create, change and disable a tenant's accounts.
        UserManage = "user.manage",
        /// See a tenant's properties.
        TenantRead = "tenant.read",
        /// Create and change tenants.
        TenantManage = "tenant.manage",
        /// See the cluster's state; asked of the platform tenant.
        ClusterRead = "cluster.read",
        /// Change the cluster; asked of the platform tenant.
        ClusterManage = "cluster.manage",
        /// See alerts and incidents.
        IncidentRead = "incident.read",
        /// Acknowledge, assign and close incidents.
        IncidentManage = "incident.manage",
        /// Send events to the detection pipeline.
        EventIngest = "event.ingest",
        /// Read the audit log.
        AuditRead = "audit.read",
        /// See and change one's own account: password, second factor, logout.
        SelfManage = "self.manage",
        /// Search and hunt through a tenant's events of the past.
        EventSearch = "event.search",
    }
}

impl Role {
    /// Whether holders need a second factor for everything but managing their own account. Cedar enforces it; this
    /// lets a login ask for the code at once.
    pub const fn needs_second_factor(self) -> bool {
        matches!(self, Self::PlatformAdmin | Self::TenantAdmin)
    }
}

impl Action {
    /// Whether it is asked of a table; all others are asked of a tenant.
    pub const fn is_of_table(self) -> bool {
        matches!(self, Self::RecordRead | Self::RecordWrite | Self::RecordDelete | Self::TableRead)
    }
}

/// Most grants of an account.
pub const GRANTS_MAX: usize = 16;

/// A role held by a person, possibly narrowed to tables and, in each, to fields.
///
/// Tables and fields are named by ids, which are never reused: a grant never widens because a name came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What may be done.
    pub role: Role,
    /// Where: `None` is every table; a table's `None` is every field, also those added later.
    pub tables: Option<BTreeMap<TableId, Option<BTreeSet<FieldId>>>>,
}

/// How much of a table a grant covers: all that policies may know about a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// Nothing.
    None,
    /// Some fields.
    Masked,
    /// Every field.
    Whole,
}

impl Cover {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Masked, Self::Whole];
}

impl Grant {
    /// A role without restriction inside its tenant.
    pub const fn whole(role: Role) -> Self {
        Self { role, tables: None }
    }

    /// How much of `table` it covers.
    pub fn cover(&self, table: TableId) -> Cover {
        match self.tables.as_ref().map(|tables| tables.get(&table)) {
            None | Some(Some(None)) => Cover::Whole,
            Some(None) => Cover::None,
            Some(Some(Some(_))) => Cover::Masked,
        }
    }

    /// The fields of `table` it shows, if a policy allows the action.
    pub fn mask(&self, table: TableId) -> FieldMask {
        match self.tables.as_ref().map(|tables| tables.get(&table)) {
            None | Some(Some(None)) => FieldMask::whole(),
            Some(None) => FieldMask::only(BTreeSet::new()),
            Some(Some(Some(fields))) => FieldMask::only(fields.clone()),
        }
    }
}
