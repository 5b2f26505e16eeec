//! From frames to batches: numbered where they have no content to be known by, counted, and never larger than a batch may be.

use super::counters::add;
use super::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Batch, Counters};
use bytes::Bytes;
use detection::event::REJECT_SAMPLE_BYTES_MAX;
use detection::{Position, RawEvent, Reject, RejectReason, SourceKind};
use model::time::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

/// What was handed over is durable in this time, or its client is told to send it again.
const DURABLE_TIME_MAX: Duration = Duration::from_secs(30);

/// The receiver is gone: the pipeline has stopped.
pub(super) struct Closed;

/// The client has to send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not durable in time: send it again")]
pub(super) struct NotDurable;

/// A frame, or what could not be one.
pub(super) type Framed = Result<Bytes, Spoiled>;

/// What could not be an event, and its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spoiled {
    pub(super) reason: RejectReason,
    sample: Bytes,
}

impl Spoiled {
    /// Keeps the beginning of what came, and not all of it in memory for that.
    pub(super) fn of(reason: RejectReason, bytes: &Bytes) -> Self {
        let sample = Bytes::copy_from_slice(&bytes[..bytes.len().min(REJECT_SAMPLE_BYTES_MAX)]);
        Self { reason, sample }
    }
}

impl From<RejectReason> for Spoiled {
    fn from(reason: RejectReason) -> Self {
        Self { reason, sample: Bytes::new() }
    }
}

/// What a source that cannot be read again needs to number and hand over events.
#[derive(Clone)]
pub(super) struct Handover {
    kind: SourceKind,
    /// None where events are known by their content.
    stream: Option<Arc<str>>,
    sequence: Arc<AtomicU64>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) out: Sender<Batch>,
}

impl Handover {
    /// A stream that cannot be replayed is a new one at each start, so that its numbers never repeat.
    pub(super) fn new(
        kind: SourceKind,
        name: &str,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        out: Sender<Batch>,
    ) -> Self {
        let stream = Some(format!("{name}@{}", clock.wall_ms()).into());
        Self { stream, ..Self::unnumbered(kind, clock, counters, out) }
    }

    /// For events that a peer may send twice: they are known again by their content.
    pub(super) fn unnumbered(
        kind: SourceKind,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        out: Sender<Batch>,
    ) -> Self {
        Self { kind, stream: None, sequence: Arc::default(), clock, counters, out }
    }

    /// Numbers frames and cuts them into batches.
    pub(super) fn batches(&self, frames: impl IntoIterator<Item = Framed>) -> Vec<Batch> {
        let received_ms = self.clock.wall_ms();
        let (mut batches, mut batch, mut size) = (Vec::new(), Batch::default(), 0);
        for frame in frames {
            let (bytes, reason) = match frame {
                Ok(bytes) => (bytes, None),
                Err(Spoiled { reason, sample }) => (sample, Some(reason)),
            };
            if batch.events.len() + batch.rejects.len() >= BATCH_EVENTS_MAX || size + bytes.len() > BATCH_BYTES_MAX {
                batches.push(std::mem::take(&mut batch));
                size = 0;
            }
            size += bytes.len();
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
            let position = self.stream.clone().map(|stream| Position { stream, sequence });
            let raw = RawEvent { source: self.kind, received_ms, position, bytes };
            match reason {
                None => batch.events.push(raw),
                Some(reason) => batch.rejects.push(Reject::of(&raw, reason)),
            }
        }
        batches.push(batch);
        batches.retain(|batch| !batch.events.is_empty() || !batch.rejects.is_empty());
        batches
    }

    /// Hands frames over; waits while the channel is full.
    pub(super) async fn give(
        &self,
        frames: impl IntoIterator<Item = Result<Bytes, RejectReason>>,
    ) -> Result<(), Closed> {
        for batch in self.batches(frames.into_iter().map(|frame| frame.map_err(Spoiled::from))) {
            send(&self.out, &self.counters, batch).await?;
        }
        Ok(())
    }

    /// Hands batches over and waits until all of them are durable, within a time.
    pub(super) async fn give_durably(&self, batches: Vec<Batch>) -> Result<(), NotDurable> {
        let all = async {
            let mut waiting = Vec::new();
            for mut batch in batches {
                let (done, durable) = oneshot::channel();
                batch.done = Some(done);
                send(&self.out, &self.counters, batch).await.map_err(|_| NotDurable)?;
                waiting.push(durable);
            }
            futures::future::try_join_all(waiting).await.map_err(|_| NotDurable)
        };
        match tokio::time::timeout(DURABLE_TIME_MAX, all).await {
            Ok(durable) => durable.map(drop),
            Err(_) => Err(NotDurable),
        }
    }
}

/// Hands a batch over and counts it; waits while the channel is full.
pub(super) async fn send(out: &Sender<Batch>, counters: &Counters, batch: Batch) -> Result<(), Closed> {
    add(&counters.events, batch.events.len() as u64);
    add(&counters.rejects, batch.rejects.len() as u64);
    add(&counters.bytes, batch.events.iter().map(|raw| raw.bytes.len() as u64).sum());
    match out.try_send(batch) {
        Ok(()) => Ok(()),
        Err(TrySendError::Closed(_)) => Err(Closed),
        Err(TrySendError::Full(batch)) => {
            add(&counters.waits, 1);
            out.send(batch).await.map_err(|_| Closed)
        }
    }
}
