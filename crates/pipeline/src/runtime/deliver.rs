//! From a queue, or a buffer on disk, to a sink: in order, asked again while it says "later", dead letters for "never".

use super::ack::Branch;
use super::counters::Counters;
use super::disk::Disk;
use super::morgue::Morgue;
use super::queue::Parcel;
use crate::record::Record;
use crate::sink::{Notice, Refused, Sink};
use crate::transform::Refusal;
use async_trait::async_trait;
use detection::RawEvent;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// Most records told at once.
const TOLD_MAX: usize = 512;
/// How long the platform's own sinks wait for more records to take at once: each time is an entry of a log.
const LINGER: Duration = Duration::from_millis(50);
/// Pause after the first "later"; each further one waits twice as long.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// One of the platform's own sinks: the region's log, or the archive.
#[async_trait]
pub trait Inlet: Send + Sync + 'static {
    /// Takes events, all or none: durable when this returns.
    ///
    /// # Errors
    /// Not now, or never: then they become dead letters.
    async fn take(&self, events: Vec<RawEvent>) -> Result<(), Refused>;
}

/// Who is told.
pub(super) enum Outlet {
    Own(Arc<dyn Inlet>),
    Outside(Arc<dyn Sink>, Arc<str>),
}

impl Outlet {
    async fn deliver(&self, records: &[Record]) -> (usize, Result<(), Refused>) {
        match self {
            Self::Own(inlet) => {
                let events = records.iter().cloned().map(Record::into_raw_event).collect();
                match inlet.take(events).await {
                    Ok(()) => (records.len(), Ok(())),
                    Err(refused) => (0, Err(refused)),
                }
            }
            Self::Outside(sink, tenant) => {
                let notices: Vec<Notice> = records.iter().map(|record| record.notice(tenant)).collect();
                sink.deliver(&notices).await
            }
        }
    }
}

/// A sink at work.
pub(super) struct Delivery {
    pub(super) name: Arc<str>,
    pub(super) outlet: Outlet,
    pub(super) counters: Arc<Counters>,
    pub(super) morgue: Arc<Morgue>,
}

impl Delivery {
    /// From memory: a batch is durable once the sink has taken it. Ends when its queue does.
    pub(super) async fn from_queue(&self, queue: &mut UnboundedReceiver<Parcel>) {
        while let Some(first) = queue.recv().await {
            let mut parcels = vec![first];
            self.gather(queue, &mut parcels).await;
            let mut records = Vec::new();
            let mut done: Vec<(Branch, _)> = Vec::new();
            for parcel in parcels {
                let Parcel { records: some, branch, room } = parcel;
                records.extend(some);
                done.push((branch, room));
            }
            self.tell(&records).await;
            for (branch, room) in done {
                branch.durable();
                drop(room);
            }
        }
    }

    async fn gather(&self, queue: &mut UnboundedReceiver<Parcel>, parcels: &mut Vec<Parcel>) {
        let deadline = tokio::time::Instant::now() + LINGER;
        let mut count = parcels[0].records.len();
        while count < TOLD_MAX {
            let next = match &self.outlet {
                Outlet::Own(_) => tokio::time::timeout_at(deadline, queue.recv()).await.ok().flatten(),
                Outlet::Outside(..) => queue.try_recv().ok(),
            };
            let Some(parcel) = next else { return };
            count += parcel.records.len();
            parcels.push(parcel);
        }
    }

    /// From disk, until it is told to end and nothing waits.
    pub(super) async fn from_disk(&self, disk: &Arc<Disk>, mut ending: watch::Receiver<bool>) {
        // What was taken before a fall, and not dealt with, is taken again.
        disk.rewind();
        loop {
            let taken = tokio::select! {
                biased;
                taken = disk.take() => taken,
                _ = ending.wait_for(|ending| *ending) => return,
            };
            self.tell(&taken.records).await;
            disk.confirm(&taken).await;
        }
    }

    /// Returns once every record was taken, or is a dead letter.
    async fn tell(&self, records: &[Record]) {
        let (mut at, mut pause) = (0, PAUSE_MIN);
        while at < records.len() {
            let chunk = &records[at..records.len().min(at + TOLD_MAX)];
            let (taken, refused) = self.outlet.deliver(chunk).await;
            let taken = taken.min(chunk.len());
            at += taken;
            self.counters.send(taken as u64);
            if taken > 0 {
                pause = PAUSE_MIN;
            }
            let why = match refused {
                Ok(()) if taken > 0 => continue,
                Ok(()) => "it took nothing".to_owned(),
                Err(Refused::Later(why)) => why,
                Err(Refused::Never(why)) => {
                    // Of the platform's own sinks none was taken, so all are refused.
                    let refused = if matches!(self.outlet, Outlet::Own(_)) { chunk.len() } else { 1 };
                    let end = (at + refused).min(records.len());
                    let dead: Vec<_> =
                        records[at..end].iter().map(|record| (record.clone(), Refusal::Sink(why.clone()))).collect();
                    self.morgue.bury_records(&self.name, &dead).await;
                    at = end;
                    continue;
                }
            };
            self.counters.retry();
            tracing::warn!(sink = %self.name, why, waits_ms = pause.as_millis(), "a sink cannot take events now");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// From a queue to disk: a batch is durable once it is written.
pub(super) async fn to_disk(queue: &mut UnboundedReceiver<Parcel>, disk: &Arc<Disk>) {
    while let Some(Parcel { records, branch, room }) = queue.recv().await {
        if disk.append(&records).await {
            branch.durable();
        }
        drop(room);
    }
}
