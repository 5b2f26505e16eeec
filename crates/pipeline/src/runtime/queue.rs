//! Queues in memory, bounded in events and in bytes: whoever brings more waits.

use super::ack::Branch;
use super::counters::Counters;
use crate::record::Record;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Most events in a queue.
pub const EVENTS_MAX: u32 = 8_192;
/// Most bytes in a queue.
pub const BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Records on their way to one sink, and the branch of the batch that they are.
pub(super) struct Parcel {
    pub(super) records: Vec<Record>,
    pub(super) branch: Branch,
    pub(super) room: Room,
}

/// The room a parcel takes; given back with it.
pub(super) struct Room {
    _events: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
    counters: Arc<Counters>,
    events: u64,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counters.release(self.events, self.bytes);
    }
}

/// The end that brings.
#[derive(Clone)]
pub(super) struct Sender {
    out: mpsc::UnboundedSender<Parcel>,
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// The receiver is gone.
#[derive(Debug)]
pub(super) struct Closed;

/// A queue in front of a sink.
pub(super) fn queue(counters: &Arc<Counters>) -> (Sender, mpsc::UnboundedReceiver<Parcel>) {
    // Unbounded in itself: the semaphores hold back whoever brings too much.
    let (out, from) = mpsc::unbounded_channel();
    let sender = Sender {
        out,
        events: Arc::new(Semaphore::new(EVENTS_MAX as usize)),
        bytes: Arc::new(Semaphore::new(BYTES_MAX as usize)),
        counters: Arc::clone(counters),
    };
    (sender, from)
}

impl Sender {
    /// Waits for room and hands over; what is larger than the whole queue gets it for itself.
    pub(super) async fn send(&self, records: Vec<Record>, branch: Branch) -> Result<(), Closed> {
        let began = tokio::time::Instant::now();
        let bytes: u64 = records.iter().map(|record| record.size_bytes() as u64).sum();
        let events = records.len() as u64;
        let share = |wanted: u64, most: u32| u32::try_from(wanted).unwrap_or(most).min(most);
        let room = Arc::clone(&self.events).acquire_many_owned(share(events, EVENTS_MAX));
        let events_room = room.await.map_err(|_| Closed)?;
        let room = Arc::clone(&self.bytes).acquire_many_owned(share(bytes, BYTES_MAX));
        let bytes_room = room.await.map_err(|_| Closed)?;
        self.counters.wait(began.elapsed());
        self.counters.receive(events);
        self.counters.hold(events, bytes);
        let counters = Arc::clone(&self.counters);
        let room = Room { _events: events_room, _bytes: bytes_room, counters, events, bytes };
        self.out.send(Parcel { records, branch, room }).map_err(|_| Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ack::Ticket;
    use super::*;
    use detection::SourceKind;
    use futures::FutureExt as _;

    fn records(count: usize, bytes: usize) -> Vec<Record> {
        let raw = vec![b'x'; bytes].into();
        vec![
            Record { source: SourceKind::Syslog, received_ms: 0, position: None, tenant: None, raw, fields: None };
            count
        ]
    }

    #[tokio::test]
    async fn whoever_brings_more_than_fits_waits_until_there_is_room() {
        for (count, bytes) in [(EVENTS_MAX as usize / 2, 0), (4, BYTES_MAX as usize / 8)] {
            let counters = Arc::default();
            let (sender, mut from) = queue(&counters);
            let send = || sender.send(records(count, bytes), Branch::of(&Ticket::new(None)));
            send().await.unwrap();
            send().now_or_never().map_or_else(|| (), |sent| sent.unwrap());
            assert!(send().now_or_never().is_none(), "the queue is full");
            assert!(counters.read().buffered_events >= count as u64);
            drop((from.recv().await, from.try_recv().ok()));
            assert!(send().now_or_never().is_some(), "there is room again");
        }
    }

    #[tokio::test]
    async fn what_is_larger_than_the_queue_passes_alone() {
        let (sender, mut from) = queue(&Arc::default());
        let branch = Branch::of(&Ticket::new(None));
        sender.send(records(EVENTS_MAX as usize + 1, 0), branch).await.unwrap();
        assert_eq!(from.recv().await.unwrap().records.len(), EVENTS_MAX as usize + 1);
    }
}
