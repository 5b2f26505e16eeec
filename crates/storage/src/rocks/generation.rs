//! One database directory of a space. A space has one at a time; installing a checkpoint makes the
//! next one beside it and moves the pointer.

use super::disk::{self, Removal};
use super::error::{OpenError, Part};
use super::options::Shared;
use parking_lot::Mutex;
use rocksdb::{BoundColumnFamily, ColumnFamilyDescriptor, DB};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file in a space's directory that names the directory in use.
const POINTER: &str = "CURRENT";
const PREFIX: &str = "generation-";
/// Directories that do not outlive the process.
pub(super) const CHECKPOINT_PREFIX: &str = "checkpoint-";
/// Bytes read at once when a file is digested.
const READ_BYTES: usize = 256 << 10;

/// An open database. Its directory goes with it when the space has moved on.
pub(super) struct Generation {
    // In this order: the database is closed before its directory is removed.
    pub(super) db: DB,
    pub(super) directory: Removal,
    pub(super) number: u64,
    /// What the files are that never change once they are written.
    digests: Mutex<BTreeMap<(String, u64), [u8; 32]>>,
}

impl Generation {
    /// Opens a directory, which is removed again unless it is kept.
    pub(super) fn open(
        directory: Removal,
        number: u64,
        keyspaces: &[&'static str],
        part: &Part,
        shared: &Shared,
    ) -> Result<Self, OpenError> {
        let options = shared.space();
        let mut names: Vec<String> = vec!["default".to_owned()];
        if directory.path().join("CURRENT").exists() {
            names = DB::list_cf(&options, directory.path()).map_err(|error| OpenError::of(part.clone(), error))?;
        }
        let unknown = names.iter().filter(|name| !keyspaces.contains(&name.as_str()));
        let all = keyspaces.iter().copied().chain(unknown.map(String::as_str));
        let families: Vec<_> = all.map(|name| ColumnFamilyDescriptor::new(name, options.clone())).collect();
        let db = DB::open_cf_descriptors(&options, directory.path(), families)
            .map_err(|error| OpenError::of(part.clone(), error))?;
        Ok(Self { db, directory, number, digests: Mutex::default() })
    }

    pub(super) fn family(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(name).expect("every keyspace was opened")
    }

    /// The digest of a file of this generation, or of a hard link to one.
    pub(super) fn digest(&self, path: &Path, name: &str, size_bytes: u64) -> io::Result<[u8; 32]> {
        if !is_immutable(name) {
            return digest_file(path);
        }
        let key = (name.to_owned(), size_bytes);
        if let Some(known) = self.digests.lock().get(&key) {
            return Ok(*known);
        }
        let digest = digest_file(path)?;
        self.digests.lock().insert(key, digest);
        Ok(digest)
    }

    /// Forgets the digests of files that are no longer there.
    pub(super) fn forget_digests_except(&self, names: &[String]) {
        self.digests.lock().retain(|(name, _), _| names.contains(name));
    }
}

/// Table files are written once, and their numbers are not used again in a directory.
pub(super) fn is_immutable(name: &str) -> bool {
    name.ends_with(".sst")
}

pub(super) fn digest_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = vec![0; READ_BYTES];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            length => hasher.update(&bytes[..length]),
        };
    }
}

pub(super) fn path_of(space: &Path, number: u64) -> PathBuf {
    space.join(format!("{PREFIX}{number:08}"))
}

/// Makes a generation the one in use.
pub(super) fn point_to(space: &Path, number: u64) -> io::Result<()> {
    disk::replace_file(&space.join(POINTER), &format!("{number}\n"))
}

/// The generation in use, or `None` for a new space. Removes what a crash left of others.
pub(super) fn current(space: &Path, part: &Part) -> Result<Option<u64>, OpenError> {
    let damaged = |detail: String| OpenError::Damaged { part: part.clone(), detail };
    let number = match disk::read_small(&space.join(POINTER))? {
        None => None,
        Some(text) => {
            let number = text.strip_suffix('\n').and_then(|number| number.parse::<u64>().ok());
            Some(number.ok_or_else(|| damaged(format!("{POINTER} contains {text:?}")))?)
        }
    };
    let kept = number.map(|number| path_of(space, number));
    if let Some(kept) = &kept
        && !kept.join("CURRENT").exists()
    {
        return Err(damaged(format!("{} is not there or not complete", kept.display())));
    }
    for name in disk::names(space)? {
        let path = space.join(&name);
        let is_ours = name.starts_with(PREFIX) || name.starts_with(CHECKPOINT_PREFIX);
        if !is_ours || Some(&path) == kept.as_ref() {
            continue;
        }
        let has_rows = || disk::names(&path).map(|files| files.iter().any(|file| is_immutable(file)));
        if kept.is_none() && name.starts_with(PREFIX) && has_rows()? {
            return Err(damaged(format!("there is data in {name}, and no {POINTER} beside it")));
        }
        drop(Removal::of(path));
    }
    Ok(number)
}
