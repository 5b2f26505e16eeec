//! What was read of followed files, as it is kept over restarts: JSON with a version, replaced as a whole.
//!
//! Contents of files are never in it, only hashes of a few of their bytes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The version that is written.
const VERSION: u32 = 1;
/// A larger file is none of ours.
const SIZE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// All files of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    version: u32,
    /// When it was first written: streams are named after it, so that no stream is ever used for other files.
    pub(super) born_ms: u64,
    /// The number the next file gets.
    pub(super) next: u64,
    /// Files by number.
    pub(super) files: BTreeMap<u64, Mark>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Where it was last seen.
    pub(super) path: PathBuf,
    /// How long it was then.
    pub(super) size: u64,
    /// Up to where it is durable elsewhere.
    pub(super) place: Place,
}

impl Mark {
    pub(super) fn key(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// A place in a file, and how to tell that it is still the same file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(super) offset: u64,
    /// Lines before it.
    pub(super) lines: u64,
    /// Whether it lies in a line that is too long and is dropped up to its end.
    pub(super) skips: bool,
    /// The file's first bytes.
    pub(super) head: Print,
    /// The bytes just before the place.
    pub(super) tail: Print,
}

/// Some bytes, hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Print {
    pub(super) size: u64,
    hash: String,
}

impl Print {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { size: bytes.len() as u64, hash: hex::encode(&blake3::hash(bytes).as_bytes()[..16]) }
    }
}

impl Checkpoint {
    /// What is kept at a path, or a new one and `true`.
    pub(super) fn load(path: &Path, now_ms: u64) -> io::Result<(Self, bool)> {
        let bytes = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let new = Self { version: VERSION, born_ms: now_ms, next: 0, files: BTreeMap::new() };
                return Ok((new, true));
            }
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > SIZE_BYTES_MAX => Vec::new(),
            Ok(_) => std::fs::read(path)?,
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(found) if found.version == VERSION => Ok((found, false)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a checkpoint of this version: remove it, and all files are read from their beginning",
            )),
        }
    }

    /// Keeps it: the old one or the new one survives a crash, never a part.
    pub(super) fn store(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_kept_is_found_and_rubbish_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/a.checkpoint.json");
        let (mut new, is_new) = Checkpoint::load(&path, 7).unwrap();
        assert!(is_new);
        let place = Place { offset: 3, lines: 1, skips: false, head: Print::of(b"a\nb"), tail: Print::of(b"b") };
        new.files.insert(0, Mark { device: 1, inode: 2, path: "/var/log/a".into(), size: 9, place });
        new.store(&path).unwrap();
        assert_eq!(Checkpoint::load(&path, 8).unwrap(), (new, false));
        std::fs::write(&path, b"{\"version\":1,").unwrap();
        assert!(Checkpoint::load(&path, 8).unwrap_err().to_string().contains("remove it"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("c");
            std::fs::write(&path, &bytes).unwrap();
            let _ = Checkpoint::load(&path, 8);
        }
    }
}
