//! The few things done to files directly: durable small files, durable directories, removal.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes the entries of a directory durable.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a directory and makes its existence durable.
pub(super) fn create_directory(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    dir.parent().map_or(Ok(()), sync_directory)
}

/// Replaces a small file at once: after a crash it has the old content or the new one.
pub(super) fn replace_file(path: &Path, content: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_directory(path.parent().expect("a file is in a directory"))
}

/// A small file's content, or `None` if there is no such file.
pub(super) fn read_small(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of a directory's entries, in order; those that are not UTF-8 are none of ours.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// A directory that goes when this is dropped, unless it is kept.
pub(super) struct Removal {
    path: PathBuf,
    is_armed: AtomicBool,
}

impl Removal {
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path, is_armed: AtomicBool::new(true) }
    }
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
    pub(super) fn keep(&self) {
        self.is_armed.store(false, Ordering::Relaxed);
    }
    pub(super) fn remove_later(&self) {
        self.is_armed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if !self.is_armed.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            // The next opening of the space removes it.
            tracing::warn!(path = %self.path.display(), %error, "a directory could not be removed");
        }
    }
}
