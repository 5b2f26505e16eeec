//! Disks in memory, for the simulator and for tests: what is durable and what is not, kept apart.
//!
//! Nothing here happens by itself: a queued write becomes durable when the driver says so
//! ([`MemoryEngine::sync`]), and a crash loses exactly what no sync or flush covered. The same
//! calls in the same order give the same results. Never used by a node that serves.

mod log;
mod space;

use crate::engine::{Done, Engine, Log, LogCounters, LogWrite, Space};
use log::MemoryLog;
use model::GroupId;
use parking_lot::Mutex;
use space::{MemorySpace, SpaceState};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

/// How many submissions may wait before further ones are refused.
///
/// A driver that never syncs would otherwise grow the queue without bound.
pub const QUEUE_LENGTH_MAX: usize = 1 << 16;

/// One node's simulated disks.
#[derive(Clone)]
pub struct MemoryEngine {
    core: Arc<Core>,
}

/// What the engine, its log and its spaces share.
pub(crate) struct Core {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Set by a crash: this life of the node touches the disk no more.
    is_dead: bool,
    syncs_at_once: bool,
    lies: bool,
    is_full: bool,
    failed: Option<String>,
    queue: VecDeque<Submission>,
    log: log::LogState,
    spaces: BTreeMap<String, SpaceState>,
    counters: LogCounters,
}

struct Submission {
    writes: Vec<LogWrite>,
    wants_sync: bool,
    done: Done,
}

impl MemoryEngine {
    /// An empty disk whose driver decides when writes become durable.
    pub fn new() -> Self {
        Self::with(State::default())
    }

    /// An empty disk that makes every submission durable at once, for tests of other things.
    pub fn auto_sync() -> Self {
        Self::with(State { syncs_at_once: true, ..State::default() })
    }

    fn with(state: State) -> Self {
        Self { core: Arc::new(Core { state: Mutex::new(state) }) }
    }

    /// Writes and syncs everything that is queued; returns how many submissions that were.
    pub fn sync(&self) -> usize {
        self.sync_some(usize::MAX)
    }

    /// Writes the first `count` queued submissions with one sync (if any of them wants one) and
    /// calls them back in order; returns how many there were.
    pub fn sync_some(&self, count: usize) -> usize {
        self.core.sync_some(count)
    }

    /// Submissions that wait for a sync.
    pub fn pending(&self) -> usize {
        self.core.state.lock().queue.len()
    }

    /// Power loss: everything volatile is gone, callbacks are dropped uncalled, every handle of
    /// this engine is dead. Returns the engine that finds the durable part.
    pub fn crash(&self) -> Self {
        self.crash_keeping(0)
    }

    /// Like [`MemoryEngine::crash`], but the first `count` queued submissions had reached the disk,
    /// though nobody was told: also a thing real disks do.
    ///
    /// # Panics
    /// If this engine has crashed already: one disk must not serve two lives.
    pub fn crash_keeping(&self, count: usize) -> Self {
        let mut dropped = VecDeque::new();
        let mut next = State::default();
        {
            let mut state = self.core.state.lock();
            assert!(!state.is_dead, "a crashed engine has no disk to restart from");
            state.is_dead = true;
            dropped.append(&mut state.queue);
            let mut durable = state.log.durable.clone();
            if count > 0 {
                state.log.unsynced.iter().for_each(|write| durable.apply(write));
            }
            dropped.iter().take(count).flat_map(|s| &s.writes).for_each(|write| durable.apply(write));
            next.log = log::LogState::restored(durable);
            next.spaces = state.spaces.iter().map(|(name, space)| (name.clone(), space.restored())).collect();
            next.syncs_at_once = state.syncs_at_once;
            next.lies = state.lies;
            next.is_full = state.is_full;
        }
        // Outside the lock: what a callback owns may touch this engine when it is dropped.
        drop(dropped);
        Self::with(next)
    }

    /// From now on syncs and flushes are acknowledged but not durable (or no longer so): a planted
    /// bug for the simulator. The next honest sync makes up for what was left out.
    pub fn lie(&self, lies: bool) {
        self.core.state.lock().lies = lies;
    }

    /// From now on the disk has no room (or has again). What fails stays failed until a restart,
    /// as on a real node, which stops.
    pub fn full(&self, is_full: bool) {
        self.core.state.lock().is_full = is_full;
    }

    /// Why this engine stopped writing, if it did; the node would have ended its process.
    pub fn failed(&self) -> Option<String> {
        self.core.state.lock().failed.clone()
    }

    /// Flips one bit of a stored log entry, on the disk and in what is read now.
    /// Returns whether there was such an entry.
    pub fn flip_log(&self, group: GroupId, index: u64, bit: usize) -> bool {
        self.core.state.lock().log.flip(group, index, bit)
    }

    /// Flips one bit of a stored value of a space, on the disk and in what is read now.
    /// Returns whether there was such a value.
    pub fn flip_space(&self, name: &str, keyspace: crate::Keyspace, key: &[u8], bit: usize) -> bool {
        self.core.state.lock().spaces.get_mut(name).is_some_and(|space| space.flip(keyspace, key, bit))
    }
}

impl Default for MemoryEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine for MemoryEngine {
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(MemoryLog { core: self.core.clone() })
    }

    fn space(&self, name: &str, keyspaces: &[&'static str]) -> io::Result<Arc<dyn Space>> {
        crate::name::check(name)?;
        let mut state = self.core.state.lock();
        state.check_alive()?;
        state.spaces.entry(name.to_owned()).or_default().open(keyspaces)?;
        Ok(Arc::new(MemorySpace::new(self.core.clone(), name)))
    }
}

impl Core {
    fn submit(&self, submission: Submission) {
        let mut state = self.state.lock();
        if state.is_dead {
            drop(state);
            return; // The machine is off: nobody will ever be told.
        }
        if let Some(reason) = state.failed.clone() {
            drop(state);
            return (submission.done)(Err(io::Error::other(reason)));
        }
        if state.queue.len() >= QUEUE_LENGTH_MAX {
            drop(state);
            return (submission.done)(Err(io::Error::new(io::ErrorKind::WouldBlock, "the log's queue is full")));
        }
        state.queue.push_back(submission);
        let at_once = state.syncs_at_once;
        drop(state);
        if at_once {
            self.sync_some(usize::MAX);
        }
    }

    fn sync_some(&self, count: usize) -> usize {
        let mut state = self.state.lock();
        if state.is_dead {
            return 0;
        }
        let result = state.check_room();
        // Once it failed nothing behind may succeed: the order of the callbacks is the log's order.
        let count = if result.is_err() { state.queue.len() } else { count.min(state.queue.len()) };
        let batch: Vec<Submission> = state.queue.drain(..count).collect();
        if result.is_ok() {
            state.write(&batch);
        }
        drop(state);
        for submission in batch {
            (submission.done)(result.as_ref().map(|_| ()).map_err(|e| io::Error::new(e.kind(), e.to_string())));
        }
        count
    }
}

impl State {
    fn check_alive(&self) -> io::Result<()> {
        if self.is_dead { Err(io::Error::new(io::ErrorKind::BrokenPipe, "this node has crashed")) } else { Ok(()) }
    }

    /// Whether the disk takes writes; if not, it never does again in this life.
    fn check_room(&mut self) -> io::Result<()> {
        self.check_alive()?;
        if let Some(reason) = &self.failed {
            return Err(io::Error::other(reason.clone()));
        }
        if self.is_full {
            self.failed = Some("no space left on the disk".into());
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on the disk"));
        }
        Ok(())
    }

    fn write(&mut self, batch: &[Submission]) {
        for write in batch.iter().flat_map(|submission| &submission.writes) {
            self.log.write(write);
            if let LogWrite::Append { entries, .. } = write {
                self.counters.entries += entries.len() as u64;
                self.counters.bytes += entries.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
            }
        }
        if batch.iter().any(|submission| submission.wants_sync) {
            self.counters.syncs += 1;
            if !self.lies {
                self.log.sync();
            }
        }
    }
}

#[cfg(test)]
mod tests;
