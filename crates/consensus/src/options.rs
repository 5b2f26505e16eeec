//! What a group is started with, and every bound of this crate.

use model::{GroupId, NodeId};
use openraft::{Config, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The largest command, so that one always fits a frame and a disk write.
pub const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Entries are added to one append until they exceed this; one entry always fits.
pub(crate) const APPEND_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Entries of one append.
pub(crate) const APPEND_ENTRIES_MAX: u64 = 1024;
/// Appends on their way to one follower at once.
pub(crate) const APPENDS_IN_FLIGHT_MAX: usize = 4;
/// Recent entries kept in memory, in bytes; older ones are read from the log again.
pub(crate) const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Commands handed to the machine at once.
pub(crate) const APPLY_ENTRIES_MAX: usize = 1024;
/// Bytes of commands handed to the machine at once (one command always fits).
pub(crate) const APPLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one frame of a snapshot.
pub(crate) const SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;
/// Files of one snapshot.
pub(crate) const SNAPSHOT_FILES_MAX: usize = 4096;
/// Bytes of a file name of a snapshot.
pub(crate) const SNAPSHOT_NAME_BYTES_MAX: usize = 255;
/// Bytes of one snapshot.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;
/// How long either end of a snapshot waits for the other's next frame.
pub(crate) const SNAPSHOT_IDLE: Duration = Duration::from_secs(20);

/// How fast a group notices that its leader is gone.
///
/// A follower campaigns after `election_max_ms` plus a random `election_min_ms..election_max_ms` of
/// silence, because for `election_max_ms` it still honours the leader's lease: with the defaults
/// writes resume 0.95 to 1.2 s after a leader died. A heartbeat that is not answered within its own
/// interval is lost, so a loaded machine wants long heartbeats rather than many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Between two heartbeats. At least twice (round trip + slow sync), less than half of
    /// `election_min_ms`.
    pub heartbeat_ms: u64,
    /// The shortest election timeout.
    pub election_min_ms: u64,
    /// The longest election timeout; also the leader's lease.
    pub election_max_ms: u64,
    /// How long a proposal waits for its result before it counts as unknown.
    pub propose_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 150, election_min_ms: 350, election_max_ms: 600, propose_ms: 5_000 }
    }
}

/// What a group is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// Which group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// Heartbeats and timeouts.
    pub timing: Timing,
    /// Entries applied since the last checkpoint that make the next one.
    pub checkpoint_entries: u64,
    /// Bytes appended since the last checkpoint that make the next one.
    pub checkpoint_bytes: u64,
    /// Entries kept in the log although a checkpoint holds them, so that a follower that was away
    /// for a moment needs no snapshot.
    pub keep_entries: u64,
    /// **For tests only.** Lets a restarted leader go on without an election, which loses
    /// acknowledged writes when a crash came before its own sync.
    pub plant_leader_restore: bool,
}

impl GroupOptions {
    /// The defaults for a group on a node.
    pub fn new(group: GroupId, node: NodeId) -> Self {
        Self {
            group,
            node,
            timing: Timing::default(),
            checkpoint_entries: 20_000,
            checkpoint_bytes: 128 * 1024 * 1024,
            keep_entries: 2_000,
            plant_leader_restore: false,
        }
    }

    /// openraft's configuration. What is not a default here is not optional.
    pub(crate) fn config(&self) -> Config {
        Config {
            cluster_name: self.group.to_string(),
            heartbeat_interval: self.timing.heartbeat_ms,
            election_timeout_min: self.timing.election_min_ms,
            election_timeout_max: self.timing.election_max_ms,
            max_payload_entries: APPEND_ENTRIES_MAX,
            // Checkpoints are made by our own trigger, which counts bytes as well.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.keep_entries,
            replication_lag_threshold: self.checkpoint_entries.saturating_mul(2),
            // A restarted leader may have lost what it had not synced yet: it must ask for votes again.
            enable_leader_restore: Some(self.plant_leader_restore),
            enable_pre_vote: Some(true),
            // An unreachable follower is tried again at least every half second.
            backoff: "50ms 100ms 200ms ...500ms".to_owned(),
            ..Config::default()
        }
    }
}
