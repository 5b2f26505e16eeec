//! Why a data directory could not be opened, as decisions for whoever opens it.

use std::fmt;
use std::io;

/// What of a node's data is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The log that all groups share: without it the node must not vote.
    Log,
    /// The state of one group: it can be fetched from another node.
    Space(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("the log"),
            Self::Space(name) => write!(f, "the space {name}"),
        }
    }
}

/// Why opening failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Acknowledged data is gone or changed. Set the part aside ([`super::set_aside`]) and come
    /// back as a new member; never go on with what is left.
    #[error("{part} is damaged: {detail}")]
    Damaged {
        /// Which part.
        part: Part,
        /// What was found, for the operator.
        detail: String,
    },
    /// Another process works on this directory.
    #[error("another process uses this data directory")]
    InUse,
    /// The directory was written by another version, which knows another format.
    #[error("the data directory has the format {found:?}, this program reads {expected:?}")]
    Format {
        /// What the directory says.
        found: String,
        /// What this program reads and writes.
        expected: &'static str,
    },
    /// The disk or the directory refuses: permissions, no room, a device error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OpenError {
    /// Reads RocksDB's words: what it calls corruption, and files it misses, are damage.
    pub(super) fn of(part: Part, error: rocksdb::Error) -> Self {
        let detail = error.to_string();
        let is_missing_file = detail.contains("No such file or directory") || detail.contains("does not exist");
        match error.kind() {
            rocksdb::ErrorKind::Corruption => Self::Damaged { part, detail },
            _ if is_missing_file => Self::Damaged { part, detail },
            _ if detail.contains("lock hold by") || detail.contains("While lock file") => Self::InUse,
            _ => Self::Io(io_error(error)),
        }
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::Damaged { .. } => io::ErrorKind::InvalidData,
            OpenError::InUse => io::ErrorKind::ResourceBusy,
            OpenError::Format { .. } => io::ErrorKind::Unsupported,
            OpenError::Io(inner) => inner.kind(),
        };
        Self::new(kind, error)
    }
}

/// RocksDB's errors carry only words.
pub(super) fn io_error(error: rocksdb::Error) -> io::Error {
    let detail = error.to_string();
    let kind = match error.kind() {
        rocksdb::ErrorKind::Corruption => io::ErrorKind::InvalidData,
        rocksdb::ErrorKind::InvalidArgument => io::ErrorKind::InvalidInput,
        _ if detail.contains("No space left") => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, detail)
}
