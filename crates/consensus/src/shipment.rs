//! What a snapshot is made of: a checkpoint here, or files that have arrived from another node.

use crate::options::{SNAPSHOT_BYTES_MAX, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_FILES_MAX, SNAPSHOT_NAME_BYTES_MAX};
use std::fmt;
use std::io;
use std::sync::Arc;
use storage::{Checkpoint, FileMeta, Install};

/// The content of a snapshot. Never holds the state in memory.
pub(crate) enum Shipment {
    /// Frozen on this node's disk.
    Local(Arc<dyn Checkpoint>),
    /// Received from another node, complete but not swapped in yet.
    Received { install: Box<dyn Install>, files: Vec<FileMeta> },
}

impl fmt::Debug for Shipment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local(_) => "Local",
            Self::Received { .. } => "Received",
        })
    }
}

/// Copies a checkpoint of this machine into an install.
pub(crate) fn copy(checkpoint: &dyn Checkpoint, mut install: Box<dyn Install>) -> io::Result<()> {
    let files = checkpoint.files()?;
    for file in &files {
        if install.has(file)? {
            continue;
        }
        let mut offset = 0;
        // An empty file exists too.
        install.append(&file.name, &[])?;
        while offset < file.size_bytes {
            let bytes = checkpoint.read(&file.name, offset, SNAPSHOT_CHUNK_BYTES)?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            install.append(&file.name, &bytes)?;
            offset += bytes.len() as u64;
        }
    }
    install.finish(&files)
}

/// Whether a list of files from another node keeps to our bounds: names without a path, each once.
pub(crate) fn is_acceptable(files: &[FileMeta]) -> bool {
    let mut names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let plain = |name: &str| {
        !name.is_empty()
            && name.len() <= SNAPSHOT_NAME_BYTES_MAX
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    files.len() <= SNAPSHOT_FILES_MAX
        && names.len() == files.len()
        && files.iter().all(|file| plain(&file.name))
        && files
            .iter()
            .try_fold(0u64, |sum, file| sum.checked_add(file.size_bytes))
            .is_some_and(|sum| sum <= SNAPSHOT_BYTES_MAX)
}

/// Runs something that waits for the disk without holding up the other tasks of this thread, where
/// the runtime has other threads. In simulation there is one thread and the disk is memory.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_path_repeated_names_and_huge_files_are_refused() {
        let file = |name: &str, size_bytes| FileMeta { name: name.to_owned(), size_bytes, digest: [0; 32] };
        let check = |files: &[FileMeta], expect| assert_eq!(is_acceptable(files), expect, "{files:?}");
        check(&[file("000012.sst", 5), file("CURRENT", 0), file("MANIFEST-000005", 9)], true);
        check(&[], true);
        check(&[file("../evil", 5)], false);
        check(&[file("/etc/passwd", 5)], false);
        check(&[file("..", 5)], false);
        check(&[file("", 5)], false);
        check(&[file("a", 5), file("a", 6)], false);
        check(&[file("a", u64::MAX), file("b", u64::MAX)], false);
        check(&[file(&"x".repeat(300), 5)], false);
    }
}
