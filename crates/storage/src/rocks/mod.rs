//! The engine of a node that serves: RocksDB under a data directory.
//!
//! `FORMAT` and `LOCK`, the shared log in `log/`, each space in `spaces/NAME/`. It never goes on
//! with data that lost something which was acknowledged: it says so, and others decide.

mod checkpoint;
mod disk;
mod error;
mod generation;
mod install;
mod log;
mod options;
mod space;
mod wal;

pub use checkpoint::READ_BYTES_MAX;
pub use error::{OpenError, Part};
pub use install::FILES_MAX;
pub use log::{BATCH_BYTES_MAX, QUEUE_BYTES_MAX, QUEUE_LENGTH_MAX};
pub use options::{OnFatal, Options};
pub use space::KEYSPACES_MAX;

use crate::engine::{Engine, Log, Space};
use log::RocksLog;
use options::Shared;
use parking_lot::Mutex;
use space::RocksSpace;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the directory contains and how; another number for every change that old programs must
/// not meet.
const FORMAT: &str = "holdfast-storage 1\n";

/// One node's disks.
pub struct RocksEngine {
    directory: PathBuf,
    shared: Arc<Shared>,
    log: Arc<RocksLog>,
    spaces: Mutex<BTreeMap<String, RocksSpace>>,
}

impl RocksEngine {
    /// Opens or creates a data directory and its log. What an interrupted write left at the end of
    /// the log is cut off; damage anywhere else is an error.
    pub fn open(directory: impl Into<PathBuf>, options: Options) -> Result<Self, OpenError> {
        let directory = directory.into();
        disk::create_directory(&directory)?;
        let lock = lock(&directory)?;
        let is_new = check_format(&directory)?;
        let log_directory = directory.join("log");
        if !is_new && !log_directory.join("CURRENT").exists() {
            let detail = format!("{} is not there or not complete", log_directory.display());
            return Err(OpenError::Damaged { part: Part::Log, detail });
        }
        disk::create_directory(&log_directory)?;
        disk::create_directory(&directory.join("spaces"))?;
        let shared = Arc::new(Shared::new(options, lock));
        let log = Arc::new(RocksLog::open(&log_directory, shared.clone())?);
        if is_new {
            disk::replace_file(&directory.join("FORMAT"), FORMAT)?;
        }
        Ok(Self { directory, shared, log, spaces: Mutex::default() })
    }

    /// Like [`Engine::space`], with an error that says what is damaged.
    pub fn open_space(&self, name: &str, keyspaces: &[&'static str]) -> Result<Arc<dyn Space>, OpenError> {
        crate::name::check(name)?;
        let mut spaces = self.spaces.lock();
        if let Some(open) = spaces.get(name) {
            if open.keyspaces() != keyspaces {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the space is open with others").into());
            }
            return Ok(Arc::new(open.clone()));
        }
        let directory = space::directory_of(&self.directory, name);
        let space = RocksSpace::open(directory, name, keyspaces, self.shared.clone())?;
        spaces.insert(name.to_owned(), space.clone());
        Ok(Arc::new(space))
    }
}

impl Engine for RocksEngine {
    fn log(&self) -> Arc<dyn Log> {
        self.log.clone()
    }

    fn space(&self, name: &str, keyspaces: &[&'static str]) -> io::Result<Arc<dyn Space>> {
        Ok(self.open_space(name, keyspaces)?)
    }
}

/// Moves a damaged part out of the way, for later inspection, and returns where to. The engine
/// must not be open.
///
/// Without its log a node must come back as a new member: whatever it had voted for is forgotten.
pub fn set_aside(directory: &Path, part: &Part) -> Result<PathBuf, OpenError> {
    let lock = lock(directory)?;
    let (from, name) = match part {
        Part::Log => (directory.join("log"), "log".to_owned()),
        Part::Space(name) => {
            crate::name::check(name)?;
            (space::directory_of(directory, name), format!("space-{name}"))
        }
    };
    let aside = directory.join("damaged");
    disk::create_directory(&aside)?;
    let taken = disk::names(&aside)?.len();
    let to = aside.join(format!("{name}-{taken}"));
    fs::rename(&from, &to)?;
    disk::sync_directory(&aside)?;
    disk::sync_directory(from.parent().expect("it is inside the data directory"))?;
    if *part == Part::Log {
        // The next opening makes a new log instead of missing the old one.
        fs::remove_file(directory.join("FORMAT"))?;
        disk::sync_directory(directory)?;
    }
    drop(lock);
    Ok(to)
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let file = File::options().create(true).truncate(false).write(true).open(directory.join("LOCK"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Whether the directory is new; an error if another version wrote it.
fn check_format(directory: &Path) -> Result<bool, OpenError> {
    match disk::read_small(&directory.join("FORMAT"))? {
        None => Ok(true),
        Some(found) if found == FORMAT => Ok(false),
        Some(found) => Err(OpenError::Format { found, expected: FORMAT }),
    }
}

#[cfg(test)]
mod tests;
