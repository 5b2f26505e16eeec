//! Rows: an event as columns, and columns as the raw event it was made of.
//!
//! Users, addresses and hosts are in lower case, as alerts' entities are, so that a search for one is an equality
//! that bloom filters answer; `fields` and `raw` keep what came.

use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMillisecondBuilder,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use detection::{Event, Owner, Position, RawEvent, SourceKind};
use std::sync::{Arc, LazyLock};

/// An event on its way into the archive.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Whose it is: said by whoever took the event, never by the event.
    pub tenant: Arc<str>,
    /// How its bytes are parsed.
    pub source: SourceKind,
    /// The event.
    pub event: Event,
}

/// How far an event's clock may be ahead of its receipt; beyond it the time of receipt counts, as for the detector.
pub const AHEAD_MAX_MS: u64 = 60_000;

impl Entry {
    /// When the event happened, as far as its clock can be believed.
    pub fn time_ms(&self) -> u64 {
        let (time_ms, received_ms) = (self.event.time_ms, self.event.received_ms);
        if time_ms > received_ms.saturating_add(AHEAD_MAX_MS) { received_ms } else { time_ms }
    }
    /// What files are sorted by: a total order of events with positions.
    pub fn order(&self) -> (u64, &str, u64) {
        let position = self.event.position.as_ref();
        (self.time_ms(), position.map_or("", |at| at.stream.as_ref()), position.map_or(0, |at| at.sequence))
    }
}

/// The columns that bloom filters answer for.
pub(crate) const BLOOM: [&str; 3] = ["user_name", "src_address", "host"];
/// The columns too large and too varied for statistics.
pub(crate) const LARGE: [&str; 3] = ["fields", "raw", "message"];

/// Columns of text, and how an event fills them.
const TEXTS: [(&str, fn(&Entry) -> Option<Text>); 14] = [
    ("tenant", |entry| Some(Text::Kept(Arc::clone(&entry.tenant)))),
    ("stream", |entry| entry.event.position.as_ref().map(|at| Text::Kept(Arc::clone(&at.stream)))),
    ("source", |entry| Some(Text::Made(source_name(entry.source).to_owned()))),
    ("status", |entry| first(entry, &["status"])),
    ("user_name", |entry| lower(entry, &["user.name", "actor.user.name"])),
    ("src_address", |entry| lower(entry, &["src_endpoint.ip", "src_endpoint.name"])),
    ("host", |entry| lower(entry, &["device.hostname"])),
    ("operation", |entry| first(entry, &["api.operation"])),
    ("resource", |entry| first(entry, &["resources.name"])),
    ("product", |entry| entry.event.logsource.product.clone().map(Text::Kept)),
    ("service", |entry| {
        let services = &entry.event.logsource.services;
        (!services.is_empty()).then(|| Text::Made(services.join(",")))
    }),
    ("message", |entry| first(entry, &["message"])),
    ("fields", |entry| serde_json::to_string(&entry.event.fields).ok().map(Text::Made)),
    // Every parser requires UTF-8, so nothing is lost here.
    ("raw", |entry| Some(Text::Made(String::from_utf8_lossy(&entry.event.raw).into_owned()))),
];
/// Columns of numbers.
const NUMBERS: [(&str, fn(&Entry) -> i32); 3] = [
    ("class_uid", |entry| number(entry.event.class_uid)),
    ("activity_id", |entry| number(entry.event.activity_id)),
    ("severity_id", |entry| number(entry.event.severity_id)),
];

enum Text {
    Kept(Arc<str>),
    Made(String),
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        match self {
            Self::Kept(text) => text,
            Self::Made(text) => text,
        }
    }
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn text_of<'a>(entry: &'a Entry, fields: &[&str]) -> Option<&'a str> {
    fields.iter().find_map(|field| entry.event.text(field)).filter(|text| !text.is_empty())
}

fn first(entry: &Entry, fields: &[&str]) -> Option<Text> {
    text_of(entry, fields).map(|text| Text::Made(text.to_owned()))
}

fn lower(entry: &Entry, fields: &[&str]) -> Option<Text> {
    text_of(entry, fields).map(|text| Text::Made(text.to_lowercase()))
}

/// The `source` of entries of an audit log.
pub(crate) const AUDIT: &str = source_name(SourceKind::Audit);

const fn source_name(source: SourceKind) -> &'static str {
    match source {
        SourceKind::Audit => "audit",
        SourceKind::Syslog => "syslog",
        SourceKind::Ndjson => "ndjson",
        SourceKind::Otlp => "otlp",
        SourceKind::Badge => "badge",
        SourceKind::Parsed => "parsed",
        SourceKind::Tuple => "tuple",
    }
}

fn source_of(name: &str) -> Option<SourceKind> {
    use SourceKind::{Audit, Badge, Ndjson, Otlp, Parsed, Syslog, Tuple};
    [Audit, Syslog, Ndjson, Otlp, Badge, Parsed, Tuple].into_iter().find(|kind| source_name(*kind) == name)
}

/// A moment's type: milliseconds, UTC.
pub(crate) fn moment() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = vec![
        Field::new("time", moment(), false),
        Field::new("received", moment(), false),
        Field::new("sequence", DataType::Int64, true),
    ];
    fields.extend(NUMBERS.iter().map(|(name, _)| Field::new(*name, DataType::Int32, false)));
    let always = ["tenant", "source", "fields", "raw"];
    fields.extend(TEXTS.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, !always.contains(name))));
    Arc::new(Schema::new(fields))
});

/// The columns of every file.
pub fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

fn milliseconds(time_ms: u64) -> i64 {
    i64::try_from(time_ms).unwrap_or(i64::MAX)
}

/// Entries as columns, in their order.
pub fn batch<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> RecordBatch {
    let mut time = TimestampMillisecondBuilder::new().with_timezone("UTC");
    let mut received = TimestampMillisecondBuilder::new().with_timezone("UTC");
    let mut sequence = Int64Builder::new();
    for entry in entries.clone() {
        time.append_value(milliseconds(entry.time_ms()));
        received.append_value(milliseconds(entry.event.received_ms));
        sequence.append_option(entry.event.position.as_ref().map(|at| milliseconds(at.sequence)));
    }
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(time.finish()), Arc::new(received.finish()), Arc::new(sequence.finish())];
    for (_, value) in NUMBERS {
        let mut column = Int32Builder::new();
        entries.clone().for_each(|entry| column.append_value(value(entry)));
        columns.push(Arc::new(column.finish()));
    }
    for (_, value) in TEXTS {
        let mut column = StringBuilder::new();
        entries.clone().for_each(|entry| column.append_option(value(entry)));
        columns.push(Arc::new(column.finish()));
    }
    RecordBatch::try_new(schema(), columns).expect("the columns are built from the same lists as the schema")
}

/// The columns that [`raw_events`] needs.
pub(crate) const RAW_COLUMNS: [&str; 7] = ["time", "received", "sequence", "stream", "source", "raw", "tenant"];

/// Whose events are that no tenant brought.
pub const PLATFORM: &str = "platform";

/// An event as it arrived, and when it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    /// As [`Entry::time_ms`].
    pub time_ms: u64,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// What arrived.
    pub raw: RawEvent,
}

impl Arrived {
    /// Whose it is, as live detection knew it.
    pub fn owner(&self) -> Owner<'_> {
        match self.raw.source {
            SourceKind::Audit => Owner::Itself,
            _ if &*self.tenant == PLATFORM => Owner::Nobody,
            _ => Owner::Tenant(&self.tenant),
        }
    }
    /// As [`Entry::order`].
    pub fn order(&self) -> (u64, &str, u64) {
        let position = self.raw.position.as_ref();
        (self.time_ms, position.map_or("", |at| at.stream.as_ref()), position.map_or(0, |at| at.sequence))
    }
}

/// The raw events of a batch that has at least [`RAW_COLUMNS`]; `None` if it has not.
pub fn raw_events(batch: &RecordBatch) -> Option<Vec<Arrived>> {
    let column = |name: &str| batch.column_by_name(name);
    let time = column("time")?.as_primitive_opt::<TimestampMillisecondType>()?;
    let received = column("received")?.as_primitive_opt::<TimestampMillisecondType>()?;
    let sequence = column("sequence")?.as_primitive_opt::<Int64Type>()?;
    let (stream, source) = (column("stream")?.as_string_opt::<i32>()?, column("source")?.as_string_opt::<i32>()?);
    let (raw, tenant) = (column("raw")?.as_string_opt::<i32>()?, column("tenant")?.as_string_opt::<i32>()?);
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut known = |name: &str| match names.iter().find(|known| known.as_ref() == name) {
        Some(known) => Arc::clone(known),
        None => {
            let new: Arc<str> = name.into();
            names.push(Arc::clone(&new));
            new
        }
    };
    (0..batch.num_rows())
        .map(|row| {
            let position = (stream.is_valid(row) && sequence.is_valid(row))
                .then(|| Position { stream: known(stream.value(row)), sequence: sequence.value(row).cast_unsigned() });
            let bytes = bytes::Bytes::copy_from_slice(raw.value(row).as_bytes());
            let received_ms = received.value(row).cast_unsigned();
            let raw = RawEvent { source: source_of(source.value(row))?, received_ms, position, bytes };
            Some(Arrived { time_ms: time.value(row).cast_unsigned(), tenant: known(tenant.value(row)), raw })
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use detection::normalise::normalise;

    pub(crate) fn entry(tenant: &str, sequence: u64, time_ms: u64, line: &str) -> Entry {
        let position = Some(Position { stream: "events/eu".into(), sequence });
        let raw =
            RawEvent { source: SourceKind::Ndjson, received_ms: time_ms + 5, position, bytes: line.to_owned().into() };
        Entry { tenant: tenant.into(), source: raw.source, event: normalise(&raw).unwrap() }
    }

    #[test]
    fn an_event_comes_back_as_it_arrived() {
        let entry = entry("acme", 7, 1_795_467_600_123, r#"{"time":1795467600123,"user":{"name":"Ann"},"ä":"ü"}"#);
        let batch = batch([&entry].into_iter());
        assert_eq!(batch.column_by_name("user_name").unwrap().as_string::<i32>().value(0), "ann");
        let back = raw_events(&batch).unwrap().remove(0);
        assert_eq!(back.order(), entry.order());
        assert_eq!(normalise(&back.raw).unwrap(), entry.event);
    }
}
