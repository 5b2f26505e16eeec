//! Disk buffers: batches of records in files, between those who bring and those who are told.
//!
//! Segment files hold records with checks; a cursor says what has been dealt with. Bounded in bytes. A damaged record
//! is skipped and told of, never read again and again; a torn end is what was never acknowledged, and is cut off.
//! What was read and not confirmed is read again after a crash: at least once, in order.

mod frame;
mod segment;

pub use frame::RECORD_BYTES_MAX;
#[cfg(fuzzing)]
pub use frame::fuzz;

use segment::Segment;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Least bytes of a buffer.
pub const BYTES_MIN: u64 = 1024 * 1024;
/// Most bytes of a segment.
const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A buffer is at least so many segments: what has been dealt with is given back segment by segment.
const SEGMENTS: u64 = 8;
/// Name of the file that says what has been dealt with.
const CURSOR: &str = "cursor";

/// How a component is buffered on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BufferConfig {
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// What happens at the bound.
    #[serde(default)]
    pub when_full: WhenFull,
    /// When what is written is safe.
    #[serde(default)]
    pub sync: Sync,
}

/// What happens when a buffer is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Those before it wait, and so do their peers.
    #[default]
    Block,
    /// What comes is dropped, and counted as dropped.
    DropNewest,
}

/// When what is written is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// Each batch is synced before it is acknowledged.
    #[default]
    Batch,
    /// The system writes when it likes: what is acknowledged survives the process, but not a loss of power.
    System,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum NotAppended {
    /// No room: what is in it must be dealt with first.
    #[error("the buffer is full")]
    Full,
    /// Longer than [`RECORD_BYTES_MAX`], or than the whole buffer.
    #[error("the record is larger than a buffer takes")]
    TooLarge,
    /// The disk.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// What is next in a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing more.
    Nothing,
    /// A record.
    Record {
        /// Its number, for [`Buffer::confirm`].
        sequence: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Damage was skipped; what comes after it is next.
    Damaged {
        /// How many bytes.
        bytes: u64,
        /// How many records are missing, as far as their numbers tell.
        records: u64,
    },
}

/// A buffer in a folder of its own.
#[derive(Debug)]
pub struct Buffer {
    folder: PathBuf,
    config: BufferConfig,
    segment_bytes_max: u64,
    /// Oldest first; the last is written to.
    segments: VecDeque<Segment>,
    /// The segment that is written to.
    tail: File,
    /// The number of the next record.
    next_sequence: u64,
    /// Everything before it has been dealt with.
    confirmed: u64,
    reading: Reading,
    torn_bytes: u64,
}

/// Where reading goes on.
#[derive(Debug, Default)]
struct Reading {
    /// The segment whose bytes are held, by its first record.
    first: Option<u64>,
    bytes: Vec<u8>,
    at: usize,
    /// The number that comes next if nothing is damaged.
    expected: u64,
}

impl Buffer {
    /// Opens the buffer of a folder, or begins one; a torn end is cut off.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(folder: &Path, config: BufferConfig) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut segments: VecDeque<Segment> = Segment::list(folder)?.into();
        let mut torn_bytes = 0;
        let mut next_sequence = 0;
        let confirmed = read_cursor(folder)?;
        if let Some(last) = segments.back_mut() {
            (next_sequence, torn_bytes) = last.mend(folder)?;
        }
        // A cursor ahead of what is there: the end was lost after it had been dealt with. Numbers in a segment have no
        // gaps but by damage, so what comes next begins another.
        let is_ahead = confirmed > next_sequence;
        next_sequence = next_sequence.max(confirmed);
        let tail = match segments.back().filter(|_| !is_ahead) {
            Some(last) => last.append(folder)?,
            None => {
                let (segment, tail) = Segment::begin(folder, next_sequence)?;
                segments.push_back(segment);
                tail
            }
        };
        let max_bytes = config.max_bytes.max(BYTES_MIN);
        let segment_bytes_max = (max_bytes / SEGMENTS).min(SEGMENT_BYTES_MAX);
        let config = BufferConfig { max_bytes, ..config };
        let oldest = segments.front().map_or(next_sequence, |segment| segment.first);
        let reading = Reading { expected: confirmed.max(oldest), ..Reading::default() };
        let mut buffer = Self {
            folder: folder.to_owned(),
            config,
            segment_bytes_max,
            segments,
            tail,
            next_sequence,
            confirmed,
            reading,
            torn_bytes,
        };
        buffer.give_back()?;
        Ok(buffer)
    }

    /// How many bytes were cut off its end when it was opened: never acknowledged, or damaged.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// The number that the next record gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Bytes on disk.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size_bytes).sum()
    }

    /// Records that have not been dealt with.
    pub fn waiting(&self) -> u64 {
        self.next_sequence - self.confirmed.min(self.next_sequence)
    }

    /// Appends as many records as there is room for, in order: safe when this returns, as the configuration understands
    /// it. How many they were.
    ///
    /// # Errors
    /// No room for the first, or the disk's; then some of them may be read all the same, and once more when they are
    /// appended again.
    pub fn append(&mut self, records: &[Vec<u8>]) -> Result<usize, NotAppended> {
        let mut appended = 0;
        let mut refused = None;
        let (mut framed, mut pending) = (Vec::new(), 0);
        for bytes in records {
            let size = (frame::HEAD_BYTES + bytes.len()) as u64;
            if bytes.len() > RECORD_BYTES_MAX || size + frame::MAGIC.len() as u64 > self.config.max_bytes {
                refused = Some(NotAppended::TooLarge);
                break;
            }
            if self.size_bytes() + framed.len() as u64 + size > self.config.max_bytes {
                self.write(&mut framed, &mut pending)?;
                if !self.make_room(size)? {
                    refused = Some(NotAppended::Full);
                    break;
                }
            }
            let last = self.segments.back().expect("one is always written to").size_bytes;
            let is_begun = last + framed.len() as u64 > frame::MAGIC.len() as u64;
            if is_begun && last + framed.len() as u64 + size > self.segment_bytes_max {
                self.write(&mut framed, &mut pending)?;
                self.roll()?;
            }
            frame::write(&mut framed, self.next_sequence, bytes);
            self.next_sequence += 1;
            pending += 1;
            appended += 1;
        }
        self.write(&mut framed, &mut pending)?;
        match (appended, refused) {
            (0, Some(refused)) => Err(refused),
            (appended, _) => Ok(appended),
        }
    }

    /// Writes what was framed at the end of the last segment.
    fn write(&mut self, framed: &mut Vec<u8>, pending: &mut u64) -> io::Result<()> {
        if framed.is_empty() {
            return Ok(());
        }
        let last = self.segments.back_mut().expect("one is always written to");
        let written = self.tail.write_all(framed).and_then(|()| match self.config.sync {
            Sync::Batch => self.tail.sync_data(),
            Sync::System => Ok(()),
        });
        if let Err(error) = written {
            // Half a record would be damage; without it the next one follows the last whole one.
            self.tail.set_len(last.size_bytes)?;
            self.next_sequence -= *pending;
            return Err(error);
        }
        last.size_bytes += framed.len() as u64;
        framed.clear();
        *pending = 0;
        Ok(())
    }

    /// Gives back the segment that is written to, where everything in it has been dealt with.
    fn make_room(&mut self, size: u64) -> io::Result<bool> {
        if self.confirmed == self.next_sequence {
            self.roll()?;
            self.give_back()?;
        }
        Ok(self.size_bytes() + size <= self.config.max_bytes)
    }

    fn roll(&mut self) -> io::Result<()> {
        if self.segments.back().is_some_and(|last| last.first == self.next_sequence) {
            return Ok(());
        }
        self.tail.sync_data()?;
        let (segment, tail) = Segment::begin(&self.folder, self.next_sequence)?;
        self.segments.push_back(segment);
        self.tail = tail;
        Ok(())
    }

    /// What comes next; each call goes on.
    ///
    /// # Errors
    /// The disk's; the same is tried again with the next call.
    pub fn read(&mut self) -> io::Result<Next> {
        loop {
            let Some(place) = self.place() else { return Ok(Next::Nothing) };
            let is_last = place + 1 == self.segments.len();
            let (first, size_bytes) = (self.segments[place].first, self.segments[place].size_bytes);
            if self.reading.first != Some(first) {
                (self.reading.first, self.reading.at) = (Some(first), frame::MAGIC.len());
                self.reading.bytes.clear();
            }
            if (self.reading.bytes.len() as u64) < size_bytes {
                self.segments[place].read_on(&self.folder, &mut self.reading.bytes)?;
            }
            let end = self.segments.get(place + 1).map_or(self.next_sequence, |next| next.first);
            let (at, expected) = (self.reading.at, self.reading.expected);
            match frame::next(&self.reading.bytes, at, end) {
                Some(found) if found.sequence < expected => {
                    // Dealt with before the start.
                    self.reading.at = found.end;
                }
                Some(found) if found.sequence > expected || found.start > at => {
                    let records = found.sequence - expected;
                    let bytes = (found.start - at) as u64;
                    (self.reading.at, self.reading.expected) = (found.start, found.sequence);
                    // Before the cursor nothing is missed.
                    if records > 0 {
                        return Ok(Next::Damaged { bytes, records });
                    }
                }
                Some(found) => {
                    let (sequence, bytes) = (found.sequence, found.bytes.to_vec());
                    (self.reading.at, self.reading.expected) = (found.end, sequence + 1);
                    return Ok(Next::Record { sequence, bytes });
                }
                None if expected < end => {
                    let bytes = (self.reading.bytes.len().saturating_sub(at)) as u64;
                    (self.reading.at, self.reading.expected) = (self.reading.bytes.len(), end);
                    return Ok(Next::Damaged { bytes, records: end - expected });
                }
                None if is_last => return Ok(Next::Nothing),
                None => self.reading.first = None,
            }
        }
    }

    /// The segment that holds the record that comes next.
    fn place(&self) -> Option<usize> {
        let expected = self.reading.expected;
        if expected >= self.next_sequence {
            return None;
        }
        Some(self.segments.iter().rposition(|segment| segment.first <= expected).unwrap_or(0))
    }

    /// Everything up to and with that number has been dealt with, and is not read again.
    ///
    /// # Errors
    /// The disk's: then it may be read again after a crash.
    pub fn confirm(&mut self, sequence: u64) -> io::Result<()> {
        if sequence < self.confirmed {
            return Ok(());
        }
        self.confirmed = sequence + 1;
        write_cursor(&self.folder, self.confirmed)?;
        self.give_back()
    }

    /// The number before which everything has been read: what damage ended at can be confirmed by it.
    pub fn read_until(&self) -> u64 {
        self.reading.expected
    }

    /// Reads again what was read and not confirmed.
    pub fn rewind(&mut self) {
        let oldest = self.segments.front().map_or(self.next_sequence, |segment| segment.first);
        self.reading = Reading { expected: self.confirmed.max(oldest), ..Reading::default() };
    }

    /// Deletes the segments in which everything has been dealt with, but for the one that is written to.
    fn give_back(&mut self) -> io::Result<()> {
        while self.segments.get(1).is_some_and(|next| next.first <= self.confirmed) {
            let segment = &self.segments[0];
            segment.delete(&self.folder)?;
            self.segments.pop_front();
        }
        Ok(())
    }
}

fn read_cursor(folder: &Path) -> io::Result<u64> {
    let bytes = match std::fs::read(folder.join(CURSOR)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let whole = text.trim_end().split_once(' ').and_then(|(number, check)| {
        let is_right = u32::from_str_radix(check, 16).is_ok_and(|check| check == crc32c::crc32c(number.as_bytes()));
        number.parse().ok().filter(|_| is_right)
    });
    // A damaged cursor repeats what is still there: a repetition is known by its key, a loss by nothing.
    Ok(whole.unwrap_or(0))
}

fn write_cursor(folder: &Path, confirmed: u64) -> io::Result<()> {
    let number = confirmed.to_string();
    let text = format!("{number} {:08x}\n", crc32c::crc32c(number.as_bytes()));
    let fresh = folder.join("cursor.new");
    std::fs::write(&fresh, text)?;
    // Not synced: after a loss of power an older cursor repeats what was dealt with.
    std::fs::rename(fresh, folder.join(CURSOR))
}
