//! What a crash may leave at the end of RocksDB's write-ahead log, told apart from damage.
//!
//! RocksDB knows two answers to a bad record: drop everything behind it, or refuse to open. Both
//! are wrong after a kill in the middle of a write. The log's writer begins a write only after the
//! sync of the one before, so just the last record may be incomplete, and nobody was told of it:
//! that one is cut off here. Everything else is left for RocksDB to refuse.
//!
//! Format: `db/log_format.h` of RocksDB 11; physical records in blocks of 32 KiB.

use super::disk;
use std::fs::{self, File};
use std::io;
use std::path::Path;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// What the kernel writes as a whole, or not at all.
const PAGE_BYTES: usize = 4 << 10;
/// Fewer zeros than this at the edge of a page may be data.
const ZEROS_MIN: usize = 64;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Records about the file itself: compression, time stamp sizes, the file before.
const ABOUT_FILE: [u8; 3] = [9, 10, 130];

/// What one file of the write-ahead log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing but whole records.
    Whole,
    /// Whole records up to `keep`, and behind them a write that never finished.
    Torn {
        /// How many bytes are whole records.
        keep: usize,
    },
    /// Something that no interrupted write explains.
    Damaged {
        /// Where.
        at: usize,
    },
}

/// Cuts off a write that never finished at the end of the log in `dir`. `Err(InvalidData)` if
/// there is damage.
pub(super) fn mend(dir: &Path) -> io::Result<()> {
    let mut files: Vec<String> = disk::names(dir)?;
    files.retain(|name| name.ends_with(".log"));
    let mut contents = Vec::new();
    for name in files {
        let path = dir.join(name);
        // At most the size at which RocksDB begins a new file, and one batch.
        let bytes = fs::read(&path)?;
        if !bytes.is_empty() {
            contents.push((path, examine(&bytes), bytes.len()));
        }
    }
    let last = contents.len().saturating_sub(1);
    for (number, (path, tail, length)) in contents.iter().enumerate() {
        match tail {
            Tail::Whole => {}
            Tail::Torn { keep } if number == last => {
                tracing::warn!(path = %path.display(), cut_bytes = length - keep, "cut off a write that never finished");
                let file = File::options().write(true).open(path)?;
                file.set_len(*keep as u64)?;
                file.sync_all()?;
            }
            Tail::Torn { keep: at } | Tail::Damaged { at } => {
                let detail = format!("{} is damaged at byte {at} of {length}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
            }
        }
    }
    Ok(())
}

/// Reads a whole file of the log.
pub(super) fn examine(bytes: &[u8]) -> Tail {
    let mut at = 0;
    let mut keep = 0;
    let mut in_fragments = false;
    while at < bytes.len() {
        let room = BLOCK_BYTES - at % BLOCK_BYTES;
        if room < HEADER_BYTES {
            // The rest of a block that no header fits into.
            if at + room > bytes.len() {
                return Tail::Torn { keep };
            }
            at += room;
            continue;
        }
        let Some(record) = Record::at(bytes, at) else { return unfinished(bytes, at, keep) };
        match (record.kind, in_fragments) {
            (FULL, false) | (LAST, true) => {
                in_fragments = false;
                keep = record.end;
            }
            (FIRST, false) => in_fragments = true,
            (MIDDLE, true) => {}
            (kind, false) if ABOUT_FILE.contains(&kind) => keep = record.end,
            _ => return Tail::Damaged { at },
        }
        at = record.end;
    }
    if in_fragments { Tail::Torn { keep } } else { Tail::Whole }
}

/// One physical record whose checksum holds.
struct Record {
    kind: u8,
    end: usize,
}

impl Record {
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let (header, rest) = bytes.get(at..)?.split_first_chunk::<HEADER_BYTES>()?;
        let (sum, length, kind) = parse(header);
        let is_known = matches!(kind, FULL..=LAST) || ABOUT_FILE.contains(&kind);
        let fits = HEADER_BYTES + length <= BLOCK_BYTES - at % BLOCK_BYTES;
        if !is_known || !fits {
            return None;
        }
        let payload = rest.get(..length)?;
        let holds = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload) == sum;
        holds.then_some(Self { kind, end: at + HEADER_BYTES + length })
    }
}

fn parse(header: &[u8; HEADER_BYTES]) -> (u32, usize, u8) {
    let [s0, s1, s2, s3, l0, l1, kind] = *header;
    // RocksDB stores its sums masked, because data may contain sums.
    let sum = u32::from_le_bytes([s0, s1, s2, s3]).wrapping_sub(0xa282_ead8).rotate_left(15);
    (sum, usize::from(u16::from_le_bytes([l0, l1])), kind)
}

/// There is no whole record at `at`: was it being written when the node died?
fn unfinished(bytes: &[u8], at: usize, keep: usize) -> Tail {
    let reaches_behind_the_end = match bytes[at..].split_first_chunk::<HEADER_BYTES>() {
        None => true,
        Some((header, rest)) => {
            let (sum, length, kind) = parse(header);
            let fits_its_block = HEADER_BYTES + length <= BLOCK_BYTES - at % BLOCK_BYTES;
            fits_its_block && length > rest.len() && !holds_at_some_length(sum, kind, rest)
        }
    };
    let was_never_finished = reaches_behind_the_end || has_unwritten_page(bytes, at);
    // A whole record behind it proves that it had been synced.
    let is_last = || (at + 1..bytes.len()).all(|later| Record::at(bytes, later).is_none());
    if was_never_finished && is_last() { Tail::Torn { keep } } else { Tail::Damaged { at } }
}

/// Whether the record is complete and only its length is wrong.
fn holds_at_some_length(sum: u32, kind: u8, rest: &[u8]) -> bool {
    let mut seen = crc32c::crc32c(&[kind]);
    rest.iter().any(|byte| {
        let held = seen == sum;
        seen = crc32c::crc32c_append(seen, &[*byte]);
        held
    }) || seen == sum
}

/// Whether a page from `at` on has only zeros: the file had grown, its content never came.
fn has_unwritten_page(bytes: &[u8], at: usize) -> bool {
    let mut from = at;
    while from < bytes.len() {
        let to = ((from / PAGE_BYTES + 1) * PAGE_BYTES).min(bytes.len());
        if to - from >= ZEROS_MIN && bytes[from..to].iter().all(|byte| *byte == 0) {
            return true;
        }
        from = to;
    }
    false
}

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
