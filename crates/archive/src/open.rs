//! Events that are in no file yet, and how far each stream was read.

use crate::layout::Partition;
use crate::row::Entry;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes an event takes in memory beside its raw bytes: fields are about twice the raw bytes, and have names.
const OVERHEAD_BYTES: usize = 1024;

/// Open events and the place in each stream after them.
#[derive(Debug, Default)]
pub(crate) struct Open {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) size_bytes: usize,
    /// When the oldest of them was taken.
    pub(crate) since_ms: Option<u64>,
    /// The next sequence of each stream.
    pub(crate) next: BTreeMap<String, u64>,
}

/// What is to become files: for each partition, strays apart, its events in order.
pub(crate) type Sorted = BTreeMap<(Partition, bool), Vec<Arc<Entry>>>;

impl Open {
    pub(crate) fn push(&mut self, entry: Entry, now_ms: u64) {
        self.size_bytes += size_of(&entry);
        self.since_ms.get_or_insert(now_ms);
        self.entries.push(Arc::new(entry));
    }

    /// Forgets the first `count` events: they are in files now.
    pub(crate) fn committed(&mut self, count: usize, now_ms: u64) {
        let gone = self.entries.drain(..count.min(self.entries.len()));
        self.size_bytes -= gone.map(|entry| size_of(&entry)).sum::<usize>().min(self.size_bytes);
        self.since_ms = (!self.entries.is_empty()).then_some(now_ms);
    }
}

fn size_of(entry: &Entry) -> usize {
    entry.event.raw.len() * 3 + OVERHEAD_BYTES
}

/// Events by partition and order; an event that was read twice is there once.
pub(crate) fn sorted(entries: &[Arc<Entry>]) -> Sorted {
    let mut sorted = Sorted::new();
    for entry in entries {
        let place = Partition::of(&entry.tenant, entry.time_ms(), entry.event.received_ms);
        sorted.entry(place).or_default().push(Arc::clone(entry));
    }
    for entries in sorted.values_mut() {
        entries.sort_by(|one, other| one.order().cmp(&other.order()));
        entries.dedup_by(|one, other| one.event.position.is_some() && one.order() == other.order());
    }
    sorted
}
