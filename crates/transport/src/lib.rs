//! Authenticated links between nodes: QUIC, mutual TLS, identities, framing, flow control.
//!
//! A peer's node, region and zone come from its certificate, never from what it says.

pub mod link;
pub mod memory;

pub use link::{FRAME_BYTES_MAX, FrameSink, FrameSource, FrameStream, Handler, Link, LinkError, Peer, Service};
pub use memory::{Conditions, Leg, MemoryLink, MemoryNetwork};
