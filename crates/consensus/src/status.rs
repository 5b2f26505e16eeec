//! What a group says about itself.

use model::{GroupId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What this node is in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Receives the log but has no vote.
    #[default]
    Learner,
    /// Has a vote and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Orders the commands.
    Leader,
    /// Has stopped.
    Stopped,
}

/// What changes often, cheap to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// This node's role.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The last index applied here.
    pub applied: Option<u64>,
}

/// Everything about a group on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// Its role.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The last index in the log here.
    pub last_log: Option<u64>,
    /// The last index known to be committed.
    pub committed: Option<u64>,
    /// The last index applied.
    pub applied: Option<u64>,
    /// The last index in the newest checkpoint.
    pub snapshot: Option<u64>,
    /// The last index removed from the log.
    pub purged: Option<u64>,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who only receives.
    pub learners: BTreeSet<NodeId>,
    /// On the leader: milliseconds since a quorum last answered.
    pub last_quorum_acked_ms: Option<u64>,
    /// On the leader: milliseconds since each other member last answered; a member that never did is not in it.
    pub heard_ms: BTreeMap<NodeId, u64>,
    /// On the leader: the last index each other member is known to have.
    pub matched: BTreeMap<NodeId, Option<u64>>,
    /// Whether a leader with a quorum was heard lately; `leader` may name one that has died.
    pub is_led: bool,
    /// On a leader that hears no quorum: whether it keeps silent so that the others can elect.
    pub silent: bool,
    /// Why the group stopped here, if it did.
    pub fault: Option<String>,
}
