//! The cluster: what runs, what is stuck, where it answers.

use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Where the cluster answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Endpoints {
    /// The cluster's name.
    pub cluster: String,
    /// The region that answers this.
    pub region: String,
    /// Regions in order of their ids.
    pub regions: Vec<RegionEndpoints>,
}

/// Where a region answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RegionEndpoints {
    /// Its name.
    pub name: String,
    /// `https://…` of each of its nodes.
    pub api: Vec<String>,
}

/// What runs, as this node sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The region's name.
    pub region: String,
    /// This node's name.
    pub node: String,
    /// This node's version.
    pub version: String,
    /// The Raft groups on this node; the control group's name is `control`.
    pub groups: Vec<GroupStatus>,
    /// Which node of this region does what only one does at a time.
    pub duties: Vec<DutyStatus>,
    /// Links to other regions, one for each (region, group) this node knows of.
    pub links: Vec<LinkStatus>,
    /// What is stuck, and why: empty when all is well.
    pub stuck: Vec<Stuck>,
}

/// One Raft group, as this node sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GroupStatus {
    /// `0`, `1`, … or `control`.
    pub group: String,
    /// The leader's node name, if known.
    pub leader: Option<String>,
    /// `leader`, `follower`, `candidate` or `learner`: what this node is.
    pub role: String,
    /// The term.
    pub term: u64,
    /// The last log index known committed.
    pub committed: u64,
    /// The last log index applied.
    pub applied: u64,
    /// Names of the voters.
    pub voters: Vec<String>,
}

/// A duty: work that one node of the region does at a time.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DutyStatus {
    /// `detect/0`, `desk`, `sink/webhook`, …
    pub duty: String,
    /// The node that has it.
    pub node: String,
    /// Grows each time it is given to a node.
    pub epoch: u64,
}

/// What one region has of another.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LinkStatus {
    /// The other region's name.
    pub region: String,
    /// The group.
    pub group: String,
    /// `live`, `lagging`, `needs_snapshot`, `bootstrapping`, `clock_quarantine` or `fenced`.
    pub state: String,
    /// Changes behind, if known.
    pub behind: Option<u64>,
    /// Age of the oldest change not yet here, in milliseconds, if known.
    pub lag_ms: Option<u64>,
}

/// Something that does not move.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Stuck {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// Since when: milliseconds since 1970, if known.
    pub since_ms: Option<u64>,
}

/// For comparing regions.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Convergence {
    /// The region that answers.
    pub region: String,
    /// Partitions that hold anything, in order.
    pub partitions: Vec<PartitionHash>,
}

/// What a partition holds.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PartitionHash {
    /// The partition.
    pub partition: u16,
    /// Hex of the hash of all records with their merge state.
    pub hash: String,
    /// For each origin the last change applied: regions with equal vectors must have equal hashes.
    pub vector: BTreeMap<String, u64>,
}

/// Health or readiness of this node.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: &'static str,
    /// The node's name.
    pub node: String,
    /// The region's name.
    pub region: String,
}
