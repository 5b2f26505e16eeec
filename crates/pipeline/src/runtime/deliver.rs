//! From a queue, or a buffer on disk, to a sink: in order, asked again while it says "later", dead letters for "never".

use super::ack::Branch;
use super::counters::Counters;
use super::disk::Disk;
use super::morgue::Morgue;
use super::queue::Parcel;
use crate::fit::fit;
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
    /// Takes events of one tenant, all or none: durable when this returns.
    ///
    /// # Errors
    /// Not now, or never: then they become dead letters.
    async fn take(&self, tenant: &str, events: Vec<RawEvent>) -> Result<(), Refused>;
}

/// Who is told, and whose events are that are not said to be a tenant's.
pub(super) enum Outlet {
    Own(Arc<dyn Inlet>, Arc<str>),
    Outside(Arc<dyn Sink>, Arc<str>),
}

/// Records in the form in which they are told.
enum Load {
    Events(Vec<RawEvent>),
    Notices(Vec<Notice>),
}

/// What becomes of records at a sink.
struct Sorted {
    /// Those that are told, in their order.
    records: Vec<Record>,
    load: Load,
    /// Those that will never be taken.
    refused: Vec<(Record, Refusal)>,
    /// How many the sink is not for.
    left_out: u64,
}

impl Outlet {
    fn sort(&self, mut records: Vec<Record>) -> Sorted {
        let (mut kept, mut refused, mut left_out) = (Vec::with_capacity(records.len()), Vec::new(), 0);
        let load = match self {
            Self::Own(..) => {
                // A command is of one tenant; in each stream the order stays.
                records.sort_by(|one, other| one.tenant.cmp(&other.tenant));
                let mut events = Vec::with_capacity(records.len());
                for record in records {
                    match fit(&record) {
                        Ok(event) => {
                            events.push(event);
                            kept.push(record);
                        }
                        Err(refusal) => refused.push((record, refusal)),
                    }
                }
                Load::Events(events)
            }
            Self::Outside(sink, tenant) => {
                let mut notices = Vec::with_capacity(records.len());
                for record in records {
                    let notice = record.notice(tenant);
                    if sink.wants(&notice) {
                        notices.push(notice);
                        kept.push(record);
                    } else {
                        left_out += 1;
                    }
                }
                Load::Notices(notices)
            }
        };
        Sorted { records: kept, load, refused, left_out }
    }

    /// Tells some of them from a place on; how many were taken, and how many it was told.
    async fn deliver(&self, sorted: &Sorted, at: usize) -> (usize, usize, Result<(), Refused>) {
        let end = sorted.records.len().min(at + TOLD_MAX);
        match (self, &sorted.load) {
            (Self::Own(inlet, platform), Load::Events(events)) => {
                let tenant = &sorted.records[at].tenant;
                let run = sorted.records[at..end].iter().take_while(|record| record.tenant == *tenant).count();
                let tenant = tenant.as_ref().unwrap_or(platform);
                match inlet.take(tenant, events[at..at + run].to_vec()).await {
                    Ok(()) => (run, run, Ok(())),
                    Err(refused) => (0, run, Err(refused)),
                }
            }
            (Self::Outside(sink, _), Load::Notices(notices)) => {
                let (taken, answer) = sink.deliver(&notices[at..end]).await;
                (taken.min(end - at), end - at, answer)
            }
            _ => unreachable!("a sink sorts records into its own form"),
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
    pub(super) async fn empty_queue(&self, queue: &mut UnboundedReceiver<Parcel>) {
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
            self.tell(records).await;
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
                Outlet::Own(..) => tokio::time::timeout_at(deadline, queue.recv()).await.ok().flatten(),
                Outlet::Outside(..) => queue.try_recv().ok(),
            };
            let Some(parcel) = next else { return };
            count += parcel.records.len();
            parcels.push(parcel);
        }
    }

    /// From disk, until it is told to end and nothing waits.
    pub(super) async fn empty_disk(&self, disk: &Arc<Disk>, mut ending: watch::Receiver<bool>) {
        // What was taken before a fall, and not dealt with, is taken again.
        disk.rewind();
        loop {
            let mut taken = tokio::select! {
                biased;
                taken = disk.take() => taken,
                _ = ending.wait_for(|ending| *ending) => return,
            };
            self.tell(std::mem::take(&mut taken.records)).await;
            disk.confirm(&taken).await;
        }
    }

    /// Returns once every record was taken, is a dead letter, or is left out.
    async fn tell(&self, records: Vec<Record>) {
        let mut sorted = self.outlet.sort(records);
        self.counters.leave_out(sorted.left_out);
        self.morgue.bury_records(&self.name, &std::mem::take(&mut sorted.refused)).await;
        let (mut at, mut pause) = (0, PAUSE_MIN);
        while at < sorted.records.len() {
            let (taken, told, refused) = self.outlet.deliver(&sorted, at).await;
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
                    let refused = if matches!(self.outlet, Outlet::Own(..)) { told } else { 1 };
                    let end = (at + refused).min(sorted.records.len());
                    let dead = sorted.records[at..end].iter();
                    let dead: Vec<_> = dead.map(|record| (record.clone(), Refusal::Sink(why.clone()))).collect();
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
