//! Where a record ends: at a newline, and for CSV at a newline outside quotes.
//!
//! Pure: bytes in, a length out.

/// How a file is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Each line is a record.
    Lines,
    /// Lines, save those inside a quoted field (RFC 4180).
    Csv {
        /// What stands between fields.
        delimiter: u8,
    },
}

impl Cut {
    /// The length of the first record with its newline; `None` where its end is not there.
    pub(crate) fn end(self, bytes: &[u8]) -> Option<usize> {
        let Self::Csv { delimiter } = self else { return Some(memchr::memchr(b'\n', bytes)? + 1) };
        // A quote opens a quoted field at its beginning alone; inside, a doubled one opens it again.
        let (mut quoted, mut begins) = (false, true);
        for (place, &byte) in bytes.iter().enumerate() {
            match byte {
                b'"' if quoted => (quoted, begins) = (false, true),
                b'"' if begins => quoted = true,
                _ if quoted => {}
                b'\n' => return Some(place + 1),
                _ => begins = byte == delimiter,
            }
        }
        None
    }
}

/// A record without its newline.
pub(crate) fn trimmed(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CSV: Cut = Cut::Csv { delimiter: b',' };

    #[test]
    fn a_quoted_field_may_hold_newlines_and_quotes() {
        assert_eq!(CSV.end(b"a,\"b\nc\"\"\nd\",e\nf"), Some(14));
        assert_eq!(CSV.end(b"a \"quote\n inside\n"), Some(9));
        assert_eq!(CSV.end(b"\"open\n"), None);
        assert_eq!(Cut::Lines.end(b"a,\"b\nc\""), Some(5));
    }

    proptest! {
        #[test]
        fn a_record_written_as_csv_is_cut_as_one(fields in proptest::collection::vec("[a\",\n\r]{0,6}", 1..5)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&fields).unwrap();
            let mut bytes = writer.into_inner().unwrap();
            let length = bytes.len();
            bytes.extend_from_slice(b"next,record\n");
            prop_assert_eq!(CSV.end(&bytes), Some(length));
        }
        #[test]
        fn arbitrary_bytes_are_cut_within_bounds(bytes: Vec<u8>) {
            for cut in [Cut::Lines, CSV] {
                prop_assert!(cut.end(&bytes).is_none_or(|end| end <= bytes.len() && bytes[end - 1] == b'\n'));
            }
        }
    }
}
