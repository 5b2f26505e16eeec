//! From a source through the plan to the queues of the sinks, batch by batch.
//!
//! A batch waits for room in every queue it goes to: that is what holds its source back.

use super::ack::{Branch, Ticket};
use super::counters::Board;
use super::disk::Disk;
use super::morgue::Morgue;
use super::queue;
use crate::dead::Letter;
use crate::plan::{Entry, Made, Plan};
use crate::record::Record;
use crate::source::Batch;
use crate::transform::Refusal;
use detection::{RawEvent, Reject};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Pause before a batch that was lost on its way is taken from disk again.
const REPEAT_PAUSE: Duration = Duration::from_secs(1);

/// What every pump needs.
#[derive(Clone)]
pub(super) struct Works {
    pub(super) plan: Arc<Plan>,
    pub(super) board: Board,
    pub(super) morgue: Arc<Morgue>,
    pub(super) queues: Arc<BTreeMap<Arc<str>, queue::Sender>>,
    /// The tenants that sources speak for.
    pub(super) tenants: Arc<BTreeMap<Arc<str>, Arc<str>>>,
}

impl Works {
    /// Takes records through the plan and hands them to the queues; `done` once all of it is durable.
    pub(super) async fn run(&self, entry: &Entry, records: Vec<Record>, done: Option<oneshot::Sender<()>>) {
        let ticket = Ticket::new(done);
        let Some(made) = self.plan.run(entry, records) else {
            ticket.lost();
            return;
        };
        let Made { arrived, refused, passed } = made;
        for (name, passed) in passed {
            let counters = self.board.of(&name);
            counters.receive(passed.received);
            counters.send(passed.sent);
            counters.leave_out(passed.left_out);
        }
        let mut dead: BTreeMap<Arc<str>, Vec<(Record, Refusal)>> = BTreeMap::new();
        for (component, record, refusal) in refused {
            dead.entry(component).or_default().push((record, refusal));
        }
        for (component, records) in dead {
            self.morgue.bury_records(&component, &records).await;
        }
        for (sink, records) in arrived {
            let branch = Branch::of(&ticket);
            // A sink that nobody runs has no queue: what only alerts reach is told by others.
            let Some(queue) = self.queues.get(&sink) else { continue };
            if queue.send(records, branch).await.is_err() {
                return;
            }
        }
    }

    /// Events of a source, as those of its tenant.
    fn records(&self, source: &str, events: Vec<RawEvent>) -> Vec<Record> {
        let tenant = self.tenants.get(source);
        events.into_iter().map(|raw| Record { tenant: tenant.cloned(), ..Record::from(raw) }).collect()
    }

    async fn reject(&self, source: &Arc<str>, rejects: Vec<Reject>) {
        let now_ms = self.morgue.now_ms();
        let letters = rejects.into_iter().map(|reject| Letter::of_reject(now_ms, source, reject));
        self.morgue.bury(source, letters.collect()).await;
    }
}

/// A source's batches, straight through. Ends when the source does.
pub(super) async fn straight(works: &Works, source: &Arc<str>, batches: &mut mpsc::Receiver<Batch>) {
    let (entry, counters) = (Entry::From(Arc::clone(source)), works.board.of(source));
    while let Some(Batch { events, rejects, done }) = batches.recv().await {
        let count = events.len() as u64;
        counters.receive(count + rejects.len() as u64);
        works.reject(source, rejects).await;
        let began = tokio::time::Instant::now();
        works.run(&entry, works.records(source, events), done).await;
        counters.wait(began.elapsed());
        counters.send(count);
    }
}

/// A source's batches to disk: durable there, so that the source waits for nothing else.
pub(super) async fn to_disk(works: &Works, source: &Arc<str>, batches: &mut mpsc::Receiver<Batch>, disk: &Arc<Disk>) {
    let counters = works.board.of(source);
    while let Some(Batch { events, rejects, done }) = batches.recv().await {
        counters.receive((events.len() + rejects.len()) as u64);
        works.reject(source, rejects).await;
        let records = works.records(source, events);
        if disk.append(&records).await
            && let Some(done) = done
        {
            // A source that has ended does not need to know.
            let _ = done.send(());
        }
    }
}

/// From disk through the plan, until it is told to end. One batch at a time: what comes next on disk is confirmed in order.
pub(super) async fn from_disk(works: &Works, source: &Arc<str>, disk: &Arc<Disk>, mut ending: watch::Receiver<bool>) {
    let (entry, counters) = (Entry::From(Arc::clone(source)), works.board.of(source));
    // What was taken before a fall, and not dealt with, is taken again.
    disk.rewind();
    loop {
        let taken = tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending) => return,
            taken = disk.take() => taken,
        };
        let (done, told) = oneshot::channel();
        let count = taken.records.len() as u64;
        works.run(&entry, taken.records.clone(), Some(done)).await;
        if told.await.is_ok() {
            counters.send(count);
            disk.confirm(&taken).await;
        } else {
            disk.rewind();
            tokio::time::sleep(REPEAT_PAUSE).await;
        }
    }
}
