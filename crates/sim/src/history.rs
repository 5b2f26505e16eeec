//! What clients asked and what they were told. An outcome that is not known stays possible for ever.

use crate::plot::Signal;
use model::Stamp;
use parking_lot::Mutex;
use std::sync::Arc;

/// What became of an operation, as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ok,
    /// Certainly not done.
    Failed,
    /// Done or not, now or later.
    Unknown,
}

/// What an operation was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes both fields of a call.
    Put,
    /// Writes the owner of a call, if its version is this one.
    Swap(Stamp),
    /// Writes the note of a call.
    Patch,
    /// Deletes a call.
    Delete,
    /// Adds to a meter.
    Increment(i64),
    /// Writes the owner of a call and adds to a meter, at once.
    Transact(i64),
    /// Reads a call: linearizable in its region.
    Read,
    /// Reads a call at least as new as this write of another region.
    SessionRead(Stamp),
    /// Reads a call as the node has it.
    LocalRead,
    /// Logs in with the right password.
    Login,
    /// Logs in with a wrong one.
    WrongLogin,
    /// Asks for another tenant's data.
    Probe,
    /// Sends an event in.
    Ingest(Signal),
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Seen {
    /// The record's version; none where there was no record.
    pub version: Option<Stamp>,
    /// The owner field.
    pub owner: Option<String>,
    /// The note field.
    pub note: Option<String>,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Op {
    /// Unique: part of every value it writes.
    pub id: u64,
    /// The position of the region it was asked in.
    pub region: usize,
    /// The position of the tenant.
    pub tenant: usize,
    /// What.
    pub kind: Kind,
    /// The record's key, or the event's door.
    pub key: String,
    /// When it was asked, in virtual microseconds.
    pub invoked: u64,
    /// When the client knew.
    pub returned: u64,
    /// What the client knew.
    pub outcome: Outcome,
    /// The request that was answered with success, and whether the answer was an earlier one's.
    pub request: Option<(u128, bool)>,
    /// What a read found.
    pub seen: Option<Seen>,
}

impl Op {
    /// The value of the owner field that this operation writes; unique.
    pub fn owner(&self) -> String {
        format!("{}~{}~{}", crate::setup::TENANTS[self.tenant].name, self.region, self.id)
    }
    /// The value of the note field that this operation writes; unique.
    pub fn note(&self) -> String {
        format!("{}n", self.owner())
    }
    /// Its idempotency key; unique.
    pub fn idempotency(&self) -> String {
        format!("op-{}", self.id)
    }
    /// Whether it changes calls.
    pub const fn writes_call(&self) -> bool {
        matches!(self.kind, Kind::Put | Kind::Swap(_) | Kind::Patch | Kind::Delete | Kind::Transact(_))
    }
    /// Whether it changes records at all.
    pub const fn writes(&self) -> bool {
        self.writes_call() || matches!(self.kind, Kind::Increment(_))
    }
    /// Whether it happens once however often it is asked, so that it may be asked again.
    pub const fn is_repeatable(&self) -> bool {
        self.writes() || matches!(self.kind, Kind::Ingest(_))
    }
    /// What it adds to the meter it names.
    pub const fn adds(&self) -> Option<i64> {
        match self.kind {
            Kind::Increment(by) | Kind::Transact(by) => Some(by),
            _ => None,
        }
    }
}

/// All operations of a run, as they end.
pub type History = Arc<Mutex<Vec<Op>>>;
