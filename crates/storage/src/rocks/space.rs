//! The state of one group: a database without a write-ahead log, which the Raft log stands in for.

use super::checkpoint::RocksCheckpoint;
use super::disk::{self, Removal};
use super::error::{OpenError, Part, io_error};
use super::generation::{self, Generation};
use super::install::RocksInstall;
use super::options::Shared;
use crate::engine::{Batch, Checkpoint, Install, Keyspace, Space};
use parking_lot::{RwLock, RwLockReadGuard};
use rocksdb::{FlushOptions, ReadOptions, WriteBatch, WriteOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most keyspaces one space may have.
pub const KEYSPACES_MAX: usize = 64;

/// A handle of an open space.
#[derive(Clone)]
pub(super) struct RocksSpace(Arc<Core>);

pub(super) struct Core {
    pub(super) directory: PathBuf,
    pub(super) part: Part,
    pub(super) keyspaces: Vec<&'static str>,
    /// Reading and writing hold it shared; only installing a checkpoint excludes them.
    pub(super) generation: RwLock<Generation>,
    /// Behind the database: with the last of these the directory is given up.
    pub(super) shared: Arc<Shared>,
    /// Names of directories: never the same twice in one life.
    next_number: AtomicU64,
}

impl RocksSpace {
    pub(super) fn open(
        directory: PathBuf,
        name: &str,
        keyspaces: &[&'static str],
        shared: Arc<Shared>,
    ) -> Result<Self, OpenError> {
        check_keyspaces(keyspaces)?;
        let part = Part::Space(name.to_owned());
        disk::create_directory(&directory)?;
        let found = generation::current(&directory, &part)?;
        let number = found.unwrap_or(1);
        let removal = Removal::of(generation::path_of(&directory, number));
        if found.is_some() {
            removal.keep();
        }
        let generation = Generation::open(removal, number, keyspaces, &part, &shared)?;
        if found.is_none() {
            generation::point_to(&directory, number)?;
            generation.directory.keep();
        }
        Ok(Self(Arc::new(Core {
            directory,
            part,
            keyspaces: keyspaces.to_vec(),
            shared,
            generation: RwLock::new(generation),
            next_number: AtomicU64::new(number + 1),
        })))
    }

    pub(super) fn keyspaces(&self) -> &[&'static str] {
        &self.0.keyspaces
    }
}

fn check_keyspaces(keyspaces: &[&'static str]) -> io::Result<()> {
    for (number, name) in keyspaces.iter().enumerate() {
        crate::name::check(name)?;
        if *name == "default" || keyspaces[..number].contains(name) || number >= KEYSPACES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} cannot be a keyspace here")));
        }
    }
    Ok(())
}

impl Core {
    fn name_of(&self, keyspace: Keyspace) -> io::Result<&'static str> {
        let name = self.keyspaces.get(usize::from(keyspace.0)).copied();
        name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the space has no such keyspace"))
    }

    /// A directory that no other checkpoint or install of this space uses.
    pub(super) fn fresh_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// An error after which it is unknown what is on disk: the engine stops.
    pub(super) fn strike<T>(&self, doing: &str, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| self.shared.strike(format!("{doing} {}: {error}", self.part)))
    }

    fn flush(&self, generation: &Generation) -> io::Result<()> {
        self.shared.check()?;
        let families: Vec<_> = self.keyspaces.iter().map(|name| generation.family(name)).collect();
        let all: Vec<_> = families.iter().collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.strike("flushing", generation.db.flush_cfs_opt(&all, &options).map_err(io_error))
    }
}

impl Space for RocksSpace {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let name = self.0.name_of(keyspace)?;
        let generation = self.0.generation.read();
        let found = generation.db.get_pinned_cf(&generation.family(name), key).map_err(io_error)?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        keyspace: Keyspace,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let name = self.0.name_of(keyspace)?;
        let (lower, upper) = (lower_bound(from), upper_bound(to));
        let mut found = Vec::new();
        if upper.as_ref().is_some_and(|upper| lower >= *upper) {
            return Ok(found);
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        if let Some(upper) = upper {
            options.set_iterate_upper_bound(upper);
        }
        let generation = self.0.generation.read();
        let mut rows = generation.db.raw_iterator_cf_opt(&generation.family(name), options);
        if reverse {
            rows.seek_to_last()
        } else {
            rows.seek_to_first()
        }
        while found.len() < limit
            && let Some((key, value)) = rows.item()
        {
            found.push((key.to_vec(), value.to_vec()));
            if reverse { rows.prev() } else { rows.next() }
        }
        rows.status().map_err(io_error)?;
        Ok(found)
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        self.0.shared.check()?;
        for (keyspace, _, _) in &batch.writes {
            self.0.name_of(*keyspace)?;
        }
        let generation: RwLockReadGuard<'_, Generation> = self.0.generation.read();
        let families: Vec<_> = self.0.keyspaces.iter().map(|name| generation.family(name)).collect();
        let mut writes = WriteBatch::default();
        for (keyspace, key, value) in &batch.writes {
            let family = &families[usize::from(keyspace.0)];
            match value {
                Some(value) => writes.put_cf(family, key, value),
                None => writes.delete_cf(family, key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.0.strike("writing", generation.db.write_opt(writes, &options).map_err(io_error))
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush(&self.0.generation.read())
    }

    fn checkpoint(&self) -> io::Result<Arc<dyn Checkpoint>> {
        let generation = self.0.generation.read();
        // Also by itself, so that an error of this flush stops the node like that of any other.
        self.0.flush(&generation)?;
        Ok(Arc::new(RocksCheckpoint::of(self.0.clone(), &generation)?))
    }

    fn install(&self) -> io::Result<Box<dyn Install>> {
        self.0.shared.check()?;
        Ok(Box::new(RocksInstall::begin(self.0.clone())?))
    }

    fn size_bytes(&self) -> u64 {
        let generation = self.0.generation.read();
        let size_of = |name: &&'static str| {
            let family = generation.family(name);
            let size = |property| generation.db.property_int_value_cf(&family, property).ok().flatten().unwrap_or(0);
            size("rocksdb.live-sst-files-size") + size("rocksdb.cur-size-all-mem-tables")
        };
        self.0.keyspaces.iter().map(size_of).sum()
    }
}

/// The first key inside.
fn lower_bound(from: Bound<&[u8]>) -> Vec<u8> {
    match from {
        Bound::Unbounded => Vec::new(),
        Bound::Included(key) => key.to_vec(),
        Bound::Excluded(key) => next_key(key),
    }
}

/// The first key behind, if there is an end.
fn upper_bound(to: Bound<&[u8]>) -> Option<Vec<u8>> {
    match to {
        Bound::Unbounded => None,
        Bound::Included(key) => Some(next_key(key)),
        Bound::Excluded(key) => Some(key.to_vec()),
    }
}

fn next_key(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// The path of a space's directory in a node's data directory.
pub(super) fn directory_of(data: &Path, name: &str) -> PathBuf {
    data.join("spaces").join(name)
}
