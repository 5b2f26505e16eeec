//! One drill at a time on a machine: two would measure each other.

use anyhow::{Context as _, Result};
use std::fs::{File, TryLockError};

/// Held while a drill runs; given back when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub struct MachineLock {
    _file: File,
}

impl MachineLock {
    /// Takes the lock, or waits for the drill that has it.
    pub fn take() -> Result<Self> {
        let path = std::env::temp_dir().join("holdfast-drill.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("{}: cannot be opened", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("another drill runs on this machine; waiting for it to end");
                file.lock().with_context(|| format!("{}: cannot be locked", path.display()))?;
            }
            Err(TryLockError::Error(error)) => return Err(error).context("the lock of drills cannot be taken"),
        }
        Ok(Self { _file: file })
    }
}
