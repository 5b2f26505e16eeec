//! How what sources hand over is read: frames, lines, the platform's own audit events.
//!
//! Pure: bytes in, raw events and dead letters out.

pub mod audit;
pub mod badge;
pub mod framing;
pub mod ndjson;
pub mod syslog;
