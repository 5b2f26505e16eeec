//! Normalised events in time-partitioned Parquet: kept, searched, hunted through.
//!
//! [`Archive`] writes and keeps files, [`search`] asks them with DataFusion, [`hunt`] runs detection rules over them.
//! Nothing here reads a clock, but to end a search in time, or decides who may see what; it never gives events of another tenant than it was asked
//! for, and never answers from a file it could not read without saying so.

pub mod archive;
pub mod check;
mod compact;
mod descriptor;
mod disk;
pub mod export;
pub mod forecast;
pub mod hunt;
pub mod job;
pub mod layout;
pub mod merge;
mod open;
mod read;
pub mod retain;
pub mod row;
pub mod search;
mod write;

pub use archive::{Archive, Snapshot, Tenants};
pub use layout::Span;
pub use row::Entry;

/// Why the archive could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The disk failed, or the system was out of something: nothing of what was to be written counts, and nothing is
    /// said about what was to be read.
    #[error("{path}: {error}")]
    Disk {
        /// The file or folder.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file is not one of ours, or is damaged: it is skipped and reported.
    #[error("{path}: {reason}")]
    Broken {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The question is not one that can be asked; whoever asked can repair it.
    #[error("{0}")]
    Question(String),
    /// It would need more memory than a search may have.
    #[error("the search needs more than its {0} bytes of memory: narrow the time span or the query")]
    Memory(usize),
    /// Somebody cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// It took longer than it may.
    #[error("the search took longer than it may: narrow the time span, or run it as a job")]
    Timeout,
}
