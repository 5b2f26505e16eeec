//! What tests of sources, sinks and topologies share.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod feed;
pub mod receiver;
pub mod smtp;
pub mod tls;

use bytes::Bytes;
use detection::Position;
use pipeline::source::{Batch, channel};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender};

/// Longer than anything takes that a test waits for.
pub const SOON: Duration = Duration::from_secs(30);

/// A clock that stands.
pub struct Fixed;
pub const NOW_MS: u64 = 1_795_467_600_000;

impl model::time::Clock for Fixed {
    fn wall_ms(&self) -> u64 {
        NOW_MS
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

pub fn clock() -> Arc<dyn model::time::Clock> {
    Arc::new(Fixed)
}

/// Frames as they come, batch by batch; batches are acknowledged as they are taken.
pub struct Frames {
    from: Receiver<Batch>,
    waiting: VecDeque<Result<(u64, Bytes), &'static str>>,
}

impl Frames {
    pub async fn next(&mut self) -> Result<(u64, Bytes), &'static str> {
        while self.waiting.is_empty() {
            let next = tokio::time::timeout(SOON, self.from.recv());
            let Some(batch) = next.await.expect("nothing came") else { return Err("ended") };
            let sequence = |position: Option<Position>| position.expect("these sources have positions").sequence;
            self.waiting.extend(batch.events.into_iter().map(|raw| Ok((sequence(raw.position), raw.bytes))));
            self.waiting.extend(batch.rejects.into_iter().map(|reject| Err(reject.reason.label())));
            if let Some(done) = batch.done {
                let _ = done.send(());
            }
        }
        self.waiting.pop_front().expect("it was filled")
    }
}

pub fn frames() -> (Sender<Batch>, Frames) {
    let (out, from) = channel();
    (out, Frames { from, waiting: VecDeque::new() })
}
