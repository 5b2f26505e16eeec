//! Sealing: AES-256-GCM (NIST SP 800-38D) with associated data.
//!
//! Sealed form: version (1) · nonce (12) · ciphertext · tag (16).
//! An opening that fails must never say why: wrong key, wrong context, damage and a foreign version look the same.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use model::entropy::Entropy;

use crate::{MacKey, Secret};

/// Bytes that sealing adds to a plaintext.
pub const OVERHEAD_BYTES: usize = 1 + NONCE_SIZE_BYTES + TAG_SIZE_BYTES;

const NONCE_SIZE_BYTES: usize = 12;
const TAG_SIZE_BYTES: usize = 16;
const VERSION: u8 = 1;

/// A key that seals and opens.
///
/// With random nonces a key may seal 2³² values (SP 800-38D, section 8.3): rotate before.
#[derive(Clone)]
pub struct SealKey {
    cipher: std::sync::Arc<LessSafeKey>,
    nonces: MacKey,
}

/// The sealed value does not open with this key in this context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not open")]
pub struct DoesNotOpen;

impl SealKey {
    /// The key of a secret.
    pub fn new(secret: &Secret) -> Self {
        let cipher = UnboundKey::new(&AES_256_GCM, secret.derive("seal: cipher").as_bytes());
        Self::from_parts(cipher.expect("a secret has the length of an AES-256 key"), secret)
    }

    fn from_parts(cipher: UnboundKey, secret: &Secret) -> Self {
        Self {
            cipher: std::sync::Arc::new(LessSafeKey::new(cipher)),
            nonces: MacKey::new(&secret.derive("seal: nonces")),
        }
    }

    /// A new key. Use [`Secret::generate`] and [`SealKey::new`] when it must be stored.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::new(&Secret::generate(entropy))
    }

    /// Seals under a random nonce. `associated` is authenticated, not stored: opening needs the same.
    pub fn seal(&self, entropy: &dyn Entropy, plaintext: &[u8], associated: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_SIZE_BYTES];
        entropy.fill(&mut nonce);
        self.seal_with(nonce, plaintext, associated)
    }

    /// Seals under a nonce derived from plaintext and associated data, for callers that must be deterministic.
    /// The same input gives the same output, so an observer sees that two values are equal, and no more.
    pub fn seal_derived(&self, plaintext: &[u8], associated: &[u8]) -> Vec<u8> {
        let length = (associated.len() as u64).to_be_bytes();
        let tag = self.nonces.sign_parts(&[&length, associated, plaintext]);
        let mut nonce = [0; NONCE_SIZE_BYTES];
        nonce.copy_from_slice(&tag.as_bytes()[..NONCE_SIZE_BYTES]);
        self.seal_with(nonce, plaintext, associated)
    }

    /// Opens what [`SealKey::seal`] or [`SealKey::seal_derived`] made with the same associated data.
    pub fn open(&self, sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
        let (version, rest) = sealed.split_first().ok_or(DoesNotOpen)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_SIZE_BYTES>().ok_or(DoesNotOpen)?;
        if *version != VERSION {
            return Err(DoesNotOpen);
        }
        let mut opened = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = match self.cipher.open_in_place(nonce, Aad::from(associated), &mut opened) {
            Ok(plaintext) => plaintext.len(),
            Err(_) => return Err(DoesNotOpen),
        };
        opened.truncate(length);
        Ok(opened)
    }

    fn seal_with(&self, nonce: [u8; NONCE_SIZE_BYTES], plaintext: &[u8], associated: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let tag = self
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated),
                &mut sealed[1 + NONCE_SIZE_BYTES..],
            )
            .expect("a value in memory is shorter than the 64 GiB that GCM takes");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SealKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Counting;

    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = index as u8;
            }
        }
    }

    fn key() -> SealKey {
        SealKey::new(&Secret::from_bytes([9; 32]))
    }

    /// Test case 14 of the GCM submission to NIST: a zero key, a zero nonce, one zero block.
    #[test]
    fn ciphertext_is_that_of_the_nist_vector() {
        let zero = Secret::from_bytes([0; 32]);
        let raw = UnboundKey::new(&AES_256_GCM, zero.as_bytes()).unwrap();
        let sealed = SealKey::from_parts(raw, &zero).seal_with([0; 12], &[0; 16], &[]);
        let expected = [
            0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18, 0xd0, 0xd1,
            0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19,
        ];
        assert_eq!(&sealed[13..], &expected);
    }

    proptest! {
        #[test]
        fn sealed_opens_in_its_context_only(
            plaintext in proptest::collection::vec(any::<u8>(), 0..300),
            associated in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            for sealed in [key().seal(&Counting, &plaintext, &associated), key().seal_derived(&plaintext, &associated)] {
                prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
                prop_assert_eq!(&key().open(&sealed, &associated).unwrap(), &plaintext);
                let mut other = associated.clone();
                other.push(0);
                prop_assert_eq!(key().open(&sealed, &other), Err(DoesNotOpen));
                let stranger = SealKey::new(&Secret::from_bytes([8; 32]));
                prop_assert_eq!(stranger.open(&sealed, &associated), Err(DoesNotOpen));
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_open(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(key().open(&bytes, b""), Err(DoesNotOpen));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let sealed = key().seal(&Counting, b"cursor at 17", b"tenant 3");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key().open(&damaged, b"tenant 3"), Err(DoesNotOpen), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(key().open(&sealed[..length], b"tenant 3"), Err(DoesNotOpen), "cut at {length}");
        }
    }

    #[test]
    fn derived_sealing_is_deterministic_and_varies_with_its_input() {
        assert_eq!(key().seal_derived(b"a", b"b"), key().seal_derived(b"a", b"b"));
        assert_ne!(key().seal_derived(b"a", b"b")[1..13], key().seal_derived(b"b", b"b")[1..13]);
        assert_ne!(key().seal_derived(b"bc", b"a")[1..13], key().seal_derived(b"c", b"ab")[1..13]);
    }
}
