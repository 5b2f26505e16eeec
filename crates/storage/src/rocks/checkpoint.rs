//! A frozen copy of a space: hard links to its tables and a copy of what names them.

use super::disk::{self, Removal};
use super::error::io_error;
use super::generation::{CHECKPOINT_PREFIX, Generation};
use super::space::Core;
use crate::engine::{Checkpoint, FileMeta};
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Most bytes that one read returns.
pub const READ_BYTES_MAX: usize = 4 << 20;

pub(super) struct RocksCheckpoint {
    space: Arc<Core>,
    directory: Removal,
    generation: u64,
    /// Computed once: nothing in here changes.
    files: Mutex<Option<Vec<FileMeta>>>,
}

impl RocksCheckpoint {
    pub(super) fn of(space: Arc<Core>, generation: &Generation) -> io::Result<Self> {
        let path = space.directory.join(format!("{CHECKPOINT_PREFIX}{:08}", space.fresh_number()));
        let maker = rocksdb::checkpoint::Checkpoint::new(&generation.db).map_err(io_error)?;
        maker.create_checkpoint(&path).map_err(io_error)?;
        Ok(Self { directory: Removal::of(path), generation: generation.number, files: Mutex::new(None), space })
    }

    fn describe(&self, name: String) -> io::Result<FileMeta> {
        let path = self.directory.path().join(&name);
        let size_bytes = fs::metadata(&path)?.len();
        let generation = self.space.generation.read();
        let digest = if generation.number == self.generation {
            generation.digest(&path, &name, size_bytes)?
        } else {
            super::generation::digest_file(&path)?
        };
        Ok(FileMeta { name, size_bytes, digest })
    }
}

impl Checkpoint for RocksCheckpoint {
    fn files(&self) -> io::Result<Vec<FileMeta>> {
        let mut known = self.files.lock();
        if let Some(files) = &*known {
            return Ok(files.clone());
        }
        let names = disk::names(self.directory.path())?;
        self.space.generation.read().forget_digests_except(&names);
        let files = names.into_iter().map(|name| self.describe(name)).collect::<io::Result<Vec<_>>>()?;
        *known = Some(files.clone());
        Ok(files)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        crate::name::check(name)?;
        let file = File::open(self.directory.path().join(name))?;
        let left = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left).min(READ_BYTES_MAX)];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}
