//! How a detector is bounded, and when it believes what.

use std::sync::Arc;

/// Bounds and times of a detector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whose rules these are; part of every alert's id.
    pub tenant: Arc<str>,
    /// How much later than the newest event of its stream an event may come and still be correlated.
    pub allowed_lateness_ms: u64,
    /// How long a stream may be silent before it stops holding others' windows open.
    pub idle_after_ms: u64,
    /// How far an event's clock may be ahead of its receipt; beyond it the time of receipt counts.
    pub ahead_max_ms: u64,
    /// How long after they happened a stream's events may come and still hold others' windows open.
    pub behind_max_ms: u64,
    /// Most group keys a correlation keeps; the least recent leave, counted and reported as an alert.
    pub keys_max: usize,
    /// Most entries that all correlations keep together; the largest lets its least recent keys go beyond it.
    pub entries_max: usize,
    /// About how many bytes all correlations keep together; beyond it the same.
    pub bytes_max: usize,
    /// Most events remembered to drop duplicates; beyond it the allowed lateness shrinks.
    pub remembered_max: usize,
    /// How much longer than the allowed lateness they are remembered.
    pub remembered_for_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tenant: "platform".into(),
            allowed_lateness_ms: 60_000,
            idle_after_ms: 30_000,
            ahead_max_ms: 60_000,
            behind_max_ms: 300_000,
            keys_max: 100_000,
            entries_max: 2_000_000,
            bytes_max: 1 << 30,
            remembered_max: 1_000_000,
            remembered_for_ms: 600_000,
        }
    }
}

impl Options {
    /// When an event happened, as far as its clock is believed: a function of what is stored, whenever it is read.
    pub fn believed_ms(&self, time_ms: u64, received_ms: u64) -> u64 {
        if time_ms <= received_ms.saturating_add(self.ahead_max_ms) { time_ms } else { received_ms }
    }
}
