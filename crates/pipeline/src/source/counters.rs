//! What a source counts while it runs.
//!
//! Numbers only grow, but for [`GAUGES`]; nothing waits for them.

use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers that also shrink.
pub const GAUGES: [&str; 2] = ["open", "files"];

/// The counters of one source.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events handed over.
    pub events: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// What could not even be framed.
    pub rejects: AtomicU64,
    /// Batches that found the channel full and waited.
    pub waits: AtomicU64,
    /// Batches that were not made durable and are read again.
    pub repeats: AtomicU64,
    /// What was lost before it could be read: datagrams the kernel dropped, files that were removed half read.
    pub lost: AtomicU64,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections of a peer that had as many as it may have: closed at once.
    pub turned_away: AtomicU64,
    /// Connections open now.
    pub open: AtomicU64,
    /// Connections that ended with an error or in silence.
    pub broken: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
    /// Requests that were refused: malformed, too large, or not durable in time.
    pub refused: AtomicU64,
    /// Files read now.
    pub files: AtomicU64,
}

impl Counters {
    /// All of them, by name.
    pub fn read(&self) -> [(&'static str, u64); 13] {
        [
            ("events", &self.events),
            ("bytes", &self.bytes),
            ("rejects", &self.rejects),
            ("waits", &self.waits),
            ("repeats", &self.repeats),
            ("lost", &self.lost),
            ("connections", &self.connections),
            ("turned_away", &self.turned_away),
            ("open", &self.open),
            ("broken", &self.broken),
            ("handshakes_failed", &self.handshakes_failed),
            ("refused", &self.refused),
            ("files", &self.files),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
