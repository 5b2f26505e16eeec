//! What a node tells about itself: metrics, logs, traces.

pub mod metrics;
