//! Files: rows in the order they were sorted in, as Parquet bytes. The same rows give the same bytes.

use crate::ArchiveError;
use crate::row::{BLOOM, LARGE, schema};
use datafusion::arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::sync::Arc;

/// Events of one row group: what a statistic or bloom filter can exclude at once.
const GROUP_ROWS: usize = 32_768;
/// Whose events a file holds, in its footer: a file moved to another tenant's folder is refused.
pub(crate) const TENANT_KEY: &str = "holdfast.tenant";
/// How often a bloom filter says yes to what is not there.
const BLOOM_ERROR: f64 = 0.01;
/// Higher levels cost twice the time for a few percent.
const ZSTD_LEVEL: i32 = 3;

fn properties(tenant: &str) -> WriterProperties {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("a level that zstd has");
    let mut properties = WriterProperties::builder()
        .set_created_by("holdfast".into())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_key_value_metadata(Some(vec![KeyValue::new(TENANT_KEY.to_owned(), tenant.to_owned())]));
    for column in LARGE {
        let column = ColumnPath::from(column);
        properties = properties
            // Without a dictionary the sizes in the footer are the sizes in memory, so readers can bound them.
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    for column in BLOOM {
        let column = ColumnPath::from(column);
        properties = properties
            .set_column_bloom_filter_enabled(column.clone(), true)
            .set_column_bloom_filter_fpp(column, BLOOM_ERROR);
    }
    properties.build()
}

/// The bytes of a file of these rows, which all have the same columns.
pub(crate) fn file(tenant: &Arc<str>, rows: &[RecordBatch]) -> Result<Vec<u8>, ArchiveError> {
    let failed = |error: parquet::errors::ParquetError| ArchiveError::Broken {
        path: format!("tenant={tenant}"),
        reason: format!("rows cannot be written: {error}"),
    };
    let columns = rows.first().map_or_else(schema, RecordBatch::schema);
    let mut writer = ArrowWriter::try_new(Vec::new(), columns, Some(properties(tenant))).map_err(failed)?;
    rows.iter().try_for_each(|batch| writer.write(batch)).map_err(failed)?;
    writer.into_inner().map_err(failed)
}
