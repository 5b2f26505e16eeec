//! Records: reading, changing, querying and transacting.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;

/// Values by the names of their fields.
pub type Fields = BTreeMap<String, Value>;

/// The address of one record, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordAt {
    /// The tenant's name.
    pub tenant: String,
    /// The table's name.
    pub table: String,
    /// The record's key: UTF-8, 1 to `model::limit::KEY_BYTES_MAX` bytes.
    pub key: String,
}

/// A strong entity tag, without its quotes: visible ASCII without `"`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(transparent)]
pub struct Etag(String);

impl Etag {
    /// Bytes of the longest tag.
    pub const BYTES_MAX: usize = 128;

    /// A tag, if every byte of it may stand between quotes.
    pub fn new(tag: impl Into<String>) -> Option<Self> {
        let tag = tag.into();
        let fits = !tag.is_empty() && tag.len() <= Self::BYTES_MAX;
        (fits && tag.bytes().all(|b| b.is_ascii_graphic() && b != b'"')).then_some(Self(tag))
    }
    /// The tag without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// What must be true of a record for its change to happen.
///
/// | | absent record | present record |
/// |---|---|---|
/// | `Unstated`, put | creates | [`crate::Problem::PreconditionRequired`] |
/// | `Unstated`, patch or delete | the API answers 428 itself; in a transaction: not found | proceeds (only in a transaction) |
/// | `Exists`, put | precondition failed | proceeds |
/// | `Absent`, put | creates | precondition failed |
/// | `Matches`, put | precondition failed | proceeds if one tag is the record's |
/// | any, patch or delete | not found | as above |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The request said nothing.
    Unstated,
    /// `If-Match: *`.
    Exists,
    /// `If-Match: "a", "b"`: one of them is the record's tag.
    Matches(Vec<Etag>),
    /// `If-None-Match: *`.
    Absent,
    /// `If-None-Match: "a"`: absent, or with another tag than these.
    Differs(Vec<Etag>),
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The record's fields become exactly these.
    Put(Fields),
    /// These fields change; the others stay.
    Patch(Patch),
    /// The record goes.
    Delete,
}

/// The body of a PUT of a record.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutBody {
    /// All fields of the record.
    #[schema(value_type = BTreeMap<String, Value>)]
    pub fields: Fields,
}

/// The body of a PATCH of a record: at least one member is not empty.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Fields to set.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Value>)]
    pub set: Fields,
    /// Counters to add to.
    #[serde(default)]
    pub increment: BTreeMap<String, i64>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// What this node has.
    Local,
    /// Everything acknowledged in this region before the read began.
    #[default]
    Linearizable,
    /// At least what the given session token has seen.
    Session,
}

/// How to read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// How fresh.
    pub level: Level,
    /// The fields to answer; none: all the session may see.
    pub fields: Option<Vec<String>>,
    /// The session token of `Holdfast-Session`, as given.
    pub token: Option<String>,
}

/// When a write is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Durable on a quorum of this region.
    #[default]
    Region,
    /// And durable in this many other regions (1 or more).
    Remote(u8),
}

/// How to write.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// When it is done.
    pub durability: Durability,
    /// Of `Idempotency-Key`: 1 to `model::limit::IDEMPOTENCY_KEY_BYTES_MAX` visible ASCII bytes.
    pub idempotency_key: Option<String>,
    /// A digest of route and body when there is an idempotency key: tells a retry from reuse of the key.
    pub fingerprint: Option<[u8; 32]>,
    /// The session token of `Holdfast-Session`, as given: what the write depends on.
    pub token: Option<String>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RecordView {
    /// Its key.
    pub key: String,
    /// Its entity tag.
    pub etag: Etag,
    /// When it last changed: milliseconds since 1970 of its hybrid logical time.
    pub updated_ms: u64,
    /// Its fields.
    #[schema(value_type = BTreeMap<String, Value>)]
    pub fields: Fields,
}

/// Something read, with the token that proves how far the reader has seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<T> {
    /// What was read.
    pub value: T,
    /// The session token for `Holdfast-Session`.
    pub token: String,
}

/// How far a write got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durable {
    /// As asked.
    AsAsked,
    /// In this region only; other regions did not confirm in time. Never to be repeated: poll the token.
    Locally,
}

/// A change that is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// How far.
    pub durable: Durable,
    /// Whether the record did not exist before.
    pub created: bool,
    /// The record's new tag; none after a deletion.
    pub etag: Option<Etag>,
    /// The session token for `Holdfast-Session`.
    pub token: String,
    /// Whether this is the stored answer to an earlier request with the same key.
    pub replayed: bool,
}

/// A range of keys.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyRange {
    /// The first key, inclusive.
    pub from: Option<String>,
    /// The first key beyond, exclusive.
    pub to: Option<String>,
    /// Only keys that begin so.
    pub prefix: Option<String>,
    /// The last key of the page before: answer only keys after it.
    pub after: Option<String>,
    /// Records of a page, 1 to `model::limit::PAGE_RECORDS_MAX`.
    pub limit: usize,
}

/// Records in order of their keys.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordPage {
    /// The records.
    pub records: Vec<RecordView>,
    /// When there may be more: the key to go on after (the API seals it into the page token).
    pub more: Option<String>,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The table's name.
    pub table: String,
    /// The record's key.
    pub key: String,
    /// What must be true.
    pub precondition: Precondition,
    /// What changes; none: only the precondition is checked.
    pub change: Option<Change>,
}

/// A transaction that is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Transacted {
    /// How far.
    pub durable: Durable,
    /// One result for each operation, in order.
    pub results: Vec<OperationResult>,
    /// The session token for `Holdfast-Session`.
    pub token: String,
    /// Whether this is the stored answer to an earlier request with the same key.
    pub replayed: bool,
}

/// What became of one operation.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct OperationResult {
    /// The record's tag; none when it does not exist (any more).
    pub etag: Option<Etag>,
}

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Page {
    /// What `next` was on the page before: opaque to the API.
    pub after: Option<String>,
    /// Items of a page, 1 to `model::limit::PAGE_RECORDS_MAX`.
    pub limit: usize,
}

/// Concurrent overwrites of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ConflictList {
    /// Newest first.
    pub conflicts: Vec<ConflictView>,
    /// What follows: the API seals it, clients give it as `page_token`.
    #[serde(rename = "next_page_token")]
    pub next: Option<String>,
}

/// One concurrent overwrite: the loser was kept.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ConflictView {
    /// The table's name.
    pub table: String,
    /// The record's key.
    pub key: String,
    /// The field's name; none when a deletion lost or won over a whole record.
    pub field: Option<String>,
    /// The value that lost.
    pub lost: Value,
    /// The value that won.
    pub won: Value,
    /// The loser's region.
    pub lost_region: String,
    /// The winner's region.
    pub won_region: String,
    /// When the loser was written: milliseconds since 1970.
    pub lost_ms: u64,
    /// When the winner was written: milliseconds since 1970.
    pub won_ms: u64,
}

/// How far writes are durable elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct DurabilityView {
    /// Regions, other than this one, where everything the token covers is durable.
    pub durable_in: Vec<String>,
    /// Regions the tenant may be in that have not confirmed yet.
    pub pending_in: Vec<String>,
}
