//! Keys: signing, message authentication, sealing.
//!
//! The only crate that touches key material and the only one that calls aws-lc-rs.
//! It draws no randomness itself (callers hand in [`model::entropy::Entropy`]), reads no file and no clock.
//! It must never print a key, and never say why a sealed value did not open.

pub mod mac;
pub mod seal;
pub mod secret;
pub mod signing;

mod encoding;

pub use mac::{MacKey, Tag};
pub use seal::SealKey;
pub use secret::Secret;
pub use signing::{Signature, SigningKey, VerifyingKey};

/// Why a key or a signature could not be read from its stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not standard base64.
    #[error("not base64")]
    NotBase64,
    /// The number of bytes is not the one this kind of key has.
    #[error("wrong length: {found} bytes instead of {expected}")]
    WrongLength {
        /// The length this kind has, in bytes.
        expected: usize,
        /// The length found, in bytes.
        found: usize,
    },
    /// The PKCS#8 document is not an Ed25519 private key.
    #[error("not an Ed25519 PKCS#8 document")]
    NotEd25519,
}
