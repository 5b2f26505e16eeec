//! The oracle: what must hold of the history and of what every node holds, while it runs and in the end.
//!
//! It reads every replica directly and asks no node for its opinion. Each part has caught a planted bug.

pub mod audit;
pub mod events;
pub mod linear;
pub mod records;
pub mod state;

use crate::history::Op;
use crate::setup::{CALLS, METERS, TENANTS};
use crate::world::World;
use model::codec::decode;
use model::{Stamp, TableId, TenantId, UserId};
use node::Node;
use node::machine::keys;
use replication::Change;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use storage::{Keyspace, Space};

/// What is wrong, in words.
pub type Findings = Vec<String>;

/// The ids of the workload's tenants and tables.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// The tenant.
    pub tenant: TenantId,
    /// Its calls.
    pub calls: TableId,
    /// Its meters.
    pub meters: TableId,
}

/// What a region holds, as one of its nodes has it; all of its nodes hold the same.
pub struct RegionState {
    /// Its position.
    pub region: usize,
    /// The node that was read.
    pub node: Arc<Node>,
    /// Every change record, in order of stamps.
    pub changes: Vec<Change>,
}

/// Everything the checks need.
pub struct Evidence {
    /// What clients know.
    pub history: Vec<Op>,
    /// For each tenant of the workload.
    pub ids: Vec<Ids>,
    /// Who works with each tenant's data.
    pub users: Vec<UserId>,
    /// For each region.
    pub regions: Vec<RegionState>,
    /// Stamps by request id: which change carried an operation out.
    pub stamps: BTreeMap<String, Stamp>,
}

/// Every row of a keyspace.
pub fn rows(space: &dyn Space, keyspace: Keyspace) -> Vec<(Vec<u8>, Vec<u8>)> {
    space.scan(keyspace, Bound::Unbounded, Bound::Unbounded, false, usize::MAX).unwrap_or_default()
}

/// The ids of the workload's tenants; none before they are created.
pub fn ids(node: &Node) -> Option<Vec<Ids>> {
    let control = node.control();
    let of = |name: &str| {
        let tenant = control.tenant(name)?;
        Some(Ids { tenant: tenant.id, calls: tenant.table(CALLS)?.id, meters: tenant.table(METERS)?.id })
    };
    TENANTS.iter().map(|plan| of(plan.name)).collect()
}

/// Every change record of a node, in order of stamps.
pub fn changes(node: &Node) -> Vec<Change> {
    let spaces = node.data.values().map(|data| data.machine.read_space());
    let read = |space: Arc<dyn Space>| {
        let decoded = rows(&*space, keys::CHANGE).into_iter().filter_map(|(_, value)| decode::<Change>(&value).ok());
        decoded.collect::<Vec<_>>()
    };
    let mut all: Vec<Change> = spaces.flat_map(read).collect();
    all.sort_by_key(|change| change.header.stamp());
    all
}

impl Evidence {
    /// Reads the world as it stands.
    pub fn gather(world: &World, history: Vec<Op>) -> Option<Self> {
        let mut regions = Vec::new();
        let mut stamps = BTreeMap::new();
        for region in 0..crate::setup::REGIONS.len() {
            let node = world.node_in(region)?;
            let changes = changes(&node);
            for change in &changes {
                if let Some(id) = change.body().and_then(|body| body.request_id.clone()) {
                    stamps.insert(id, change.header.stamp());
                }
            }
            regions.push(RegionState { region, node, changes });
        }
        let node = world.any_node()?;
        let (ids, control) = (ids(&node)?, node.control());
        let users = TENANTS.iter().map(|plan| Some(control.user(plan.login)?.id)).collect::<Option<_>>()?;
        Some(Self { history, ids, users, regions, stamps })
    }

    /// The id that an operation's change carries: its idempotency key, which belongs to its user.
    pub fn request_id(&self, op: &Op) -> String {
        let user = self.users[op.tenant].get().to_be_bytes();
        blake3::hash(&[user.as_slice(), op.idempotency().as_bytes()].concat()).to_hex().to_string()
    }

    /// The stamp of the change that carried an operation out, if one did.
    pub fn stamp(&self, op: &Op) -> Option<Stamp> {
        self.stamps.get(&self.request_id(op)).copied()
    }

    /// All checks of a cluster that is at rest.
    pub fn check(&self, world: &World) -> Findings {
        let mut findings = Findings::new();
        state::replicas_are_equal(world, &mut findings);
        state::regions_are_equal(self, &mut findings);
        state::logs_are_sound(self, &mut findings);
        state::tenants_are_apart(self, world, &mut findings);
        records::writes_survive(self, &mut findings);
        records::winners_are_right(self, &mut findings);
        records::counters_are_exact(self, &mut findings);
        linear::reads_are_linearizable(self, &mut findings);
        linear::sessions_see_their_writes(self, &mut findings);
        linear::reads_stay_inside_their_tenant(self, &mut findings);
        audit::logs_verify(world, &mut findings);
        audit::everything_is_recorded_once(self, &mut findings);
        events::each_event_counts_once(self, &mut findings);
        findings.extend(self.regions.first().and_then(|region| events::untold(&region.node, &world.outside)));
        events::each_alert_is_filed_once(self, &mut findings);
        findings
    }
}
