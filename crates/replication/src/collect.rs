//! Collection: taking away what a deletion left, once no region can send anything concurrent with it.
//!
//! Never by time. A collected record merges and reads exactly like one that is not, so regions need not agree on when.

use model::{FieldState, Record, VersionVector};

/// What to store instead of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Collected {
    /// Nothing can go.
    Unchanged,
    /// This, without its tombstone.
    Trimmed(Record),
    /// Nothing is left of it.
    Gone,
}

/// Removes a tombstone that lies within the `stable` cut (see [`crate::Progress::stable`]).
///
/// Counters stay with their tallies: totals run on from them, in every region alike. A hidden counter keeps the
/// tombstone that hides it.
pub fn collect(record: &Record, stable: &VersionVector) -> Collected {
    let Some(tombstone) = record.tombstone else { return Collected::Unchanged };
    let is_hidden = |state: &FieldState| state.stamp() <= tombstone;
    if stable.get(tombstone.origin) < tombstone.sequence || record.fields.values().any(is_hidden) {
        return Collected::Unchanged;
    }
    if record.fields.is_empty() {
        return Collected::Gone;
    }
    Collected::Trimmed(Record { fields: record.fields.clone(), tombstone: None })
}
