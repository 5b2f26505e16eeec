//! Following files: which there are, what became of those that were read, and the next records.
//!
//! It waits for nothing and starts nothing: its caller looks, takes records, and says which became durable.
//!
//! A file is its device and inode, and some of its bytes: the first ones, and those before the place that was
//! reached. What was read counts only if both are as they were after the reading, so bytes that were written over
//! a truncated file are never taken for its continuation. Each file has a number that no other file of the source
//! ever gets; it is stored before the first record is handed out, so that a record has the same position whenever
//! it is read.

use super::checkpoint::{Checkpoint, Mark, Place, Print};
use super::cut::{Cut, trimmed};
use super::find;
use bytes::Bytes;
use detection::RejectReason;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of one record.
pub const RECORD_SIZE_BYTES_MAX: usize = 64 * 1024;
/// Most records handed out at once.
const RECORDS_MAX: usize = super::super::BATCH_EVENTS_MAX;
/// Bytes read at once: more than a record, so that each reading gets on.
const CHUNK_SIZE_BYTES: usize = 4 * RECORD_SIZE_BYTES_MAX;
/// First bytes of a file by which it is known.
const HEAD_SIZE_BYTES: usize = 256;
/// Bytes before the place reached by which a file is known.
const TAIL_SIZE_BYTES: usize = 64;

/// What to follow, and how.
pub(crate) struct Settings {
    /// The source's name.
    pub(crate) name: String,
    /// Patterns of paths.
    pub(crate) patterns: Vec<String>,
    /// How records end.
    pub(crate) cut: Cut,
    /// Whether files that are there at the very first start are read from their end.
    pub(crate) from_end: bool,
    /// A file that is at no path of the patterns any more is left once it has been silent for so long.
    pub(crate) quiet: Duration,
    /// Where what was read is kept.
    pub(crate) checkpoint: PathBuf,
}

/// A record and where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) offset: u64,
    /// Its first line, from 1.
    pub(crate) line: u64,
    pub(crate) bytes: Result<Bytes, RejectReason>,
}

/// Records of one file, in order.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) file: u64,
    /// The stream its records are positions in.
    pub(crate) stream: Arc<str>,
    /// The file's first record, where records are CSV: the header.
    pub(crate) header: Option<Bytes>,
    pub(crate) records: Vec<Record>,
    /// The place behind them.
    pub(crate) end: Place,
}

/// Followed files.
pub(crate) struct Tail {
    settings: Settings,
    book: Checkpoint,
    files: BTreeMap<u64, Open>,
    /// The file that had its turn last.
    turn: u64,
    is_first_look: bool,
    is_changed: bool,
    /// A number was given that is not stored yet: nothing is handed out before it is.
    must_store: bool,
    /// Paths that could not be read, so that each is told once.
    unreadable: BTreeSet<PathBuf>,
    /// Files that went away, or were written over, before they were read to their end.
    pub(crate) lost: u64,
}

struct Open {
    file: File,
    read: Place,
    /// The bytes of `read`'s prints.
    head: Vec<u8>,
    tail: Vec<u8>,
    header: Option<Bytes>,
    /// Since when it has been read to its end and is at no path of the patterns.
    quiet_since: Option<Duration>,
    /// Nothing more is written to it: what is left is a record without a newline.
    is_ending: bool,
}

impl Open {
    /// A file at a place; `None` if it is not the file the place is of.
    fn at(file: File, place: Place) -> io::Result<Option<Self>> {
        let (head, tail) = (place.head.size as usize, place.tail.size as usize);
        if head > HEAD_SIZE_BYTES || tail > TAIL_SIZE_BYTES || tail as u64 > place.offset {
            return Ok(None);
        }
        let head = read_at(&file, 0, head)?;
        let tail = read_at(&file, place.offset - tail as u64, tail)?;
        if file.metadata()?.len() < place.offset || !(is(&head, &place.head) && is(&tail, &place.tail)) {
            return Ok(None);
        }
        Ok(Some(Self { file, read: place, head, tail, header: None, quiet_since: None, is_ending: false }))
    }

    /// Whether the bytes by which it is known are as they were.
    fn is_itself(&self) -> io::Result<bool> {
        let before = self.read.offset - self.tail.len() as u64;
        Ok(self.file.metadata()?.len() >= self.read.offset
            && read_at(&self.file, 0, self.head.len())? == self.head
            && read_at(&self.file, before, self.tail.len())? == self.tail)
    }

    /// Goes on over bytes that were read.
    fn advance(&mut self, bytes: &[u8], lines: u64, skips: bool) {
        let room = (HEAD_SIZE_BYTES - self.head.len()).min(bytes.len());
        // Only while all bytes so far are in the head: later ones are not the first.
        if self.head.len() as u64 == self.read.offset {
            self.head.extend_from_slice(&bytes[..room]);
        }
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_SIZE_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_SIZE_BYTES));
        self.read = Place {
            offset: self.read.offset + bytes.len() as u64,
            lines: self.read.lines + lines,
            skips,
            head: Print::of(&self.head),
            tail: Print::of(&self.tail),
        };
    }

    /// The first record, where all of it is there.
    fn header(&mut self, cut: Cut) -> io::Result<Option<Bytes>> {
        if self.header.is_none() && cut != Cut::Lines {
            let bytes = read_at(&self.file, 0, RECORD_SIZE_BYTES_MAX)?;
            self.header = cut.end(&bytes).map(|end| Bytes::copy_from_slice(trimmed(&bytes[..end])));
        }
        Ok(self.header.clone())
    }
}

impl Tail {
    /// Reads what is kept; no file is opened yet.
    pub(crate) fn open(settings: Settings, now_ms: u64) -> io::Result<Self> {
        let (book, is_new) = Checkpoint::load(&settings.checkpoint, now_ms)?;
        Ok(Self {
            settings,
            book,
            files: BTreeMap::new(),
            turn: 0,
            is_first_look: is_new,
            is_changed: is_new,
            must_store: is_new,
            unreadable: BTreeSet::new(),
            lost: 0,
        })
    }

    /// Files that are open.
    pub(crate) fn count(&self) -> u64 {
        self.files.len() as u64
    }

    /// Looks which files there are: new ones, renamed ones, and those that went away.
    pub(crate) fn look(&mut self, now: Duration) {
        let mut listed = find::matching(&self.settings.patterns);
        let known: Vec<u64> = self.book.files.keys().copied().collect();
        for number in known {
            let Some(mark) = self.book.files.get_mut(&number) else { continue };
            match listed.remove(&mark.key()) {
                Some(path) => {
                    if mark.path != path {
                        mark.path.clone_from(&path);
                        self.is_changed = true;
                    }
                    match self.files.get_mut(&number) {
                        Some(open) => (open.quiet_since, open.is_ending) = (None, false),
                        None => self.resume(number, &path),
                    }
                }
                None if self.files.contains_key(&number) => self.rest(number, now),
                None => match find::beside(&mark.path, mark.key()) {
                    Some(path) => self.resume(number, &path),
                    None => {
                        // Gone while nobody looked.
                        self.lost += u64::from(mark.place.offset < mark.size);
                        self.forget(number);
                    }
                },
            }
        }
        for ((device, inode), path) in listed {
            if self.files.len() >= find::FILES_MAX {
                tracing::warn!(path = %path.display(), "too many files match: this one is not read");
                break;
            }
            if let Some(file) = self.readable(&path, (device, inode)) {
                let from_end = self.settings.from_end && self.is_first_look;
                self.adopt(file, path, (device, inode), from_end);
            }
        }
        self.is_first_look = false;
    }

    /// Opens a file whose reading goes on where it was left.
    fn resume(&mut self, number: u64, path: &Path) {
        let Some(mark) = self.book.files.get(&number) else { return };
        if let Some(file) = self.readable(path, mark.key()) {
            self.attach(number, file);
        }
    }

    /// Goes on with an open file at the place that is durable; where its bytes are others, it is another file.
    fn attach(&mut self, number: u64, file: File) {
        let Some(mark) = self.book.files.get(&number).cloned() else { return };
        match file.try_clone().and_then(|file| Open::at(file, mark.place.clone())) {
            Ok(Some(open)) => {
                self.files.insert(number, open);
            }
            Ok(None) => {
                self.lost += 1;
                self.forget(number);
                self.adopt(file, mark.path.clone(), mark.key(), false);
            }
            Err(error) => tracing::debug!(%error, path = %mark.path.display(), "a file cannot be read"),
        }
    }

    /// A file that is at no path any more: read to its end, then left once it has been silent.
    fn rest(&mut self, number: u64, now: Duration) {
        let (Some(open), Some(mark)) = (self.files.get_mut(&number), self.book.files.get(&number)) else { return };
        if mark.place.offset != open.read.offset {
            return;
        }
        let Ok(size) = open.file.metadata().map(|metadata| metadata.len()) else { return };
        if mark.size != size {
            // Somebody still writes to it.
            open.quiet_since = None;
        }
        let since = *open.quiet_since.get_or_insert(now);
        if let Some(mark) = self.book.files.get_mut(&number) {
            mark.size = size;
        }
        if now.saturating_sub(since) < self.settings.quiet {
            return;
        }
        if size > open.read.offset && !open.is_ending {
            open.is_ending = true;
        } else if size == open.read.offset {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: u64) {
        self.files.remove(&number);
        self.book.files.remove(&number);
        self.is_changed = true;
    }

    /// A file that is still the one that was found at a path.
    fn readable(&mut self, path: &Path, key: (u64, u64)) -> Option<File> {
        match File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata))) {
            Ok((file, metadata)) => {
                self.unreadable.remove(path);
                ((metadata.dev(), metadata.ino()) == key).then_some(file)
            }
            Err(error) => {
                let is_news = self.unreadable.len() < find::FILES_MAX && self.unreadable.insert(path.to_owned());
                if is_news && error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "a file cannot be read");
                }
                None
            }
        }
    }

    /// Takes up a file under a number of its own.
    fn adopt(&mut self, file: File, path: PathBuf, (device, inode): (u64, u64), from_end: bool) {
        let mut place = Place { head: Print::of(b""), tail: Print::of(b""), ..Place::default() };
        if from_end && let Ok(size) = file.metadata().map(|metadata| metadata.len()) {
            let tail = size.min(TAIL_SIZE_BYTES as u64);
            let Ok(bytes) = read_at(&file, size - tail, tail as usize) else { return };
            let Ok(head) = read_at(&file, 0, size.min(HEAD_SIZE_BYTES as u64) as usize) else { return };
            let skips = bytes.last().is_some_and(|last| *last != b'\n');
            place = Place { offset: size, lines: 0, skips, head: Print::of(&head), tail: Print::of(&bytes) };
        }
        // Only a file that changed meanwhile is not what it was: the next look finds it again.
        let Ok(Some(open)) = Open::at(file, place.clone()) else { return };
        let number = self.book.next;
        self.book.next += 1;
        self.book.files.insert(number, Mark { device, inode, path, size: place.offset, place });
        self.files.insert(number, open);
        (self.is_changed, self.must_store) = (true, true);
    }

    /// The next records of the file whose turn it is; `None` where all is read. Stores what must be known before.
    pub(crate) fn next(&mut self) -> io::Result<Option<Chunk>> {
        let after: Vec<u64> = self.files.range(self.turn + 1..).map(|(number, _)| *number).collect();
        let before: Vec<u64> = self.files.range(..=self.turn).map(|(number, _)| *number).collect();
        for number in after.into_iter().chain(before) {
            if self.must_store {
                self.store()?;
            }
            match self.read(number) {
                Ok(Some(chunk)) => {
                    self.turn = number;
                    return Ok(Some(chunk));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, file = number, "a file cannot be read on: it is opened again");
                    self.files.remove(&number);
                }
            }
        }
        Ok(None)
    }

    fn read(&mut self, number: u64) -> io::Result<Option<Chunk>> {
        let Some(open) = self.files.get_mut(&number) else { return Ok(None) };
        let size = open.file.metadata()?.len();
        let wanted = size.saturating_sub(open.read.offset).min(CHUNK_SIZE_BYTES as u64);
        let bytes = read_at(&open.file, open.read.offset, wanted as usize)?;
        let header = open.header(self.settings.cut)?;
        // After the reading: what was read was then still of this file.
        if !open.is_itself()? {
            return self.written_over(number).map(|()| None);
        }
        if let Some(mark) = self.book.files.get_mut(&number) {
            mark.size = size;
        }
        let is_last = open.is_ending && open.read.offset + bytes.len() as u64 == size;
        let bytes = Bytes::from(bytes);
        let mut found = Found { at: 0, lines: 0, skips: open.read.skips, records: Vec::new() };
        found.cut(&bytes, self.settings.cut, is_last, &open.read);
        if found.at == 0 {
            return Ok(None);
        }
        open.advance(&bytes[..found.at], found.lines, found.skips);
        let stream = format!("{}@{}/{number}", self.settings.name, self.book.born_ms).into();
        Ok(Some(Chunk { file: number, stream, header, records: found.records, end: open.read.clone() }))
    }

    /// A file that was truncated is another one from now on, and read from its beginning.
    fn written_over(&mut self, number: u64) -> io::Result<()> {
        let (Some(open), Some(mark)) = (self.files.remove(&number), self.book.files.remove(&number)) else {
            return Ok(());
        };
        tracing::info!(path = %mark.path.display(), "a file was truncated: it is read from its beginning");
        self.lost += u64::from(open.read.offset < mark.size);
        self.adopt(open.file, mark.path.clone(), mark.key(), false);
        Ok(())
    }

    /// Everything up to a place is durable elsewhere.
    pub(crate) fn acknowledge(&mut self, number: u64, end: Place) {
        if let Some(mark) = self.book.files.get_mut(&number) {
            mark.place = end;
            self.is_changed = true;
        }
    }

    /// What was handed out was not made durable: reading goes back to what was.
    pub(crate) fn rewind(&mut self, number: u64) {
        match self.files.remove(&number) {
            Some(open) => self.attach(number, open.file),
            // It was written over meanwhile: what was handed out can be read nowhere.
            None => self.lost += 1,
        }
    }

    /// Keeps what was read, where that changed.
    pub(crate) fn store(&mut self) -> io::Result<()> {
        if self.is_changed {
            self.book.store(&self.settings.checkpoint)?;
            (self.is_changed, self.must_store) = (false, false);
        }
        Ok(())
    }
}

/// What is found in bytes that were read.
struct Found {
    at: usize,
    lines: u64,
    skips: bool,
    records: Vec<Record>,
}

impl Found {
    fn cut(&mut self, bytes: &Bytes, cut: Cut, is_last: bool, from: &Place) {
        let too_large = RejectReason::TooLarge { limit_bytes: RECORD_SIZE_BYTES_MAX as u64 };
        while self.records.len() < RECORDS_MAX && self.at < bytes.len() {
            let rest = &bytes[self.at..];
            let (offset, line) = (from.offset + self.at as u64, from.lines + self.lines + 1);
            let newline = memchr::memchr(b'\n', rest).map(|end| end + 1);
            if self.skips {
                self.take(newline.unwrap_or(rest.len()), u64::from(newline.is_some()));
                self.skips = newline.is_none();
                continue;
            }
            let end = cut.end(rest).or(is_last.then_some(rest.len()));
            match end {
                Some(end) => {
                    let record = trimmed(&rest[..end]);
                    if record.len() > RECORD_SIZE_BYTES_MAX {
                        self.records.push(Record { offset, line, bytes: Err(too_large.clone()) });
                    } else if !record.iter().all(u8::is_ascii_whitespace) {
                        let record = bytes.slice(self.at..self.at + record.len());
                        self.records.push(Record { offset, line, bytes: Ok(record) });
                    }
                    self.take(end, memchr::memchr_iter(b'\n', &rest[..end]).count() as u64);
                }
                // Without an end, or with a quote that was never closed: its first line is given up.
                None if rest.len() > RECORD_SIZE_BYTES_MAX => {
                    self.records.push(Record { offset, line, bytes: Err(too_large.clone()) });
                    self.take(newline.unwrap_or(rest.len()), u64::from(newline.is_some()));
                    self.skips = newline.is_none();
                }
                None => return,
            }
        }
    }

    fn take(&mut self, size: usize, lines: u64) {
        self.at += size;
        self.lines += lines;
    }
}

fn is(bytes: &[u8], print: &Print) -> bool {
    Print::of(bytes) == *print
}

/// So many bytes from an offset, or fewer where the file ends.
fn read_at(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
