//! Ed25519 (RFC 8032): keys stored as their 32-byte seed in base64, signatures of 64 bytes.
//! A signing key must never leave this module except as its stored form.

use std::sync::Arc;

use aws_lc_rs::encoding::AsBigEndian as _;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use model::entropy::Entropy;
use zeroize::Zeroizing;

use crate::{KeyError, Secret, encoding};

/// Bytes in a public key.
pub const PUBLIC_SIZE_BYTES: usize = 32;
/// Bytes in a signature.
pub const SIGNATURE_SIZE_BYTES: usize = 64;

/// A key that signs. Clones share it.
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

struct Inner {
    seed: Secret,
    pair: Ed25519KeyPair,
}

/// The public half: it checks signatures. Any 32 bytes can be held; a value that is no key verifies nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyingKey([u8; PUBLIC_SIZE_BYTES]);

/// A signature over a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; SIGNATURE_SIZE_BYTES]);

/// The signature is not of this message by this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify")]
pub struct DoesNotVerify;

impl SigningKey {
    /// A new key.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::from_seed(Secret::generate(entropy))
    }

    /// The key of a seed.
    pub fn from_seed(seed: Secret) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_bytes()).expect("32 bytes are an Ed25519 seed");
        Self(Arc::new(Inner { seed, pair }))
    }

    /// Reads the stored form: the seed in base64.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Secret::from_base64(text).map(Self::from_seed)
    }

    /// Reads a PKCS#8 document (DER, version 1 or 2), as TLS tools write private keys.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::NotEd25519)?;
        let seed = pair.seed().map_err(|_| KeyError::NotEd25519)?;
        let bytes = seed.as_be_bytes().map_err(|_| KeyError::NotEd25519)?;
        encoding::from_slice(bytes.as_ref()).map(Secret::from_bytes).map(Self::from_seed)
    }

    /// The key as a PKCS#8 document (DER), overwritten when dropped.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let document = self.0.pair.to_pkcs8().expect("a key pair in memory has a PKCS#8 form");
        Zeroizing::new(document.as_ref().to_vec())
    }

    /// The stored form: the seed in base64, overwritten when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        self.0.seed.to_base64()
    }

    /// The seed.
    pub fn seed(&self) -> &Secret {
        &self.0.seed
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        let bytes = self.0.pair.public_key().as_ref();
        VerifyingKey(encoding::from_slice(bytes).expect("an Ed25519 public key has 32 bytes"))
    }

    /// Signs a message. Deterministic.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.0.pair.sign(message);
        Signature(encoding::from_slice(signature.as_ref()).expect("an Ed25519 signature has 64 bytes"))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "SigningKey(.., {:?})", self.verifying_key())
    }
}

impl VerifyingKey {
    /// Takes the bytes of a public key.
    pub const fn from_bytes(bytes: [u8; PUBLIC_SIZE_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads a public key from a slice, which must have its length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        encoding::from_slice(bytes).map(Self)
    }

    /// Reads the base64 form.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        encoding::from_base64(text).map(Self)
    }

    /// The base64 form.
    pub fn to_base64(&self) -> String {
        encoding::to_base64(&self.0)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; PUBLIC_SIZE_BYTES] {
        &self.0
    }

    /// Checks a signature.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), DoesNotVerify> {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, &signature.0).map_err(|_| DoesNotVerify)
    }
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "VerifyingKey({})", self.to_base64())
    }
}

impl Signature {
    /// Takes the bytes of a signature. Nothing is known about it until it is verified.
    pub const fn from_bytes(bytes: [u8; SIGNATURE_SIZE_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads a signature from a slice, which must have its length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        encoding::from_slice(bytes).map(Self)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; SIGNATURE_SIZE_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Signature({})", encoding::to_base64(&self.0))
    }
}

encoding::serde_as_bytes!(VerifyingKey);
encoding::serde_as_bytes!(Signature);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 8032, section 7.1, test 3: seed, public key, message, signature.
    #[test]
    fn signature_is_that_of_rfc_8032() {
        let seed = [
            0xc5, 0xaa, 0x8d, 0xf4, 0x3f, 0x9f, 0x83, 0x7b, 0xed, 0xb7, 0x44, 0x2f, 0x31, 0xdc, 0xb7, 0xb1, 0x66, 0xd3,
            0x85, 0x35, 0x07, 0x6f, 0x09, 0x4b, 0x85, 0xce, 0x3a, 0x2e, 0x0b, 0x44, 0x58, 0xf7,
        ];
        let public = [
            0xfc, 0x51, 0xcd, 0x8e, 0x62, 0x18, 0xa1, 0xa3, 0x8d, 0xa4, 0x7e, 0xd0, 0x02, 0x30, 0xf0, 0x58, 0x08, 0x16,
            0xed, 0x13, 0xba, 0x33, 0x03, 0xac, 0x5d, 0xeb, 0x91, 0x15, 0x48, 0x90, 0x80, 0x25,
        ];
        let signature = [
            0x62, 0x91, 0xd6, 0x57, 0xde, 0xec, 0x24, 0x02, 0x48, 0x27, 0xe6, 0x9c, 0x3a, 0xbe, 0x01, 0xa3, 0x0c, 0xe5,
            0x48, 0xa2, 0x84, 0x74, 0x3a, 0x44, 0x5e, 0x36, 0x80, 0xd7, 0xdb, 0x5a, 0xc3, 0xac, 0x18, 0xff, 0x9b, 0x53,
            0x8d, 0x16, 0xf2, 0x90, 0xae, 0x67, 0xf7, 0x60, 0x98, 0x4d, 0xc6, 0x59, 0x4a, 0x7c, 0x15, 0xe9, 0x71, 0x6e,
            0xd2, 0x8d, 0xc0, 0x27, 0xbe, 0xce, 0xea, 0x1e, 0xc4, 0x0a,
        ];
        let key = SigningKey::from_seed(Secret::from_bytes(seed));
        assert_eq!(key.verifying_key().as_bytes(), &public);
        assert_eq!(key.sign(&[0xaf, 0x82]).as_bytes(), &signature);
    }

    #[test]
    fn stored_forms_give_the_same_key() {
        let key = SigningKey::from_seed(Secret::from_bytes([5; 32]));
        assert_eq!(SigningKey::from_base64(&key.to_base64()).unwrap().verifying_key(), key.verifying_key());
        assert_eq!(SigningKey::from_pkcs8(&key.to_pkcs8()).unwrap().verifying_key(), key.verifying_key());
        assert_eq!(VerifyingKey::from_base64(&key.verifying_key().to_base64()), Ok(key.verifying_key()));
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        let key = SigningKey::from_seed(Secret::from_bytes([5; 32]));
        assert!(!format!("{key:?}").contains(key.to_base64().as_str()));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_refused(message in proptest::collection::vec(any::<u8>(), 1..100), at in any::<usize>()) {
            let key = SigningKey::from_seed(Secret::from_bytes([5; 32]));
            let signature = key.sign(&message);
            prop_assert_eq!(key.verifying_key().verify(&message, &signature), Ok(()));
            let mut other = message.clone();
            other[at / 8 % message.len()] ^= 1 << (at % 8);
            prop_assert_eq!(key.verifying_key().verify(&other, &signature), Err(DoesNotVerify));
            let mut bytes = *signature.as_bytes();
            bytes[at / 8 % SIGNATURE_SIZE_BYTES] ^= 1 << (at % 8);
            prop_assert_eq!(key.verifying_key().verify(&message, &Signature::from_bytes(bytes)), Err(DoesNotVerify));
        }

        #[test]
        fn arbitrary_stored_keys_never_panic(text in ".{0,80}", der in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = SigningKey::from_base64(&text);
            let _ = SigningKey::from_pkcs8(&der);
            let _ = VerifyingKey::from_base64(&text);
        }
    }
}
