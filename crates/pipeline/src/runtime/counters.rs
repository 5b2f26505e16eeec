//! What each component counts: what came, what went, what waits, and for how long others waited for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The counters of one component.
#[derive(Debug, Default)]
pub struct Counters {
    received: AtomicU64,
    sent: AtomicU64,
    left_out: AtomicU64,
    dropped: AtomicU64,
    dead_lettered: AtomicU64,
    buffered_events: AtomicU64,
    buffered_bytes: AtomicU64,
    disk_events: AtomicU64,
    disk_bytes: AtomicU64,
    waited_us: AtomicU64,
    retries: AtomicU64,
    down: AtomicU64,
    restarts: AtomicU64,
}

/// What the counters of one component said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Events that came.
    pub received: u64,
    /// Events that went on.
    pub sent: u64,
    /// Events left out because the user said so (filter, sample, route).
    pub left_out: u64,
    /// Events dropped: only by a full buffer that was told to.
    pub dropped: u64,
    /// Events that became dead letters.
    pub dead_lettered: u64,
    /// Events that wait for it now.
    pub buffered_events: u64,
    /// Their bytes, in memory or on disk.
    pub buffered_bytes: u64,
    /// How long others have waited for it since the start, in microseconds.
    pub waited_us: u64,
    /// How often it said: later.
    pub retries: u64,
    /// 1 while all its tasks run, 0 while one has ended that should not have.
    pub running: u64,
    /// How often one of its tasks came up again.
    pub restarts: u64,
}

impl Counters {
    pub(super) fn receive(&self, count: u64) {
        self.received.fetch_add(count, Ordering::Relaxed);
    }
    pub(super) fn send(&self, count: u64) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }
    pub(super) fn leave_out(&self, count: u64) {
        self.left_out.fetch_add(count, Ordering::Relaxed);
    }
    pub(super) fn drop_newest(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }
    pub(super) fn dead_letter(&self, count: u64) {
        self.dead_lettered.fetch_add(count, Ordering::Relaxed);
    }
    pub(super) fn wait(&self, time: Duration) {
        self.waited_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    pub(super) fn retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn goes_down(&self) {
        self.down.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn comes_up(&self) {
        self.down.fetch_sub(1, Ordering::Relaxed);
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn hold(&self, events: u64, bytes: u64) {
        self.buffered_events.fetch_add(events, Ordering::Relaxed);
        self.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    pub(super) fn release(&self, events: u64, bytes: u64) {
        self.buffered_events.fetch_sub(events, Ordering::Relaxed);
        self.buffered_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
    pub(super) fn holds_on_disk(&self, events: u64, bytes: u64) {
        self.disk_events.store(events, Ordering::Relaxed);
        self.disk_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What they say now.
    pub fn read(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            received: of(&self.received),
            sent: of(&self.sent),
            left_out: of(&self.left_out),
            dropped: of(&self.dropped),
            dead_lettered: of(&self.dead_lettered),
            buffered_events: of(&self.buffered_events) + of(&self.disk_events),
            buffered_bytes: of(&self.buffered_bytes) + of(&self.disk_bytes),
            waited_us: of(&self.waited_us),
            retries: of(&self.retries),
            running: u64::from(of(&self.down) == 0),
            restarts: of(&self.restarts),
        }
    }
}

impl Counts {
    /// All of them, by name.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("received", self.received),
            ("sent", self.sent),
            ("left_out", self.left_out),
            ("dropped", self.dropped),
            ("dead_lettered", self.dead_lettered),
            ("buffered_events", self.buffered_events),
            ("buffered_bytes", self.buffered_bytes),
            ("waited_us", self.waited_us),
            ("retries", self.retries),
            ("running", self.running),
            ("restarts", self.restarts),
        ]
    }
}

/// The counters of all components, by their names.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<BTreeMap<Arc<str>, Arc<Counters>>>);

impl Board {
    pub(super) fn new(names: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self(Arc::new(names.into_iter().map(|name| (name, Arc::default())).collect()))
    }

    pub(super) fn of(&self, name: &str) -> Arc<Counters> {
        Arc::clone(self.0.get(name).expect("every component of the topology has counters"))
    }

    /// What every component's counters say now.
    pub fn read(&self) -> BTreeMap<Arc<str>, Counts> {
        self.0.iter().map(|(name, counters)| (Arc::clone(name), counters.read())).collect()
    }
}
