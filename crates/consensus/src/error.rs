//! What can go wrong, as decisions for the caller.

use model::{GroupId, NodeId};

/// Why a group did not start. The node must not vote in it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The timing or thresholds contradict each other.
    #[error("{group}: the timing is impossible: {reason}")]
    Options {
        /// Which group.
        group: GroupId,
        /// What contradicts what.
        reason: String,
    },
    /// The log or the stored position has a hole or does not decode: this node has to be rebuilt as
    /// a new learner.
    #[error("{group}: the log is damaged at index {index}: {reason}")]
    Damaged {
        /// Which group.
        group: GroupId,
        /// Where.
        index: u64,
        /// What was found.
        reason: &'static str,
    },
    /// The disk failed.
    #[error("{group}: reading the disk failed")]
    Disk {
        /// Which group.
        group: GroupId,
        /// How.
        #[source]
        source: std::io::Error,
    },
    /// openraft refused what it read.
    #[error("{group}: the stored state is refused: {reason}")]
    Refused {
        /// Which group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}

/// Why a command or a read has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not carried out: this node does not lead. Ask the leader, if one is known.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// May have been carried out, or may still be.
    #[error("the outcome is not known")]
    Unknown,
    /// Certainly not carried out: the command is longer than [`crate::COMMAND_BYTES_MAX`].
    #[error("a command of {size_bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// The group has stopped on this node; a command handed in before may have been carried out.
    #[error("the group has stopped on this node")]
    Stopped,
}

/// Why the members did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// Another change is under way, or the leader is too new: try again.
    #[error("another change is under way")]
    Busy,
    /// The change is impossible: no voters left, or a voter that was never a learner.
    #[error("the change is refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// May have been carried out, or may still be: read the members again.
    #[error("the outcome is not known")]
    Unknown,
    /// The group has stopped on this node.
    #[error("the group has stopped on this node")]
    Stopped,
}
