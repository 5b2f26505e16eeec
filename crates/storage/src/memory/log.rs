//! The shared log in memory: one copy that is seen, one that a crash leaves behind.

use super::{Core, Submission};
use crate::checked;
use crate::engine::{Done, Log, LogCounters, LogWrite};
use model::GroupId;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// A door to the log of one life of a node.
pub(super) struct MemoryLog {
    pub(super) core: Arc<Core>,
}

/// The log's content: what has been written, and how much of that a crash leaves.
#[derive(Default)]
pub(super) struct LogState {
    visible: LogImage,
    pub(super) durable: LogImage,
    /// What is in `visible` and not yet in `durable`, in order.
    pub(super) unsynced: Vec<LogWrite>,
}

/// One copy of all groups' logs. Values carry their checksum, so that a flipped bit is noticed.
#[derive(Clone, Default)]
pub(super) struct LogImage {
    entries: BTreeMap<(GroupId, u64), Arc<Vec<u8>>>,
    metas: BTreeMap<(GroupId, String), Arc<Vec<u8>>>,
}

impl LogImage {
    pub(super) fn apply(&mut self, write: &LogWrite) {
        match write {
            LogWrite::Append { group, entries } => {
                for (index, bytes) in entries {
                    let stored = checked::wrap(&entry_key(*group, *index), bytes);
                    self.entries.insert((*group, *index), Arc::new(stored));
                }
            }
            LogWrite::TruncateAfter { group, after } => match after {
                Some(u64::MAX) => {}
                _ => self.remove(*group, after.map_or(0, |after| after + 1), u64::MAX),
            },
            LogWrite::PurgeUpto { group, upto } => self.remove(*group, 0, *upto),
            LogWrite::Meta { group, key, value } => {
                let stored = checked::wrap(key.as_bytes(), value);
                self.metas.insert((*group, (*key).to_owned()), Arc::new(stored));
            }
        }
    }

    /// Removes `first..=last`.
    fn remove(&mut self, group: GroupId, first: u64, last: u64) {
        let gone: Vec<_> = self.entries.range((group, first)..=(group, last)).map(|(key, _)| *key).collect();
        for key in gone {
            self.entries.remove(&key);
        }
    }

    fn flip(&mut self, group: GroupId, index: u64, bit: usize) -> bool {
        let Some(stored) = self.entries.get_mut(&(group, index)) else { return false };
        flip(Arc::make_mut(stored).as_mut_slice(), bit);
        true
    }
}

impl LogState {
    pub(super) fn restored(durable: LogImage) -> Self {
        Self { visible: durable.clone(), durable, unsynced: Vec::new() }
    }

    pub(super) fn write(&mut self, write: &LogWrite) {
        self.visible.apply(write);
        self.unsynced.push(write.clone());
    }

    pub(super) fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            self.durable.apply(&write);
        }
    }

    pub(super) fn flip(&mut self, group: GroupId, index: u64, bit: usize) -> bool {
        self.durable.flip(group, index, bit);
        self.visible.flip(group, index, bit)
    }
}

impl Log for MemoryLog {
    fn submit(&self, writes: Vec<LogWrite>, sync: bool, done: Done) {
        self.core.submit(Submission { writes, wants_sync: sync, done });
    }

    fn entries(&self, group: GroupId, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let state = self.core.state.lock();
        state.check_alive()?;
        let mut found = Vec::new();
        let mut size_bytes = 0;
        if from >= to {
            return Ok(found);
        }
        for ((_, index), stored) in state.log.visible.entries.range((group, from)..(group, to)) {
            let bytes = checked::unwrap(&entry_key(group, *index), stored)?;
            size_bytes += bytes.len();
            if size_bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((*index, bytes.to_vec()));
        }
        Ok(found)
    }

    fn bounds(&self, group: GroupId) -> io::Result<Option<(u64, u64)>> {
        let state = self.core.state.lock();
        state.check_alive()?;
        let mut all = state.log.visible.entries.range((group, 0)..=(group, u64::MAX)).map(|((_, index), _)| *index);
        let Some(first) = all.next() else { return Ok(None) };
        Ok(Some((first, all.next_back().unwrap_or(first))))
    }

    fn meta(&self, group: GroupId, key: &'static str) -> io::Result<Option<Vec<u8>>> {
        let state = self.core.state.lock();
        state.check_alive()?;
        let stored = state.log.visible.metas.get(&(group, key.to_owned()));
        stored.map(|stored| checked::unwrap(key.as_bytes(), stored).map(<[u8]>::to_vec)).transpose()
    }

    fn counters(&self) -> LogCounters {
        self.core.state.lock().counters
    }
}

fn entry_key(group: GroupId, index: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&group.get().to_be_bytes());
    key[2..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Flips the bit `bit` modulo the length; the checksum in front makes sure there is a byte.
pub(super) fn flip(stored: &mut [u8], bit: usize) {
    let at = (bit / 8) % stored.len();
    stored[at] ^= 1 << (bit % 8);
}
