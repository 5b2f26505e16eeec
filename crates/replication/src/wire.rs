//! What two regions say to each other on a pull stream. The receiver asks; the source answers.

use crate::Change;
use model::codec::{self, CodecError};
use model::{GroupId, Origin, PartitionId, RegionId, VersionVector};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How far each partition of a group is applied.
pub type Vectors = BTreeMap<PartitionId, VersionVector>;

/// From receiver to source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Always first; later ones start over from what is durable here.
    Pull {
        /// Whose partitions.
        group: GroupId,
        /// The receiver's present life: its own changes are never sent back, those of earlier lives are.
        receiver: Origin,
        /// What is durable here: also an acknowledgement.
        have: Vectors,
        /// Third regions whose changes are wanted from this source too.
        relay: BTreeSet<RegionId>,
        /// The whole credit, in units of [`Change::weight`].
        credit: u64,
    },
    /// More credit.
    Grant {
        /// In units of [`Change::weight`].
        credit: u64,
    },
    /// What a quorum of this region has on disk. Only partitions that moved.
    Ack {
        /// Of every origin, this region's own included.
        durable: Vectors,
    },
}

/// From source to receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// In each origin's order; within a partition also in causal order.
    Changes(Vec<Change>),
    /// How far this source is: the measure of lag, and of loss should it vanish.
    Heads(Vectors),
    /// Changes the receiver lacks are no longer kept: it needs a snapshot of this partition.
    Truncated {
        /// The partition.
        partition: PartitionId,
        /// Whose changes are gone.
        origin: Origin,
    },
}

macro_rules! message {
    ($name:ident) => {
        impl $name {
            /// One frame.
            pub fn encode(&self) -> Vec<u8> {
                codec::encode(self)
            }
            /// Reads a frame; any bytes give a message or an error. Changes inside are not checked yet.
            pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                codec::decode(bytes)
            }
        }
    };
}
message!(Ask);
message!(Answer);
