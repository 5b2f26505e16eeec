//! Dead letters: events that could not be dealt with, kept with the reason, to be looked at, replayed or dropped.
//!
//! A folder of NDJSON files, bounded in bytes: where the bound is met the oldest file goes, and is counted. One node
//! writes; commands beside it only add to `gone` and to `replay/`, so that neither waits for the other.

use crate::record::{Record, Stored};
use crate::transform::Refusal;
use detection::{Reject, SourceKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of dead letters that are kept unless the configuration says otherwise.
pub const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A folder has so many files at most: the oldest goes as a whole.
const FILES: u64 = 16;
/// Most bytes of one letter's line; a longer one would not be read.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Names that an act's record lists; how many there were is beside them.
const NAMED_MAX: usize = 100;
const GONE: &str = "gone";
const ACTS: &str = "acts";
const REPLAY: &str = "replay";

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// When it became one, in milliseconds since 1970.
    pub at_ms: u64,
    /// Which component could not deal with it.
    pub component: Arc<str>,
    /// A short stable word for the reason.
    pub code: String,
    /// The reason in words.
    pub reason: String,
    /// What could not be dealt with.
    pub event: Stored,
    /// Only its beginning was kept: it cannot be replayed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_sample: bool,
}

impl Letter {
    /// For a whole record.
    pub fn of(at_ms: u64, component: &Arc<str>, record: &Record, refusal: &Refusal) -> Self {
        Self {
            at_ms,
            component: Arc::clone(component),
            code: refusal.label().to_owned(),
            reason: refusal.to_string(),
            event: Stored::from(record),
            is_sample: false,
        }
    }

    /// For what could not even be framed: a sample of it.
    pub fn of_reject(at_ms: u64, component: &Arc<str>, reject: Reject) -> Self {
        let Reject { source, received_ms, position, reason, sample } = reject;
        let record = Record { source, received_ms, position, tenant: None, raw: sample, fields: None };
        Self { is_sample: true, ..Self::of(at_ms, component, &record, &Refusal::Rejected(reason)) }
    }

    /// For damage in a buffer: nothing of it is left.
    pub fn of_damage(at_ms: u64, component: &Arc<str>, refusal: &Refusal) -> Self {
        let raw = Default::default();
        let record =
            Record { source: SourceKind::Ndjson, received_ms: at_ms, position: None, tenant: None, raw, fields: None };
        Self { is_sample: true, ..Self::of(at_ms, component, &record, refusal) }
    }
}

/// A letter's place, by which commands name it: `3-17` is the seventeenth line of the third file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    file: u64,
    line: u64,
}

impl std::fmt::Display for LetterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.file, self.line)
    }
}

/// What a command did with letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// They are no longer there.
    Drop,
    /// They are dealt with again.
    Replay,
}

/// That somebody did something with letters; kept until the node has put it on record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Act {
    /// What.
    pub doing: Doing,
    /// Who, as the machine knows them.
    pub by: String,
    /// With how many letters.
    pub count: usize,
    /// The first of them, by their names.
    pub letters: Vec<String>,
}

/// Not a letter's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a dead letter's name is two numbers, such as 3-17")]
pub struct NotALetter;

impl FromStr for LetterId {
    type Err = NotALetter;
    fn from_str(text: &str) -> Result<Self, NotALetter> {
        let (file, line) = text.split_once('-').ok_or(NotALetter)?;
        Ok(Self { file: file.parse().map_err(|_| NotALetter)?, line: line.parse().map_err(|_| NotALetter)? })
    }
}

impl Serialize for LetterId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which letters: all that are named and fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By their names.
    pub ids: Option<BTreeSet<LetterId>>,
    /// Of this component.
    pub component: Option<String>,
    /// For this reason, by its short word.
    pub code: Option<String>,
}

impl Wanted {
    /// Whether a letter is one of them.
    pub fn has(&self, (id, letter): &(LetterId, Letter)) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(id))
            && self.component.as_ref().is_none_or(|component| **component == *letter.component)
            && self.code.as_ref().is_none_or(|code| *code == letter.code)
    }
}

/// The folder, as the node that writes it has it.
#[derive(Debug)]
pub struct DeadLetters {
    folder: PathBuf,
    max_bytes: u64,
    files: Vec<(u64, u64)>,
    tail: File,
    lost_files: u64,
}

impl DeadLetters {
    /// Opens the folder, or begins one; a torn last line is cut off.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder.join(REPLAY))?;
        std::fs::create_dir_all(folder.join(ACTS))?;
        let mut files = list_files(folder)?;
        if files.is_empty() {
            files.push((1, 0));
        }
        let (number, size_bytes) = files.last_mut().expect("one is always written to");
        let path = file_path(folder, *number);
        let tail = OpenOptions::new().create(true).append(true).open(&path)?;
        let bytes = std::fs::read(&path)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1) as u64;
        if whole < bytes.len() as u64 {
            tail.set_len(whole)?;
        }
        *size_bytes = whole;
        let mut letters = Self { folder: folder.to_owned(), max_bytes, files, tail, lost_files: 0 };
        letters.prune()?;
        letters.forget()?;
        Ok(letters)
    }

    /// Appends letters: safe when this returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn append(&mut self, letters: &[Letter]) -> io::Result<()> {
        let mut lines = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut lines, letter).map_err(io::Error::other)?;
            lines.push(b'\n');
        }
        let file_bytes_max = (self.max_bytes / FILES).max(1);
        let (number, size_bytes) = *self.files.last().expect("one is always written to");
        if size_bytes > 0 && size_bytes + lines.len() as u64 > file_bytes_max {
            let path = file_path(&self.folder, number + 1);
            self.tail = OpenOptions::new().create(true).append(true).open(path)?;
            File::open(&self.folder)?.sync_all()?;
            self.files.push((number + 1, 0));
        }
        let (_, size_bytes) = self.files.last_mut().expect("one is always written to");
        if let Err(error) = self.tail.write_all(&lines).and_then(|()| self.tail.sync_data()) {
            self.tail.set_len(*size_bytes)?;
            return Err(error);
        }
        *size_bytes += lines.len() as u64;
        self.prune()
    }

    /// How many files went because the bound was met.
    pub fn lost_files(&self) -> u64 {
        self.lost_files
    }

    /// Bytes on disk.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|(_, size_bytes)| size_bytes).sum()
    }

    /// Forgets that letters are gone whose files are.
    fn forget(&self) -> io::Result<()> {
        let oldest = self.files.first().map_or(0, |(number, _)| *number);
        let gone = read_gone(&self.folder)?;
        let kept: String = gone.iter().filter(|id| id.file >= oldest).map(|id| format!("{id}\n")).collect();
        if gone.iter().any(|id| id.file < oldest) {
            let fresh = self.folder.join("gone.new");
            std::fs::write(&fresh, kept)?;
            std::fs::rename(fresh, self.folder.join(GONE))?;
        }
        Ok(())
    }

    fn prune(&mut self) -> io::Result<()> {
        while self.size_bytes() > self.max_bytes && self.files.len() > 1 {
            let (number, _) = self.files.remove(0);
            std::fs::remove_file(file_path(&self.folder, number))?;
            self.lost_files += 1;
        }
        Ok(())
    }
}

/// Letters that are there and not gone, oldest first; lines that cannot be read are counted.
///
/// # Errors
/// The disk's.
pub fn list(folder: &Path) -> io::Result<(Vec<(LetterId, Letter)>, u64)> {
    let gone = read_gone(folder)?;
    let (mut letters, mut unreadable) = (Vec::new(), 0);
    for (number, _) in list_files(folder)? {
        let mut reader = BufReader::new(File::open(file_path(folder, number))?);
        for line in 1.. {
            let Some(text) = next_line(&mut reader)? else { break };
            let id = LetterId { file: number, line };
            match serde_json::from_slice(&text) {
                Ok(letter) if !gone.contains(&id) => letters.push((id, letter)),
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        }
    }
    Ok((letters, unreadable))
}

/// The next line without its end, empty where it is too long to be read. Without its end a line is still being written,
/// or never was.
fn next_line(reader: &mut impl io::BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    io::Read::take(&mut *reader, LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
    if text.pop_if(|last| *last == b'\n').is_some() {
        return Ok(Some(text));
    }
    if (text.len() as u64) < LINE_BYTES_MAX {
        return Ok(None);
    }
    Ok((reader.skip_until(b'\n')? > 0).then(Vec::new))
}

/// Puts down what somebody does with letters, before it is done.
fn put_down(folder: &Path, doing: Doing, by: &str, ids: &[LetterId]) -> io::Result<()> {
    let Some(first) = ids.first() else { return Ok(()) };
    let letters = ids.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let act = Act { doing, by: by.to_owned(), count: ids.len(), letters };
    let acts = folder.join(ACTS);
    std::fs::create_dir_all(&acts)?;
    let name = format!("{}-{first}", if doing == Doing::Drop { "drop" } else { "replay" });
    let fresh = acts.join(format!("{name}.new"));
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(&act)?)?;
    file.sync_all()?;
    std::fs::rename(&fresh, acts.join(format!("{name}.json")))
}

/// What commands did with letters and is not on record yet.
///
/// # Errors
/// The disk's.
pub fn acts(folder: &Path) -> io::Result<Vec<(PathBuf, Act)>> {
    let mut acts = Vec::new();
    for entry in std::fs::read_dir(folder.join(ACTS))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json")
            && let Ok(act) = serde_json::from_slice(&std::fs::read(&path)?)
        {
            acts.push((path, act));
        }
    }
    Ok(acts)
}

/// Drops letters.
///
/// # Errors
/// The disk's.
pub fn drop_letters(folder: &Path, ids: &[LetterId], by: &str) -> io::Result<()> {
    put_down(folder, Doing::Drop, by, ids)?;
    forget(folder, ids)
}

/// They are there no longer.
fn forget(folder: &Path, ids: &[LetterId]) -> io::Result<()> {
    let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join(GONE))?;
    file.write_all(lines.as_bytes())?;
    file.sync_data()
}

/// Hands letters to the node to be dealt with again by the component that could not, and drops them; samples stay.
/// How many were handed over.
///
/// # Errors
/// The disk's.
pub fn replay(folder: &Path, letters: &[(LetterId, Letter)], by: &str) -> io::Result<usize> {
    let whole: Vec<_> = letters.iter().filter(|(_, letter)| !letter.is_sample).collect();
    let Some((first, _)) = whole.first() else { return Ok(0) };
    let ids: Vec<LetterId> = whole.iter().map(|(id, _)| *id).collect();
    put_down(folder, Doing::Replay, by, &ids)?;
    let mut lines = Vec::new();
    for (_, letter) in &whole {
        serde_json::to_writer(&mut lines, letter).map_err(io::Error::other)?;
        lines.push(b'\n');
    }
    let folder_of_replays = folder.join(REPLAY);
    std::fs::create_dir_all(&folder_of_replays)?;
    let fresh = folder_of_replays.join(format!("{first}.new"));
    let mut file = File::create(&fresh)?;
    file.write_all(&lines)?;
    file.sync_all()?;
    std::fs::rename(&fresh, folder_of_replays.join(format!("{first}.ndjson")))?;
    // Only now: between the two a letter is there twice, never not at all.
    forget(folder, &ids)?;
    Ok(ids.len())
}

/// Letters that wait to be replayed.
#[derive(Debug, Default)]
pub struct Replay {
    /// They.
    pub letters: Vec<Letter>,
    /// Lines that are no letters.
    pub unreadable: usize,
}

/// The files that wait to be replayed, oldest name first, each with its letters.
///
/// # Errors
/// The disk's.
pub fn replays(folder: &Path) -> io::Result<Vec<(PathBuf, Replay)>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder.join(REPLAY))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "ndjson") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let text = std::fs::read(&path)?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut replay = Replay::default();
        for line in lines {
            match serde_json::from_slice(line) {
                Ok(letter) => replay.letters.push(letter),
                Err(_) => replay.unreadable += 1,
            }
        }
        found.push((path, replay));
    }
    Ok(found)
}

fn read_gone(folder: &Path) -> io::Result<BTreeSet<LetterId>> {
    match std::fs::read_to_string(folder.join(GONE)) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

fn list_files(folder: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let number = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|ending| ending == "ndjson")) {
            files.push((number, entry.metadata()?.len()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn file_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.ndjson"))
}

#[cfg(test)]
mod tests;
