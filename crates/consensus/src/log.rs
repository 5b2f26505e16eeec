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
    is_committed_unsaved: bool,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The first index that is present, or would be.
    first: u64,
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
    /// Where the entries in memory begin.
    fn recent_first(&self) -> u64 {
        self.recent.front().map_or(self.next(), |(entry, _)| entry.log_id.index())
    }
    fn push(&mut self, entry: Entry, size_bytes: usize) {
        if self.last == self.purged {
            self.first = entry.log_id.index();
        }
        self.last = Some(entry.log_id);
        self.recent_bytes += size_bytes;
        self.recent.push_back((entry, size_bytes));
    }
    fn pop_front(&mut self) {
        if let Some((_, size_bytes)) = self.recent.pop_front() {
            self.recent_bytes -= size_bytes;
        }
    }
    /// Takes the next entry that was read from the disk, if it is the one that belongs here.
    fn admit(&mut self, index: u64, bytes: &[u8]) -> Result<(), &'static str> {
        let entry: Entry = codec::decode(bytes).map_err(|_| "the entry does not decode")?;
        if index != self.written || entry.log_id.index() != index {
            return Err("the entry is not the one that belongs here");
        }
        if self.last.is_some_and(|last| last.committed_leader_id() > entry.log_id.committed_leader_id()) {
            return Err("the term falls");
        }
        self.push(entry, bytes.len());
        self.written = index + 1;
        self.shrink();
        Ok(())
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
        tail.first = tail.next();
        tail.written = tail.first;
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
                    tail.admit(index, &bytes).map_err(|reason| damaged(tail.written, reason))?;
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

    /// The last index present.
    pub fn last(&self) -> Option<u64> {
        self.shared.tail.lock().last.as_ref().map(LogId::index)
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
            (from.max(tail.first), to.min(tail.next()), tail.recent_first())
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
        // It only spares a restart some waiting: it goes to the disk with the next entries, never by itself.
        let mut tail = self.shared.tail.lock();
        tail.committed = Some(committed);
        tail.is_committed_unsaved = true;
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
        let mut unsaved = None;
        {
            let mut tail = self.shared.tail.lock();
            for entry in entries {
                let bytes = codec::encode(&entry);
                total_bytes += bytes.len() as u64;
                let index = entry.log_id.index();
                tail.push(entry, bytes.len());
                encoded.push((index, bytes));
            }
            if !encoded.is_empty() && std::mem::take(&mut tail.is_committed_unsaved) {
                unsaved = tail.committed;
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
        let mut writes = vec![LogWrite::Append { group: self.shared.group, entries: encoded }];
        writes.extend(unsaved.map(|committed| self.meta_write(COMMITTED, &committed)));
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
            if first_gone < tail.next() {
                tail.last = last.max(tail.purged);
            }
        }
        // Waiting here also makes sure that no earlier append is still to report what it wrote.
        self.write(vec![LogWrite::TruncateAfter { group: self.shared.group, after }]).await?;
        let mut tail = self.shared.tail.lock();
        tail.written = tail.written.min(first_gone).max(tail.first);
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
            tail.first = upto.index() + 1;
            tail.written = tail.written.max(upto.index() + 1);
        }
        let group = self.shared.group;
        // The position first: with it and without the removal, the old entries are ignored.
        self.write_behind(vec![self.meta_write(PURGED, &upto), LogWrite::PurgeUpto { group, upto: upto.index() }]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Command;
    use openraft::EntryPayload;
    use storage::{Engine, MemoryEngine};

    const GROUP: GroupId = GroupId::new(1);

    fn id(term: u64, index: u64) -> LogId {
        LogId::new_term_index(term, index)
    }

    fn entry(term: u64, index: u64, size_bytes: usize) -> Entry {
        Entry { log_id: id(term, index), payload: EntryPayload::Normal(Command(vec![index as u8; size_bytes].into())) }
    }

    async fn store_with(engine: &MemoryEngine, entries: Vec<Entry>) -> LogStore {
        let mut store = LogStore::open(GROUP, engine.log()).expect("an empty log opens");
        store.append(entries, IOFlushed::noop()).await.expect("memory takes everything");
        store
    }

    /// Spoils a good log of ten entries with some writes and expects a refusal at this index.
    async fn check_refused(writes: Vec<LogWrite>, expect_index: u64) {
        let engine = MemoryEngine::auto_sync();
        store_with(&engine, (0..10).map(|index| entry(2, index, 5)).collect()).await;
        assert!(LogStore::open(GROUP, engine.log()).is_ok());
        engine.log().submit(writes, true, Box::new(|result| result.expect("memory takes everything")));
        let opened = LogStore::open(GROUP, engine.log()).and_then(|store| store.check_reaches(None));
        let Err(StartError::Damaged { index, .. }) = opened.map(|()| "opened") else { panic!("not refused") };
        assert_eq!(index, expect_index);
    }

    #[tokio::test]
    async fn holes_falling_terms_garbage_and_lost_ends_are_refused() {
        let group = GROUP;
        let append = |index, bytes| LogWrite::Append { group, entries: vec![(index, bytes)] };
        let committed = |index| LogWrite::Meta { group, key: COMMITTED, value: codec::encode(&id(2, index)) };
        check_refused(vec![LogWrite::PurgeUpto { group, upto: 4 }], 0).await;
        check_refused(vec![append(12, codec::encode(&entry(2, 12, 5)))], 10).await;
        check_refused(vec![append(10, codec::encode(&entry(1, 10, 5)))], 10).await;
        check_refused(vec![append(10, codec::encode(&entry(2, 11, 5)))], 10).await;
        check_refused(vec![append(10, vec![1, 2, 3])], 10).await;
        check_refused(vec![LogWrite::Meta { group, key: VOTE, value: vec![9] }], 0).await;
        check_refused(vec![committed(12)], 10).await;
        let after = Some(4);
        check_refused(vec![committed(9), LogWrite::TruncateAfter { group, after }], 5).await;
    }

    #[tokio::test]
    async fn a_purge_whose_removal_was_lost_is_remembered() {
        let engine = MemoryEngine::auto_sync();
        store_with(&engine, (0..10).map(|index| entry(2, index, 5)).collect()).await;
        let purged = LogWrite::Meta { group: GROUP, key: PURGED, value: codec::encode(&id(2, 6)) };
        engine.log().submit(vec![purged], true, Box::new(|result| result.expect("memory takes everything")));
        let mut store = LogStore::open(GROUP, engine.log()).expect("old entries are ignored");
        assert_eq!(store.try_get_log_entries(..).await.expect("readable").len(), 3);
    }

    #[tokio::test]
    async fn entries_read_the_same_from_memory_and_from_disk() {
        let engine = MemoryEngine::new();
        let sizes = [10, CACHE_BYTES_MAX / 2, 10, CACHE_BYTES_MAX / 2, 10, APPEND_BYTES_MAX, 10, 10];
        let entries: Vec<Entry> =
            sizes.iter().zip(0..).map(|(size_bytes, index)| entry(1, index, *size_bytes)).collect();
        let mut store = store_with(&engine, entries.clone()).await;
        // Nothing is on disk yet: everything is in memory, whatever its size.
        assert_eq!(store.try_get_log_entries(..).await.expect("readable"), entries);
        engine.sync();
        assert!(store.shared.tail.lock().recent_first() > 1, "memory is bounded once the disk has the entries");
        assert_eq!(store.try_get_log_entries(..).await.expect("readable"), entries);
        assert_eq!(store.try_get_log_entries(1..4).await.expect("readable"), entries[1..4]);
        let mut next = 0;
        while next < 8 {
            let some = store.limited_get_log_entries(next, 8).await.expect("readable");
            assert_eq!(some, entries[next as usize..next as usize + some.len()]);
            assert!(!some.is_empty());
            next += some.len() as u64;
        }
    }
}
