//! The links as their users see them.

mod conformance;
mod memory;
mod mesh;
mod quic;
mod refusals;
mod wire;
