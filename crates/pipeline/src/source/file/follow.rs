//! The source that follows files: looks, hands over, and remembers what became durable.
//!
//! Reading happens on threads for blocking work; only so much is under way at once.

use super::super::counters::add;
use super::super::handover::send;
use super::super::{Batch, Counters, Source, Surroundings};
use super::checkpoint::Place;
use super::tail::{Chunk, Settings, Tail};
use crate::resource::OpenError;
use futures::future::BoxFuture;
use model::time::Clock;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot::{self, error::TryRecvError};

/// Batches handed over and not yet durable; then reading waits.
const PENDING_MAX: usize = 64;
/// Batches read before files are looked at again.
const ROUND_MAX: usize = 16;
/// Durable batches after which what was read is stored, also while there is more to read.
const STORE_EVERY: u32 = 64;

/// Followed files as a source: what turns records into events is the caller's.
pub(in super::super) struct Follow<T> {
    tail: Tail,
    poll: Duration,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    turn: T,
}

impl<T: FnMut(Chunk, u64) -> Batch + Send + 'static> Follow<T> {
    /// Reads what is kept of earlier runs.
    pub(in super::super) fn open(
        settings: Settings,
        poll: Duration,
        around: &Surroundings,
        turn: T,
    ) -> Result<Self, OpenError> {
        let path = settings.checkpoint.clone();
        let clock = Arc::clone(&around.clock);
        let tail = Tail::open(settings, clock.wall_ms()).map_err(|error| OpenError::File { path, error })?;
        Ok(Self { tail, poll, clock, counters: Arc::clone(&around.counters), turn })
    }
}

impl<T: FnMut(Chunk, u64) -> Batch + Send + 'static> Source for Follow<T> {
    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
    fn run(self: Box<Self>, out: Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let Self { mut tail, poll, clock, counters, mut turn } = *self;
            let mut pending: VecDeque<Pending> = VecDeque::new();
            let (mut unstored, mut rests) = (0, false);
            loop {
                let room = if rests { 0 } else { ROUND_MAX.min(PENDING_MAX - pending.len()) };
                let (now, must_store) = (clock.monotonic(), unstored >= STORE_EVERY);
                let read = tokio::task::spawn_blocking(move || round(tail, now, room, must_store));
                let chunks;
                (tail, chunks) = read.await.map_err(io::Error::other)?;
                if must_store {
                    unstored = 0;
                }
                counters.files.store(tail.count(), Ordering::Relaxed);
                counters.lost.store(tail.lost, Ordering::Relaxed);
                let pause = if chunks.is_empty() { poll } else { Duration::ZERO };
                for chunk in chunks {
                    let (done, durable) = oneshot::channel();
                    pending.push_back(Pending { file: chunk.file, end: chunk.end.clone(), durable });
                    let mut batch = turn(chunk, clock.wall_ms());
                    if batch.events.is_empty() && batch.rejects.is_empty() {
                        // Nothing but empty lines: their end counts once what came before does.
                        let _ = done.send(());
                        continue;
                    }
                    batch.done = Some(done);
                    if send(&out, &counters, batch).await.is_err() {
                        return Ok(());
                    }
                }
                let mut first = tokio::select! {
                    biased;
                    () = out.closed() => return Ok(()),
                    first = wait(&mut pending) => Some(first),
                    () = tokio::time::sleep(pause) => None,
                };
                rests = false;
                while let Some((Pending { file, end, .. }, is_durable)) = first {
                    if is_durable {
                        tail.acknowledge(file, end);
                        unstored += 1;
                    } else {
                        add(&counters.repeats, 1);
                        // What followed it in its file would leave a gap: it is read again as well, after a pause.
                        pending.retain(|later| later.file != file);
                        tail.rewind(file);
                        rests = true;
                    }
                    first = settled(&mut pending);
                }
            }
        })
    }
}

/// Looks and reads; stores where nothing is read or it was long ago.
fn round(mut tail: Tail, now: Duration, room: usize, must_store: bool) -> (Tail, Vec<Chunk>) {
    tail.look(now);
    let mut chunks = Vec::new();
    let mut failed = None;
    while chunks.len() < room && failed.is_none() {
        match tail.next() {
            Ok(Some(chunk)) => chunks.push(chunk),
            Ok(None) => break,
            Err(error) => failed = Some(error),
        }
    }
    if failed.is_none() && (must_store || chunks.is_empty()) {
        failed = tail.store().err();
    }
    if let Some(error) = failed {
        tracing::warn!(%error, "what was read of files cannot be remembered");
    }
    (tail, chunks)
}

/// A batch that was handed over.
struct Pending {
    file: u64,
    end: Place,
    durable: oneshot::Receiver<()>,
}

/// The first batch, once it is known whether it is durable; never where there is none.
async fn wait(pending: &mut VecDeque<Pending>) -> (Pending, bool) {
    if let Some(first) = pending.front_mut() {
        let is_durable = (&mut first.durable).await.is_ok();
        if let Some(first) = pending.pop_front() {
            return (first, is_durable);
        }
    }
    std::future::pending().await
}

/// The first batch, if it is known whether it is durable.
fn settled(pending: &mut VecDeque<Pending>) -> Option<(Pending, bool)> {
    let is_durable = match pending.front_mut()?.durable.try_recv() {
        Ok(()) => true,
        Err(TryRecvError::Closed) => false,
        Err(TryRecvError::Empty) => return None,
    };
    Some((pending.pop_front()?, is_durable))
}
