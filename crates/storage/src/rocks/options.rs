//! How RocksDB is set up: bounded memory, durability where it is promised, and one end for errors.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, WriteBufferManager};
use std::fs::File;
use std::io;
use std::sync::OnceLock;

/// Called once, with the reason, when nothing written afterwards could be trusted.
///
/// It should end the process. If it returns, the engine reports errors only.
pub type OnFatal = Box<dyn Fn(String) + Send + Sync>;

/// What the operator and the node decide about an engine.
pub struct Options {
    /// Blocks of all spaces and the log kept in memory.
    pub cache_bytes: usize,
    /// Unflushed writes of all spaces together; at the bound the space written to is flushed.
    pub write_buffers_bytes: usize,
    /// Unflushed writes of one keyspace; at the bound its space is flushed.
    pub memtable_bytes: usize,
    /// Unflushed writes of the log, twice: one part is written while the other is flushed.
    pub log_memtable_bytes: usize,
    /// Files that each database keeps open.
    pub open_files_max: i32,
    /// What happens after an error that cannot be undone.
    pub on_fatal: OnFatal,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            write_buffers_bytes: 48 << 20,
            memtable_bytes: 8 << 20,
            log_memtable_bytes: 16 << 20,
            open_files_max: 256,
            on_fatal: Box::new(abort),
        }
    }
}

/// The default end: an error of `fsync` leaves the kernel's and our view of the disk apart.
fn abort(reason: String) {
    eprintln!("holdfast: the disk can no longer be trusted, this node stops: {reason}");
    std::process::abort();
}

/// What all databases of an engine share.
pub(super) struct Shared {
    pub(super) options: Options,
    cache: Cache,
    write_buffers: WriteBufferManager,
    struck: OnceLock<String>,
    /// The directory is ours as long as anything works on it, be it only a handle someone kept.
    _lock: File,
}

/// Size of a block of rows, compressed as one.
const BLOCK_BYTES: usize = 16 << 10;
/// A keyspace that is hardly used must not cost a megabyte.
const ARENA_BLOCK_BYTES: usize = 64 << 10;
/// At this size of the write-ahead log its memtable is flushed and the log removed.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// RocksDB's own messages.
const MESSAGE_FILE_BYTES_MAX: usize = 1 << 20;

impl Shared {
    pub(super) fn new(options: Options, lock: File) -> Self {
        Self {
            cache: Cache::new_lru_cache(options.cache_bytes),
            write_buffers: WriteBufferManager::new_write_buffer_manager(options.write_buffers_bytes, false),
            options,
            struck: OnceLock::new(),
            _lock: lock,
        }
    }

    /// Ends all writing: tells the hook, once, and makes every later [`Shared::check`] fail.
    pub(super) fn strike(&self, reason: String) {
        if self.struck.set(reason.clone()).is_ok() {
            tracing::error!(reason, "the disk can no longer be trusted");
            (self.options.on_fatal)(reason);
        }
    }

    /// Whether writes may still be made and reported as done.
    pub(super) fn check(&self) -> io::Result<()> {
        self.struck.get().map_or(Ok(()), |reason| Err(io::Error::other(format!("the disk failed: {reason}"))))
    }

    fn common(&self) -> rocksdb::Options {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_paranoid_checks(true);
        options.set_max_open_files(self.options.open_files_max);
        options.set_max_background_jobs(2);
        options.set_bytes_per_sync(1 << 20);
        options.set_arena_block_size(ARENA_BLOCK_BYTES);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(MESSAGE_FILE_BYTES_MAX);
        options.set_log_level(LogLevel::Warn);
        // An idle node stays idle.
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compression_type(DBCompressionType::Lz4);
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_block_size(BLOCK_BYTES);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_bloom_filter(10.0, false);
        options.set_block_based_table_factory(&table);
        options
    }

    /// The shared log: what is acknowledged is on disk, and damage is never repaired silently.
    pub(super) fn log(&self) -> rocksdb::Options {
        let mut options = self.common();
        options.set_write_buffer_size(self.options.log_memtable_bytes);
        options.set_max_write_buffer_number(2);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_wal_recovery_mode(DBRecoveryMode::AbsoluteConsistency);
        options.set_track_and_verify_wals_in_manifest(true);
        options
    }

    /// A space: nothing is durable before a flush, and a flush takes all keyspaces or none.
    ///
    /// The log is left out of the shared bound on write buffers: else a busy space would make the
    /// log flush its small memtable over and over.
    pub(super) fn space(&self) -> rocksdb::Options {
        let mut options = self.common();
        options.set_write_buffer_size(self.options.memtable_bytes);
        options.set_max_write_buffer_number(3);
        options.set_write_buffer_manager(&self.write_buffers);
        options.set_atomic_flush(true);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options
    }
}
