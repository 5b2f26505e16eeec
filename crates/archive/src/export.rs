//! Files for others: the archive's columns for events that leave, by tenant and hour.
//!
//! Pure: rows in, named bytes out. The same rows make the same names and bytes, so that what is written twice lies
//! there once. Each row has the id of its event, by which a repetition in another file is known.

use crate::ArchiveError;
use crate::layout::{FileName, Partition, is_tenant};
use crate::row::{self, Entry};
use crate::write;
use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// The column that only the archive itself fills as it likes: here it holds the line, where the line may leave.
const RAW: &str = "raw";
/// The column with the event's id.
const UID: &str = "uid";

/// An event that leaves.
#[derive(Clone, Debug)]
pub struct Row {
    /// The event, and whose it is.
    pub entry: Entry,
    /// What arrived, where it is still there.
    pub line: Option<Bytes>,
}

/// A file: where it belongs and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its path, with `/` between its parts.
    pub path: String,
    /// Its bytes.
    pub bytes: Bytes,
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let schema = row::schema();
    let mut fields: Vec<_> = schema.fields().iter().filter(|field| field.name() != RAW).cloned().collect();
    fields.extend([Field::new(UID, DataType::Utf8, false), Field::new(RAW, DataType::Utf8, true)].map(Arc::new));
    Arc::new(Schema::new(fields))
});

/// Whether events of that name can leave: it is the name of a folder.
pub fn is_name(tenant: &str) -> bool {
    is_tenant(tenant)
}

/// Rows as files, one for each tenant and hour, with what arrived or without; those that happened long before their
/// receipt apart.
///
/// # Errors
/// Rows that cannot be written as Parquet.
pub fn objects(rows: &[Row], with_lines: bool) -> Result<Vec<Object>, ArchiveError> {
    let mut partitions: BTreeMap<(Partition, bool), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let place = Partition::of(&row.entry.tenant, row.entry.time_ms(), row.entry.event.received_ms);
        partitions.entry(place).or_default().push(row);
    }
    let made = partitions.into_iter().map(|((partition, stray), mut rows)| {
        rows.sort_by_key(|row| (row.entry.time_ms(), row.entry.event.id));
        object(&partition, stray, &rows, with_lines)
    });
    made.collect()
}

fn object(partition: &Partition, stray: bool, rows: &[&Row], with_lines: bool) -> Result<Object, ArchiveError> {
    let bytes: Bytes = write::file(&partition.tenant, &[batch(rows, with_lines)])?.into();
    let first_ms = rows.first().map_or(0, |row| row.entry.time_ms());
    let (stray, hash) = (if stray { "stray-" } else { "" }, FileName::hash_of(&blake3::hash(&bytes)));
    let name = format!("{stray}{first_ms:013}-{}-{hash}.parquet", rows.len());
    let path = partition.folder(Path::new("")).join(name).to_string_lossy().into_owned();
    Ok(Object { path, bytes })
}

fn batch(rows: &[&Row], with_lines: bool) -> RecordBatch {
    let inner = row::batch(rows.iter().map(|row| &row.entry));
    let (mut uid, mut raw) = (StringBuilder::new(), StringBuilder::new());
    for row in rows {
        uid.append_value(row.entry.event.id.to_string());
        raw.append_option(row.line.as_ref().filter(|_| with_lines).map(|line| String::from_utf8_lossy(line)));
    }
    let named = inner.schema();
    let kept = named.fields().iter().zip(inner.columns()).filter(|(field, _)| field.name() != RAW);
    let mut columns: Vec<ArrayRef> = kept.map(|(_, column)| Arc::clone(column)).collect();
    columns.extend([Arc::new(uid.finish()) as ArrayRef, Arc::new(raw.finish())]);
    RecordBatch::try_new(Arc::clone(&SCHEMA), columns).expect("the columns are built from the same lists as the schema")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::entry;
    use datafusion::arrow::array::{Array as _, AsArray as _};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    const HOUR_MS: u64 = 3_600_000;
    const NOW_MS: u64 = 1_795_467_600_000;

    fn row(tenant: &str, sequence: u64, time_ms: u64) -> Row {
        let line = format!(r#"{{"time":{time_ms},"user":{{"name":"Ann"}},"n":{sequence}}}"#);
        let entry = entry(tenant, sequence, time_ms, &line);
        let line = Some(entry.event.raw.clone());
        Row { entry, line }
    }

    fn read(object: &Object) -> RecordBatch {
        let reader = ParquetRecordBatchReaderBuilder::try_new(object.bytes.clone()).unwrap().build().unwrap();
        reader.map(Result::unwrap).next().unwrap()
    }

    #[test]
    fn each_tenant_and_hour_has_its_file_and_the_same_rows_make_the_same() {
        let mut rows = vec![
            row("acme", 2, NOW_MS + 1),
            row("bolt", 1, NOW_MS),
            row("acme", 1, NOW_MS),
            row("acme", 3, NOW_MS + HOUR_MS),
        ];
        let made = objects(&rows, false).unwrap();
        let folders: Vec<_> = made.iter().map(|object| object.path.rsplit_once('/').unwrap().0).collect();
        assert_eq!(
            folders,
            [
                "tenant=acme/day=2026-11-23/hour=21",
                "tenant=acme/day=2026-11-23/hour=22",
                "tenant=bolt/day=2026-11-23/hour=21"
            ]
        );
        rows.reverse();
        assert_eq!(objects(&rows, false).unwrap(), made);
        let first = read(&made[0]);
        let column = |name: &str| first.column_by_name(name).unwrap().as_string::<i32>().clone();
        assert_eq!((column("user_name").value(0), column("tenant").value(1)), ("ann", "acme"));
        assert_eq!(column("uid").value(0), row("acme", 1, NOW_MS).entry.event.id.to_string());
    }

    #[test]
    fn what_arrived_leaves_only_where_it_may() {
        let rows = [Row { line: None, ..row("acme", 1, NOW_MS) }, row("acme", 2, NOW_MS + 1)];
        for with_lines in [false, true] {
            let batch = read(&objects(&rows, with_lines).unwrap()[0]);
            let raw = batch.column_by_name("raw").unwrap().as_string::<i32>();
            assert!(raw.is_null(0) && raw.is_null(1) != with_lines);
        }
    }
}
