//! Events of a snapshot in the order they happened, read from as few files at once as that takes.

use crate::archive::{FileEntry, Snapshot, Tenants};
use crate::layout::Span;
use crate::read::{Batches, Opened};
use crate::row::{Arrived, RAW_COLUMNS, raw_events, schema};
use crate::search::Progress;
use datafusion::arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::TimestampMillisecondType;
use detection::SourceKind;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

/// Reads the events of a span in order. Broken files are skipped and noted in the progress.
pub struct Merge<'a> {
    span: Span,
    /// Whose entries of an audit log are wanted.
    audit: &'a Tenants,
    progress: &'a Progress,
    /// Files that have not begun yet, by the first moment they may hold, the latest first.
    waiting: Vec<(u64, Arc<FileEntry>)>,
    reading: Vec<Lane>,
    /// The next event of each lane that has one.
    heads: BinaryHeap<Reverse<Head>>,
}

/// The order of an event, and which lane it is the next of.
type Head = ((u64, String, u64), usize);

/// A file or batch that is being read.
#[derive(Default)]
struct Lane {
    /// Keeps the file from being removed.
    _entry: Option<Arc<FileEntry>>,
    /// Whether entries of an audit log are left out.
    no_audit: bool,
    source: Option<(Opened, VecDeque<usize>)>,
    batches: Option<Batches>,
    events: VecDeque<Arrived>,
}

impl<'a> Merge<'a> {
    /// The events of a snapshot that lie in a span.
    pub fn new(snapshot: Snapshot, span: Span, audit: &'a Tenants, progress: &'a Progress) -> Self {
        let mut merge =
            Self { span, audit, progress, waiting: Vec::new(), reading: Vec::new(), heads: BinaryHeap::new() };
        for entry in snapshot.files {
            // Only the footer of a stray says how old its events are.
            let first_ms = if entry.name.stray { first_of(&entry) } else { Some(entry.partition.span().from_ms) };
            merge.waiting.push((first_ms.unwrap_or(0), entry));
        }
        merge.waiting.sort_by_key(|(first_ms, entry)| (Reverse(*first_ms), Reverse(entry.name.epoch)));
        for batch in snapshot.open {
            let events = raw_events(&batch).unwrap_or_default().into();
            // No batch has rows of two tenants.
            let no_audit = tenant_of(&batch).is_none_or(|tenant| !audit.has(tenant));
            merge.add(Lane { events, no_audit, ..Lane::default() });
        }
        merge
    }

    fn add(&mut self, mut lane: Lane) {
        if let Some(head) = self.head(&mut lane) {
            self.heads.push(Reverse((head, self.reading.len())));
            self.reading.push(lane);
        }
    }

    /// The order of a lane's next event in the span, having read on where needed.
    fn head(&self, lane: &mut Lane) -> Option<(u64, String, u64)> {
        loop {
            while let Some(event) = lane.events.front() {
                let is_left_out = lane.no_audit && event.raw.source == SourceKind::Audit;
                if self.span.contains(event.time_ms) && !is_left_out {
                    let (time_ms, stream, sequence) = event.order();
                    return Some((time_ms, stream.to_owned(), sequence));
                }
                lane.events.pop_front();
            }
            if !self.more(lane) {
                return None;
            }
        }
    }

    /// Reads a lane's next batch.
    fn more(&self, lane: &mut Lane) -> bool {
        let Some((opened, groups)) = &mut lane.source else { return false };
        loop {
            let next = match lane.batches.as_mut().and_then(Iterator::next) {
                Some(batch) => batch.map(Some),
                None => match groups.pop_front() {
                    Some(group) => opened.read(group, &columns(), None).map(|batches| {
                        lane.batches = Some(batches);
                        None
                    }),
                    None => return false,
                },
            };
            match next {
                Ok(Some(batch)) => {
                    Progress::count(&self.progress.rows_read, batch.num_rows());
                    lane.events = raw_events(&batch).unwrap_or_default().into();
                    return true;
                }
                Ok(None) => {}
                Err(error) => {
                    self.progress.skip(&error);
                    lane.source = None;
                    return false;
                }
            }
        }
    }

    fn begin(&mut self, entry: Arc<FileEntry>) {
        Progress::count(&self.progress.files_done, 1);
        let opened = Opened::open(&entry).and_then(|opened| Ok((opened.groups(None)?, opened)));
        match opened {
            Ok((groups, opened)) => {
                let source = Some((opened, groups.into()));
                let no_audit = !self.audit.has(&entry.partition.tenant);
                self.add(Lane { _entry: Some(entry), no_audit, source, ..Lane::default() });
            }
            Err(error) => self.progress.skip(&error),
        }
    }
}

fn tenant_of(batch: &RecordBatch) -> Option<&str> {
    let column = batch.column_by_name("tenant")?.as_string_opt::<i32>()?;
    (!column.is_empty()).then(|| column.value(0))
}

fn columns() -> Vec<usize> {
    RAW_COLUMNS.iter().map(|name| schema().index_of(name).expect("a column of the schema")).collect()
}

/// When the first event of a file happened; files are sorted.
fn first_of(entry: &FileEntry) -> Option<u64> {
    let opened = Opened::open(entry).ok()?;
    let time = schema().index_of("time").ok()?;
    let batch = opened.read(*opened.groups(None).ok()?.first()?, &[time], None).ok()?.next()?.ok()?;
    let column = batch.column(0).as_primitive_opt::<TimestampMillisecondType>()?;
    (batch.num_rows() > 0).then(|| column.value(0).cast_unsigned())
}

impl Iterator for Merge<'_> {
    type Item = Arrived;
    fn next(&mut self) -> Option<Arrived> {
        loop {
            let begun_ms = self.heads.peek().map(|Reverse(((time_ms, ..), _))| *time_ms);
            // A file that may hold something earlier or as early is begun first.
            match self.waiting.last() {
                Some((first_ms, _)) if begun_ms.is_none_or(|begun_ms| *first_ms <= begun_ms) => {
                    let (_, entry) = self.waiting.pop()?;
                    self.begin(entry);
                }
                _ => break,
            }
        }
        let Reverse((_, place)) = self.heads.pop()?;
        let mut lane = std::mem::take(&mut self.reading[place]);
        let event = lane.events.pop_front()?;
        if let Some(head) = self.head(&mut lane) {
            self.heads.push(Reverse((head, place)));
            self.reading[place] = lane;
        }
        Some(event)
    }
}
