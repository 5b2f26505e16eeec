//! Writing so that a crash leaves a whole file or none.
//!
//! Bytes go to a temporary name, are synced, get their name, and then the folder is synced.

use crate::ArchiveError;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

/// What unfinished files end in; they are removed at the next start.
pub(crate) const UNFINISHED: &str = ".tmp";

/// Names the file or folder of a failure.
pub(crate) fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> ArchiveError + '_ {
    move |error| ArchiveError::Disk { path: path.display().to_string(), error }
}

/// Writes a whole file into a folder that exists.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = Path::new(&unfinished);
    let mut file = File::create(unfinished).map_err(failed(unfinished))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed(unfinished))?;
    fs::rename(unfinished, path).map_err(failed(path))?;
    sync(path.parent().unwrap_or(path))
}

/// Makes the names in a folder durable.
pub(crate) fn sync(folder: &Path) -> Result<(), ArchiveError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

/// Makes a folder and those above it up to `root`, durably.
pub(crate) fn make_folder(root: &Path, folder: &Path) -> Result<(), ArchiveError> {
    if folder.is_dir() {
        return Ok(());
    }
    if let (Some(above), true) = (folder.parent(), folder != root) {
        make_folder(root, above)?;
        fs::create_dir(folder)
            .or_else(|error| if folder.is_dir() { Ok(()) } else { Err(error) })
            .map_err(failed(folder))?;
        return sync(above);
    }
    fs::create_dir_all(folder).map_err(failed(folder))
}

/// Removes a folder that holds nothing, and those above it that then hold nothing, up to `root`.
pub(crate) fn remove_empty(root: &Path, folder: &Path) {
    let mut folder = folder;
    while folder != root && fs::remove_dir(folder).is_ok() {
        let Some(above) = folder.parent() else { return };
        folder = above;
    }
}
