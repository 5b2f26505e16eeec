//! Stored and wire encodings: one version byte, then postcard.
//!
//! Decoding never panics and never reads past its input; trailing bytes are an error.

use serde::{Serialize, de::DeserializeOwned};

/// The only version written today.
pub const VERSION: u8 = 1;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No bytes at all.
    #[error("nothing to decode")]
    Empty,
    /// Written by a version this program does not know.
    #[error("encoded by version {found}; this program reads up to {VERSION}")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The bytes do not hold such a value.
    #[error("the bytes are damaged or of another kind")]
    Malformed,
    /// The value ends before the bytes do.
    #[error("{count} bytes too many")]
    Trailing {
        /// How many are left.
        count: usize,
    },
}

/// Encodes a value.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    encode_onto(value, vec![VERSION])
}

/// Encodes a value after what `buffer` already holds; the caller has written the version byte.
fn encode_onto<T: Serialize + ?Sized>(value: &T, buffer: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(value, buffer).expect("writing to memory cannot fail and our types have known lengths")
}

/// Decodes a value that fills the bytes exactly.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *version != VERSION {
        return Err(CodecError::Version { found: *version });
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(|_| CodecError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing { count: rest.len() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;
    use proptest::prelude::*;

    #[test]
    fn trailing_bytes_and_other_versions_are_refused() {
        let mut bytes = encode(&7u32);
        assert_eq!(decode::<u32>(&bytes), Ok(7));
        bytes.push(0);
        assert_eq!(decode::<u32>(&bytes), Err(CodecError::Trailing { count: 1 }));
        bytes[0] = 9;
        assert_eq!(decode::<u32>(&bytes), Err(CodecError::Version { found: 9 }));
        assert_eq!(decode::<u32>(&[]), Err(CodecError::Empty));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<Record>(&bytes);
        }
    }
}
