//! Bytes with a checksum that also covers where they belong.
//!
//! A value that was damaged, or that turned up under another key, is an error and never data.

use std::io;

/// Length of the checksum in front of the bytes.
const SUM_LENGTH: usize = 4;

/// The bytes as they are stored: CRC-32C of key and bytes (little endian), then the bytes.
pub(crate) fn wrap(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(SUM_LENGTH + bytes.len());
    stored.extend_from_slice(&sum(key, bytes).to_le_bytes());
    stored.extend_from_slice(bytes);
    stored
}

/// The bytes inside, or `InvalidData` if they are not those that were stored under this key.
pub(crate) fn unwrap<'a>(key: &[u8], stored: &'a [u8]) -> io::Result<&'a [u8]> {
    let (head, bytes) = stored.split_first_chunk::<SUM_LENGTH>().ok_or_else(|| damaged(key))?;
    if u32::from_le_bytes(*head) == sum(key, bytes) { Ok(bytes) } else { Err(damaged(key)) }
}

fn sum(key: &[u8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), bytes)
}

fn damaged(key: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the value stored under {key:02x?} is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn wrapped_bytes_come_back_and_any_flipped_bit_is_noticed(
            key in prop::collection::vec(any::<u8>(), 0..20),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            place in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut stored = wrap(&key, &bytes);
            prop_assert_eq!(unwrap(&key, &stored).unwrap(), &bytes[..]);
            let at = place.index(stored.len());
            stored[at] ^= 1 << bit;
            prop_assert_eq!(unwrap(&key, &stored).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }

        #[test]
        fn arbitrary_bytes_never_panic(key: Vec<u8>, stored: Vec<u8>) {
            let _ = unwrap(&key, &stored);
        }
    }

    #[test]
    fn a_value_under_another_key_is_damage() {
        assert!(unwrap(b"b", &wrap(b"a", b"value")).is_err());
    }
}
