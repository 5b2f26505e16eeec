//! Reading files: what cannot hold an answer is left out by statistics and bloom filters, and a broken file is an
//! error of its own, whatever its bytes are.

use crate::ArchiveError;
use crate::archive::FileEntry;
use crate::descriptor::Descriptor;
use crate::disk::failed;
use crate::row::schema;
use crate::write::TENANT_KEY;
use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use datafusion::arrow::error::ArrowError;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::bloom_filter::Sbbf;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Most rows of a batch.
const BATCH_ROWS_MAX: usize = 8192;
/// What a batch should take at most in memory.
const BATCH_BYTES: usize = 16 << 20;
/// Rows of a batch even where rows are large.
const BATCH_ROWS_MIN: usize = 16;

/// Which rows of files are wanted, prepared once for all of them.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    expr: Arc<dyn PhysicalExpr>,
    columns: Vec<usize>,
    narrowed: Arc<dyn PhysicalExpr>,
    pruning: Option<Arc<PruningPredicate>>,
    fault: Arc<Mutex<Option<String>>>,
}

impl Filter {
    /// The filter of an expression over the archive's columns.
    pub(crate) fn new(expr: Arc<dyn PhysicalExpr>) -> datafusion::error::Result<Self> {
        let mut columns: Vec<usize> = collect_columns(&expr).iter().map(|column| column.index()).collect();
        columns.sort_unstable();
        let narrow = Arc::new(schema().project(&columns)?);
        let narrowed = reassign_expr_columns(Arc::clone(&expr), &narrow)?;
        // An expression that says nothing about statistics is judged row by row.
        let pruning = PruningPredicateBuilder::new().with_file_schema(schema()).try_build(Arc::clone(&expr)).ok();
        let pruning = pruning.filter(|pruning| !pruning.always_true()).map(Arc::new);
        Ok(Self { expr, columns, narrowed, pruning, fault: Arc::default() })
    }

    /// Why the filter itself could not be judged, such as a division by zero: that is no fault of the file.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().take()
    }

    /// The rows of a batch with all columns that are wanted.
    pub(crate) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        datafusion::arrow::compute::filter_record_batch(batch, &judge(&self.expr, batch)?)
    }
}

fn judge(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
    let wrong = |error: datafusion::error::DataFusionError| ArrowError::ExternalError(Box::new(error));
    let column = expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows())).map_err(wrong)?;
    let column = column.as_any().downcast_ref::<BooleanArray>().cloned();
    column.ok_or_else(|| ArrowError::InvalidArgumentError("a filter that is no condition".into()))
}

/// An open file.
pub(crate) struct Opened {
    file: Descriptor,
    metadata: ArrowReaderMetadata,
    name: String,
}

/// Whatever a broken file makes the reader do, the caller gets an error with its name.
fn guarded<T, E: std::fmt::Display>(name: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, ArchiveError> {
    let broken = |reason: String| ArchiveError::Broken { path: name.to_owned(), reason };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(broken(error.to_string())),
        Err(_) => Err(broken("its bytes make no sense".into())),
    }
}

impl Opened {
    /// Opens a file and reads its footer.
    pub(crate) fn open(entry: &FileEntry) -> Result<Self, ArchiveError> {
        let name = entry.path.display().to_string();
        let file = Descriptor::open(&entry.path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => ArchiveError::Broken { path: name.clone(), reason: "it is not there".into() },
            _ => failed(&entry.path)(error),
        })?;
        let metadata = guarded(&name, || ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()))?;
        let broken = |reason: &str| Err(ArchiveError::Broken { path: name.clone(), reason: reason.into() });
        let footer = metadata.metadata().file_metadata();
        let pairs = footer.key_value_metadata().into_iter().flatten();
        let tenant = pairs.filter(|pair| pair.key == TENANT_KEY).find_map(|pair| pair.value.as_deref());
        if tenant != Some(entry.partition.tenant.as_ref()) {
            return broken("its footer names another tenant than its folder");
        }
        if metadata.schema().fields() != schema().fields() {
            return broken("it has other columns than this program writes");
        }
        if u64::try_from(footer.num_rows()) != Ok(entry.name.rows) {
            return broken("its footer and its name say different numbers of events");
        }
        Ok(Self { file, metadata, name })
    }

    /// The row groups that may hold wanted rows.
    pub(crate) fn groups(&self, filter: Option<&Filter>) -> Result<Vec<usize>, ArchiveError> {
        let all = 0..self.metadata.metadata().num_row_groups();
        let Some(pruning) = filter.and_then(|filter| filter.pruning.as_ref()) else { return Ok(all.collect()) };
        let kept = guarded(&self.name, || pruning.prune(&Statistics { opened: self }))?;
        Ok(all.zip(kept).filter_map(|(group, kept)| kept.then_some(group)).collect())
    }

    /// The number of rows of a row group.
    pub(crate) fn rows(&self, group: usize) -> u64 {
        u64::try_from(self.metadata.metadata().row_group(group).num_rows()).unwrap_or(0)
    }

    /// What all rows take in memory, about.
    pub(crate) fn size_bytes(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups();
        groups.iter().map(|group| u64::try_from(group.total_byte_size()).unwrap_or(u64::MAX)).sum()
    }

    fn builder(&self) -> ParquetRecordBatchReaderBuilder<Descriptor> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
    }

    /// Reads some columns of the wanted rows of one row group.
    pub(crate) fn read(
        &self,
        group: usize,
        columns: &[usize],
        filter: Option<&Filter>,
    ) -> Result<Batches, ArchiveError> {
        let group_metadata = self.metadata.metadata().row_group(group);
        let size_bytes = usize::try_from(group_metadata.total_byte_size()).unwrap_or(usize::MAX);
        let row_bytes = (size_bytes / usize::try_from(group_metadata.num_rows()).unwrap_or(0).max(1)).max(1);
        let parquet = self.metadata.parquet_schema();
        let mut builder = self
            .builder()
            .with_row_groups(vec![group])
            .with_batch_size((BATCH_BYTES / row_bytes).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX))
            .with_projection(ProjectionMask::roots(parquet, columns.iter().copied()));
        if let Some(filter) = filter {
            let (expr, fault) = (Arc::clone(&filter.narrowed), Arc::clone(&filter.fault));
            let mask = ProjectionMask::roots(parquet, filter.columns.iter().copied());
            let predicate = ArrowPredicateFn::new(mask, move |batch| {
                judge(&expr, &batch).inspect_err(|error| *fault.lock() = Some(error.to_string()))
            });
            builder = builder.with_row_filter(RowFilter::new(vec![Box::new(predicate)]));
        }
        let reader = guarded(&self.name, || builder.build())?;
        Ok(Batches { name: self.name.clone(), reader })
    }
}

/// The batches of a row group.
pub(crate) struct Batches {
    name: String,
    reader: ParquetRecordBatchReader,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArchiveError>;
    fn next(&mut self) -> Option<Self::Item> {
        guarded(&self.name, || self.reader.next().transpose()).transpose()
    }
}

/// What the footer says of each row group.
struct Statistics<'a> {
    opened: &'a Opened,
}

impl Statistics<'_> {
    fn of(&self, column: &Column, get: impl FnOnce(&StatisticsConverter<'_>) -> Option<ArrayRef>) -> Option<ArrayRef> {
        let metadata = &self.opened.metadata;
        let converter =
            StatisticsConverter::try_new(&column.name, metadata.schema(), metadata.parquet_schema()).ok()?;
        get(&converter)
    }
    fn bloom(&self, group: usize, column: usize) -> Option<Sbbf> {
        self.opened.builder().get_row_group_column_bloom_filter(group, column).ok()?
    }
}

impl PruningStatistics for Statistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        let groups = self.opened.metadata.metadata().row_groups();
        self.of(column, |converter| converter.row_group_mins(groups).ok())
    }
    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        let groups = self.opened.metadata.metadata().row_groups();
        self.of(column, |converter| converter.row_group_maxes(groups).ok())
    }
    fn num_containers(&self) -> usize {
        self.opened.metadata.metadata().num_row_groups()
    }
    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let groups = self.opened.metadata.metadata().row_groups();
        self.of(column, |converter| converter.row_group_null_counts(groups).ok().map(|counts| Arc::new(counts) as _))
    }
    fn row_counts(&self) -> Option<ArrayRef> {
        let groups = (0..self.num_containers()).map(|group| self.opened.rows(group));
        Some(Arc::new(groups.collect::<UInt64Array>()))
    }
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let index = schema().index_of(&column.name).ok()?;
        let has = |filter: &Sbbf, value: &ScalarValue| match value.try_as_str() {
            Some(Some(text)) => filter.check(text),
            _ => true,
        };
        let judge = |group| {
            let filter = self.bloom(group, index)?;
            (!values.iter().any(|value| has(&filter, value))).then_some(false)
        };
        Some((0..self.num_containers()).map(judge).collect())
    }
}
