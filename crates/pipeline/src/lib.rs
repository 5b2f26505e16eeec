//! Events on their way: from the outside to detection, and from detection to the outside.
//!
//! Sources and sinks touch sockets and files that their caller names; everything between them computes.
//! What was accepted is either handed on and acknowledged, or kept as a dead letter with its reason: never dropped.

pub mod buffer;
pub mod cases;
pub mod dead;
mod fit;
pub mod outbound;
pub mod plan;
pub mod record;
pub mod resource;
pub mod runtime;
pub mod sink;
pub mod source;
pub mod tls;
pub mod topology;
pub mod transform;
