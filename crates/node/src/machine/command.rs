//! What can be asked of a data group, and what it answers.
//!
//! Everything in a command was decided before it was proposed, except what depends on the state.

use crate::machine::note::Note;
use model::{
    FieldId, Hlc, Merge, NodeId, PartitionId, Record, RegionId, Stamp, TableId, TenantId, Value, VersionVector,
};
use replication::Change;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A transaction of one tenant.
    Transact(Transact),
    /// A linearizable read, done and recorded at its place in the log.
    Read(Read),
    /// Something that happened and must be recorded: a view, a login, a refusal.
    Note(Note),
    /// Changes of other regions, in order.
    Foreign {
        /// The region they were pulled from.
        from: RegionId,
        /// Each with whether its tenant's data may be here.
        changes: Vec<(Change, bool)>,
    },
    /// What another region has made durable.
    Progress {
        /// That region.
        region: RegionId,
        /// Per partition.
        vectors: BTreeMap<PartitionId, VersionVector>,
    },
    /// Events of others, for the detector.
    Ingest(Ingest),
    /// A node of the region has a duty from now on, and nobody else has.
    Assign {
        /// Which duty.
        duty: String,
        /// Whose it is.
        to: NodeId,
    },
    /// A node takes up the duty it was given. A lease is of one life of a node: what its process sent before it died
    /// may still be on its way.
    Claim {
        /// Which duty.
        duty: String,
        /// The lease as it was given.
        epoch: u64,
        /// Drawn when the node started.
        life: u64,
    },
    /// What a node did in its duty.
    Report(Report),
}

/// Events of others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ingest {
    /// Encoded raw events.
    pub events: Vec<Vec<u8>>,
    /// How what was delivered before is known.
    pub door: Door,
    /// Who sent them.
    pub note: Note,
}

/// How the region's log knows again what was delivered before, and leaves it out.
///
/// The first two are encoded as `None` and `Some` of what earlier versions wrote here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Door {
    /// Not at all.
    Open,
    /// By place: a source that delivers again after a crash, in order. Its stream, and the sequence of each event.
    Places(String, Vec<u64>),
    /// Event by event, by an identity of each; one without is never known again.
    Identities(Vec<Option<Identity>>),
    /// All of them or none, by the caller's idempotency key.
    Request(Idempotency),
}

/// By what an event is known again: a hash of what only that event has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity([u8; 16]);

impl Identity {
    /// Of what only it has, in parts; `context` says what they are.
    pub fn of(context: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(bytes)
    }
}

/// What a node did in its duty: all of it takes effect, or nothing because another node has the duty by now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The duty.
    pub duty: String,
    /// The lease it was done under.
    pub epoch: u64,
    /// Counts the lease's reports, from 1: the same one twice counts once.
    pub number: u64,
    /// Whether this is the end. Until it comes everything is set aside, and takes effect with it.
    pub is_whole: bool,
    /// Rows of the duty's state, put or removed.
    pub rows: Vec<Row>,
    /// Records that follow. Acts that want a record to be absent are left out where it is there: what was done
    /// twice is done once.
    pub writes: Vec<Transact>,
}

/// A key, and its value or nothing.
pub type Row = (Vec<u8>, Option<Vec<u8>>);

/// Who has a duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whose it is.
    pub holder: NodeId,
    /// Grows with each assignment and each claim: the fencing token.
    pub epoch: u64,
    /// The life of the holder that claimed it; none yet.
    pub life: Option<u64>,
    /// The last report.
    pub number: u64,
}

/// A transaction: all of it or nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transact {
    /// Whose.
    pub tenant: TenantId,
    /// The version of the tables the operations were made for.
    pub schema_version: u32,
    /// What is done, in order.
    pub acts: Vec<Act>,
    /// The caller's idempotency key, and a digest of the request it belongs to.
    pub idempotency: Option<Idempotency>,
    /// Who asks; each act becomes a leaf of its own.
    pub note: Note,
    /// The trace it is part of, if it is followed.
    pub trace: Option<replication::Trace>,
}

/// What is done to one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// The table.
    pub table: TableId,
    /// The record.
    pub key: String,
    /// What must hold before.
    pub must: Must,
    /// Which fields the caller knows: an entity tag is made from these only.
    pub seen: Option<BTreeSet<FieldId>>,
    /// What changes.
    pub change: ActChange,
    /// What the audit log calls the record.
    pub resource: String,
    /// What the audit log calls the fields.
    pub names: BTreeMap<FieldId, String>,
}

/// How a record changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ActChange {
    /// The fields the caller knows become exactly these.
    Put(Vec<(FieldId, Merge, Value)>),
    /// These fields change.
    Patch {
        /// To these values.
        set: Vec<(FieldId, Merge, Value)>,
        /// By these amounts.
        increment: Vec<(FieldId, i64)>,
    },
    /// As a patch, but creates the record where it is not: for the platform's own tables.
    Upsert {
        /// To these values.
        set: Vec<(FieldId, Merge, Value)>,
        /// By these amounts.
        increment: Vec<(FieldId, i64)>,
    },
    /// The record goes.
    Delete,
    /// Nothing: only the precondition counts.
    Check,
}

/// What must hold of a record before it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Must {
    /// Anything.
    Nothing,
    /// A put may create, but overwriting needs a precondition.
    BeAbsentOrStated,
    /// It exists.
    Exist,
    /// It does not exist.
    BeAbsent,
    /// It exists and its version is one of these.
    BeAt(Vec<Stamp>),
    /// It is absent, or its version is none of these.
    NotBeAt(Vec<Stamp>),
}

/// An idempotency key with the digest of its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The caller's.
    pub key: String,
    /// A digest of the request.
    pub digest: [u8; 32],
}

/// A read of records or of a range of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// Whose.
    pub tenant: TenantId,
    /// Which table.
    pub table: TableId,
    /// Which records.
    pub select: Select,
    /// How the audit log describes it.
    pub note: Note,
}

/// Which records a read wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Select {
    /// One record.
    Key(String),
    /// Records with `from <= key < to`, after `after` if given.
    Range {
        /// First key.
        from: String,
        /// End, exclusive.
        to: Option<String>,
        /// Only keys later than this one.
        after: Option<String>,
        /// At most this many.
        limit: u32,
    },
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// The transaction is durable here.
    Written(Written),
    /// The transaction changed nothing.
    Refused(Refusal),
    /// What was read, and the vector it was read at.
    Records(Found),
    /// Recorded.
    Noted,
    /// The command could not be read, and changed nothing.
    Malformed,
    /// Foreign changes or events: how many changed something, and why the rest was not taken.
    Taken {
        /// How many changed something here; events that were there already did not.
        applied: u32,
        /// Why the rest was not taken.
        refused: Option<String>,
    },
    /// A report under a lease that has ended: nothing was done.
    Fenced,
    /// A report that was done, but for some of its writes.
    Partly(Refused),
}

/// Writes of a report that were refused.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Refused {
    /// How many.
    pub count: u32,
    /// The first of them: what they were about, and why.
    pub first: Vec<(String, Refusal)>,
}

/// Records that were read.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Found {
    /// Existing records in order of their keys.
    pub records: Vec<(String, Record)>,
    /// The key to go on after, if there may be more.
    pub more: Option<String>,
    /// The partition's vector.
    pub vector: VersionVector,
}

/// A durable transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Its stamp.
    pub stamp: Stamp,
    /// The partition's vector after it.
    pub vector: VersionVector,
    /// For each act: whether the record existed before, and its version for the caller afterwards.
    pub acts: Vec<(bool, Option<Stamp>)>,
    /// It had been done before under the same idempotency key.
    pub replayed: bool,
}

/// Why a transaction changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The record of this act does not exist.
    NotFound(u32),
    /// The record of this act exists, and overwriting it needs a precondition.
    PreconditionRequired(u32),
    /// The precondition of this act did not hold.
    PreconditionFailed(u32),
    /// The idempotency key belongs to another request.
    IdempotencyReuse,
    /// It breaks a bound of what regions exchange.
    TooLarge,
}

/// When an idempotency row may go.
pub const IDEMPOTENCY_KEPT_MS: u64 = 24 * 3600 * 1000;

/// A stored result of an idempotent request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdempotencyRow {
    /// Digest of the request; unknown when it was another region's.
    pub digest: Option<[u8; 32]>,
    /// Its result.
    pub written: Written,
    /// When.
    pub hlc: Hlc,
}
