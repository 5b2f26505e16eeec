//! The door to the disks: what every engine must offer.
//!
//! An engine holds one [`Log`], shared by all Raft groups of the node, and one [`Space`] per group.
//! The log is the only thing that is synced on every commit; a space is written without a log of
//! its own, because the Raft log can always rebuild what it lost since its last flush.

use model::GroupId;
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// One node's disks.
pub trait Engine: Send + Sync + 'static {
    /// The log that all groups of this node share.
    fn log(&self) -> Arc<dyn Log>;

    /// Opens (or creates) the state of one group, with these keyspaces in this order.
    fn space(&self, name: &str, keyspaces: &[&'static str]) -> io::Result<Arc<dyn Space>>;
}

/// One write to the shared log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogWrite {
    /// Entries with their indices, which follow each other.
    Append {
        /// Whose log.
        group: GroupId,
        /// Index and encoded entry.
        entries: Vec<(u64, Vec<u8>)>,
    },
    /// Removes every entry later than `after` (all of them for `None`).
    TruncateAfter {
        /// Whose log.
        group: GroupId,
        /// The last index that stays.
        after: Option<u64>,
    },
    /// Removes every entry up to and including `upto`.
    PurgeUpto {
        /// Whose log.
        group: GroupId,
        /// The last index that goes.
        upto: u64,
    },
    /// A small named value of a group: its vote, its committed position, its purge position.
    Meta {
        /// Whose.
        group: GroupId,
        /// Which.
        key: &'static str,
        /// The value.
        value: Vec<u8>,
    },
}

/// Told once the writes are durable, or why they never will be.
///
/// Called on the thread that writes the log: it must return at once and wait for nothing.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The log shared by all groups of a node: one writer, one sync per batch, callbacks in order.
pub trait Log: Send + Sync + 'static {
    /// Queues writes. They become durable in the order of submission, whichever group they belong
    /// to; `done` is called in that order too, and only after the sync that covers the writes.
    /// With `sync: false` the writes may wait for the next sync (`done` is called after it, or as
    /// soon as they are written).
    fn submit(&self, writes: Vec<LogWrite>, sync: bool, done: Done);

    /// Entries with `from <= index < to`, at most `bytes_max` bytes of them but at least one if
    /// there is one. Sees only what has been written, not what is still queued.
    fn entries(&self, group: GroupId, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<(u64, Vec<u8>)>>;

    /// The first and last index present.
    fn bounds(&self, group: GroupId) -> io::Result<Option<(u64, u64)>>;

    /// A small named value.
    fn meta(&self, group: GroupId, key: &'static str) -> io::Result<Option<Vec<u8>>>;

    /// Counters since the start, for metrics and benches.
    fn counters(&self) -> LogCounters;
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCounters {
    /// Batches synced to disk.
    pub syncs: u64,
    /// Entries appended.
    pub entries: u64,
    /// Bytes appended.
    pub bytes: u64,
}

/// Which keyspace of a space: its position in the list given when the space was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keyspace(pub u8);

/// Writes that take effect together or not at all, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// A value to put, or `None` to delete.
    pub writes: Vec<(Keyspace, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Puts a value.
    pub fn put(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push((keyspace, key.into(), Some(value.into())));
    }
    /// Deletes a key.
    pub fn delete(&mut self, keyspace: Keyspace, key: impl Into<Vec<u8>>) {
        self.writes.push((keyspace, key.into(), None));
    }
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// The state of one group.
pub trait Space: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Keys in order (backwards if `reverse`), at most `limit`.
    fn scan(
        &self,
        keyspace: Keyspace,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// Applies a batch atomically. Visible at once, durable after [`Space::flush`].
    fn write(&self, batch: Batch) -> io::Result<()>;

    /// Makes everything written so far durable.
    fn flush(&self) -> io::Result<()>;

    /// A frozen, durable copy of everything written so far (hard links, no copying).
    fn checkpoint(&self) -> io::Result<Arc<dyn Checkpoint>>;

    /// Begins to replace the whole content by a checkpoint of another node.
    fn install(&self) -> io::Result<Box<dyn Install>>;

    /// Bytes used, roughly, for status and metrics.
    fn size_bytes(&self) -> u64;
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Its name inside the checkpoint (no path).
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// BLAKE3 of its content.
    pub digest: [u8; 32],
}

/// A frozen copy of a space; removed from disk when dropped.
pub trait Checkpoint: Send + Sync + 'static {
    /// What it consists of.
    fn files(&self) -> io::Result<Vec<FileMeta>>;
    /// Bytes of one file, at most `length` of them from `offset`.
    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

/// A checkpoint being received.
pub trait Install: Send {
    /// Whether this very file is here already and need not be sent.
    fn has(&mut self, file: &FileMeta) -> io::Result<bool>;
    /// Adds bytes to the end of a file.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Checks every file against `files`, makes them durable, and swaps the space over to them.
    /// On any error the space keeps its old content.
    fn finish(self: Box<Self>, files: &[FileMeta]) -> io::Result<()>;
}
