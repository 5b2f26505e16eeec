//! How records lie in a segment file: a mark, a checked head, and the bytes with a check of their own.
//!
//! Pure. The head has a check of its own, so that a damaged length is never believed; after damage the next mark with
//! a right head and right bytes is looked for, so that one damaged record costs one record.

/// A segment begins with this.
pub(super) const MAGIC: [u8; 8] = *b"HFSEG\x00\x01\n";
/// A record begins with this.
const MARK: [u8; 4] = [0xA7, 0x5E, 0xC0, 0x1D];
/// Mark, length, sequence, check of the bytes, check of the head.
pub(super) const HEAD_BYTES: usize = 4 + 4 + 8 + 4 + 4;
/// Most bytes of a record.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Appends a record.
pub(super) fn write(out: &mut Vec<u8>, sequence: u64, bytes: &[u8]) {
    let start = out.len();
    let length = u32::try_from(bytes.len()).expect("records are bounded");
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    let check = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&check.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A record found in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// Where it begins.
    pub(super) start: usize,
    /// Where it ends.
    pub(super) end: usize,
    /// Its number.
    pub(super) sequence: u64,
    /// Its bytes.
    pub(super) bytes: &'a [u8],
}

/// The next whole record at or after a place whose number is below a bound; what lies between is damaged.
pub(super) fn next(segment: &[u8], from: usize, below: u64) -> Option<Found<'_>> {
    let mut at = from;
    loop {
        let rest = segment.get(at..)?;
        at += memchr::memmem::find(rest, &MARK)?;
        // A number that cannot be is part of some record's bytes, not a record.
        if let Some(found) = whole(segment, at).filter(|found| found.sequence < below) {
            return Some(found);
        }
        at += 1;
    }
}

fn whole(segment: &[u8], start: usize) -> Option<Found<'_>> {
    let head = segment.get(start..start + HEAD_BYTES)?;
    let number = |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().expect("four bytes are four bytes"));
    if crc32c::crc32c(&head[..HEAD_BYTES - 4]) != number(HEAD_BYTES - 4) {
        return None;
    }
    let length = number(4) as usize;
    let sequence = u64::from_le_bytes(head[8..16].try_into().expect("eight bytes are eight bytes"));
    let (begin, end) = (start + HEAD_BYTES, start + HEAD_BYTES + length);
    let bytes = segment.get(begin..end).filter(|_| length <= RECORD_BYTES_MAX)?;
    (crc32c::crc32c(bytes) == number(16)).then_some(Found { start, end, sequence, bytes })
}

/// A door for fuzzing: a segment of these records, some of whose bytes are others; each record that is whole is found.
#[cfg(fuzzing)]
pub fn fuzz(records: &[&[u8]], damage: &[(u16, u8)]) {
    // What looks like a record is one, inside of another that is damaged.
    if records.iter().any(|bytes| memchr::memmem::find(bytes, &MARK).is_some()) {
        return;
    }
    let (mut segment, mut places) = (Vec::new(), Vec::new());
    for (sequence, bytes) in (0..).zip(records) {
        let start = segment.len();
        write(&mut segment, sequence, bytes);
        places.push(start..segment.len());
    }
    let sound = segment.clone();
    for (place, with) in damage {
        if let Some(byte) = segment.get_mut(usize::from(*place)) {
            *byte ^= with;
        }
    }
    let (mut at, mut found) = (0, Vec::new());
    while let Some(record) = next(&segment, at, records.len() as u64) {
        assert!(record.start >= at && record.end > record.start, "each step goes on");
        at = record.end;
        found.push(record.start..record.end);
    }
    let mut whole = places.into_iter().filter(|place| segment[place.clone()] == sound[place.clone()]);
    assert!(whole.all(|place| found.contains(&place)), "whole records are found");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(segment: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let (mut at, mut found) = (0, Vec::new());
        while let Some(record) = next(segment, at, u64::MAX) {
            assert!(record.end > at, "each step goes on");
            at = record.end;
            found.push((record.sequence, record.bytes.to_vec()));
        }
        found
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = all(&bytes);
        }
        #[test]
        fn a_damaged_record_costs_no_other(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..12),
            at: proptest::sample::Index, with in 1..=255_u8,
        ) {
            let mut segment = Vec::new();
            let mut ends = Vec::new();
            for (sequence, bytes) in records.iter().enumerate() {
                write(&mut segment, sequence as u64, bytes);
                ends.push(segment.len());
            }
            let place = at.index(segment.len());
            segment[place] ^= with;
            let damaged = ends.iter().position(|end| place < *end).unwrap();
            let expect: Vec<(u64, Vec<u8>)> = (0..).zip(records).filter(|(n, _)| *n != damaged as u64).collect();
            prop_assert_eq!(all(&segment), expect);
        }
    }
}
