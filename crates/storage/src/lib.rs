//! Bytes on this node's disks: keyspaces, atomic batches, one shared log, checkpoints.
//!
//! Knows nothing of Raft, regions, tenants or records. An error of `fsync` is never retried.

pub mod engine;

pub use engine::{Batch, Checkpoint, Done, Engine, FileMeta, Install, Keyspace, Log, LogCounters, LogWrite, Space};
