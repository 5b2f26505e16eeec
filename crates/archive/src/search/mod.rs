//! Searches: a question over the events of some tenants and a span, answered by DataFusion within bounds.
//!
//! A search sees one table, `events`, which is made of the files of the tenants it was asked for and of nothing else:
//! no text of the question can reach another tenant's files, because they are not in its catalogue.

mod ask;
mod functions;
mod scan;
mod session;
mod sql;

use crate::archive::{Archive, Snapshot, Tenants};
use crate::layout::{HOUR_MS, Span};
use crate::{ArchiveError, row};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{DataFrame, SessionContext, col};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use scan::EventsTable;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

pub use ask::parse as parse_query;

/// Bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 16 * 1024;
/// Rows of an answer.
pub const ROWS_MAX: usize = 10_000;
/// Bytes of an answer's rows, as JSON.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Hours that a search for the newest events looks at first; doubled while it finds too few, up to the second.
const STEP_HOURS: (usize, usize) = (1, 48);
/// Skipped files named in one answer, broken and others; there may be more.
const SKIPPED_MAX: usize = 100;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Terms such as `user:ann severity_id>=3 "session opened"`; the newest events that fit.
    Text(String),
    /// One SELECT over the table `events`.
    Sql(String),
}

/// A search.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Whose events.
    pub tenants: Tenants,
    /// Of which of them entries of the audit log too.
    pub audit: Tenants,
    /// Which span of event time.
    pub span: Span,
    /// What of them.
    pub ask: Ask,
    /// Most rows of the answer, up to [`ROWS_MAX`].
    pub rows_max: usize,
}

/// Bounds of one search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory for sorting, grouping and joining. Nothing is spilled to the disk.
    pub memory_bytes: usize,
    /// How long it may take.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, time: Duration::from_secs(15 * 60) }
    }
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// The columns, in order.
    pub columns: Vec<String>,
    /// The rows: objects; what has no value is not there.
    pub rows: Vec<Value>,
    /// Whether there was more than the bounds allow.
    pub truncated: bool,
    /// Bytes of the rows, as JSON: up to [`ANSWER_BYTES_MAX`], and the row after.
    #[serde(skip)]
    pub size_bytes: usize,
}

/// How far a search or hunt is; shared with whoever waits for it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Files it will look at.
    pub files_total: AtomicU64,
    /// Files it has looked at.
    pub files_done: AtomicU64,
    /// Rows it had to read; what statistics and bloom filters exclude is not among them.
    pub rows_read: AtomicU64,
    /// Rows that fit.
    pub rows_matched: AtomicU64,
    cancelled: AtomicBool,
    until: OnceLock<Instant>,
    broken: Mutex<BTreeMap<String, String>>,
    unread: Mutex<BTreeMap<String, String>>,
}

impl Progress {
    /// Has it end at the latest after that time; the first to say so counts.
    pub fn limit(&self, time: Duration) {
        self.until.get_or_init(|| Instant::now() + time);
    }
    /// Why it must not go on. It is asked between batches, so that work which never waits is stopped too.
    pub(crate) fn end(&self) -> Result<(), ArchiveError> {
        if self.is_cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        let is_over = self.until.get().is_some_and(|until| Instant::now() >= *until);
        if is_over { Err(ArchiveError::Timeout) } else { Ok(()) }
    }
    /// Has it end soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
    /// Notes a file that was skipped.
    pub(crate) fn skip(&self, error: &ArchiveError) {
        let (skipped, path, reason) = match error {
            ArchiveError::Broken { path, reason } => (&self.broken, path, reason.clone()),
            ArchiveError::Disk { path, error } => (&self.unread, path, error.to_string()),
            _ => return,
        };
        let mut skipped = skipped.lock();
        if skipped.len() < SKIPPED_MAX {
            skipped.insert(path.clone(), reason);
        }
    }
    /// Files that were skipped, and why: where there are any, the answer may lack events.
    pub fn skipped(&self) -> BTreeMap<String, String> {
        let mut skipped = self.broken.lock().clone();
        skipped.extend(self.unread.lock().clone());
        skipped
    }
    /// Has the archive remember those that will be no better next time.
    pub(crate) fn report(&self, archive: &Archive) {
        for (path, reason) in &*self.broken.lock() {
            archive.report_broken(path, reason);
        }
    }
    pub(crate) fn count(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Answers a question. Blocks the thread until it is answered, cancelled or out of time.
pub fn run(
    archive: &Archive,
    question: &Question,
    limits: Limits,
    progress: &Arc<Progress>,
) -> Result<Answer, ArchiveError> {
    let text = match &question.ask {
        Ask::Text(text) | Ask::Sql(text) => text,
    };
    if text.len() > QUESTION_BYTES_MAX {
        return Err(ArchiveError::Question(format!("longer than {QUESTION_BYTES_MAX} bytes")));
    }
    let snapshot = archive.snapshot(&question.tenants, question.span);
    progress.files_total.store(snapshot.files.len() as u64, Ordering::Relaxed);
    // A thread of its own, so that a heavy question never delays what keeps the cluster together.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| ArchiveError::Disk { path: "a thread".into(), error })?;
    progress.limit(limits.time);
    let answer = runtime.block_on(async {
        match &question.ask {
            Ask::Text(text) => newest(snapshot, question, ask::parse(text)?, limits, progress).await,
            Ask::Sql(text) => selected(snapshot, question, text, limits, progress).await,
        }
    });
    progress.report(archive);
    answer
}

async fn selected(
    snapshot: Snapshot,
    question: &Question,
    text: &str,
    limits: Limits,
    progress: &Arc<Progress>,
) -> Result<Answer, ArchiveError> {
    let table = EventsTable::new(snapshot, question.span, &question.audit, Arc::clone(progress));
    let context = session::context(limits)?;
    let frame = sql::plan(&context, table, text).await?;
    let mut answer = Answer::default();
    collect(frame, question.rows_max.min(ROWS_MAX), limits, &mut answer, progress).await?;
    Ok(answer)
}

/// The newest events that fit: from the newest hours backwards, until there are enough.
async fn newest(
    snapshot: Snapshot,
    question: &Question,
    expr: Option<Expr>,
    limits: Limits,
    progress: &Arc<Progress>,
) -> Result<Answer, ArchiveError> {
    let context = session::context(limits)?;
    let rows_max = question.rows_max.min(ROWS_MAX);
    let mut answer = Answer::default();
    for step in steps(&snapshot, question.span) {
        let (own, others): (Vec<_>, Vec<_>) =
            snapshot.files.iter().cloned().partition(|file| !file.name.stray && file.may_hold(step));
        // A stray may be from any time, so each step asks its statistics again.
        let strays = others.into_iter().filter(|file| file.name.stray);
        let files = own.into_iter().chain(strays).collect();
        let part = Snapshot { files, open: snapshot.open.clone() };
        let table = EventsTable::new(part, step, &question.audit, Arc::clone(progress));
        let mut frame = context.read_table(Arc::new(table)).map_err(|error| refused(error, limits))?;
        if let Some(expr) = expr.clone() {
            frame = frame.filter(expr).map_err(|error| refused(error, limits))?;
        }
        let order =
            vec![col("time").sort(false, false), col("stream").sort(true, false), col("sequence").sort(false, false)];
        let frame = frame.sort(order).map_err(|error| refused(error, limits))?;
        collect(frame, rows_max, limits, &mut answer, progress).await?;
        if answer.truncated {
            break;
        }
    }
    answer.columns = row::schema().fields().iter().map(|field| field.name().clone()).collect();
    answer.rows.iter_mut().for_each(unfold);
    Ok(answer)
}

/// Spans that tile the whole span, the newest first, each of some hours that have files.
fn steps(snapshot: &Snapshot, span: Span) -> Vec<Span> {
    let own = snapshot.files.iter().filter(|file| !file.name.stray);
    let mut hours: Vec<u64> = own.map(|file| file.partition.hour).collect();
    hours.sort_unstable();
    hours.dedup();
    let (mut steps, mut to_ms, mut width) = (Vec::new(), span.to_ms, STEP_HOURS.0);
    while !hours.is_empty() {
        let rest = hours.split_off(hours.len().saturating_sub(width));
        let from_ms = if hours.is_empty() { span.from_ms } else { rest[0].saturating_mul(HOUR_MS) };
        if from_ms < to_ms {
            steps.push(Span { from_ms: from_ms.max(span.from_ms), to_ms });
            to_ms = from_ms;
        }
        width = (width * 2).min(STEP_HOURS.1);
    }
    if to_ms > span.from_ms {
        steps.push(Span { from_ms: span.from_ms, to_ms });
    }
    steps
}

/// The flattened fields as an object instead of a text.
fn unfold(row: &mut Value) {
    let Some(fields) = row.get_mut("fields") else { return };
    if let Some(object) = fields.as_str().and_then(|text| serde_json::from_str(text).ok()) {
        *fields = object;
    }
}

/// Runs a plan and adds its rows, up to the bounds.
async fn collect(
    frame: DataFrame,
    rows_max: usize,
    limits: Limits,
    answer: &mut Answer,
    progress: &Progress,
) -> Result<(), ArchiveError> {
    let refused = |error| refused(error, limits);
    if answer.columns.is_empty() {
        answer.columns = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
    }
    // One more than wanted, to know whether there is more.
    let frame = frame.limit(0, Some(rows_max - answer.rows.len().min(rows_max) + 1)).map_err(refused)?;
    let plan = frame.create_physical_plan();
    let context = Arc::new(session::task(limits)?);
    let plan = plan.await.map_err(refused)?;
    sql::check_joins(plan.as_ref())?;
    let mut stream = datafusion::physical_plan::execute_stream(plan, context).map_err(refused)?;
    while let Some(batch) = stream.try_next().await.map_err(refused)? {
        progress.end()?;
        for line in json(&batch)?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if answer.rows.len() >= rows_max || answer.size_bytes >= ANSWER_BYTES_MAX {
                answer.truncated = true;
                return Ok(());
            }
            answer.size_bytes += line.len();
            let row = serde_json::from_slice(line).map_err(|error| ArchiveError::Question(error.to_string()))?;
            Progress::count(&progress.rows_matched, 1);
            answer.rows.push(row);
        }
    }
    Ok(())
}

fn json(batch: &RecordBatch) -> Result<Vec<u8>, ArchiveError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    let written = writer.write(batch).and_then(|()| writer.finish());
    written.map_err(|error| ArchiveError::Question(format!("the answer has no JSON form: {error}")))?;
    Ok(writer.into_inner())
}

/// What an error of the engine means to whoever asked.
fn refused(error: DataFusionError, limits: Limits) -> ArchiveError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => ArchiveError::Memory(limits.memory_bytes),
        root @ DataFusionError::External(why) => match why.downcast_ref() {
            Some(ArchiveError::Cancelled) => ArchiveError::Cancelled,
            Some(ArchiveError::Timeout) => ArchiveError::Timeout,
            _ => ArchiveError::Question(root.strip_backtrace()),
        },
        root => ArchiveError::Question(root.strip_backtrace()),
    }
}

/// Creates a context whose one table holds nothing: for checking questions.
pub async fn check(ask: &Ask) -> Result<(), ArchiveError> {
    let limits = Limits::default();
    match ask {
        Ask::Text(text) => ask::parse(text).map(|_| ()),
        Ask::Sql(text) => {
            let table = EventsTable::new(Snapshot::default(), Span::ALL, &Tenants::All, Arc::default());
            let context: SessionContext = session::context(limits)?;
            sql::plan(&context, table, text).await.map(|_| ())
        }
    }
}
