//! Text and serde forms of fixed-size byte strings: base64 in readable formats, raw bytes in binary ones.
//! It must never put the bytes it failed to read into an error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserializer, Serializer};
use zeroize::{Zeroize, Zeroizing};

use crate::KeyError;

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn from_base64<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| KeyError::NotBase64)?);
    from_slice(&bytes)
}

pub(crate) fn from_slice<const N: usize>(bytes: &[u8]) -> Result<[u8; N], KeyError> {
    bytes.try_into().map_err(|_| KeyError::WrongLength { expected: N, found: bytes.len() })
}

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&Zeroizing::new(to_base64(bytes)))
    } else {
        serializer.serialize_bytes(bytes)
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
    struct Fixed<const N: usize>;

    impl<'de, const N: usize> Visitor<'de> for Fixed<N> {
        type Value = [u8; N];

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "{N} bytes, or their base64")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            from_base64(text).map_err(E::custom)
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            from_slice(bytes).map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut bytes = [0; N];
            for index in 0..N {
                let Some(byte) = seq.next_element()? else {
                    bytes.zeroize();
                    return Err(A::Error::invalid_length(index, &self));
                };
                bytes[index] = byte;
            }
            Ok(bytes)
        }
    }

    if deserializer.is_human_readable() {
        deserializer.deserialize_str(Fixed::<N>)
    } else {
        deserializer.deserialize_bytes(Fixed::<N>)
    }
}

/// Serde for a newtype over `[u8; N]` that has `as_bytes` and `from_bytes`.
macro_rules! serde_as_bytes {
    ($name:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::encoding::serialize(self.as_bytes(), serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::encoding::deserialize(deserializer).map(Self::from_bytes)
            }
        }
    };
}
pub(crate) use serde_as_bytes;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{Secret, Signature, SigningKey};

    #[test]
    fn serde_forms_come_back() {
        let secret = Secret::from_bytes([7; 32]);
        let signature = SigningKey::from_seed(secret.clone()).sign(b"x");
        let json = serde_json::to_string(&secret).unwrap();
        assert_eq!(json, "\"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"");
        assert_eq!(serde_json::from_str::<Secret>(&json).unwrap(), secret);
        let binary = postcard::to_stdvec(&(&secret, signature)).unwrap();
        assert_eq!(postcard::from_bytes::<(Secret, Signature)>(&binary).unwrap(), (secret, signature));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = postcard::from_bytes::<Signature>(&bytes);
            let _ = serde_json::from_slice::<Secret>(&bytes);
        }
    }
}
