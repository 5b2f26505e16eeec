//! The laws of replication: merging, conflicts, collection, pulling, digests, encodings.

mod codec;
mod digests;
mod laws;
mod progress;
mod pull;
mod world;
