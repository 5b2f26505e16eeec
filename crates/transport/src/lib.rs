//! Authenticated links between nodes: QUIC, mutual TLS, identities, framing, flow control.
//!
//! A peer's node, region and zone come from its certificate, never from what it says.

pub mod authority;
mod expiry;
mod frame;
pub mod identity;
pub mod link;
pub mod memory;
pub mod quic;

/// Doors for fuzzing to what only a connection reaches otherwise.
#[cfg(fuzzing)]
pub mod fuzz {
    pub use crate::frame::fuzz as frames;
}

pub use authority::{Authority, AuthorityError, Issued};
pub use expiry::expires_ms;
pub use identity::{Identity, IdentityError, is_described};
pub use link::{FRAME_BYTES_MAX, FrameSink, FrameSource, FrameStream, Handler, Link, LinkError, Peer, Service};
pub use memory::{Conditions, Leg, MemoryLink, MemoryNetwork};
pub use quic::{PeerStatus, QuicError, QuicLink, QuicOptions, QuicStatus};
