//! Sources: where raw events come from.
//!
//! A source only frames and numbers; parsing is pure and happens later (`detection::source`, `detection::normalise`).
//! When the channel is full a source waits, and so does its peer.

pub mod badge;
pub mod config;
mod counters;
pub mod file;
#[cfg(fuzzing)]
pub mod fuzz;
mod handover;
pub mod http;
mod net;
pub mod otlp;
pub mod syslog;
mod web;

pub use config::{SourceConfig, Surroundings};
pub use counters::{Counters, GAUGES};
pub use net::{CONNECTIONS_MAX, HANDSHAKE_TIME_MAX, PEER_CONNECTIONS_MAX};
pub use web::{BODY_SIZE_BYTES, BODY_SIZE_BYTES_MAX};

use detection::{RawEvent, Reject};
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Batches in flight between a source and what comes after it.
pub const CHANNEL_BATCHES_MAX: usize = 64;
/// Most events of a batch.
pub const BATCH_EVENTS_MAX: usize = 512;
/// Most bytes of a batch's events.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// What a source hands over at once, in the order of its positions.
#[derive(Debug, Default)]
pub struct Batch {
    /// Raw events.
    pub events: Vec<RawEvent>,
    /// What could not even be framed.
    pub rejects: Vec<Reject>,
    /// Answered once all of it is durable, dropped if it never will be: then what can be read again must be.
    pub done: Option<oneshot::Sender<()>>,
}

/// The bounded channel between sources and the rest.
pub fn channel() -> (mpsc::Sender<Batch>, mpsc::Receiver<Batch>) {
    mpsc::channel(CHANNEL_BATCHES_MAX)
}

/// The door through which events come from outside.
pub trait Source: Send + 'static {
    /// What it counts, to be kept before it runs.
    fn counters(&self) -> Arc<Counters>;
    /// Where it listens: the ports that it got.
    fn addresses(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
    /// Hands over events until its input ends or the receiver is dropped; dropping the future stops it at once.
    fn run(self: Box<Self>, out: mpsc::Sender<Batch>) -> BoxFuture<'static, std::io::Result<()>>;
}
