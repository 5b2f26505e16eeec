//! Receiving a checkpoint into a new directory beside the one in use, and moving over to it.

use super::disk::{self, Removal};
use super::generation::{self, Generation};
use super::space::Core;
use crate::engine::{FileMeta, Install};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::Arc;

/// Most files that a checkpoint may have.
pub const FILES_MAX: usize = 1 << 16;

pub(super) struct RocksInstall {
    space: Arc<Core>,
    number: u64,
    directory: Removal,
    files: BTreeMap<String, Received>,
    /// The file that grows: they usually come one after the other.
    open: Option<(String, File)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Received {
    /// A link to a file of the generation in use: writing to it would change that one.
    Linked,
    Written,
}

impl RocksInstall {
    pub(super) fn begin(space: Arc<Core>) -> io::Result<Self> {
        let number = space.fresh_number();
        let path = generation::path_of(&space.directory, number);
        fs::create_dir(&path)?;
        Ok(Self { space, number, directory: Removal::of(path), files: BTreeMap::new(), open: None })
    }

    fn check(&self, files: &[FileMeta]) -> io::Result<()> {
        let mut wanted: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        wanted.sort_unstable();
        if !wanted.iter().eq(self.files.keys()) {
            return Err(invalid("the files received are not those of the checkpoint".into()));
        }
        for file in files {
            let path = self.directory.path().join(&file.name);
            let size_bytes = fs::metadata(&path)?.len();
            if size_bytes != file.size_bytes || generation::digest_file(&path)? != file.digest {
                return Err(invalid(format!("{} arrived with another content", file.name)));
            }
            File::open(&path)?.sync_all()?;
        }
        disk::sync_directory(self.directory.path())
    }
}

impl Install for RocksInstall {
    fn has(&mut self, file: &FileMeta) -> io::Result<bool> {
        crate::name::check(&file.name)?;
        if !generation::is_immutable(&file.name) || self.files.contains_key(&file.name) {
            return Ok(false);
        }
        let link = self.directory.path().join(&file.name);
        let generation = self.space.generation.read();
        let here = generation.directory.path().join(&file.name);
        if fs::metadata(&here).map_or(0, |found| found.len()) != file.size_bytes || fs::hard_link(&here, &link).is_err()
        {
            return Ok(false);
        }
        // Through the link: compaction may have removed the original in the meantime.
        if generation.digest(&link, &file.name, file.size_bytes)? == file.digest {
            self.files.insert(file.name.clone(), Received::Linked);
            return Ok(true);
        }
        fs::remove_file(&link)?;
        Ok(false)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        crate::name::check(name)?;
        if self.files.get(name) == Some(&Received::Linked) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is here already")));
        }
        if self.files.len() >= FILES_MAX && !self.files.contains_key(name) {
            return Err(invalid("the checkpoint has too many files".into()));
        }
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let file = File::options().create(true).append(true).open(self.directory.path().join(name))?;
            self.open = Some((name.to_owned(), file));
            self.files.insert(name.to_owned(), Received::Written);
        }
        let (_, file) = self.open.as_mut().expect("it was opened above");
        file.write_all(bytes)
    }

    fn finish(mut self: Box<Self>, files: &[FileMeta]) -> io::Result<()> {
        self.open = None;
        self.check(files)?;
        let Self { space, number, directory, .. } = *self;
        let fresh = Generation::open(directory, number, &space.keyspaces, &space.part, &space.shared)
            .map_err(|error| invalid(format!("the checkpoint does not open: {error}")))?;
        disk::sync_directory(&space.directory)?;
        space.shared.check()?;
        let mut generation = space.generation.write();
        // If this fails, nobody knows which of the two a restart would find.
        space.strike("moving to a checkpoint of", generation::point_to(&space.directory, number))?;
        fresh.directory.keep();
        generation.directory.remove_later();
        let old = std::mem::replace(&mut *generation, fresh);
        drop(generation);
        drop(old);
        Ok(())
    }
}

fn invalid(detail: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}
