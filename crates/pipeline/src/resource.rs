//! What components claim of the machine, and what is wrong with how they are described.
//!
//! Pure values: it looks at no port and no file.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Something of the machine that one component alone may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A TCP port that is listened on.
    Tcp(SocketAddr),
    /// A UDP port that is listened on.
    Udp(SocketAddr),
    /// A folder that is written to.
    Folder(PathBuf),
}

impl Resource {
    /// Whether two components cannot both have theirs. Port 0 is any free port, and clashes with none.
    pub fn clashes(&self, other: &Self) -> bool {
        let same = |a: &SocketAddr, b: &SocketAddr| {
            let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
            a.port() != 0 && a.port() == b.port() && overlap
        };
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) | (Self::Udp(a), Self::Udp(b)) => same(a, b),
            (Self::Folder(a), Self::Folder(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Udp(address) => write!(f, "udp {address}"),
            Self::Folder(path) => write!(f, "folder {}", path.display()),
        }
    }
}

/// A setting that cannot be, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {advice}")]
pub struct Invalid {
    /// Its key in the topology file.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub advice: String,
}

impl Invalid {
    /// A setting and what to do about it.
    pub fn new(field: &'static str, advice: impl Into<String>) -> Self {
        Self { field, advice: advice.into() }
    }
}

/// Why a component could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its description is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Its address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// A file it needs cannot be read or written.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// Its certificates or keys are unusable.
    #[error("{path}: {error}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: rustls::Error,
    },
}

/// Most bytes of a secret's file.
pub const SECRET_SIZE_BYTES_MAX: u64 = 4 * 1024;

/// A secret from its file, without white space around it.
pub fn secret(path: &Path) -> Result<String, OpenError> {
    let file = |error| OpenError::File { path: path.to_owned(), error };
    let size = std::fs::metadata(path).map_err(file)?.len();
    if size > SECRET_SIZE_BYTES_MAX {
        return Err(file(std::io::Error::other(format!("a secret has at most {SECRET_SIZE_BYTES_MAX} bytes"))));
    }
    let text = std::fs::read_to_string(path).map_err(file)?;
    match text.trim() {
        "" => Err(file(std::io::Error::other("the secret is empty"))),
        secret => Ok(secret.to_owned()),
    }
}

/// Makes a path absolute that counts from a folder.
pub fn resolve(path: &mut PathBuf, folder: &Path) {
    if path.is_relative() {
        *path = folder.join(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_is_claimed_once_on_overlapping_addresses() {
        let tcp = |text: &str| Resource::Tcp(text.parse().unwrap());
        assert!(tcp("0.0.0.0:514").clashes(&tcp("127.0.0.1:514")));
        assert!(!tcp("127.0.0.2:514").clashes(&tcp("127.0.0.1:514")));
        assert!(!tcp("127.0.0.1:0").clashes(&tcp("127.0.0.1:0")));
        assert!(!tcp("127.0.0.1:514").clashes(&Resource::Udp("127.0.0.1:514".parse().unwrap())));
    }
}
