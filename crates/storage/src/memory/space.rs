//! A group's state in memory: what is seen, and what the last flush left.

use super::{Core, State, log};
use crate::checked;
use crate::engine::{Batch, Checkpoint, FileMeta, Install, Keyspace, Space};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// One keyspace: shared between copies until one of them is written to.
type Rows = Arc<BTreeMap<Vec<u8>, Vec<u8>>>;

/// Most bytes one installed file may have: a simulated state is small.
const FILE_BYTES_MAX: usize = 256 << 20;

/// A space on the simulated disk.
#[derive(Default)]
pub(super) struct SpaceState {
    keyspaces: Vec<String>,
    visible: Vec<Rows>,
    durable: Vec<Rows>,
}

impl SpaceState {
    /// Accepts the keyspaces it knows, and new ones behind them.
    pub(super) fn open(&mut self, keyspaces: &[&'static str]) -> io::Result<()> {
        let known = self.keyspaces.len().min(keyspaces.len());
        if keyspaces.len() > usize::from(u8::MAX) || self.keyspaces[..known] != keyspaces[..known] {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the space has other keyspaces"));
        }
        for name in &keyspaces[known..] {
            crate::name::check(name)?;
            self.keyspaces.push((*name).to_owned());
            self.visible.push(Rows::default());
            self.durable.push(Rows::default());
        }
        Ok(())
    }

    /// What a crash leaves.
    pub(super) fn restored(&self) -> Self {
        Self { keyspaces: self.keyspaces.clone(), visible: self.durable.clone(), durable: self.durable.clone() }
    }

    pub(super) fn flip(&mut self, keyspace: Keyspace, key: &[u8], bit: usize) -> bool {
        let at = usize::from(keyspace.0);
        let mut was_there = false;
        for rows in [self.durable.get_mut(at), self.visible.get_mut(at)].into_iter().flatten() {
            if let Some(stored) = Arc::make_mut(rows).get_mut(key) {
                log::flip(stored, bit);
                was_there = true;
            }
        }
        was_there
    }

    fn rows(&self, keyspace: Keyspace) -> io::Result<&Rows> {
        self.visible.get(usize::from(keyspace.0)).ok_or_else(no_keyspace)
    }
}

/// A door to one space of one life of a node.
#[derive(Clone)]
pub(super) struct MemorySpace {
    core: Arc<Core>,
    name: String,
}

impl MemorySpace {
    pub(super) fn new(core: Arc<Core>, name: &str) -> Self {
        Self { core, name: name.to_owned() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut SpaceState) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.core.state.lock();
        state.check_alive()?;
        act(space_of(&mut state, &self.name))
    }

    /// Like `with`, for what needs room on the disk; `act` also learns whether the disk lies.
    fn with_disk<T>(&self, act: impl FnOnce(&mut SpaceState, bool) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.core.state.lock();
        state.check_room()?;
        let lies = state.lies;
        act(space_of(&mut state, &self.name), lies)
    }
}

fn space_of<'a>(state: &'a mut State, name: &str) -> &'a mut SpaceState {
    state.spaces.get_mut(name).expect("a space is never removed while its disk exists")
}

impl Space for MemorySpace {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.with(|space| {
            let stored = space.rows(keyspace)?.get(key);
            stored.map(|stored| checked::unwrap(key, stored).map(<[u8]>::to_vec)).transpose()
        })
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.with(|space| {
            let rows = space.rows(keyspace)?;
            if is_empty_range(from, to) {
                return Ok(Vec::new());
            }
            let range = rows.range::<[u8], _>((from, to));
            let read = |(key, stored): (&Vec<u8>, &Vec<u8>)| {
                checked::unwrap(key, stored).map(|value| (key.clone(), value.to_vec()))
            };
            if reverse { range.rev().take(limit).map(read).collect() } else { range.take(limit).map(read).collect() }
        })
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        self.with(|space| {
            for (keyspace, _, _) in &batch.writes {
                space.rows(*keyspace)?;
            }
            for (keyspace, key, value) in batch.writes {
                let rows = Arc::make_mut(&mut space.visible[usize::from(keyspace.0)]);
                match value {
                    Some(value) => {
                        let stored = checked::wrap(&key, &value);
                        rows.insert(key, stored);
                    }
                    None => {
                        rows.remove(&key);
                    }
                }
            }
            Ok(())
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.with_disk(|space, lies| {
            if !lies {
                space.durable = space.visible.clone();
            }
            Ok(())
        })
    }

    fn checkpoint(&self) -> io::Result<Arc<dyn Checkpoint>> {
        self.flush()?;
        let files = self.with(|space| space.keyspaces.iter().zip(&space.visible).map(encode_keyspace).collect())?;
        Ok(Arc::new(MemoryCheckpoint { files }))
    }

    fn install(&self) -> io::Result<Box<dyn Install>> {
        Ok(Box::new(MemoryInstall { space: self.clone(), files: BTreeMap::new() }))
    }

    fn size_bytes(&self) -> u64 {
        let size = |rows: &Rows| rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        self.with(|space| Ok(space.visible.iter().map(size).sum())).unwrap_or(0)
    }
}

/// One keyspace as a file of a checkpoint.
#[derive(Serialize, Deserialize)]
struct KeyspaceFile {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn encode_keyspace((name, rows): (&String, &Rows)) -> io::Result<(String, Vec<u8>)> {
    let mut plain = BTreeMap::new();
    for (key, stored) in rows.iter() {
        plain.insert(key.clone(), checked::unwrap(key, stored)?.to_vec());
    }
    let bytes = postcard::to_stdvec(&KeyspaceFile { rows: plain }).map_err(io::Error::other)?;
    Ok((name.clone(), bytes))
}

fn decode_keyspace(bytes: &[u8]) -> io::Result<Rows> {
    let file: KeyspaceFile = postcard::from_bytes(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("not a keyspace: {error}")))?;
    Ok(Arc::new(file.rows.into_iter().map(|(key, value)| (key.clone(), checked::wrap(&key, &value))).collect()))
}

/// A frozen copy: one file for each keyspace, with its name.
struct MemoryCheckpoint {
    files: BTreeMap<String, Vec<u8>>,
}

impl Checkpoint for MemoryCheckpoint {
    fn files(&self) -> io::Result<Vec<FileMeta>> {
        Ok(self.files.iter().map(|(name, bytes)| describe(name, bytes)).collect())
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(length).min(bytes.len());
        Ok(bytes[from..to].to_vec())
    }
}

fn describe(name: &str, bytes: &[u8]) -> FileMeta {
    FileMeta { name: name.to_owned(), size_bytes: bytes.len() as u64, digest: *blake3::hash(bytes).as_bytes() }
}

struct MemoryInstall {
    space: MemorySpace,
    files: BTreeMap<String, Vec<u8>>,
}

impl Install for MemoryInstall {
    fn has(&mut self, file: &FileMeta) -> io::Result<bool> {
        crate::name::check(&file.name)?;
        let here = self.space.with(|space| {
            let mut all = space.keyspaces.iter().zip(&space.visible);
            all.find(|(name, _)| **name == file.name).map(encode_keyspace).transpose()
        })?;
        let Some((name, bytes)) = here.filter(|(name, bytes)| describe(name, bytes) == *file) else {
            return Ok(false);
        };
        self.files.insert(name, bytes);
        Ok(true)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        crate::name::check(name)?;
        if !self.files.contains_key(name) && self.files.len() >= usize::from(u8::MAX) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many files in a checkpoint"));
        }
        let file = self.files.entry(name.to_owned()).or_default();
        if file.len().saturating_add(bytes.len()) > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a file of the checkpoint is too large"));
        }
        file.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>, files: &[FileMeta]) -> io::Result<()> {
        let here: Vec<FileMeta> = self.files.iter().map(|(name, bytes)| describe(name, bytes)).collect();
        let mut wanted = files.to_vec();
        wanted.sort_by(|a, b| a.name.cmp(&b.name));
        if here != wanted {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the files are not those of the checkpoint"));
        }
        let decoded = self.files.iter().map(|(name, bytes)| Ok((name.as_str(), decode_keyspace(bytes)?)));
        let mut received: BTreeMap<&str, Rows> = decoded.collect::<io::Result<_>>()?;
        self.space.with_disk(|space, lies| {
            if received.keys().any(|name| !space.keyspaces.iter().any(|known| known == name)) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the checkpoint has unknown keyspaces"));
            }
            space.visible =
                space.keyspaces.iter().map(|name| received.remove(name.as_str()).unwrap_or_default()).collect();
            if !lies {
                space.durable = space.visible.clone();
            }
            Ok(())
        })
    }
}

/// Whether nothing can be between the bounds; `BTreeMap::range` panics on some of those.
pub(crate) fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to) | Bound::Included(to)) => from >= to,
    }
}

fn no_keyspace() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the space has no such keyspace")
}
