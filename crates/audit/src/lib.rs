//! Proof: what happened, in a Merkle log that anyone can check, and what the business can bear to lose.
//!
//! Pure: it computes and validates. It must never touch a clock, a disk or a socket; hashes and entries are read
//! through closures.
//!
//! Sources: RFC 6962 (hashing), RFC 9162 (proofs), C2SP tlog-tiles, tlog-checkpoint and signed-note (formats).

pub mod event;

pub mod checkpoint;
pub mod merkle;
pub mod proof;
pub mod tile;
pub mod verify;

pub mod bia;

pub use checkpoint::Checkpoint;
pub use event::{Action, AuditEvent, Detail, Outcome};
pub use merkle::{Frontier, Hash, Node};
pub use tile::Tile;
