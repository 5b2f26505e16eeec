//! HMAC-SHA256 (RFC 2104) with verification in constant time.
//! It must never compare tags in any other way.

use aws_lc_rs::{constant_time, digest, hmac};
use model::entropy::Entropy;

use crate::{KeyError, Secret, encoding};

/// Bytes in a tag.
pub const TAG_SIZE_BYTES: usize = 32;

/// SHA-256 of bytes, where a protocol of others signs it: it proves nothing by itself.
pub fn sha256(bytes: &[u8]) -> [u8; TAG_SIZE_BYTES] {
    let mut hash = [0; TAG_SIZE_BYTES];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// A key that makes and checks tags.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

/// A tag over a message. It has no `PartialEq`: tags are checked with [`MacKey::verify`].
#[derive(Debug, Clone, Copy)]
pub struct Tag([u8; TAG_SIZE_BYTES]);

/// The tag is not of this message under this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message authentication failed")]
pub struct Unauthentic;

impl MacKey {
    /// The key of a secret.
    pub fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
    }

    /// The key of bytes of any length, as RFC 2104 has it: for secrets that are agreed on with others.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A new key. Use [`Secret::generate`] and [`MacKey::new`] when it must be stored.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::new(&Secret::generate(entropy))
    }

    /// The tag of a message.
    pub fn sign(&self, message: &[u8]) -> Tag {
        self.sign_parts(&[message])
    }

    /// The tag of the concatenation of `parts`. Parts of variable length need their own length prefix.
    pub fn sign_parts(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut tag = Tag([0; TAG_SIZE_BYTES]);
        tag.0.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// Checks a tag in constant time.
    pub fn verify(&self, message: &[u8], tag: &Tag) -> Result<(), Unauthentic> {
        self.verify_parts(&[message], tag)
    }

    /// Checks a tag over the concatenation of `parts` in constant time.
    pub fn verify_parts(&self, parts: &[&[u8]], tag: &Tag) -> Result<(), Unauthentic> {
        constant_time::verify_slices_are_equal(&self.sign_parts(parts).0, &tag.0).map_err(|_| Unauthentic)
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MacKey(..)")
    }
}

impl Tag {
    /// A tag read from a message. Nothing is known about it until it is verified.
    pub const fn from_bytes(bytes: [u8; TAG_SIZE_BYTES]) -> Self {
        Self(bytes)
    }

    /// A tag read from a slice, which must have its length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        encoding::from_slice(bytes).map(Self)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; TAG_SIZE_BYTES] {
        &self.0
    }
}

encoding::serde_as_bytes!(Tag);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 4231 pads keys shorter than the block with zeros, so its first two cases are reached by a key of 32 bytes.
    #[test]
    fn tags_are_those_of_rfc_4231() {
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let tag = MacKey::new(&Secret::from_bytes(key)).sign(b"Hi There");
        let expected = [
            0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53, 0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b, 0x88, 0x1d,
            0xc2, 0x00, 0xc9, 0x83, 0x3d, 0xa7, 0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7,
        ];
        assert_eq!(tag.as_bytes(), &expected);

        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let tag = MacKey::new(&Secret::from_bytes(key)).sign(b"what do ya want for nothing?");
        let expected = [
            0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75, 0xc7, 0x5a, 0x00,
            0x3f, 0x08, 0x9d, 0x27, 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43,
        ];
        assert_eq!(tag.as_bytes(), &expected);
        assert_eq!(MacKey::of_bytes(b"Jefe").sign(b"what do ya want for nothing?").as_bytes(), &expected);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_refused(message in proptest::collection::vec(any::<u8>(), 1..200), at in any::<usize>()) {
            let key = MacKey::new(&Secret::from_bytes([3; 32]));
            let tag = key.sign(&message);
            prop_assert_eq!(key.verify(&message, &tag), Ok(()));
            let mut other = message.clone();
            other[at / 8 % message.len()] ^= 1 << (at % 8);
            prop_assert_eq!(key.verify(&other, &tag), Err(Unauthentic));
            let mut bytes = *tag.as_bytes();
            bytes[at / 8 % TAG_SIZE_BYTES] ^= 1 << (at % 8);
            prop_assert_eq!(key.verify(&message, &Tag::from_bytes(bytes)), Err(Unauthentic));
        }
    }

    #[test]
    fn parts_are_their_concatenation() {
        let key = MacKey::new(&Secret::from_bytes([3; 32]));
        assert_eq!(key.sign_parts(&[b"ab", b"", b"c"]).as_bytes(), key.sign(b"abc").as_bytes());
    }
}
