//! Compaction: small files of an hour become one.
//!
//! What is too large to be put together, or broken, is left as it is and holds up nothing that comes after it.

use crate::ArchiveError;
use crate::archive::{Archive, FileEntry, Written};
use crate::layout::Partition;
use crate::read::Opened;
use crate::row::schema;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use std::sync::Arc;

/// Files of a partition are not put together while more events may come for it.
const SETTLED_MS: u64 = 30 * 60_000;

/// How large what is put together may be; the smallest files come first.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Events; a file with half of them is large enough.
    rows_max: u64,
    /// Memory.
    bytes_max: u64,
}

const SIZE: Size = Size { rows_max: 200_000, bytes_max: 256 << 20 };

impl Archive {
    /// Puts small files of settled partitions together, the oldest first, until nothing is left to do or `goes_on`
    /// says no. What is broken is reported and left out.
    pub fn compact(&self, now_ms: u64, goes_on: impl FnMut() -> bool) -> Result<Written, ArchiveError> {
        self.compact_to(SIZE, now_ms, goes_on)
    }

    fn compact_to(&self, size: Size, now_ms: u64, mut goes_on: impl FnMut() -> bool) -> Result<Written, ArchiveError> {
        let mut written = Written::default();
        for (partition, stray) in self.settled(size, now_ms) {
            while goes_on() {
                let Some(more) = self.merge(size, &partition, stray)? else { break };
                written.add(more);
            }
        }
        Ok(written)
    }

    /// Partitions with small files, strays and others apart.
    fn settled(&self, size: Size, now_ms: u64) -> Vec<(Partition, bool)> {
        let state = self.state.read();
        let settled = state.files.iter().filter(|(partition, _)| partition.span().to_ms + SETTLED_MS <= now_ms);
        let both = settled.flat_map(|(partition, files)| [(partition, files, false), (partition, files, true)]);
        let several = both.filter(|(_, files, stray)| small(size, files, *stray).nth(1).is_some());
        several.map(|(partition, _, stray)| (partition.clone(), stray)).collect()
    }

    /// Puts as many small files of a partition together as fit, the smallest first; `None` where that is not two.
    fn merge(&self, size: Size, partition: &Partition, stray: bool) -> Result<Option<Written>, ArchiveError> {
        let mut files = Vec::new();
        for file in self.small(size, partition, stray) {
            if let Some(bytes) = self.noted(&file, decoded_bytes(&file))? {
                files.push((bytes, file));
            }
        }
        files.sort_by_key(|(bytes, file)| (*bytes, file.name.epoch));
        let (mut rows, mut bytes) = (0_u64, 0_u64);
        files.retain(|(more, file)| {
            rows = rows.saturating_add(file.name.rows);
            bytes = bytes.saturating_add(*more);
            rows <= size.rows_max && bytes <= size.bytes_max
        });
        let (mut batches, mut taken) = (Vec::new(), Vec::new());
        // One file alone is read for nothing.
        for (_, file) in if files.len() > 1 { files } else { Vec::new() } {
            if let Some(read) = self.noted(&file, all_of(&file))? {
                batches.extend(read);
                taken.push(file);
            }
        }
        if taken.len() < 2 {
            return Ok(None);
        }
        let sorted = sort(&batches).map_err(|error| ArchiveError::Broken {
            path: taken[0].path.display().to_string(),
            reason: format!("it cannot be sorted with its neighbours: {error}"),
        })?;
        self.replace(&taken, &[sorted]).map(Some)
    }

    fn small(&self, size: Size, partition: &Partition, stray: bool) -> Vec<Arc<FileEntry>> {
        let broken = self.broken();
        let state = self.state.read();
        let files = state.files.get(partition).into_iter().flat_map(|files| small(size, files, stray));
        files.filter(|file| !broken.contains_key(&file.path)).cloned().collect()
    }

    /// What was read of a file; `None` where the file is broken, which is remembered.
    fn noted<T>(&self, file: &FileEntry, read: Result<T, ArchiveError>) -> Result<Option<T>, ArchiveError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(ArchiveError::Broken { reason, .. }) => {
                self.report_broken(&file.path.display().to_string(), &reason);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn small(size: Size, files: &[Arc<FileEntry>], stray: bool) -> impl Iterator<Item = &Arc<FileEntry>> {
    files.iter().filter(move |file| file.name.stray == stray && file.name.rows < size.rows_max / 2)
}

/// What all rows take in memory; asked of the file once.
fn decoded_bytes(file: &FileEntry) -> Result<u64, ArchiveError> {
    if let Some(known) = file.decoded_bytes.get() {
        return Ok(*known);
    }
    let bytes = Opened::open(file)?.size_bytes();
    Ok(*file.decoded_bytes.get_or_init(|| bytes))
}

fn all_of(file: &FileEntry) -> Result<Vec<RecordBatch>, ArchiveError> {
    let columns: Vec<usize> = (0..schema().fields().len()).collect();
    let opened = Opened::open(file)?;
    let mut batches = Vec::new();
    for group in opened.groups(None)? {
        for batch in opened.read(group, &columns, None)? {
            batches.push(batch?);
        }
    }
    Ok(batches)
}

fn sort(batches: &[RecordBatch]) -> Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    let all = concat_batches(&schema(), batches)?;
    let columns = ["time", "stream", "sequence"].iter().filter_map(|name| all.column_by_name(name));
    let columns: Vec<_> = columns.map(|values| SortColumn { values: Arc::clone(values), options: None }).collect();
    take_record_batch(&all, &lexsort_to_indices(&columns, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::HOUR_MS;
    use crate::row::tests::entry;
    use std::path::Path;

    const NOW_MS: u64 = 1_795_467_600_000;
    const LATER_MS: u64 = NOW_MS + 1_000 * HOUR_MS;

    /// So many files in each of some hours, each with as many events as it says.
    fn hours(root: &Path, hours: &[&[u64]]) -> Archive {
        let archive = Archive::open(root).unwrap();
        let line = format!(r#"{{"message":"{}"}}"#, "x".repeat(2_000));
        let mut sequence = 0;
        for (hour, files) in (0..).zip(hours) {
            for rows in *files {
                for _ in 0..*rows {
                    let event = entry("acme", sequence, NOW_MS + hour * HOUR_MS + sequence, &line);
                    archive.take("events/eu", sequence, Some(event), NOW_MS);
                    sequence += 1;
                }
                archive.roll(NOW_MS).unwrap();
            }
        }
        archive
    }

    /// Rows of the files of each hour, the smallest first.
    fn rows(archive: &Archive) -> Vec<Vec<u64>> {
        let rows = |files: &Vec<Arc<FileEntry>>| {
            let mut rows: Vec<u64> = files.iter().map(|file| file.name.rows).collect();
            rows.sort_unstable();
            rows
        };
        archive.state.read().files.values().map(rows).collect()
    }

    fn damage(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[4..200].fill(0xff);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_does_not_fit_together_holds_up_no_later_hour() {
        let folder = tempfile::tempdir().unwrap();
        let archive = hours(folder.path(), &[&[40, 40], &[10, 10, 10], &[30, 5, 45, 5]]);
        let ten = archive.files().iter().find(|file| file.name.rows == 10).cloned().unwrap();
        // Room for fifty events: two files of forty never fit, and what is left of the last hour does not either.
        let size = Size { rows_max: 1_000, bytes_max: decoded_bytes(&ten).unwrap() * 5 };
        let written = archive.compact_to(size, LATER_MS, || true).unwrap();
        assert_eq!(rows(&archive), [vec![40, 40], vec![30], vec![40, 45]]);
        assert_eq!((written.files, written.rows), (2, 70));
        assert_eq!(archive.compact_to(size, LATER_MS, || true).unwrap(), Written::default());
        // Nothing is done when there is no time for it, or when more events may come.
        let archive = hours(&folder.path().join("other"), &[&[1, 1]]);
        assert_eq!(archive.compact(LATER_MS, || false).unwrap(), Written::default());
        assert_eq!(archive.compact(NOW_MS + HOUR_MS, || true).unwrap(), Written::default());
        assert_eq!(archive.compact(LATER_MS, || true).unwrap().rows, 2);
    }

    #[test]
    fn a_damaged_page_is_reported_and_the_others_are_put_together() {
        let folder = tempfile::tempdir().unwrap();
        let archive = hours(folder.path(), &[&[10, 11, 12], &[10, 10]]);
        let damaged = archive.files().iter().find(|file| file.name.rows == 11).unwrap().path.clone();
        damage(&damaged);
        archive.compact(LATER_MS, || true).unwrap();
        assert_eq!(rows(&archive), [vec![11, 22], vec![20]]);
        assert_eq!(archive.broken().into_keys().collect::<Vec<_>>(), [damaged]);
    }
}
