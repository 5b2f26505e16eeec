//! Thirty-two secret bytes: the stored form of every symmetric key and of a signing key's seed.
//! It must never appear in a `Debug` output, and is overwritten when dropped.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use model::entropy::Entropy;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{KeyError, encoding};

/// Bytes in a secret.
pub const SECRET_SIZE_BYTES: usize = 32;

/// Thirty-two secret bytes.
///
/// Serialised as raw bytes (binary formats) or base64 (readable ones), so that key files and the control state can
/// hold it; nothing else may serialise one.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; SECRET_SIZE_BYTES]);

impl Secret {
    /// A new secret.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut secret = Self([0; SECRET_SIZE_BYTES]);
        entropy.fill(&mut secret.0);
        secret
    }

    /// Takes bytes that are already a uniformly random secret.
    pub const fn from_bytes(bytes: [u8; SECRET_SIZE_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads the stored form (standard base64, surrounding white space ignored).
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        encoding::from_base64(text).map(Self)
    }

    /// The stored form, overwritten when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(encoding::to_base64(&self.0))
    }

    /// The bytes themselves, for the operations of this crate and for key files.
    pub fn as_bytes(&self) -> &[u8; SECRET_SIZE_BYTES] {
        &self.0
    }

    /// A secret for one purpose, from which neither this one nor a sibling can be found.
    /// HKDF-Expand with SHA-256 (RFC 5869, section 2.3), one block.
    pub fn derive(&self, purpose: &str) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        context.update(purpose.as_bytes());
        context.update(&[1]);
        let mut derived = Self([0; SECRET_SIZE_BYTES]);
        derived.0.copy_from_slice(context.sign().as_ref());
        derived
    }
}

encoding::serde_as_bytes!(Secret);

/// Constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Secret {}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_form_comes_back() {
        let secret = Secret::from_bytes([7; 32]);
        assert_eq!(Secret::from_base64(&format!("{}\n", *secret.to_base64())).unwrap(), secret);
    }

    #[test]
    fn stored_form_of_another_length_is_refused() {
        assert_eq!(Secret::from_base64("AAAA"), Err(KeyError::WrongLength { expected: 32, found: 3 }));
        assert_eq!(Secret::from_base64("not base64!"), Err(KeyError::NotBase64));
    }

    #[test]
    fn purposes_give_different_secrets() {
        let secret = Secret::from_bytes([7; 32]);
        assert_ne!(secret.derive("page"), secret.derive("session"));
        assert_ne!(secret.derive("page"), secret);
        assert_eq!(secret.derive("page"), secret.derive("page"));
    }

    #[test]
    fn debug_shows_no_byte() {
        assert_eq!(format!("{:?}", Secret::from_bytes([0xAB; 32])), "Secret(..)");
    }
}
