//! Notices as files of JSON lines: `TOPIC/DAY-NUMBER.ndjson`, by the day of the notice in UTC.
//!
//! A notice is taken once its line is on the disk. A line that a crash cut short is removed before the next is
//! written; a notice that is written twice has the same key in both lines.

use super::config::Wants;
use super::{Notice, Refused, Sink, message};
use crate::resource::{Invalid, OpenError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Bytes after which a new file is begun, unless the description says otherwise.
pub const SEGMENT_SIZE_BYTES: u64 = 64 * 1024 * 1024;
/// The fewest a description may ask for.
pub const SEGMENT_SIZE_BYTES_MIN: u64 = 4 * 1024;
/// Bytes read at once when the end of the last whole line is looked for.
const BLOCK_SIZE_BYTES: u64 = 64 * 1024;

/// A folder of JSON lines as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The folder; it is made where it is missing.
    pub folder: PathBuf,
    /// Bytes after which a new file is begun.
    #[serde(default = "segment_size_bytes_max")]
    pub segment_size_bytes_max: u64,
    /// Which notices it is for.
    #[serde(default)]
    pub wants: Wants,
}

fn segment_size_bytes_max() -> u64 {
    SEGMENT_SIZE_BYTES
}

impl DirectoryConfig {
    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let fits = self.segment_size_bytes_max >= SEGMENT_SIZE_BYTES_MIN;
        let advice = format!("write at least {SEGMENT_SIZE_BYTES_MIN}");
        (!fits).then(|| Invalid::new("segment_size_bytes_max", advice)).into_iter().collect()
    }
}

/// One folder.
pub struct Directory {
    name: String,
    folder: PathBuf,
    segment_size_bytes_max: u64,
    /// One writer at a time, also while a delivery that was given up still writes.
    turn: Arc<Mutex<()>>,
    wants: Wants,
}

impl Directory {
    /// Makes the folder.
    pub fn open(name: &str, config: &DirectoryConfig) -> Result<Self, OpenError> {
        let folder = config.folder.clone();
        std::fs::create_dir_all(&folder).map_err(|error| OpenError::File { path: folder.clone(), error })?;
        let (name, wants) = (name.to_owned(), config.wants.clone());
        let segment_size_bytes_max = config.segment_size_bytes_max;
        Ok(Self { name, folder, segment_size_bytes_max, turn: Arc::default(), wants })
    }
}

#[async_trait]
impl Sink for Directory {
    fn name(&self) -> &str {
        &self.name
    }
    fn wants(&self, notice: &Notice) -> bool {
        self.wants.admit(notice)
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        let mut lines: BTreeMap<(PathBuf, String), String> = BTreeMap::new();
        let mut refused = Ok(());
        let mut taken = 0;
        for notice in notices {
            match message::json(notice) {
                Ok(json) => {
                    let segment = (self.folder.join(notice.topic.name()), day(notice.at_ms));
                    let text = lines.entry(segment).or_default();
                    text.push_str(&json);
                    text.push('\n');
                    taken += 1;
                }
                Err(reason) => {
                    refused = Err(reason);
                    break;
                }
            }
        }
        let (turn, limit) = (Arc::clone(&self.turn).lock_owned().await, self.segment_size_bytes_max);
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            lines.iter().try_for_each(|((folder, day), text)| append(folder, day, text.as_bytes(), limit))
        });
        match written.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => (taken, refused),
            Err(error) => (0, Err(Refused::Later(error.to_string()))),
        }
    }
}

/// The day of a time, in UTC.
fn day(at_ms: u64) -> String {
    let time = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "unknown".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// Adds lines to a day's last file, or begins the next.
fn append(folder: &Path, day: &str, lines: &[u8], size_bytes_max: u64) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut number = last_number(folder, day)?;
    let path = |number: u32| folder.join(format!("{day}-{number:04}.ndjson"));
    if std::fs::metadata(path(number)).is_ok_and(|metadata| metadata.len() >= size_bytes_max) {
        number += 1;
    }
    let mut file = File::options().read(true).append(true).create(true).open(path(number))?;
    let size = file.metadata()?.len();
    let whole = whole_lines(&file, size)?;
    if whole < size {
        file.set_len(whole)?;
    }
    if let Err(error) = file.write_all(lines).and_then(|()| file.sync_all()) {
        // Half a batch would be told twice: it is taken back where the disk lets us.
        let _ = file.set_len(whole);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn last_number(folder: &Path, day: &str) -> io::Result<u32> {
    let mut last = 0;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(day)?.strip_prefix('-')?.strip_suffix(".ndjson"));
        last = last.max(number.and_then(|number| number.parse().ok()).unwrap_or(0));
    }
    Ok(last)
}

/// The size of a file up to its last newline.
fn whole_lines(file: &File, size: u64) -> io::Result<u64> {
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_SIZE_BYTES);
        let mut block = vec![0; (end - start) as usize];
        file.read_exact_at(&mut block, start)?;
        if let Some(newline) = memchr::memrchr(b'\n', &block) {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_by_a_crash_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        append(folder.path(), "2026-11-24", b"one\n", 1 << 20).unwrap();
        let path = folder.path().join("2026-11-24-0000.ndjson");
        let long = vec![b'x'; 3 * BLOCK_SIZE_BYTES as usize];
        File::options().append(true).open(&path).unwrap().write_all(&long).unwrap();
        append(folder.path(), "2026-11-24", b"two\n", 1 << 20).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn a_full_file_is_followed_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        for line in [b"one\n", b"two\n", b"six\n"] {
            append(folder.path(), "2026-11-24", line, 8).unwrap();
        }
        assert_eq!(std::fs::read(folder.path().join("2026-11-24-0001.ndjson")).unwrap(), b"six\n");
    }
}
