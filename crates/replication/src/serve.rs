//! The source's side of a pull stream: which changes to send next, within the receiver's credit.
//!
//! Partitions take turns; within a partition the earliest change of all wanted origins goes first, so what a
//! change depends on is sent before it. Content leaves only for regions where its tenant's data may be.

use crate::wire::{Ask, Vectors};
use crate::{Change, Content};
use model::{GroupId, Origin, PartitionId, RegionId, TenantId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Changes of one frame.
pub const FRAME_CHANGES_MAX: usize = 512;
/// A frame ends with the change that reaches this weight.
pub const FRAME_WEIGHT: u64 = 512 * 1024;
/// A partition's turn in a frame ends with the change that reaches this weight.
const TURN_WEIGHT: u64 = 64 * 1024;
/// Credit a receiver can hold; more is cut.
const CREDIT_MAX: i64 = 1 << 30;

/// What to do with the stream now.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Send [`crate::wire::Answer::Changes`], then ask again.
    Changes(Vec<Change>),
    /// Everything wanted was sent: wait for new changes or for an [`Ask`].
    Idle,
    /// More is wanted than the credit allows: wait for an [`Ask`].
    NoCredit,
    /// Send [`crate::wire::Answer::Truncated`].
    Truncated {
        /// The partition.
        partition: PartitionId,
        /// Whose changes are gone.
        origin: Origin,
    },
}

/// Why a stream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The first message must be [`Ask::Pull`].
    #[error("the stream does not begin with a pull")]
    NoPull,
    /// A later pull names another group.
    #[error("a stream serves one group")]
    OtherGroup,
    /// The pull names another region than the certificate.
    #[error("the receiver is of another region than its certificate says")]
    OtherRegion,
}

/// One pull stream at its source.
#[derive(Clone, Debug)]
pub struct Serve {
    home: RegionId,
    peer: RegionId,
    group: Option<GroupId>,
    receiver: Origin,
    relay: BTreeSet<RegionId>,
    sent: Vectors,
    credit: i64,
    last: Option<PartitionId>,
}

impl Serve {
    /// A stream from region `home` to a receiver in region `peer`, as its certificate says.
    pub const fn new(home: RegionId, peer: RegionId) -> Self {
        let receiver = Origin::new(peer, 0);
        Self { home, peer, group: None, receiver, relay: BTreeSet::new(), sent: Vectors::new(), credit: 0, last: None }
    }
    /// The group, once the receiver has named it.
    pub const fn group(&self) -> Option<GroupId> {
        self.group
    }
    /// The receiver's region.
    pub const fn peer(&self) -> RegionId {
        self.peer
    }

    /// Takes a message. What comes back is durable at the receiver: for [`crate::progress::Progress`].
    pub fn ask(&mut self, ask: Ask) -> Result<Option<Vectors>, ServeError> {
        match ask {
            Ask::Pull { group, receiver, have, relay, credit } => {
                if receiver.region != self.peer {
                    return Err(ServeError::OtherRegion);
                }
                if self.group.is_some_and(|known| known != group) {
                    return Err(ServeError::OtherGroup);
                }
                self.group = Some(group);
                self.receiver = receiver;
                self.relay = relay;
                self.sent.clone_from(&have);
                self.credit = i64::try_from(credit).unwrap_or(CREDIT_MAX).min(CREDIT_MAX);
                Ok(Some(have))
            }
            _ if self.group.is_none() => Err(ServeError::NoPull),
            Ask::Grant { credit } => {
                let more = i64::try_from(credit).unwrap_or(CREDIT_MAX);
                self.credit = self.credit.saturating_add(more).min(CREDIT_MAX);
                Ok(None)
            }
            Ask::Ack { durable } => Ok(Some(durable)),
        }
    }

    /// Chooses what to send. `heads` is what is applied here, of the group's partitions; `read` gives a stored
    /// change at or below its head, `None` when it is no longer kept; `allows` says whether a tenant's data may be
    /// in a region.
    pub fn next(
        &mut self,
        heads: &Vectors,
        mut read: impl FnMut(PartitionId, Origin, u64) -> Option<Change>,
        allows: impl Fn(TenantId, RegionId) -> bool,
    ) -> Next {
        if self.group.is_none() {
            return Next::Idle;
        }
        let mut frame = Vec::new();
        let mut weight = 0;
        for partition in turns(heads, self.last) {
            if frame.len() >= FRAME_CHANGES_MAX || weight >= FRAME_WEIGHT {
                break;
            }
            let mut waiting: BTreeMap<Origin, Change> = BTreeMap::new();
            let mut turn = 0;
            loop {
                if let Err(origin) = self.fill(partition, heads, &mut waiting, &mut read) {
                    // What was chosen goes first; the gap is found again by the next call.
                    return if frame.is_empty() { Next::Truncated { partition, origin } } else { Next::Changes(frame) };
                }
                let earliest =
                    waiting.iter().min_by_key(|(_, change)| change.header.stamp()).map(|(origin, _)| *origin);
                let Some(origin) = earliest else { break };
                if self.credit <= 0 {
                    return if frame.is_empty() { Next::NoCredit } else { Next::Changes(frame) };
                }
                let change = waiting.remove(&origin).expect("the earliest was just found there");
                let Some(change) = self.for_peer(change, &allows) else { break };
                let size = change.weight();
                self.credit -= i64::try_from(size).unwrap_or(CREDIT_MAX);
                self.sent.entry(partition).or_default().raise(origin, change.header.sequence);
                self.last = Some(partition);
                (turn, weight) = (turn + size, weight + size);
                frame.push(change);
                if turn >= TURN_WEIGHT || weight >= FRAME_WEIGHT || frame.len() >= FRAME_CHANGES_MAX {
                    break;
                }
            }
        }
        if frame.is_empty() { Next::Idle } else { Next::Changes(frame) }
    }

    /// Reads the next unsent change of each wanted origin; an origin whose next change is gone is the error.
    fn fill(
        &self,
        partition: PartitionId,
        heads: &Vectors,
        waiting: &mut BTreeMap<Origin, Change>,
        read: &mut impl FnMut(PartitionId, Origin, u64) -> Option<Change>,
    ) -> Result<(), Origin> {
        let Some(head) = heads.get(&partition) else { return Ok(()) };
        for (origin, last) in head.iter().filter(|(origin, _)| self.wants(*origin)) {
            let next = self.sent.get(&partition).map_or(0, |sent| sent.get(origin)) + 1;
            if next <= last && !waiting.contains_key(&origin) {
                waiting.insert(origin, read(partition, origin, next).ok_or(origin)?);
            }
        }
        Ok(())
    }

    /// The receiver may have lost changes of its region's earlier lives; those of its present life it has.
    fn wants(&self, origin: Origin) -> bool {
        let of_a_wanted_region =
            origin.region == self.home || origin.region == self.peer || self.relay.contains(&origin.region);
        of_a_wanted_region && origin != self.receiver
    }

    /// What the peer may have of a change; `None` when it needs content that this region was never given.
    fn for_peer(&self, change: Change, allows: &impl Fn(TenantId, RegionId) -> bool) -> Option<Change> {
        match (allows(change.header.tenant, self.peer), &change.content) {
            (false, _) => Some(change.withheld()),
            (true, Content::Body(_)) => Some(change),
            (true, Content::Withheld(_)) => None,
        }
    }
}

/// Every partition once, beginning after the last one served.
fn turns(heads: &Vectors, last: Option<PartitionId>) -> Vec<PartitionId> {
    let Some(last) = last else { return heads.keys().copied().collect() };
    let after = heads.range((Bound::Excluded(last), Bound::Unbounded));
    after.chain(heads.range(..=last)).map(|(partition, _)| *partition).collect()
}
