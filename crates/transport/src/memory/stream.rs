//! Streams of the network in memory: ordered, with a window; a lasting cut or a death breaks them.
//!
//! A frame never overtakes another, and the end of a dead process never looks like a clean finish.

use super::{Seat, World};
use crate::link::{FRAME_BYTES_MAX, FrameSink, FrameSource, FrameStream, LinkError};
use async_trait::async_trait;
use bytes::Bytes;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

/// Bytes on the way in one direction before the sender waits; a larger frame travels alone.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What the smallest frame takes of the window, so that tiny frames are bounded too.
const FRAME_COST_MIN: u32 = 1024;

/// The two ends of a new stream from `from` to `to`.
pub(super) fn pair(world: Arc<World>, from: Arc<Seat>, to: Arc<Seat>) -> (Stream, Stream) {
    let fate = Arc::new(AtomicBool::new(false));
    let out = Arc::new(Wire { world: world.clone(), from: from.clone(), to: to.clone(), broken: fate.clone() });
    let back = Arc::new(Wire { world, from: to, to: from, broken: fate });
    let (out_sink, out_source) = pipe(&out);
    let (back_sink, back_source) = pipe(&back);
    (Stream { sink: out_sink, source: back_source }, Stream { sink: back_sink, source: out_source })
}

fn pipe(wire: &Arc<Wire>) -> (Sink, Source) {
    // The channel has no bound of its own: the window bounds what is in it.
    let (items, received) = mpsc::unbounded_channel();
    let window = Arc::new(Semaphore::new(WINDOW_BYTES as usize));
    let begun = wire.arrival(Instant::now(), 0);
    (
        Sink { wire: wire.clone(), items, window: window.clone(), latest: begun },
        Source { wire: wire.clone(), items: received, window, next: None, finished: false, begun },
    )
}

/// One direction of a stream.
struct Wire {
    world: Arc<World>,
    from: Arc<Seat>,
    to: Arc<Seat>,
    /// Shared by both directions: what broke once stays broken.
    broken: Arc<AtomicBool>,
}

impl Wire {
    /// When a frame arrives that leaves now, not before `earliest`; a lost one is noticed and sent again.
    fn arrival(&self, earliest: Instant, size_bytes: usize) -> Instant {
        let (delay, lost) = self.world.chance(self.from.peer.node, self.to.peer.node, size_bytes);
        let taken = if lost { delay * 3 } else { delay };
        earliest.max(Instant::now() + taken)
    }

    /// Ends when the connection is given up.
    async fn broke(&self) {
        loop {
            let mut changed = pin!(self.world.changed.notified());
            changed.as_mut().enable();
            if self.broken.load(Ordering::Relaxed) {
                return;
            }
            match self.world.gives_up_at(&self.from, &self.to) {
                None => changed.await,
                Some(at) => tokio::select! {
                    biased;
                    () = sleep_until(at) => {
                        self.broken.store(true, Ordering::Relaxed);
                        return;
                    }
                    () = changed => {}
                },
            }
        }
    }

    /// Ends at `at`, or when the path is open again after that.
    async fn passed(&self, at: Instant) {
        sleep_until(at).await;
        loop {
            let mut changed = pin!(self.world.changed.notified());
            changed.as_mut().enable();
            if self.world.passes(&self.from, &self.to) {
                return;
            }
            changed.await;
        }
    }
}

enum Item {
    Frame { at: Instant, frame: Bytes, cost: OwnedSemaphorePermit },
    Finish { at: Instant },
}

pub(super) struct Stream {
    sink: Sink,
    source: Source,
}

impl Stream {
    /// Waits until the opening itself has arrived; `false` when it never will.
    pub(super) async fn arrived(&self) -> bool {
        tokio::select! {
            biased;
            () = self.source.wire.broke() => false,
            () = self.source.wire.passed(self.source.begun) => true,
        }
    }
}

#[async_trait]
impl FrameStream for Stream {
    async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        self.sink.send(frame).await
    }
    async fn receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        self.source.receive().await
    }
    fn split(self: Box<Self>) -> (Box<dyn FrameSink>, Box<dyn FrameSource>) {
        (Box::new(self.sink), Box::new(self.source))
    }
}

struct Sink {
    wire: Arc<Wire>,
    items: mpsc::UnboundedSender<Item>,
    window: Arc<Semaphore>,
    /// When the latest frame arrives.
    latest: Instant,
}

#[async_trait]
impl FrameSink for Sink {
    async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(LinkError::TooLarge { size_bytes: frame.len() });
        }
        let closed = LinkError::Closed(self.wire.to.peer.node);
        let cost = u32::try_from(frame.len()).unwrap_or(u32::MAX).clamp(FRAME_COST_MIN, WINDOW_BYTES);
        let cost = tokio::select! {
            biased;
            () = self.wire.broke() => return Err(closed),
            cost = self.window.clone().acquire_many_owned(cost) => cost.map_err(|_| closed.clone())?,
        };
        self.latest = self.wire.arrival(self.latest, frame.len());
        self.items.send(Item::Frame { at: self.latest, frame, cost }).map_err(|_| closed)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.wire.from.ended().is_none() {
            let _ = self.items.send(Item::Finish { at: self.latest });
        }
    }
}

struct Source {
    wire: Arc<Wire>,
    items: mpsc::UnboundedReceiver<Item>,
    window: Arc<Semaphore>,
    /// Kept here while it is on the way, so that a receive that is cancelled loses nothing.
    next: Option<Item>,
    finished: bool,
    begun: Instant,
}

#[async_trait]
impl FrameSource for Source {
    async fn receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        if self.finished {
            return Ok(None);
        }
        let closed = LinkError::Closed(self.wire.from.peer.node);
        if self.next.is_none() {
            self.next = tokio::select! {
                biased;
                () = self.wire.broke() => return Err(closed),
                item = self.items.recv() => item,
            };
        }
        let at = match &self.next {
            Some(Item::Frame { at, .. } | Item::Finish { at }) => *at,
            None => {
                // The sender is dead: it did not finish.
                self.wire.broke().await;
                return Err(closed);
            }
        };
        tokio::select! {
            biased;
            () = self.wire.broke() => return Err(closed),
            () = self.wire.passed(at) => {}
        }
        match self.next.take() {
            Some(Item::Frame { frame, cost, .. }) => {
                drop(cost);
                Ok(Some(frame))
            }
            _ => {
                self.finished = true;
                Ok(None)
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.window.close();
    }
}
