//! What was received and is not committed: a queue for each (partition, origin), without holes, chain verified.

use crate::wire::Vectors;
use crate::{Change, Position};
use model::{Hlc, Origin, PartitionId};
use std::collections::{BTreeMap, VecDeque};

/// Why a change does not enter its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Duplicate,
    Hole { expected: u64 },
    BrokenChain,
}

/// What can be proposed now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ready {
    /// In causal order.
    pub(super) changes: Vec<Change>,
    /// The last of them for each (partition, origin).
    pub(super) until: Vec<(PartitionId, Origin, u64)>,
    /// The first change that is otherwise ready, and held because it is from the future.
    pub(super) early: Option<(PartitionId, Origin, u64, Hlc)>,
}

/// The queues of one link.
#[derive(Clone, Debug, Default)]
pub(super) struct Queues {
    queues: BTreeMap<(PartitionId, Origin), VecDeque<Change>>,
    weight: u64,
}

impl Queues {
    pub(super) const fn weight(&self) -> u64 {
        self.weight
    }
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
    pub(super) fn clear(&mut self) {
        self.queues.clear();
        self.weight = 0;
    }

    /// Appends a change that continues its queue, or what is committed when the queue is empty.
    pub(super) fn push(&mut self, committed: Position, change: Change) -> Result<(), Refusal> {
        let key = (change.header.partition, change.header.origin);
        let last = self.queues.get(&key).and_then(VecDeque::back);
        let tail = last.map_or(committed, |last| Position { sequence: last.header.sequence, chain: last.chain });
        if change.header.sequence <= tail.sequence {
            return Err(Refusal::Duplicate);
        }
        if change.header.sequence != tail.sequence + 1 {
            return Err(Refusal::Hole { expected: tail.sequence + 1 });
        }
        if !change.follows(tail.chain) {
            return Err(Refusal::BrokenChain);
        }
        self.weight += change.weight();
        self.queues.entry(key).or_default().push_back(change);
        Ok(())
    }

    /// Drops what is committed up to `position` and returns its weight; the sequence of a change of another history
    /// is the error.
    pub(super) fn release(&mut self, partition: PartitionId, origin: Origin, position: Position) -> Result<u64, u64> {
        let Some(queue) = self.queues.get_mut(&(partition, origin)) else { return Ok(0) };
        let mut released = 0;
        while let Some(change) = queue.pop_front_if(|change| change.header.sequence <= position.sequence) {
            if change.header.sequence == position.sequence && change.chain != position.chain {
                return Err(position.sequence);
            }
            released += change.weight();
        }
        if queue.is_empty() {
            self.queues.remove(&(partition, origin));
        }
        self.weight -= released;
        Ok(released)
    }

    /// Picks what can be applied after `have`, in causal order: what a change depends on is committed, or before it
    /// in the batch.
    pub(super) fn ready(
        &self,
        have: &Vectors,
        changes_max: usize,
        weight_max: u64,
        is_early: impl Fn(&Change) -> bool,
    ) -> Ready {
        let mut ready = Ready::default();
        let mut until: BTreeMap<(PartitionId, Origin), u64> = BTreeMap::new();
        let (mut next, mut weight) = (BTreeMap::<(PartitionId, Origin), usize>::new(), 0);
        let mut have = have.clone();
        loop {
            let before = ready.changes.len();
            for (key, queue) in &self.queues {
                let vector = have.entry(key.0).or_default();
                let place = next.entry(*key).or_default();
                while let Some(change) = queue.get(*place).filter(|change| vector.covers(&change.header.deps)) {
                    if ready.changes.len() >= changes_max || weight >= weight_max {
                        break;
                    }
                    if is_early(change) {
                        let header = &change.header;
                        ready.early.get_or_insert((key.0, key.1, header.sequence, header.hlc));
                        break;
                    }
                    vector.raise(key.1, change.header.sequence);
                    until.insert(*key, change.header.sequence);
                    weight += change.weight();
                    ready.changes.push(change.clone());
                    *place += 1;
                }
            }
            if ready.changes.len() == before {
                break;
            }
        }
        ready.until = until.into_iter().map(|((partition, origin), sequence)| (partition, origin, sequence)).collect();
        ready
    }

    pub(super) fn check(&self) {
        let mut weight = 0;
        for queue in self.queues.values() {
            assert!(!queue.is_empty(), "an empty queue is removed");
            for (one, next) in queue.iter().zip(queue.iter().skip(1)) {
                assert_eq!(one.header.sequence + 1, next.header.sequence, "a queue has no holes");
            }
            weight += queue.iter().map(Change::weight).sum::<u64>();
        }
        assert_eq!(weight, self.weight, "the weight is that of the queues");
    }
}
