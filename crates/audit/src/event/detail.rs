//! The old and new values of a change, kept beside the log and committed to by its entry.
//! A salt of 128 random bits keeps an outsider from guessing erased values by their digest.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The SHA-256 digest of an encoded [`Detail`]; in text it is lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DetailDigest([u8; 32]);

/// Random bytes drawn by whoever proposes the change, so that every replica computes the same digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 16]);

/// What a change replaced, and by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// The values before, or none when there was no record.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub old: Option<serde_json::Value>,
    /// The values after, or none when the record is gone.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub new: Option<serde_json::Value>,
    /// The salt.
    pub salt: Salt,
}

/// Bytes are not the encoding of a detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the encoding of old and new values")]
pub struct NotADetail;

impl Detail {
    /// The bytes to store: JSON.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("JSON values have text keys, and memory does not fail")
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotADetail> {
        serde_json::from_slice(bytes).map_err(|_| NotADetail)
    }

    /// The digest of the bytes to store. Use [`DetailDigest::of`] when they are at hand.
    pub fn digest(&self) -> DetailDigest {
        DetailDigest::of(&self.encode())
    }
}

impl DetailDigest {
    /// The digest of stored bytes.
    pub fn of(encoded: &[u8]) -> Self {
        Self(Sha256::digest(encoded).into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Salt {
    /// Takes bytes that are random.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A member that is there is `Some`, also when it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(Some)
}

macro_rules! serde_as_hex {
    ($name:ident, $size:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(&hex::encode(self.0))
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if !deserializer.is_human_readable() {
                    return <[u8; $size]>::deserialize(deserializer).map(Self);
                }
                let mut bytes = [0; $size];
                hex::decode_to_slice(String::deserialize(deserializer)?, &mut bytes)
                    .map_err(|_| serde::de::Error::custom(concat!("not ", $size, " bytes in hexadecimal")))?;
                Ok(Self(bytes))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(formatter, "{}({})", stringify!($name), hex::encode(self.0))
            }
        }
    };
}

serde_as_hex!(DetailDigest, 32);
serde_as_hex!(Salt, 16);

impl std::fmt::Display for DetailDigest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn detail_has_its_golden_form() {
        let detail = Detail { old: None, new: Some(json!({"b": null, "a": [1]})), salt: Salt::from_bytes([0xAB; 16]) };
        let encoded = String::from_utf8(detail.encode()).unwrap();
        assert!(encoded.ends_with(r#","salt":"abababababababababababababababab"}"#), "{encoded}");
        assert_eq!(Detail::decode(encoded.as_bytes()), Ok(detail.clone()));
        assert_eq!(detail.digest(), DetailDigest::of(encoded.as_bytes()));
    }

    #[test]
    fn null_is_a_value_and_absence_is_none() {
        for detail in [
            Detail { old: Some(json!(null)), new: None, salt: Salt::from_bytes([0; 16]) },
            Detail { old: None, new: Some(json!(null)), salt: Salt::from_bytes([0; 16]) },
        ] {
            assert_eq!(Detail::decode(&detail.encode()), Ok(detail));
        }
    }

    #[test]
    fn salt_changes_the_digest() {
        let detail = |salt| Detail { old: None, new: Some(json!(1)), salt: Salt::from_bytes([salt; 16]) };
        assert_ne!(detail(0).digest(), detail(1).digest());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Detail::decode(&bytes);
        }
    }
}
