//! To sinks that take many events at once: gathered until there are enough or long enough has passed, then told.
//!
//! Nothing that is gathered is acknowledged: it is in a queue or in a buffer on disk until the sink has taken it.

use super::counters::Counters;
use super::deliver::{Delivery, Outlet, PAUSE_MAX, PAUSE_MIN};
use super::disk::Disk;
use super::morgue::Morgue;
use super::queue::{self, Parcel};
use crate::record::Record;
use crate::sink::{Refused, Roll, Sink};
use crate::transform::Refusal;
use archive::Entry;
use archive::export::{self, Row};
use detection::RejectReason;
use detection::normalise::normalise;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::Instant;

/// A sink at work: told at once, or gathered for.
pub(super) enum Worker {
    Tells(Delivery),
    Gathers(Gathering),
}

impl Worker {
    pub(super) fn new(delivery: Delivery) -> Self {
        match delivery {
            Delivery { name, outlet: Outlet::Outside(sink, platform), counters, morgue } if sink.bulk().is_some() => {
                Self::Gathers(Gathering { name, sink, platform, counters, morgue })
            }
            delivery => Self::Tells(delivery),
        }
    }

    pub(super) async fn empty_queue(&self, queue: &mut UnboundedReceiver<Parcel>) {
        match self {
            Self::Tells(delivery) => delivery.empty_queue(queue).await,
            Self::Gathers(gathering) => gathering.empty_queue(queue).await,
        }
    }

    pub(super) async fn empty_disk(&self, disk: &Arc<Disk>, ending: watch::Receiver<bool>) {
        match self {
            Self::Tells(delivery) => delivery.empty_disk(disk, ending).await,
            Self::Gathers(gathering) => gathering.empty_disk(disk, ending).await,
        }
    }
}

/// A sink of many events at work.
pub(super) struct Gathering {
    name: Arc<str>,
    sink: Arc<dyn Sink>,
    /// Whose events are that are not said to be a tenant's.
    platform: Arc<str>,
    counters: Arc<Counters>,
    morgue: Arc<Morgue>,
}

/// What was gathered so far, and what became of it.
#[derive(Default)]
struct Heap {
    records: Vec<Record>,
    rows: Vec<Row>,
    refused: Vec<(Record, Refusal)>,
    left_out: u64,
    count: usize,
    bytes: usize,
}

impl Gathering {
    fn roll(&self) -> Roll {
        self.sink.bulk().map(|bulk| bulk.roll()).unwrap_or_default()
    }

    /// From memory: what is gathered keeps its room in the queue, so half a queue is enough.
    pub(super) async fn empty_queue(&self, queue: &mut UnboundedReceiver<Parcel>) {
        let Roll { events, bytes, time } = self.roll();
        let (events, bytes) = (events.min(queue::EVENTS_MAX as usize / 2), bytes.min(queue::BYTES_MAX as usize / 2));
        while let Some(first) = queue.recv().await {
            let deadline = Instant::now() + time;
            let (mut heap, mut held) = (Heap::default(), Vec::new());
            let mut next = Some(first);
            while let Some(Parcel { records, branch, room }) = next {
                self.gather(records, &mut heap);
                held.push((branch, room));
                next = match heap.count >= events || heap.bytes >= bytes {
                    true => None,
                    false => tokio::time::timeout_at(deadline, queue.recv()).await.ok().flatten(),
                };
            }
            self.tell(heap).await;
            for (branch, room) in held {
                branch.durable();
                drop(room);
            }
        }
    }

    /// From disk, until it is told to end; what was gathered by then is taken again after the next start.
    pub(super) async fn empty_disk(&self, disk: &Arc<Disk>, mut ending: watch::Receiver<bool>) {
        // What was taken before a fall, and not dealt with, is taken again.
        disk.rewind();
        let Roll { events, bytes, time } = self.roll();
        // It may have read when the time is up: then it is the beginning of the next heap.
        let mut next = Box::pin(disk.take());
        loop {
            let (mut heap, mut last, mut deadline) = (Heap::default(), None, None);
            while heap.count < events && heap.bytes < bytes {
                let until = deadline.unwrap_or_else(Instant::now);
                let mut taken = tokio::select! {
                    biased;
                    _ = ending.wait_for(|ending| *ending) => return,
                    taken = &mut next => taken,
                    () = tokio::time::sleep_until(until), if deadline.is_some() => break,
                };
                deadline.get_or_insert_with(|| Instant::now() + time);
                self.gather(std::mem::take(&mut taken.records), &mut heap);
                last = Some(taken);
                next = Box::pin(disk.take());
            }
            self.tell(heap).await;
            if let Some(last) = last {
                disk.confirm(&last).await;
            }
        }
    }

    /// Puts records on a heap, each as what becomes of it.
    fn gather(&self, records: Vec<Record>, heap: &mut Heap) {
        heap.count += records.len();
        for record in records {
            heap.bytes += record.size_bytes();
            match self.row(&record) {
                Ok(Some(row)) => {
                    heap.rows.push(row);
                    heap.records.push(record);
                }
                Ok(None) => heap.left_out += 1,
                Err(refusal) => heap.refused.push((record, refusal)),
            }
        }
    }

    /// A record as a row; none where the sink is not for it.
    fn row(&self, record: &Record) -> Result<Option<Row>, Refusal> {
        let notice = record.notice(&self.platform);
        if !self.sink.wants(&notice) {
            return Ok(None);
        }
        if !export::is_name(&notice.tenant) {
            return Err(RejectReason::BadField { field: "metadata.tenant_uid".to_owned() }.into());
        }
        let event = normalise(&record.clone().into_raw_event()).map_err(|reject| reject.reason)?;
        let line = (!record.raw.is_empty()).then(|| record.raw.clone());
        let entry = Entry { tenant: notice.tenant.into(), source: record.source, event };
        Ok(Some(Row { entry, line }))
    }

    /// Returns once every record was taken, is a dead letter, or is left out.
    async fn tell(&self, heap: Heap) {
        self.counters.leave_out(heap.left_out);
        self.morgue.bury_records(&self.name, &heap.refused).await;
        let Some(bulk) = self.sink.bulk().filter(|_| !heap.rows.is_empty()) else { return };
        let (rows, mut pause) = (Arc::new(heap.rows), PAUSE_MIN);
        loop {
            match bulk.put(Arc::clone(&rows)).await {
                Ok(()) => return self.counters.send(heap.records.len() as u64),
                Err(Refused::Never(why)) => {
                    let letters = heap.records.into_iter().map(|record| (record, Refusal::Sink(why.clone())));
                    return self.morgue.bury_records(&self.name, &letters.collect::<Vec<_>>()).await;
                }
                Err(Refused::Later(why)) => {
                    self.counters.retry();
                    tracing::warn!(sink = %self.name, why, waits_ms = pause.as_millis(), "a sink cannot take events now");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}
