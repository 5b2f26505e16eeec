//! The archive of one node: open events, files, and the commits between them.
//!
//! A commit has a number, its epoch, which the names of its files carry. It counts once `commit.json` says so:
//! files of a later epoch are what a crash left behind and are removed at the next start, and how far each stream was
//! read stands in the same file, so that nothing is written twice and nothing is left out.

use crate::ArchiveError;
use crate::disk::{self, UNFINISHED, failed};
use crate::layout::{FileName, Partition, Span};
use crate::open::{Open, sorted};
use crate::row::{self, Entry};
use crate::write;
use datafusion::arrow::array::RecordBatch;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Open events become files at the latest when they are this many.
pub const OPEN_ROWS_MAX: usize = 50_000;
/// Or take this much memory.
pub const OPEN_BYTES_MAX: usize = 64 << 20;
/// Or the oldest of them is this old.
pub const OPEN_MS_MAX: u64 = 60_000;
/// Broken files remembered by name; there may be more.
const BROKEN_MAX: usize = 1000;
/// Files of an archive: with that many nothing is written until some are put together or leave.
const FILES_MAX: usize = 4_000_000;
/// The file that says which commit counts.
const COMMIT: &str = "commit.json";

/// What counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Commit {
    version: u32,
    epoch: u64,
    /// The next sequence of each stream that is in no file.
    next: BTreeMap<String, u64>,
    /// Files whose events are in a file of this epoch.
    replaced: Vec<PathBuf>,
}

const VERSION: u32 = 1;

/// A file of the archive. It is removed when nobody reads it any more and it was doomed.
#[derive(Debug)]
pub struct FileEntry {
    /// Where it lies.
    pub path: PathBuf,
    /// Whose hour it belongs to.
    pub partition: Partition,
    /// What its name says.
    pub name: FileName,
    /// Its size.
    pub size_bytes: u64,
    /// What its rows take in memory, once somebody asked.
    pub(crate) decoded_bytes: OnceLock<u64>,
    doomed: AtomicBool,
}

impl FileEntry {
    fn new(path: PathBuf, partition: Partition, name: FileName, size_bytes: u64) -> Arc<Self> {
        let (decoded_bytes, doomed) = (OnceLock::new(), AtomicBool::new(false));
        Arc::new(Self { path, partition, name, size_bytes, decoded_bytes, doomed })
    }
    /// Has it removed once nobody reads it.
    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }
    /// Whether it may hold events of a span.
    pub fn may_hold(&self, span: Span) -> bool {
        self.name.stray || self.partition.span().overlaps(span)
    }
}

impl Drop for FileEntry {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Acquire) {
            // What cannot be removed now is removed at the next start, or by the next retention.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whose events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    /// Of every tenant: for the platform's own people.
    All,
    /// Of these.
    Only(BTreeSet<Arc<str>>),
}

impl Tenants {
    /// Of one.
    pub fn one(name: &str) -> Self {
        Self::Only(BTreeSet::from([name.into()]))
    }
    /// Whether this tenant's are among them.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Everything the archive had of some tenants and a span at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Files, by tenant and hour.
    pub files: Vec<Arc<FileEntry>>,
    /// Events that are in no file yet, sorted; no batch has rows of two tenants.
    pub open: Vec<RecordBatch>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<Partition, Vec<Arc<FileEntry>>>,
    pub(crate) open: Open,
}

/// The archive of one node.
#[derive(Debug)]
pub struct Archive {
    root: PathBuf,
    pub(crate) state: RwLock<State>,
    /// Held by whoever changes files: one at a time.
    commit: Mutex<Commit>,
    broken: Mutex<BTreeMap<PathBuf, String>>,
    files_max: usize,
}

/// What one commit wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files.
    pub files: usize,
    /// Events in them.
    pub rows: u64,
    /// Bytes of them.
    pub size_bytes: u64,
}

impl Written {
    pub(crate) fn add(&mut self, more: Self) {
        self.files += more.files;
        self.rows += more.rows;
        self.size_bytes += more.size_bytes;
    }
}

impl Archive {
    /// Opens the archive in a folder, or makes one; removes what a crash left behind.
    pub fn open(root: &Path) -> Result<Self, ArchiveError> {
        fs::create_dir_all(root).map_err(failed(root))?;
        let commit = read_commit(&root.join(COMMIT))?;
        let mut state = State::default();
        for path in &commit.replaced {
            let _ = fs::remove_file(root.join(path));
        }
        find(root, &commit, true, &mut state)?;
        state.open.next.clone_from(&commit.next);
        Ok(Self {
            root: root.to_owned(),
            state: RwLock::new(state),
            commit: Mutex::new(commit),
            broken: Mutex::default(),
            files_max: FILES_MAX,
        })
    }

    /// The files of an archive that nobody has open; changes nothing.
    pub(crate) fn look(root: &Path) -> Result<Vec<Arc<FileEntry>>, ArchiveError> {
        let commit = read_commit(&root.join(COMMIT))?;
        let mut state = State::default();
        find(root, &commit, false, &mut state)?;
        let counts = |file: &Arc<FileEntry>| !commit.replaced.iter().any(|path| root.join(path) == file.path);
        Ok(state.files.into_values().flatten().filter(counts).collect())
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a stream is to be read on.
    pub fn next(&self, stream: &str) -> u64 {
        self.state.read().open.next.get(stream).copied().unwrap_or(0)
    }

    /// Takes the event at a place of a stream, or notes that the place holds none. A place before the next is ignored.
    pub fn take(&self, stream: &str, sequence: u64, entry: Option<Entry>, now_ms: u64) {
        let mut state = self.state.write();
        let open = &mut state.open;
        match open.next.get_mut(stream) {
            Some(next) if sequence < *next => return,
            Some(next) => *next = sequence + 1,
            None => {
                open.next.insert(stream.to_owned(), sequence + 1);
            }
        }
        if let Some(entry) = entry {
            open.push(entry, now_ms);
        }
    }

    /// Whether open events should become files now.
    pub fn is_full(&self, now_ms: u64) -> bool {
        let state = self.state.read();
        let open = &state.open;
        open.entries.len() >= OPEN_ROWS_MAX
            || open.size_bytes >= OPEN_BYTES_MAX
            || open.since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= OPEN_MS_MAX)
    }

    /// Writes the open events to files. What failed is still open, and is tried again by the next call.
    pub fn roll(&self, now_ms: u64) -> Result<Written, ArchiveError> {
        let mut commit = self.commit.lock();
        let (entries, next) = {
            let state = self.state.read();
            (state.open.entries.clone(), state.open.next.clone())
        };
        if next == commit.next {
            return Ok(Written::default());
        }
        self.check_room()?;
        let epoch = commit.epoch + 1;
        let mut made = Vec::new();
        let done = sorted(&entries).into_iter().try_for_each(|((partition, stray), entries)| {
            let rows = row::batch(entries.iter().map(Arc::as_ref));
            made.push(self.write(partition, epoch, stray, &[rows])?);
            Ok(())
        });
        self.commit(&mut commit, done, next, &made, &[])?;
        let written = written(&made);
        let mut state = self.state.write();
        state.open.committed(entries.len(), now_ms);
        made.into_iter().for_each(|file| insert(&mut state.files, file));
        Ok(written)
    }

    fn check_room(&self) -> Result<(), ArchiveError> {
        if self.state.read().files.values().map(Vec::len).sum::<usize>() < self.files_max {
            return Ok(());
        }
        let why = format!("{} files are as many as an archive may have", self.files_max);
        let error = std::io::Error::new(std::io::ErrorKind::QuotaExceeded, why);
        Err(failed(&self.root)(error))
    }

    /// Puts one file in the place of others of its partition: readers see the one or the others.
    pub(crate) fn replace(&self, old: &[Arc<FileEntry>], rows: &[RecordBatch]) -> Result<Written, ArchiveError> {
        let Some(first) = old.first() else { return Ok(Written::default()) };
        let mut commit = self.commit.lock();
        let epoch = commit.epoch + 1;
        let made = self.write(first.partition.clone(), epoch, first.name.stray, rows)?;
        let next = commit.next.clone();
        self.commit(&mut commit, Ok(()), next, std::slice::from_ref(&made), old)?;
        let written = written(std::slice::from_ref(&made));
        let mut state = self.state.write();
        let files = state.files.entry(made.partition.clone()).or_default();
        files.retain(|file| !old.iter().any(|old| Arc::ptr_eq(old, file)));
        files.push(made);
        drop(state);
        old.iter().for_each(|file| file.doom());
        Ok(written)
    }

    /// Takes whole partitions out; their files vanish when nobody reads them any more.
    pub(crate) fn remove(&self, partitions: &[Partition]) {
        let _one_at_a_time = self.commit.lock();
        for partition in partitions {
            let files = self.state.write().files.remove(partition).unwrap_or_default();
            files.iter().for_each(|file| file.doom());
            drop(files);
            disk::remove_empty(&self.root, &partition.folder(&self.root));
        }
    }

    fn write(
        &self,
        partition: Partition,
        epoch: u64,
        stray: bool,
        rows: &[RecordBatch],
    ) -> Result<Arc<FileEntry>, ArchiveError> {
        let bytes = write::file(&partition.tenant, rows)?;
        let count = rows.iter().map(|batch| batch.num_rows() as u64).sum();
        let name = FileName { epoch, rows: count, stray, hash: FileName::hash_of(&blake3::hash(&bytes)) };
        let folder = partition.folder(&self.root);
        disk::make_folder(&self.root, &folder)?;
        let path = folder.join(name.text());
        disk::write(&path, &bytes)?;
        Ok(FileEntry::new(path, partition, name, bytes.len() as u64))
    }

    /// Makes files count in the place of others. Where that fails they never will: until it is known that they are gone,
    /// every later commit says that they do not count.
    fn commit(
        &self,
        current: &mut Commit,
        made_all: Result<(), ArchiveError>,
        next: BTreeMap<String, u64>,
        made: &[Arc<FileEntry>],
        old: &[Arc<FileEntry>],
    ) -> Result<(), ArchiveError> {
        let relative = |file: &Arc<FileEntry>| file.path.strip_prefix(&self.root).unwrap_or(&file.path).to_owned();
        current.replaced.retain(|path| self.root.join(path).exists());
        let done = made_all.and_then(|()| {
            let replaced = current.replaced.iter().cloned().chain(old.iter().map(relative)).collect();
            let new = Commit { version: VERSION, epoch: current.epoch + 1, next, replaced };
            let json = serde_json::to_vec_pretty(&new).expect("names and numbers have a JSON form");
            disk::write(&self.root.join(COMMIT), &json).map(|()| *current = new)
        });
        if done.is_err() {
            current.replaced.extend(made.iter().map(relative));
            made.iter().for_each(|file| file.doom());
        }
        done
    }

    /// What there is of some tenants and a span now.
    pub fn snapshot(&self, tenants: &Tenants, span: Span) -> Snapshot {
        let (files, entries) = {
            let state = self.state.read();
            let wanted = state.files.iter().filter(|(partition, _)| tenants.has(&partition.tenant));
            let files =
                wanted.flat_map(|(_, files)| files.iter().filter(|file| file.may_hold(span)).cloned()).collect();
            let open = state.open.entries.iter();
            let wanted = |entry: &&Arc<Entry>| tenants.has(&entry.tenant) && span.contains(entry.time_ms());
            (files, open.filter(wanted).cloned().collect::<Vec<_>>())
        };
        let open = sorted(&entries).into_values().map(|entries| row::batch(entries.iter().map(Arc::as_ref))).collect();
        Snapshot { files, open }
    }

    /// Whose events there may be in a span.
    pub fn tenants(&self, span: Span) -> BTreeSet<Arc<str>> {
        let state = self.state.read();
        let holds = |files: &Vec<Arc<FileEntry>>| files.iter().any(|file| file.may_hold(span));
        let files = state.files.iter().filter(|(_, files)| holds(files)).map(|(partition, _)| &partition.tenant);
        let open = state.open.entries.iter().filter(|entry| span.contains(entry.time_ms()));
        files.chain(open.map(|entry| &entry.tenant)).cloned().collect()
    }

    /// Every file.
    pub fn files(&self) -> Vec<Arc<FileEntry>> {
        self.state.read().files.values().flatten().cloned().collect()
    }

    /// Events that are in no file yet.
    pub fn open_rows(&self) -> usize {
        self.state.read().open.entries.len()
    }

    /// Remembers that a file is broken: it is skipped, and listed until it is gone.
    pub fn report_broken(&self, path: &str, reason: &str) {
        let mut broken = self.broken.lock();
        if broken.len() < BROKEN_MAX {
            broken.insert(PathBuf::from(path), reason.to_owned());
        }
    }

    /// Broken files that are still there, and why they are.
    pub fn broken(&self) -> BTreeMap<PathBuf, String> {
        let mut broken = self.broken.lock();
        broken.retain(|path, _| path.exists());
        broken.clone()
    }
}

fn written(files: &[Arc<FileEntry>]) -> Written {
    Written {
        files: files.len(),
        rows: files.iter().map(|file| file.name.rows).sum(),
        size_bytes: files.iter().map(|file| file.size_bytes).sum(),
    }
}

fn insert(files: &mut BTreeMap<Partition, Vec<Arc<FileEntry>>>, file: Arc<FileEntry>) {
    files.entry(file.partition.clone()).or_default().push(file);
}

fn read_commit(path: &Path) -> Result<Commit, ArchiveError> {
    let broken = |reason: String| ArchiveError::Broken { path: path.display().to_string(), reason };
    match fs::read(path) {
        Ok(bytes) => {
            let commit: Commit = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
            if commit.version == VERSION { Ok(commit) } else { Err(broken(format!("version {}", commit.version))) }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Commit::default()),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Finds the files that count, and removes what a crash left behind. What is not ours is left alone.
fn find(root: &Path, commit: &Commit, tidy: bool, state: &mut State) -> Result<(), ArchiveError> {
    for (tenant, tenant_path) in entries(root)? {
        for (day, day_path) in if tenant_path.is_dir() { entries(&tenant_path)? } else { Vec::new() } {
            for (hour, hour_path) in if day_path.is_dir() { entries(&day_path)? } else { Vec::new() } {
                let Some(partition) = Partition::parse(&tenant, &day, &hour).filter(|_| hour_path.is_dir()) else {
                    continue;
                };
                for (name, path) in entries(&hour_path)? {
                    let parsed = FileName::parse(&name).filter(|name| name.epoch <= commit.epoch);
                    let Some(parsed) = parsed else {
                        let is_left_over = name.ends_with(UNFINISHED) || FileName::parse(&name).is_some();
                        if tidy && is_left_over {
                            fs::remove_file(&path).map_err(failed(&path))?;
                        }
                        continue;
                    };
                    let size_bytes = fs::metadata(&path).map_err(failed(&path))?.len();
                    insert(&mut state.files, FileEntry::new(path, partition.clone(), parsed, size_bytes));
                }
            }
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, ArchiveError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::entry;

    #[test]
    fn too_many_files_stop_writing_but_neither_compaction_nor_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::open(folder.path()).unwrap();
        archive.files_max = 3;
        let roll = |archive: &Archive, sequence| {
            archive.take("events/eu", sequence, Some(entry("acme", sequence, 1_000, r#"{"message":"x"}"#)), 0);
            archive.roll(0)
        };
        for sequence in 0..3 {
            roll(&archive, sequence).unwrap();
        }
        assert!(matches!(roll(&archive, 3), Err(ArchiveError::Disk { .. })));
        let mut archive = Archive::open(folder.path()).unwrap();
        archive.files_max = 3;
        assert!(roll(&archive, 3).is_err());
        archive.compact(u64::MAX / 2, || true).unwrap();
        assert_eq!(roll(&archive, 4).unwrap().rows, 2);
    }
}
