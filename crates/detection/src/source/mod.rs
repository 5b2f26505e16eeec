//! Sources: where raw events come from.
//!
//! Parsing is pure ([`syslog`], [`ndjson`], [`framing`], [`audit`]); [`listen`] only moves bytes from sockets and files,
//! which its caller opened, into a bounded channel. When the channel is full a source waits, and so does its peer.

pub mod audit;
pub mod framing;
pub mod listen;
pub mod ndjson;
pub mod syslog;

use crate::event::{RawEvent, Reject};
use futures::future::BoxFuture;
use tokio::sync::mpsc;

/// Events in flight between a source and the pipeline.
pub const CHANNEL_EVENTS_MAX: usize = 1_024;

/// What a source hands over: an event, or a dead letter with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intake {
    /// A raw event.
    Event(RawEvent),
    /// Something that could not even be framed.
    Reject(Reject),
}

/// The bounded channel between sources and the pipeline; wrap the receiver in
/// [`tokio_stream::wrappers::ReceiverStream`] to read it as a stream.
pub fn channel() -> (mpsc::Sender<Intake>, mpsc::Receiver<Intake>) {
    mpsc::channel(CHANNEL_EVENTS_MAX)
}

/// The door through which events come from outside.
pub trait Source: Send + 'static {
    /// Its name: part of the stream its events are positions in.
    fn name(&self) -> &str;
    /// Hands over events until its input ends or the receiver is dropped; dropping the future stops it at once.
    fn run(self: Box<Self>, out: mpsc::Sender<Intake>) -> BoxFuture<'static, std::io::Result<()>>;
}
