//! openraft's log over the log that all groups of this node share.
//!
//! Votes and entries go to the shared log in the order in which openraft hands them over, and an
//! append counts as flushed only when the shared log says so. Recent entries stay in memory, so that
//! an entry which is still on its way to the disk is never looked for there.

use crate::error::StartError;
use crate::options::{APPEND_BYTES_MAX, CACHE_BYTES_MAX};
use crate::types::{Entry, LogId, Types, Vote};
use model::{GroupId, codec};
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use storage::{Log, LogWrite};
use tokio::sync::oneshot;

/// Names of the small values beside the entries.
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
/// Bytes read from the disk at once.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// One group's part of the shared log. Clones share everything.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

struct Shared {
    group: GroupId,
    log: Arc<dyn Log>,
    tail: Mutex<Tail>,
    appended_bytes: AtomicU64,
}

/// What is known without reading the disk.
#[derive(Default)]
struct Tail {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The newest entries without a gap, with their encoded sizes.
    recent: VecDeque<(Entry, usize)>,
    recent_bytes: usize,
    /// Entries before this index can be read from the disk.
    written: u64,
}

impl Tail {
    fn next(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.index() + 1)
    }
    fn first(&self) -> u64 {
        self.purged.as_ref().map_or(0, |purged| purged.index() + 1)
    }
    /// Where the entries in memory begin.
    fn recent_first(&self) -> u64 {
        self.recent.front().map_or(self.next(), |(entry, _)| entry.log_id.index())
    }
    fn push(&mut self, entry: Entry, size_bytes: usize) {
        self.last = Some(entry.log_id);
        self.recent_bytes += size_bytes;
        self.recent.push_back((entry, size_bytes));
    }
    fn pop_front(&mut self) {
        if let Some((_, size_bytes)) = self.recent.pop_front() {
            self.recent_bytes -= size_bytes;
        }
    }
    /// Forgets what the disk can give back, beyond the bound.
    fn shrink(&mut self) {
        while self.recent_bytes > CACHE_BYTES_MAX && self.recent_first() < self.written {
            self.pop_front();
        }
    }
}

impl LogStore {
    /// Reads a group's log and checks all of it: no holes, terms never fall, every entry decodes.
    pub fn open(group: GroupId, log: Arc<dyn Log>) -> Result<Self, StartError> {
        let disk = |source| StartError::Disk { group, source };
        let damaged = |index, reason| StartError::Damaged { group, index, reason };
        let mut tail = Tail {
            vote: meta(group, &*log, VOTE)?,
            committed: meta(group, &*log, COMMITTED)?,
            purged: meta(group, &*log, PURGED)?,
            ..Tail::default()
        };
        tail.last = tail.purged;
        tail.written = tail.first();
        if let Some((first, last)) = log.bounds(group).map_err(disk)? {
            if first > tail.written {
                return Err(damaged(tail.written, "entries are missing before the first one"));
            }
            while tail.written <= last {
                let entries = log.entries(group, tail.written, last + 1, READ_BYTES).map_err(disk)?;
                if entries.is_empty() {
                    return Err(damaged(tail.written, "the entry is missing"));
                }
                for (index, bytes) in entries {
                    let entry: Entry =
                        codec::decode(&bytes).map_err(|_| damaged(index, "the entry does not decode"))?;
                    if index != tail.written || entry.log_id.index() != index {
                        return Err(damaged(index, "the entry is not the one that belongs here"));
                    }
                    if tail
                        .last
                        .as_ref()
                        .is_some_and(|last| last.committed_leader_id() > entry.log_id.committed_leader_id())
                    {
                        return Err(damaged(index, "the term falls"));
                    }
                    tail.push(entry, bytes.len());
                    tail.written = index + 1;
                    tail.shrink();
                }
            }
        }
        let shared = Shared { group, log, tail: Mutex::new(tail), appended_bytes: AtomicU64::new(0) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Refuses a log that lacks entries which were committed and are not in the state either.
    pub fn check_reaches(&self, applied: Option<LogId>) -> Result<(), StartError> {
        let tail = self.shared.tail.lock();
        let (group, index) = (self.shared.group, tail.next());
        if tail.committed > tail.last.max(applied) {
            return Err(StartError::Damaged { group, index, reason: "committed entries are missing" });
        }
        if tail.purged > applied {
            return Err(StartError::Damaged { group, index, reason: "purged entries are not in the state" });
        }
        Ok(())
    }

    /// Bytes appended since the last call that reset the counter.
    pub fn appended_bytes(&self) -> u64 {
        self.shared.appended_bytes.load(Ordering::Relaxed)
    }

    /// Begins to count from zero, after a checkpoint was asked for.
    pub fn reset_appended_bytes(&self) {
        self.shared.appended_bytes.store(0, Ordering::Relaxed);
    }

    /// Submits writes and waits until they are durable.
    async fn write(&self, writes: Vec<LogWrite>) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.shared.log.submit(
            writes,
            true,
            Box::new(move |result| {
                // The receiver is gone only when the group has stopped.
                let _ = sender.send(result);
            }),
        );
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the log has stopped")))
    }

    /// Submits writes whose loss in a crash does no harm.
    fn write_behind(&self, writes: Vec<LogWrite>) {
        let group = self.shared.group;
        self.shared.log.submit(
            writes,
            false,
            Box::new(move |result| {
                if let Err(error) = result {
                    tracing::error!(%group, %error, "a write to the log failed");
                }
            }),
        );
    }

    fn meta_write(&self, key: &'static str, value: &impl serde::Serialize) -> LogWrite {
        LogWrite::Meta { group: self.shared.group, key, value: codec::encode(value) }
    }

    /// Entries with `from <= index < to` as far as they exist, at most about `bytes_max` bytes.
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (mut next, to, memory_from) = {
            let tail = self.shared.tail.lock();
            (from.max(tail.first()), to.min(tail.next()), tail.recent_first())
        };
        let (mut entries, mut size_bytes) = (Vec::new(), 0);
        while next < to.min(memory_from) && size_bytes < bytes_max {
            let budget = READ_BYTES.min(bytes_max - size_bytes);
            let read = self.shared.log.entries(self.shared.group, next, to.min(memory_from), budget)?;
            if read.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("entry {next} is missing")));
            }
            for (index, bytes) in read {
                let entry: Entry =
                    codec::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                size_bytes += bytes.len();
                next = index + 1;
                entries.push(entry);
            }
        }
        let tail = self.shared.tail.lock();
        let skipped = next.saturating_sub(tail.recent_first()) as usize;
        for (entry, entry_bytes) in tail.recent.iter().skip(skipped) {
            if next >= to || (size_bytes > 0 && size_bytes + entry_bytes > bytes_max) {
                break;
            }
            if entry.log_id.index() != next {
                // The front was dropped from memory meanwhile: the caller reads the rest from disk.
                break;
            }
            entries.push(entry.clone());
            size_bytes += entry_bytes;
            next += 1;
        }
        Ok(entries)
    }
}

fn meta<T: DeserializeOwned>(group: GroupId, log: &dyn Log, key: &'static str) -> Result<Option<T>, StartError> {
    let bytes = log.meta(group, key).map_err(|source| StartError::Disk { group, source })?;
    let decode = |bytes: Vec<u8>| {
        codec::decode(&bytes).map_err(|_| StartError::Damaged {
            group,
            index: 0,
            reason: "a vote or position does not decode",
        })
    };
    bytes.map(decode).transpose()
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let mut from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let mut entries = Vec::new();
        loop {
            let more = self.read(from, to, usize::MAX)?;
            let Some(last) = more.last() else { return Ok(entries) };
            from = last.log_id.index() + 1;
            entries.extend(more);
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.tail.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, APPEND_BYTES_MAX)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let tail = self.shared.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write(vec![self.meta_write(VOTE, vote)]).await?;
        self.shared.tail.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.shared.tail.lock().committed = Some(committed);
        self.write_behind(vec![self.meta_write(COMMITTED, &committed)]);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.tail.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        let mut total_bytes = 0;
        {
            let mut tail = self.shared.tail.lock();
            for entry in entries {
                let bytes = codec::encode(&entry);
                total_bytes += bytes.len() as u64;
                let index = entry.log_id.index();
                tail.push(entry, bytes.len());
                encoded.push((index, bytes));
            }
            tail.shrink();
        }
        let Some((last, _)) = encoded.last() else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let next = last + 1;
        self.shared.appended_bytes.fetch_add(total_bytes, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        let writes = vec![LogWrite::Append { group: self.shared.group, entries: encoded }];
        self.shared.log.submit(
            writes,
            true,
            Box::new(move |result| {
                if result.is_ok() {
                    let mut tail = shared.tail.lock();
                    tail.written = tail.written.max(next);
                    tail.shrink();
                }
                callback.io_completed(result);
            }),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let after = last.as_ref().map(LogId::index);
        let first_gone = after.map_or(0, |after| after + 1);
        {
            let mut tail = self.shared.tail.lock();
            while tail.recent.back().is_some_and(|(entry, _)| entry.log_id.index() >= first_gone) {
                if let Some((_, size_bytes)) = tail.recent.pop_back() {
                    tail.recent_bytes -= size_bytes;
                }
            }
            tail.last = last.max(tail.purged);
        }
        // Waiting here also makes sure that no earlier append is still to report what it wrote.
        self.write(vec![LogWrite::TruncateAfter { group: self.shared.group, after }]).await?;
        let mut tail = self.shared.tail.lock();
        tail.written = tail.written.min(first_gone).max(tail.first());
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut tail = self.shared.tail.lock();
            if tail.purged.as_ref() >= Some(&upto) {
                return Ok(());
            }
            while tail.recent.front().is_some_and(|(entry, _)| entry.log_id.index() <= upto.index()) {
                tail.pop_front();
            }
            tail.purged = Some(upto);
            tail.last = tail.last.max(Some(upto));
            tail.written = tail.written.max(upto.index() + 1);
        }
        let group = self.shared.group;
        // The position first: with it and without the removal, the old entries are ignored.
        self.write_behind(vec![self.meta_write(PURGED, &upto), LogWrite::PurgeUpto { group, upto: upto.index() }]);
        Ok(())
    }
}
