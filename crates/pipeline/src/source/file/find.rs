//! Which files there are: by pattern, and by device and inode beside a path where one was.
//!
//! It opens none of them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most files of one source; more are told and left.
pub(super) const FILES_MAX: usize = 256;
/// Most entries of a folder that are looked at for a renamed file.
const ENTRIES_MAX: usize = 10_000;

/// Files by device and inode; where several paths lead to one, the first in order.
pub(super) fn matching(patterns: &[String]) -> BTreeMap<(u64, u64), PathBuf> {
    let mut found = BTreeMap::new();
    // Patterns were checked when the source was described; folders that cannot be read have no files.
    let paths = patterns.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten().flatten();
    for path in paths.take(ENTRIES_MAX) {
        if let Ok(metadata) = std::fs::metadata(&path)
            && metadata.is_file()
        {
            found.entry((metadata.dev(), metadata.ino())).or_insert(path);
        }
    }
    found
}

/// A file that was renamed within its folder.
pub(super) fn beside(path: &Path, key: (u64, u64)) -> Option<PathBuf> {
    let entries = std::fs::read_dir(path.parent()?).ok()?.take(ENTRIES_MAX);
    entries.flatten().map(|entry| entry.path()).find(|path| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && (metadata.dev(), metadata.ino()) == key)
    })
}
