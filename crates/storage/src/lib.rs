//! Bytes on this node's disks: keyspaces, atomic batches, one shared log, checkpoints.
//!
//! Knows nothing of Raft, regions, tenants or records. An error of `fsync` is never retried.

pub mod engine;
pub mod memory;
pub mod rocks;
pub mod suite;

mod checked;
mod name;

pub use engine::{Batch, Checkpoint, Done, Engine, FileMeta, Install, Keyspace, Log, LogCounters, LogWrite, Space};
pub use memory::MemoryEngine;
pub use rocks::RocksEngine;
