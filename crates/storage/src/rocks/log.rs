//! The log that all groups share: one thread writes, one sync covers all that is waiting.
//!
//! The order of submission is the order on disk and the order of the callbacks, because a vote must
//! never overtake an append. After one error nothing is reported as done any more.

use super::error::{OpenError, Part, io_error};
use super::options::Shared;
use super::wal;
use crate::checked;
use crate::engine::{Done, Log, LogCounters, LogWrite};
use model::GroupId;
use parking_lot::{Condvar, Mutex};
use rocksdb::{DB, ReadOptions, WriteBatch, WriteOptions};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

/// Submissions that may wait; at the bound the submitter blocks until the writer took some.
pub const QUEUE_LENGTH_MAX: usize = 4096;
/// Bytes that may wait; at the bound the submitter blocks.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes after which a batch takes no further submission.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// First byte of an entry's key, then group and index, both big endian.
const ENTRY: u8 = b'e';
/// First byte of a meta value's key, then group (big endian) and name.
const META: u8 = b'm';

pub(super) struct RocksLog {
    core: Arc<Core>,
    writer: Option<JoinHandle<()>>,
}

struct Core {
    db: DB,
    shared: Arc<Shared>,
    queue: Mutex<Queue>,
    arrived: Condvar,
    taken: Condvar,
    syncs: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Submission>,
    size_bytes: usize,
    is_closing: bool,
}

struct Submission {
    writes: Vec<LogWrite>,
    size_bytes: usize,
    wants_sync: bool,
    done: Done,
}

impl RocksLog {
    /// Opens or creates the log, and refuses one that is damaged.
    pub(super) fn open(dir: &Path, shared: Arc<Shared>) -> Result<Self, OpenError> {
        wal::mend(dir).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => OpenError::Damaged { part: Part::Log, detail: error.to_string() },
            _ => OpenError::Io(error),
        })?;
        let db = DB::open(&shared.log(), dir).map_err(|error| OpenError::of(Part::Log, error))?;
        let core = Arc::new(Core {
            db,
            shared,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            taken: Condvar::new(),
            syncs: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let writer = std::thread::Builder::new().name("log-writer".into()).spawn({
            let core = core.clone();
            move || core.run()
        })?;
        Ok(Self { core, writer: Some(writer) })
    }

    /// Whether a callback is asking, which must not wait for the thread it runs on.
    fn is_writer(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.thread().id() == std::thread::current().id())
    }
}

impl Drop for RocksLog {
    /// Writes what is queued, then closes the database.
    fn drop(&mut self) {
        self.core.queue.lock().is_closing = true;
        self.core.arrived.notify_one();
        // A callback may hold the last handle: then the writer ends by itself.
        if !self.is_writer()
            && let Some(writer) = self.writer.take()
        {
            let _ = writer.join();
        }
    }
}

impl Log for RocksLog {
    fn submit(&self, writes: Vec<LogWrite>, sync: bool, done: Done) {
        let size_bytes = writes.iter().map(size_of_write).sum();
        let submission = Submission { writes, size_bytes, wants_sync: sync, done };
        let mut queue = self.core.queue.lock();
        while (queue.waiting.len() >= QUEUE_LENGTH_MAX || queue.size_bytes >= QUEUE_BYTES_MAX) && !self.is_writer() {
            self.core.taken.wait(&mut queue);
        }
        queue.size_bytes += size_bytes;
        queue.waiting.push_back(submission);
        if queue.waiting.len() == 1 {
            self.core.arrived.notify_one();
        }
    }

    fn entries(&self, group: GroupId, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let mut found = Vec::new();
        let mut size_bytes = 0;
        if from >= to {
            return Ok(found);
        }
        let mut rows = self.core.db.raw_iterator_opt(between(entry_key(group, from), entry_key(group, to)));
        rows.seek_to_first();
        while let Some((key, stored)) = rows.item() {
            let bytes = checked::unwrap(key, stored)?;
            size_bytes += bytes.len();
            if size_bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((index_of(key)?, bytes.to_vec()));
            rows.next();
        }
        rows.status().map_err(io_error)?;
        Ok(found)
    }

    fn bounds(&self, group: GroupId) -> io::Result<Option<(u64, u64)>> {
        let mut rows = self.core.db.raw_iterator_opt(between(entry_key(group, 0), behind_group(group)));
        rows.seek_to_first();
        let first = rows.key().map(index_of).transpose()?;
        rows.status().map_err(io_error)?;
        rows.seek_to_last();
        let last = rows.key().map(index_of).transpose()?;
        rows.status().map_err(io_error)?;
        Ok(first.zip(last))
    }

    fn meta(&self, group: GroupId, key: &'static str) -> io::Result<Option<Vec<u8>>> {
        let key = meta_key(group, key);
        let stored = self.core.db.get_pinned(&key).map_err(io_error)?;
        stored.map(|stored| checked::unwrap(&key, &stored).map(<[u8]>::to_vec)).transpose()
    }

    fn counters(&self) -> LogCounters {
        let Core { syncs, entries, bytes, .. } = &*self.core;
        LogCounters { syncs: syncs.load(Relaxed), entries: entries.load(Relaxed), bytes: bytes.load(Relaxed) }
    }
}

impl Core {
    fn run(&self) {
        let _guard = StrikeOnPanic(&self.shared);
        while let Some(batch) = self.take() {
            let result = self.shared.check().and_then(|()| self.write(&batch));
            if let Err(error) = &result {
                self.shared.strike(format!("writing the log: {error}"));
            }
            for submission in batch {
                (submission.done)(result.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string())));
            }
        }
    }

    /// Waits for submissions and takes all that are there; `None` when the log closes.
    fn take(&self) -> Option<Vec<Submission>> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.is_closing {
                return None;
            }
            self.arrived.wait(&mut queue);
        }
        let mut batch = Vec::with_capacity(queue.waiting.len());
        let mut size_bytes = 0;
        while size_bytes < BATCH_BYTES_MAX
            && let Some(submission) = queue.waiting.pop_front()
        {
            size_bytes += submission.size_bytes;
            batch.push(submission);
        }
        queue.size_bytes -= size_bytes;
        self.taken.notify_all();
        Some(batch)
    }

    fn write(&self, submissions: &[Submission]) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        let (mut entries, mut bytes) = (0, 0);
        for write in submissions.iter().flat_map(|submission| &submission.writes) {
            add(&mut batch, write);
            if let LogWrite::Append { entries: added, .. } = write {
                entries += added.len() as u64;
                bytes += added.iter().map(|(_, entry)| entry.len() as u64).sum::<u64>();
            }
        }
        let wants_sync = submissions.iter().any(|submission| submission.wants_sync);
        let mut options = WriteOptions::default();
        options.set_sync(wants_sync);
        self.db.write_opt(batch, &options).map_err(io_error)?;
        self.entries.fetch_add(entries, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        if wants_sync {
            self.syncs.fetch_add(1, Relaxed);
            self.free_purged(submissions)?;
        }
        Ok(())
    }

    /// Removes files that hold nothing but purged entries; compaction gets the rest in its time.
    ///
    /// Only behind a sync: else a crash could bring back what is left of a purged range. The range
    /// always starts at the group's first key, so a tombstone in a removed file covered nothing
    /// that the synced one does not.
    fn free_purged(&self, submissions: &[Submission]) -> io::Result<()> {
        for write in submissions.iter().flat_map(|submission| &submission.writes) {
            if let LogWrite::PurgeUpto { group, upto } = write {
                let (from, to) = (entry_key(*group, 0), entry_key(*group, *upto));
                self.db.delete_file_in_range(from, to).map_err(io_error)?;
            }
        }
        Ok(())
    }
}

/// A writer that panicked would leave every submitter waiting for ever.
struct StrikeOnPanic<'a>(&'a Shared);

impl Drop for StrikeOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.strike("the log's writer panicked".into());
        }
    }
}

fn add(batch: &mut WriteBatch, write: &LogWrite) {
    match write {
        LogWrite::Append { group, entries } => {
            for (index, bytes) in entries {
                let key = entry_key(*group, *index);
                batch.put(key, checked::wrap(&key, bytes));
            }
        }
        LogWrite::TruncateAfter { after: Some(u64::MAX), .. } => {}
        LogWrite::TruncateAfter { group, after } => {
            let first = entry_key(*group, after.map_or(0, |after| after + 1));
            batch.delete_range(&first[..], &behind_group(*group)[..]);
        }
        LogWrite::PurgeUpto { group, upto } => {
            let behind = match upto.checked_add(1) {
                Some(next) => entry_key(*group, next).to_vec(),
                None => behind_group(*group),
            };
            batch.delete_range(&entry_key(*group, 0)[..], &behind[..]);
        }
        LogWrite::Meta { group, key, value } => {
            let key = meta_key(*group, key);
            let stored = checked::wrap(&key, value);
            batch.put(key, stored);
        }
    }
}

/// What a write costs in the queue, roughly.
fn size_of_write(write: &LogWrite) -> usize {
    const OVERHEAD_BYTES: usize = 32;
    match write {
        LogWrite::Append { entries, .. } => entries.iter().map(|(_, bytes)| bytes.len() + OVERHEAD_BYTES).sum(),
        LogWrite::Meta { value, .. } => value.len() + OVERHEAD_BYTES,
        LogWrite::TruncateAfter { .. } | LogWrite::PurgeUpto { .. } => OVERHEAD_BYTES,
    }
}

const ENTRY_KEY_BYTES: usize = 11;

fn entry_key(group: GroupId, index: u64) -> [u8; ENTRY_KEY_BYTES] {
    let mut key = [ENTRY; ENTRY_KEY_BYTES];
    key[1..3].copy_from_slice(&group.get().to_be_bytes());
    key[3..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Later than every entry of the group, and earlier than any of the next.
fn behind_group(group: GroupId) -> Vec<u8> {
    let mut key = entry_key(group, u64::MAX).to_vec();
    key.push(0);
    key
}

fn index_of(key: &[u8]) -> io::Result<u64> {
    let index = key.get(3..).and_then(|tail| <[u8; 8]>::try_from(tail).ok());
    index
        .map(u64::from_be_bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{key:02x?} is not the key of an entry")))
}

fn meta_key(group: GroupId, name: &str) -> Vec<u8> {
    let mut key = vec![META];
    key.extend_from_slice(&group.get().to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

fn between(from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    options
}
