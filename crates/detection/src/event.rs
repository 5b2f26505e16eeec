//! Events: raw as they arrived, and normalised to OCSF with their fields flattened.
//!
//! Pure data; it reads no clock.

use crate::id::{Digest, EventId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most bytes of one raw event; longer ones are rejected.
pub const RAW_SIZE_BYTES_MAX: usize = 256 * 1024;
/// Most flattened fields of one event; an event with more is rejected.
pub const FIELDS_MAX: usize = 512;

/// Most bytes of a flattened field's name: a long name before many values would be repeated for each of them.
pub const NAME_BYTES_MAX: usize = 512;

/// The field that holds the host that wrote an event.
pub const HOST_FIELD: &str = "device.hostname";

/// What kind of source a raw event came from: it says how to parse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// The platform's own audit stream: JSON of an audit event.
    Audit,
    /// Syslog lines, RFC 5424 or RFC 3164.
    Syslog,
    /// One JSON object a line.
    Ndjson,
    /// An OpenTelemetry log record with its resource and scope, as one JSON object.
    Otlp,
    /// A use of a badge at a door, as one JSON object.
    Badge,
    /// What a pipeline made of an event: a flat JSON object with OCSF's names and its log source.
    Parsed,
    /// What of an event travelled to correlations that look across regions: a [`crate::Tuple`].
    Tuple,
}

/// Where an event lies in its source, so that a redelivered event is recognised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The source partition, unique over restarts unless its sequence is.
    pub stream: Arc<str>,
    /// The place in it.
    pub sequence: u64,
}

/// An event as it arrived, before it is parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawEvent {
    /// How to parse it.
    pub source: SourceKind,
    /// When it was received, in milliseconds since 1970.
    pub received_ms: u64,
    /// Its stream and place; `None` where the source has none: then its content identifies it.
    pub position: Option<Position>,
    /// The bytes, without framing.
    pub bytes: Bytes,
}

impl RawEvent {
    /// Its id: of stream and position, or of its content.
    pub fn id(&self) -> EventId {
        let mut hash = Digest::new("holdfast event 1");
        match &self.position {
            Some(position) => hash.part(position.stream.as_bytes()).part(&position.sequence.to_le_bytes()),
            None => hash.part(&[self.source as u8]).part(&self.bytes),
        };
        EventId::of(hash)
    }
}

/// Whose an event is, as whoever brought it was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner<'a> {
    /// The event says so itself: the platform's own do.
    #[default]
    Itself,
    /// No tenant's: what the event says of one is not believed.
    Nobody,
    /// A tenant's, whatever the event says.
    Tenant(&'a str),
}

/// A raw event that could not be parsed: a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// How it would have been parsed.
    pub source: SourceKind,
    /// When it was received.
    pub received_ms: u64,
    /// Its stream and place, where known.
    pub position: Option<Position>,
    /// Why it was rejected.
    pub reason: RejectReason,
    /// The beginning of its bytes, at most [`REJECT_SAMPLE_BYTES_MAX`].
    pub sample: Bytes,
}

/// Most bytes of a rejected event that its dead letter keeps.
pub const REJECT_SAMPLE_BYTES_MAX: usize = 512;

impl Reject {
    /// The dead letter of a raw event.
    pub fn of(raw: &RawEvent, reason: RejectReason) -> Self {
        Self {
            source: raw.source,
            received_ms: raw.received_ms,
            position: raw.position.clone(),
            reason,
            sample: raw.bytes.slice(..raw.bytes.len().min(REJECT_SAMPLE_BYTES_MAX)),
        }
    }
}

/// Why a raw event was rejected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// Nothing but white space.
    #[error("the line is empty")]
    Empty,
    /// Larger than allowed.
    #[error("larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit it broke.
        limit_bytes: u64,
    },
    /// Not text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Not JSON; the column says where.
    #[error("not JSON at column {column}")]
    NotJson {
        /// Where the parser gave up.
        column: u64,
    },
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A field that must be there is not, or has another type.
    #[error("field {field} is missing or has the wrong type")]
    BadField {
        /// Its name.
        field: String,
    },
    /// More fields than [`FIELDS_MAX`], nested too deep, or with names longer than [`NAME_BYTES_MAX`].
    #[error("too many fields, too deeply nested, or with too long names")]
    TooManyFields,
    /// A syslog priority that is missing or out of range.
    #[error("the syslog priority is malformed")]
    BadPriority,
    /// A timestamp that is missing or malformed.
    #[error("the timestamp is missing or malformed")]
    BadTime,
    /// A syslog header or structured data that is malformed.
    #[error("the syslog header is malformed")]
    BadHeader,
    /// A frame length that is malformed.
    #[error("the frame length is malformed")]
    BadFrame,
    /// A row of a table in which a column is missing or malformed.
    #[error("line {line}: column {column} is missing or malformed")]
    BadRow {
        /// Its first line, from 1.
        line: u64,
        /// What the column holds.
        column: String,
    },
    /// The connection ended in the middle of a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
}

impl RejectReason {
    /// A short stable word for it, fit for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge { .. } => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::BadField { .. } => "bad_field",
            Self::TooManyFields => "too_many_fields",
            Self::BadPriority => "bad_priority",
            Self::BadTime => "bad_time",
            Self::BadHeader => "bad_header",
            Self::BadFrame => "bad_frame",
            Self::BadRow { .. } => "bad_row",
            Self::Truncated => "truncated",
        }
    }
}

/// What a rule's `logsource` is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogSource {
    /// The product, such as `holdfast` or `linux`.
    pub product: Option<Arc<str>>,
    /// The category, such as `process_creation`.
    pub category: Option<Arc<str>>,
    /// The services it counts as; a line of sshd is both `sshd` and `auth`.
    pub services: Vec<Arc<str>>,
}

/// Flattened fields: dotted names and their values; arrays stay arrays of scalars.
pub type Fields = BTreeMap<String, Value>;

/// An event normalised to OCSF 1.x.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Of stream and position, or of its content.
    pub id: EventId,
    /// Its stream and place, where known.
    pub position: Option<Position>,
    /// When it happened, in milliseconds since 1970.
    pub time_ms: u64,
    /// When it was received.
    pub received_ms: u64,
    /// OCSF class, such as 3002 Authentication; 0 is the base event.
    pub class_uid: u32,
    /// OCSF activity within the class.
    pub activity_id: u32,
    /// OCSF category of the class.
    pub category_uid: u32,
    /// OCSF severity: 1 informational to 6 fatal; 0 unknown.
    pub severity_id: u32,
    /// What rules' `logsource` is compared with.
    pub logsource: LogSource,
    /// All of its fields, flattened, the four numbers above among them.
    pub fields: Fields,
    /// The bytes it was made of.
    pub raw: Bytes,
}

impl Event {
    /// The text of a field, where it has one and it is a string.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }
}
