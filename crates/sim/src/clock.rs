//! A node's clocks: virtual time, and a wall clock that may be wrong and may jump. Never the machine's.

use model::time::Clock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// When every simulation begins: 2026-01-01 UTC.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// The clocks of one node; they outlive its restarts.
pub struct SimulatedClock {
    start: Instant,
    off_ms: AtomicI64,
}

impl SimulatedClock {
    /// A right clock, with virtual time counted from `start`.
    pub const fn new(start: Instant) -> Self {
        Self { start, off_ms: AtomicI64::new(0) }
    }
    /// From now on the wall clock is this wrong.
    pub fn set_off(&self, off_ms: i64) {
        self.off_ms.store(off_ms, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn wall_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        (EPOCH_MS + elapsed).saturating_add_signed(self.off_ms.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
