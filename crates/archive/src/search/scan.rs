//! The table `events`: open events and files, read one after the other, filtered while they are read.

use super::Progress;
use crate::archive::{FileEntry, Snapshot, Tenants};
use crate::layout::Span;
use crate::read::{Batches, Filter, Opened};
use crate::row::{AUDIT, moment, schema};
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue, ToDFSchema as _};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, lit};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use datafusion::prelude::col;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// Events of a snapshot: those that whoever asks may see, whatever the question says.
#[derive(Debug)]
pub(super) struct EventsTable {
    snapshot: Snapshot,
    wanted: Vec<Expr>,
    progress: Arc<Progress>,
}

impl EventsTable {
    pub(super) fn new(mut snapshot: Snapshot, span: Span, audit: &Tenants, progress: Arc<Progress>) -> Self {
        let mut wanted = vec![col("time").gt_eq(at(span.from_ms)), col("time").lt(at(span.to_ms))];
        if let Tenants::Only(names) = audit {
            let of_them = names.iter().map(|name| col("tenant").eq(lit(&**name)));
            wanted.push(of_them.fold(col("source").not_eq(lit(AUDIT)), Expr::or));
        }
        // The newest first: who wants a few rows gets new ones.
        snapshot.files.sort_by_key(|file| std::cmp::Reverse((file.partition.hour, file.name.epoch)));
        Self { snapshot, wanted, progress }
    }
}

fn at(time_ms: u64) -> Expr {
    let time_ms = i64::try_from(time_ms).unwrap_or(i64::MAX);
    lit(ScalarValue::TimestampMillisecond(Some(time_ms), Some("UTC".into())))
}

#[async_trait]
impl TableProvider for EventsTable {
    fn schema(&self) -> SchemaRef {
        schema()
    }
    fn table_type(&self) -> TableType {
        TableType::Base
    }
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        debug_assert_eq!(schema().field(0).data_type(), &moment());
        let all = conjunction(self.wanted.iter().chain(filters).cloned());
        let expr = all.ok_or_else(|| DataFusionError::Internal("a conjunction of two is something".into()))?;
        let expr = state.create_physical_expr(expr, &schema().to_dfschema()?)?;
        let columns = projection.cloned().unwrap_or_else(|| (0..schema().fields().len()).collect());
        let projected = Arc::new(schema().project(&columns)?);
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(projected),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Ok(Arc::new(ScanExec {
            snapshot: self.snapshot.clone(),
            columns,
            filter: Filter::new(expr)?,
            limit,
            progress: Arc::clone(&self.progress),
            properties,
        }))
    }
}

/// Reads the table.
#[derive(Debug)]
struct ScanExec {
    snapshot: Snapshot,
    columns: Vec<usize>,
    filter: Filter,
    limit: Option<usize>,
    progress: Arc<Progress>,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScanExec: {} files", self.snapshot.files.len())
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "ScanExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }
    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }
    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scan = Scan {
            files: self.snapshot.files.iter().cloned().collect(),
            open: self.snapshot.open.iter().cloned().collect(),
            columns: self.columns.clone(),
            filter: self.filter.clone(),
            left: self.limit.unwrap_or(usize::MAX),
            progress: Arc::clone(&self.progress),
            file: None,
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), futures::stream::iter(scan))))
    }
}

/// A file that is being read.
struct Reading {
    opened: Opened,
    groups: VecDeque<usize>,
    batches: Option<Batches>,
}

/// The rows that are wanted, batch by batch.
struct Scan {
    files: VecDeque<Arc<FileEntry>>,
    open: VecDeque<RecordBatch>,
    columns: Vec<usize>,
    filter: Filter,
    left: usize,
    progress: Arc<Progress>,
    /// Holds the entry too, so that the file is not removed meanwhile.
    file: Option<(Arc<FileEntry>, Reading)>,
}

impl Iterator for Scan {
    type Item = Result<RecordBatch>;
    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            if let Err(why) = self.progress.end() {
                return Some(Err(DataFusionError::External(Box::new(why))));
            }
            let batch = match self.step() {
                Ok(Some(batch)) => batch,
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            };
            if batch.num_rows() > 0 {
                let batch = batch.slice(0, batch.num_rows().min(self.left));
                self.left -= batch.num_rows();
                return Some(Ok(batch));
            }
        }
        None
    }
}

impl Scan {
    /// The next batch, which may be empty; `None` at the end.
    fn step(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.open.pop_front() {
            Progress::count(&self.progress.rows_read, batch.num_rows());
            return Ok(Some(self.filter.apply(&batch)?.project(&self.columns)?));
        }
        if self.file.is_none() {
            let Some(entry) = self.files.pop_front() else { return Ok(None) };
            Progress::count(&self.progress.files_done, 1);
            match Opened::open(&entry).and_then(|opened| {
                let groups = opened.groups(Some(&self.filter))?.into();
                Ok(Reading { opened, groups, batches: None })
            }) {
                Ok(reading) => self.file = Some((entry, reading)),
                Err(error) => self.progress.skip(&error),
            }
        }
        let Some((_, reading)) = &mut self.file else { return Ok(Some(self.nothing())) };
        match reading.next(&self.columns, &self.filter, &self.progress) {
            Ok(Some(batch)) => return Ok(Some(batch)),
            Ok(None) => self.file = None,
            Err(error) => {
                if let Some(fault) = self.filter.fault() {
                    return Err(DataFusionError::Execution(fault));
                }
                self.progress.skip(&error);
                self.file = None;
            }
        }
        Ok(Some(self.nothing()))
    }

    fn nothing(&self) -> RecordBatch {
        let empty = RecordBatch::new_empty(schema());
        empty.project(&self.columns).expect("the columns were checked when the plan was made")
    }
}

impl Reading {
    fn next(
        &mut self,
        columns: &[usize],
        filter: &Filter,
        progress: &Progress,
    ) -> std::result::Result<Option<RecordBatch>, crate::ArchiveError> {
        loop {
            if let Some(batch) = self.batches.as_mut().and_then(Iterator::next) {
                return batch.map(|batch| Some(ordered(batch, columns)));
            }
            let Some(group) = self.groups.pop_front() else { return Ok(None) };
            let rows = usize::try_from(self.opened.rows(group)).unwrap_or(usize::MAX);
            Progress::count(&progress.rows_read, rows);
            self.batches = Some(self.opened.read(group, columns, Some(filter))?);
        }
    }
}

/// Files give columns in their own order.
fn ordered(batch: RecordBatch, columns: &[usize]) -> RecordBatch {
    if columns.is_sorted() {
        return batch;
    }
    let rank = |column: &usize| columns.iter().filter(|other| *other < column).count();
    let order: Vec<usize> = columns.iter().map(rank).collect();
    batch.project(&order).expect("each column was read once")
}
