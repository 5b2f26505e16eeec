//! The door to the network: how nodes talk, whatever carries it.

use async_trait::async_trait;
use bytes::Bytes;
use model::{NodeId, RegionId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The largest frame and the largest body of a call, in either direction.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is asked of the other node. Its number is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Service {
    /// Raft messages of a group (call).
    Raft = 1,
    /// A Raft snapshot, file by file (stream).
    Snapshot = 2,
    /// Commands forwarded to a group's leader (call).
    Propose = 3,
    /// A read index from a group's leader (call).
    ReadIndex = 4,
    /// Changes of another region (stream).
    Pull = 5,
    /// Status, hashes and other questions between nodes (call).
    Status = 6,
}

/// Who is at the other end, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionId,
    /// Its security zone.
    pub zone: String,
}

/// Why a call or a stream failed. After `Unreachable` the request was certainly not carried out;
/// after the others it may have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No connection: nothing was sent.
    #[error("node {0} is unreachable")]
    Unreachable(NodeId),
    /// No answer in time.
    #[error("node {0} did not answer in time")]
    Timeout(NodeId),
    /// The connection broke, or the other side closed the stream.
    #[error("the connection to node {0} was lost")]
    Closed(NodeId),
    /// The other side refuses this service to this peer.
    #[error("node {0} refused the request")]
    Refused(NodeId),
    /// A frame longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of {size_bytes} bytes is too large")]
    TooLarge {
        /// The announced size.
        size_bytes: usize,
    },
}

/// The network as a node sees it.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Asks and waits for the answer, `deadline` at most.
    async fn call(&self, to: NodeId, service: Service, request: Bytes, deadline: Duration) -> Result<Bytes, LinkError>;

    /// Opens a stream of frames in both directions.
    async fn open(&self, to: NodeId, service: Service) -> Result<Box<dyn FrameStream>, LinkError>;

    /// Sets who answers; called once, before anything can arrive.
    fn serve(&self, handler: Arc<dyn Handler>);

    /// Closes every connection, telling the other side.
    async fn close(&self);
}

/// A stream of frames, in order, with flow control. Dropping it closes both directions.
#[async_trait]
pub trait FrameStream: Send {
    /// Sends a frame; waits while the receiver is behind.
    async fn send(&mut self, frame: Bytes) -> Result<(), LinkError>;
    /// The next frame, or `None` when the other side has finished. Cancel-safe.
    async fn receive(&mut self) -> Result<Option<Bytes>, LinkError>;
    /// Splits into halves that can wait independently.
    fn split(self: Box<Self>) -> (Box<dyn FrameSink>, Box<dyn FrameSource>);
}

/// The sending half of a stream.
#[async_trait]
pub trait FrameSink: Send {
    /// Sends a frame; waits while the receiver is behind.
    async fn send(&mut self, frame: Bytes) -> Result<(), LinkError>;
}

/// The receiving half of a stream.
#[async_trait]
pub trait FrameSource: Send {
    /// The next frame, or `None` when the other side has finished. Cancel-safe.
    async fn receive(&mut self) -> Result<Option<Bytes>, LinkError>;
}

/// What a node does with what arrives. A handler's error closes the call as `Refused`.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers a call; `None` refuses it.
    async fn call(&self, peer: &Peer, service: Service, request: Bytes) -> Option<Bytes>;
    /// Owns a stream until it ends.
    async fn stream(&self, peer: &Peer, service: Service, stream: Box<dyn FrameStream>);
}
