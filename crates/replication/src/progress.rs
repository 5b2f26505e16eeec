//! What every other region has on disk, per partition: for durability, truncation, tombstones and the RPO guard.
//!
//! Kept by the leader of a group, fed by acknowledgements. Starts empty after a change of leader: what is not known
//! counts as not durable, so nothing is ever collected or confirmed too early.

use crate::wire::Vectors;
use model::{Origin, PartitionId, RegionId, VersionVector};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Moments remembered per partition to tell the age of what waits; when full, every second is forgotten.
const MARKS_MAX: usize = 256;
/// Changes within this time share one mark, in milliseconds; twice as long each time the marks are full.
const MARK_MS: u64 = 20;

/// A region's changes from `sequence` on were committed at `at_ms` or later.
#[derive(Clone, Copy, Debug)]
struct Mark {
    sequence: u64,
    at_ms: u64,
}

/// Marks in order, at least `spacing_ms` apart.
#[derive(Clone, Debug)]
struct Marks {
    queue: VecDeque<Mark>,
    spacing_ms: u64,
}

/// A proof in progress that nothing concurrent with `candidate` is still under way.
#[derive(Clone, Debug)]
struct Round {
    /// What all members had when the round began.
    candidate: VersionVector,
    /// Everything any member had then. When it is here too, the round is done.
    seen: VersionVector,
}

/// What the other member regions have of one group's partitions.
#[derive(Clone, Debug)]
pub struct Progress {
    home: Origin,
    peers: BTreeMap<RegionId, Vectors>,
    rounds: BTreeMap<PartitionId, Round>,
    stable: Vectors,
    marks: BTreeMap<PartitionId, Marks>,
}

impl Progress {
    /// Knows nothing yet of the other member regions.
    pub fn new(home: Origin, members: impl IntoIterator<Item = RegionId>) -> Self {
        let peers = members.into_iter().filter(|region| *region != home.region).map(|region| (region, Vectors::new()));
        Self { home, peers: peers.collect(), rounds: BTreeMap::new(), stable: Vectors::new(), marks: BTreeMap::new() }
    }

    /// Changes the members: a new one has nothing, one that left or was fenced no longer counts.
    pub fn set_members(&mut self, members: &BTreeSet<RegionId>) {
        self.peers.retain(|region, _| members.contains(region));
        for region in members.iter().filter(|region| **region != self.home.region) {
            self.peers.entry(*region).or_default();
        }
        self.rounds.clear();
    }

    /// A region says what it has on a quorum's disks. Never lowers what is known; regions that are no members are
    /// ignored.
    pub fn acknowledge(&mut self, region: RegionId, durable: &Vectors) {
        let Some(known) = self.peers.get_mut(&region) else { return };
        for (partition, vector) in durable {
            known.entry(*partition).or_default().join(vector);
        }
        for partition in durable.keys() {
            self.forget_durable(*partition);
        }
    }

    /// What a region is known to have.
    pub fn durable(&self, region: RegionId, partition: PartitionId) -> VersionVector {
        self.peers.get(&region).and_then(|known| known.get(&partition)).cloned().unwrap_or_default()
    }

    /// How many other regions have a change on a quorum's disks: for `remote:k`.
    pub fn acked_by(&self, partition: PartitionId, origin: Origin, sequence: u64) -> usize {
        let has = |known: &&Vectors| known.get(&partition).is_some_and(|vector| vector.get(origin) >= sequence);
        self.peers.values().filter(has).count()
    }

    /// What every member has, given what is applied here: change records up to it may be truncated.
    pub fn everywhere(&self, partition: PartitionId, local: &VersionVector) -> VersionVector {
        self.peers.values().fold(local.clone(), |meet, known| match known.get(&partition) {
            Some(vector) => meet.meet(vector),
            None => VersionVector::new(),
        })
    }

    /// The causally stable cut, given what is applied here: tombstones up to it may be collected.
    ///
    /// That all members have a deletion is not enough: one of them may have written before it arrived, and that
    /// write may still be under way to us. So each round waits for everything that was known anywhere when all had it.
    pub fn stable(&mut self, partition: PartitionId, local: &VersionVector) -> VersionVector {
        let proven = match self.rounds.get(&partition) {
            Some(round) if local.covers(&round.seen) => Some(round.candidate.clone()),
            Some(_) => None,
            None => Some(VersionVector::new()),
        };
        if let Some(proven) = proven {
            self.stable.entry(partition).or_default().join(&proven);
            let candidate = self.everywhere(partition, local);
            let mut seen = local.clone();
            self.peers.values().filter_map(|known| known.get(&partition)).for_each(|vector| seen.join(vector));
            self.rounds.insert(partition, Round { candidate, seen });
        }
        self.stable.get(&partition).cloned().unwrap_or_default()
    }

    /// A change of this region was committed.
    pub fn committed(&mut self, partition: PartitionId, sequence: u64, at_ms: u64) {
        if self.peers.is_empty() {
            return;
        }
        let fresh = || Marks { queue: VecDeque::new(), spacing_ms: MARK_MS };
        let Marks { queue, spacing_ms } = self.marks.entry(partition).or_insert_with(fresh);
        if queue.back().is_some_and(|last| at_ms < last.at_ms.saturating_add(*spacing_ms)) {
            return;
        }
        if queue.len() >= MARKS_MAX {
            // A mark speaks for all changes up to the next: with fewer marks ages are only overestimated.
            let mut keep = false;
            queue.retain(|_| {
                keep = !keep;
                keep
            });
            *spacing_ms = spacing_ms.saturating_mul(2);
        }
        queue.push_back(Mark { sequence, at_ms });
    }

    /// The age of this region's oldest change that no other region has, in milliseconds; 0 when there is none.
    ///
    /// `head` is this region's last sequence in the partition. Never too low; too high by [`MARK_MS`] or, behind a
    /// long cut, by the thinning of marks.
    pub fn exposure_ms(&self, partition: PartitionId, head: u64, now_ms: u64) -> u64 {
        let safe = self.best(partition);
        if safe >= head {
            return 0;
        }
        let marks = self.marks.get(&partition).into_iter().flat_map(|marks| &marks.queue);
        let oldest = marks.take_while(|mark| mark.sequence <= safe + 1).last();
        oldest.map_or(0, |mark| now_ms.saturating_sub(mark.at_ms))
    }

    /// How far the best other region has this region's changes.
    fn best(&self, partition: PartitionId) -> u64 {
        let known = self.peers.values().filter_map(|known| known.get(&partition));
        known.map(|vector| vector.get(self.home)).max().unwrap_or(0)
    }

    fn forget_durable(&mut self, partition: PartitionId) {
        let safe = self.best(partition);
        let Some(Marks { queue, spacing_ms }) = self.marks.get_mut(&partition) else { return };
        while queue.get(1).is_some_and(|second| second.sequence <= safe + 1) {
            queue.pop_front();
        }
        if queue.len() == 1 {
            *spacing_ms = MARK_MS;
        }
    }
}
