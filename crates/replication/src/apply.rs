//! Admission: what the state machine does with a change that came through its own log.
//!
//! The last gate: two links may bring the same change, and a proposal may be repeated. Never trusts the inbox.

use crate::{Change, Content, Digest};
use model::VersionVector;
use serde::{Deserialize, Serialize};

/// How far an origin's sequence is applied in a partition. Stored in the batch of the change it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The last change applied; 0 before the first.
    pub sequence: u64,
    /// Its chain; [`Digest::ZERO`] before the first.
    pub chain: Digest,
}

/// What to do with a change of another origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Apply it, and move the origin's position to [`Change`]'s sequence and chain in the same batch.
    Apply,
    /// Already applied: do nothing.
    Duplicate,
    /// Changes before it are missing: do nothing.
    Hole {
        /// The next sequence that can be applied.
        expected: u64,
    },
    /// It depends on changes that are not applied here yet: do nothing.
    MissingDeps,
    /// It does not continue what was applied: damage, or two histories of one origin. Alarm.
    ForkedChain,
    /// Its content was withheld although the tenant's data may be here: wait for a source that has it.
    ContentMissing,
}

/// Decides about a change, given what the partition has applied: `have` of all origins, `head` of the change's.
///
/// `tenant_is_allowed_here` says whether this region may hold the tenant's data.
pub fn admit(have: &VersionVector, head: Position, change: &Change, tenant_is_allowed_here: bool) -> Admission {
    let sequence = change.header.sequence;
    if sequence <= head.sequence {
        let forked = sequence == head.sequence && change.chain != head.chain;
        return if forked { Admission::ForkedChain } else { Admission::Duplicate };
    }
    if sequence != head.sequence + 1 {
        return Admission::Hole { expected: head.sequence + 1 };
    }
    if !change.follows(head.chain) {
        return Admission::ForkedChain;
    }
    if tenant_is_allowed_here && matches!(change.content, Content::Withheld(_)) {
        return Admission::ContentMissing;
    }
    if have.covers(&change.header.deps) { Admission::Apply } else { Admission::MissingDeps }
}
