//! Checks every file against its name and footer, without a node: for disks that are not trusted.

use crate::archive::{Archive, FileEntry};
use crate::layout::FileName;
use crate::read::Opened;
use crate::{ArchiveError, row};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files looked at.
    pub files: u64,
    /// Events in whole files.
    pub rows: u64,
    /// Bytes of all files.
    pub size_bytes: u64,
    /// Broken files, and why they are.
    pub broken: BTreeMap<String, String>,
}

/// Reads every file of an archive whole; `going_on` is told how many were read, and may end it.
pub fn check(root: &Path, going_on: impl Fn(u64) -> bool) -> Report {
    let mut report = Report::default();
    let archive = match Archive::look(root) {
        Ok(files) => files,
        Err(error) => {
            report.broken.insert(root.display().to_string(), error.to_string());
            return report;
        }
    };
    for entry in archive {
        if !going_on(report.files) {
            break;
        }
        report.files += 1;
        report.size_bytes += entry.size_bytes;
        match whole(&entry) {
            Ok(()) => report.rows += entry.name.rows,
            Err(error) => {
                let reason = match error {
                    ArchiveError::Broken { reason, .. } => reason,
                    other => other.to_string(),
                };
                report.broken.insert(entry.path.display().to_string(), reason);
            }
        }
    }
    report
}

/// The file is what was written, and every event in it can be read.
fn whole(entry: &FileEntry) -> Result<(), ArchiveError> {
    let path = || entry.path.display().to_string();
    let bytes = std::fs::read(&entry.path).map_err(crate::disk::failed(&entry.path))?;
    if FileName::hash_of(&blake3::hash(&bytes)) != entry.name.hash {
        return Err(ArchiveError::Broken {
            path: path(),
            reason: "its bytes are not those its name was made of".into(),
        });
    }
    let opened = Opened::open(entry)?;
    let columns: Vec<usize> = (0..row::schema().fields().len()).collect();
    let mut rows = 0;
    for group in opened.groups(None)? {
        for batch in opened.read(group, &columns, None)? {
            rows += batch?.num_rows() as u64;
        }
    }
    if rows == entry.name.rows {
        return Ok(());
    }
    Err(ArchiveError::Broken { path: path(), reason: format!("{rows} events instead of {}", entry.name.rows) })
}
