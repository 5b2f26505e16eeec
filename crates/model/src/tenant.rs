//! Tenants: the unit of atomicity, order, causality, residency and quota.

use crate::{RegionId, Table, TenantId};
use serde::{Deserialize, Serialize};

/// A tenant as the control plane keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Opaque, never reused.
    pub id: TenantId,
    /// Unique in the cluster.
    pub name: String,
    /// Where its data may be: enforced by sender and receiver.
    pub allowed_regions: Vec<RegionId>,
    /// Its continuity class, 0 (real time) to 3 (supporting).
    pub continuity_class: u8,
    /// Its tables, in order of their ids.
    pub tables: Vec<Table>,
}

impl Tenant {
    /// The table of this name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }
    /// Whether its data may be in `region`.
    pub fn allows(&self, region: RegionId) -> bool {
        self.allowed_regions.contains(&region)
    }
}
