//! What a cluster is, as data: read by nodes, simulation, chaos drills and deployment alike.

use crate::{GroupId, NodeId, Origin, PartitionId, RegionId, TenantId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Which kind of cluster: part of its identity, and chaos drills refuse production.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// A developer's machine, or a demonstration.
    Development,
    /// Quality assurance.
    Qa,
    /// Drills and rehearsals.
    Staging,
    /// Customers' data.
    Production,
}

/// A cluster: its regions, their nodes, and how tenants are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Unique; certificates of another cluster are refused.
    pub name: String,
    /// What it is for.
    pub environment: Environment,
    /// Partitions of the tenants' data; never changes after creation.
    #[serde(default = "default_partitions")]
    pub partitions: u16,
    /// Raft groups of each region; partition `p` belongs to group `p mod groups`.
    #[serde(default = "default_groups")]
    pub groups: u16,
    /// Shards of each region's detection; its nodes share them out.
    #[serde(default = "default_detection_shards")]
    pub detection_shards: u16,
    /// In order of their ids.
    pub regions: Vec<Region>,
    /// Expected links between regions; what is not listed has no known delay.
    #[serde(default)]
    pub links: Vec<ExpectedLink>,
}

/// One region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Never reused.
    pub id: RegionId,
    /// Short name: `eu`.
    pub name: String,
    /// Raised when the region is restored from a backup.
    #[serde(default)]
    pub incarnation: u16,
    /// Its nodes, in order of their ids.
    pub nodes: Vec<Node>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique in the cluster.
    pub id: NodeId,
    /// Short name: `eu-1`.
    pub name: String,
    /// Its security zone; part of its certificate.
    #[serde(default = "default_zone")]
    pub zone: String,
    /// Where other nodes reach it (QUIC over UDP).
    pub link: SocketAddr,
    /// Where clients reach it (HTTPS).
    pub api: SocketAddr,
    /// Where its metrics and health are (HTTP, loopback or a private network).
    pub metrics: SocketAddr,
}

/// The delay expected between two regions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedLink {
    /// One end.
    pub from: String,
    /// The other end.
    pub to: String,
    /// Round trip in milliseconds.
    pub round_trip_ms: u32,
}

fn default_partitions() -> u16 {
    256
}
fn default_groups() -> u16 {
    4
}
fn default_detection_shards() -> u16 {
    2
}
fn default_zone() -> String {
    "protected".to_owned()
}

/// Why a cluster's description is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// Not TOML, or not of this shape; the message names line and column.
    #[error("{0}")]
    Syntax(String),
    /// A rule of the whole is broken.
    #[error("{0}")]
    Invalid(String),
}

impl Cluster {
    /// Reads and checks a description in TOML.
    pub fn parse(text: &str) -> Result<Self, ClusterError> {
        let cluster: Self = toml::from_str(text).map_err(|error| ClusterError::Syntax(error.to_string()))?;
        cluster.check()?;
        Ok(cluster)
    }

    /// The description in TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("the description has only types that TOML has")
    }

    /// Checks the rules that span regions and nodes.
    pub fn check(&self) -> Result<(), ClusterError> {
        let invalid = |message: String| Err(ClusterError::Invalid(message));
        if crate::schema::check_name(&self.name).is_err() {
            return invalid(format!("cluster name '{}' must be lower-case letters, digits, '_' or '-'", self.name));
        }
        if self.regions.is_empty() {
            return invalid("a cluster needs at least one region".into());
        }
        if !(1..=4096).contains(&self.partitions) {
            return invalid(format!("partitions = {}: between 1 and 4096", self.partitions));
        }
        if !(1..=64).contains(&self.groups) || self.groups > self.partitions {
            return invalid(format!("groups = {}: between 1 and 64, and at most partitions", self.groups));
        }
        if !(1..=64).contains(&self.detection_shards) {
            return invalid(format!("detection_shards = {}: between 1 and 64", self.detection_shards));
        }
        let (mut regions, mut names, mut ids, mut addresses) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for region in &self.regions {
            if crate::schema::check_name(&region.name).is_err() {
                return invalid(format!(
                    "region name '{}' must be lower-case letters, digits, '_' or '-'",
                    region.name
                ));
            }
            if !regions.insert(region.id) || !names.insert(region.name.clone()) {
                return invalid(format!("region '{}' ({}) is given twice", region.name, region.id));
            }
            if region.nodes.is_empty() {
                return invalid(format!("region '{}' has no nodes", region.name));
            }
            for node in &region.nodes {
                if !ids.insert(node.id) || !names.insert(node.name.clone()) {
                    return invalid(format!("node '{}' ({}) is given twice", node.name, node.id));
                }
                if !addresses.insert(("udp", node.link))
                    || !addresses.insert(("tcp", node.api))
                    || !addresses.insert(("tcp", node.metrics))
                {
                    return invalid(format!("node '{}' shares an address with another", node.name));
                }
            }
        }
        for link in &self.links {
            for end in [&link.from, &link.to] {
                if self.region_named(end).is_none() {
                    return invalid(format!("link names region '{end}', which is not there"));
                }
            }
        }
        Ok(())
    }

    /// The region with this id.
    pub fn region(&self, id: RegionId) -> Option<&Region> {
        self.regions.iter().find(|region| region.id == id)
    }
    /// The region with this name.
    pub fn region_named(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == name)
    }
    /// The node with this id, and its region.
    pub fn node(&self, id: NodeId) -> Option<(&Region, &Node)> {
        self.nodes().find(|(_, node)| node.id == id)
    }
    /// The node with this name, and its region.
    pub fn node_named(&self, name: &str) -> Option<(&Region, &Node)> {
        self.nodes().find(|(_, node)| node.name == name)
    }
    /// Every node with its region.
    pub fn nodes(&self) -> impl Iterator<Item = (&Region, &Node)> {
        self.regions.iter().flat_map(|region| region.nodes.iter().map(move |node| (region, node)))
    }
    /// The partition that holds a tenant.
    pub fn partition(&self, tenant: TenantId) -> PartitionId {
        tenant.partition(self.partitions)
    }
    /// The data group that holds the platform's own tenant: alerts, incidents, and the duties of a region's nodes.
    pub fn home(&self) -> GroupId {
        self.group(TenantId::PLATFORM)
    }
    /// The data group that holds a tenant, in every region.
    pub fn group(&self, tenant: TenantId) -> GroupId {
        self.partition(tenant).group(self.groups)
    }
}

impl Region {
    /// The origin of changes that begin here now.
    pub fn origin(&self) -> Origin {
        Origin::new(self.id, self.incarnation)
    }
}
