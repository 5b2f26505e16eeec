//! Segment files: named after their first record, written at the end, read whole, deleted whole.

use super::frame;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// The ending of a segment's file.
const ENDING: &str = "segment";

/// A segment on disk.
#[derive(Debug)]
pub(super) struct Segment {
    /// The number of its first record.
    pub(super) first: u64,
    /// Its size.
    pub(super) size_bytes: u64,
}

impl Segment {
    /// All segments of a folder, oldest first; other files are left alone.
    pub(super) fn list(folder: &Path) -> io::Result<Vec<Self>> {
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let is_segment = path.extension().is_some_and(|ending| ending == ENDING) && name.len() == 16;
            if let Some(first) = u64::from_str_radix(name, 16).ok().filter(|_| is_segment) {
                segments.push(Self { first, size_bytes: entry.metadata()?.len() });
            }
        }
        segments.sort_by_key(|segment| segment.first);
        Ok(segments)
    }

    /// Begins a segment; its name is safe when this returns.
    pub(super) fn begin(folder: &Path, first: u64) -> io::Result<(Self, File)> {
        let segment = Self { first, size_bytes: frame::MAGIC.len() as u64 };
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(segment.path(folder))?;
        file.write_all(&frame::MAGIC)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok((segment, append(&segment_path(folder, first))?))
    }

    /// Opens it to be written to at its end.
    pub(super) fn append(&self, folder: &Path) -> io::Result<File> {
        append(&self.path(folder))
    }

    /// Cuts off what follows the last whole record; the number that comes next, and how many bytes were cut.
    pub(super) fn mend(&mut self, folder: &Path) -> io::Result<(u64, u64)> {
        let mut bytes = Vec::new();
        self.read_on(folder, &mut bytes)?;
        let (mut next, mut end) = (self.first, frame::MAGIC.len());
        let mut at = frame::MAGIC.len();
        // More records than fit into its bytes cannot be missing.
        let below = self.first.saturating_add((bytes.len() / frame::HEAD_BYTES) as u64 + 1);
        while let Some(found) = frame::next(&bytes, at, below) {
            at = found.end;
            if found.sequence >= next {
                (next, end) = (found.sequence + 1, found.end);
            }
        }
        let torn = bytes.len().saturating_sub(end) as u64;
        if torn > 0 || bytes.len() < frame::MAGIC.len() {
            let mut file = OpenOptions::new().write(true).open(self.path(folder))?;
            file.set_len(end as u64)?;
            if bytes.len() < frame::MAGIC.len() {
                file.write_all(&frame::MAGIC)?;
            }
            file.sync_all()?;
        }
        self.size_bytes = end as u64;
        Ok((next, torn))
    }

    /// Adds the bytes that are not held yet.
    pub(super) fn read_on(&self, folder: &Path, held: &mut Vec<u8>) -> io::Result<()> {
        let mut file = File::open(self.path(folder))?;
        file.seek(io::SeekFrom::Start(held.len() as u64))?;
        file.read_to_end(held).map(|_| ())
    }

    pub(super) fn delete(&self, folder: &Path) -> io::Result<()> {
        match std::fs::remove_file(self.path(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn path(&self, folder: &Path) -> PathBuf {
        segment_path(folder, self.first)
    }
}

fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:016x}.{ENDING}"))
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}
