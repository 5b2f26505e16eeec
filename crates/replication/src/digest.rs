//! A BLAKE3 digest as a value of its own. Never a key of authentication: chains show damage and forks.

use serde::{Deserialize, Serialize};
use std::fmt;

/// 32 bytes of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What a chain begins with, before its first change.
    pub const ZERO: Self = Self([0; 32]);

    /// Wraps the bytes of a digest read from storage or from a peer.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The digest of the parts, one after the other. Parts of unequal length must be told apart by the caller.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
    /// The bytes inside.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
