//! Records as they are stored: each field with the state its merge rule needs.

use crate::{FieldId, Hlc, Origin, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which change wrote something. Orders last-writer-wins: (HLC, region, sequence).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// When, in hybrid logical time.
    pub hlc: Hlc,
    /// Where.
    pub origin: Origin,
    /// The change's number in its (partition, origin) sequence.
    pub sequence: u64,
}

/// One region's part of a counter: a running total and how far its owner had counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Everything this origin added, ever.
    pub total: i64,
    /// The origin's last change that is in `total`.
    pub sequence: u64,
}

/// The state of one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FieldState {
    /// One value and who wrote it (`lww`).
    Register {
        /// The value.
        value: Value,
        /// Its writer.
        stamp: Stamp,
    },
    /// Values that may be the greatest or the smallest (`max`, `min`), by writer: each later one is less extreme, and
    /// counts should a deletion take those before it. At most one for each origin.
    Extreme {
        /// Never empty.
        candidates: BTreeMap<Stamp, Value>,
    },
    /// Increments per origin, less what a deletion had seen of each.
    Counter {
        /// Everything added.
        added: BTreeMap<Origin, Tally>,
        /// What deletions took away: for each origin the tally they had seen.
        removed: BTreeMap<Origin, Tally>,
        /// The latest increment.
        stamp: Stamp,
    },
}

impl FieldState {
    /// The latest change of this field.
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::Register { stamp, .. } | Self::Counter { stamp, .. } => *stamp,
            Self::Extreme { candidates } => candidates.last_key_value().map(|(stamp, _)| *stamp).unwrap_or_default(),
        }
    }
    /// What a reader sees.
    pub fn value(&self) -> Value {
        match self {
            Self::Register { value, .. } => value.clone(),
            Self::Extreme { candidates } => {
                candidates.first_key_value().map_or(Value::Null, |(_, value)| value.clone())
            }
            Self::Counter { added, removed, .. } => {
                let total = |tallies: &BTreeMap<Origin, Tally>| {
                    tallies.values().fold(0i64, |sum, tally| sum.wrapping_add(tally.total))
                };
                Value::Int(total(added).wrapping_sub(total(removed)))
            }
        }
    }
}

/// One record: its fields, and the latest deletion if there was one.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// State of each field ever written.
    pub fields: BTreeMap<FieldId, FieldState>,
    /// The latest deletion: fields not later than it are invisible.
    pub tombstone: Option<Stamp>,
}

impl Record {
    /// The fields a reader sees: those written after the latest deletion.
    pub fn visible(&self) -> impl Iterator<Item = (FieldId, &FieldState)> {
        self.fields
            .iter()
            .filter(|(_, state)| self.tombstone.is_none_or(|tombstone| state.stamp() > tombstone))
            .map(|(id, state)| (*id, state))
    }
    /// Whether a reader sees a record at all.
    pub fn exists(&self) -> bool {
        self.visible().next().is_some()
    }
    /// The latest change: what an entity tag is made from.
    pub fn version(&self) -> Stamp {
        let fields = self.fields.values().map(FieldState::stamp).max();
        fields.max(self.tombstone).unwrap_or_default()
    }
}
