//! Operations of a transaction, as every region applies them.
//!
//! Each carries the merge rule of its fields, so a region applies it without the table's schema.

use model::record::Tally;
use model::{FieldId, Merge, Origin, TableId, Value, limit};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One operation on one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Op {
    /// The record's table.
    pub table: TableId,
    /// The record's key.
    pub key: String,
    /// What happens to it.
    pub kind: OpKind,
}

/// What happens to a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OpKind {
    /// Writes some fields, creating the record where it is not.
    Upsert {
        /// Each field at most once.
        fields: Vec<(FieldId, FieldWrite)>,
    },
    /// Deletes the record.
    Delete {
        /// The tallies of each counter that the deleter had seen: what it takes away. Filled by [`crate::observe`].
        observed: BTreeMap<FieldId, BTreeMap<Origin, Tally>>,
    },
}

/// A write of one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FieldWrite {
    /// A value, and how it meets concurrent ones. The rule is never [`Merge::Counter`].
    Set {
        /// The value.
        value: Value,
        /// The field's rule.
        merge: Merge,
    },
    /// An increment of a counter.
    Increment {
        /// May be negative.
        by: i64,
    },
}

/// Why the operations of a transaction are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// More than [`limit::TRANSACTION_OPERATIONS_MAX`].
    #[error("{count} operations; a transaction has at most {max}", max = limit::TRANSACTION_OPERATIONS_MAX)]
    Count {
        /// How many came.
        count: usize,
    },
    /// A key is empty or longer than [`limit::KEY_BYTES_MAX`].
    #[error("operation {index}: a key has 1 to {max} bytes", max = limit::KEY_BYTES_MAX)]
    Key {
        /// Which operation, from 0.
        index: usize,
    },
    /// Two operations on one record after folding, or a record deleted and then written in one transaction.
    #[error("operation {index}: this record already has an operation in the transaction")]
    Repeated {
        /// Which operation, from 0.
        index: usize,
    },
    /// A field is given twice, or more than [`limit::FIELDS_MAX`] of them.
    #[error("operation {index}: a field is given twice, or there are more than {max}", max = limit::FIELDS_MAX)]
    Fields {
        /// Which operation, from 0.
        index: usize,
    },
    /// A value longer than [`limit::VALUE_BYTES_MAX`].
    #[error("operation {index}: a value has at most {max} bytes", max = limit::VALUE_BYTES_MAX)]
    Value {
        /// Which operation, from 0.
        index: usize,
    },
    /// A counter is incremented, never set.
    #[error("operation {index}: a counter is incremented, never set")]
    SetOfCounter {
        /// Which operation, from 0.
        index: usize,
    },
}

impl Op {
    /// What the operation counts against credits: about its bytes.
    pub fn weight(&self) -> usize {
        let content: usize = match &self.kind {
            OpKind::Upsert { fields } => fields.iter().map(|(_, write)| write.weight()).sum(),
            OpKind::Delete { observed } => observed.values().map(|tallies| 8 + tallies.len() * 24).sum(),
        };
        self.key.len() + 16 + content
    }
    /// Writes fields.
    pub fn upsert(table: TableId, key: impl Into<String>, fields: Vec<(FieldId, FieldWrite)>) -> Self {
        Self { table, key: key.into(), kind: OpKind::Upsert { fields } }
    }
    /// Deletes a record; [`crate::observe`] adds what the deleter had seen.
    pub fn delete(table: TableId, key: impl Into<String>) -> Self {
        Self { table, key: key.into(), kind: OpKind::Delete { observed: BTreeMap::new() } }
    }
}

impl FieldWrite {
    fn weight(&self) -> usize {
        match self {
            Self::Set { value, .. } => value.size_bytes() + 8,
            Self::Increment { .. } => 12,
        }
    }
}

/// Folds a client's operations into at most one for each record, in order of first mention.
///
/// Later writes of a field replace earlier ones, increments add up, a delete swallows the writes before it.
/// A write after a delete of the same record is refused: both would carry one stamp, and neither would be later.
pub fn fold(ops: Vec<Op>) -> Result<Vec<Op>, OpError> {
    let mut folded: Vec<Op> = Vec::with_capacity(ops.len());
    let mut places: BTreeMap<(TableId, String), usize> = BTreeMap::new();
    for (index, op) in ops.into_iter().enumerate() {
        let Some(&place) = places.get(&(op.table, op.key.clone())) else {
            places.insert((op.table, op.key.clone()), folded.len());
            folded.push(op);
            continue;
        };
        match (&mut folded[place].kind, op.kind) {
            (OpKind::Upsert { fields }, OpKind::Upsert { fields: later }) => fold_fields(fields, later),
            (kind @ OpKind::Upsert { .. }, delete @ OpKind::Delete { .. }) => *kind = delete,
            (OpKind::Delete { .. }, OpKind::Delete { .. }) => {}
            (OpKind::Delete { .. }, OpKind::Upsert { .. }) => return Err(OpError::Repeated { index }),
        }
    }
    Ok(folded)
}

fn fold_fields(fields: &mut Vec<(FieldId, FieldWrite)>, later: Vec<(FieldId, FieldWrite)>) {
    for (id, write) in later {
        match (fields.iter_mut().find(|(known, _)| *known == id), write) {
            (Some((_, FieldWrite::Increment { by })), FieldWrite::Increment { by: more }) => {
                *by = by.wrapping_add(more)
            }
            (Some((_, known)), write) => *known = write,
            (None, write) => fields.push((id, write)),
        }
    }
}

/// Checks what every region relies on: bounds, one operation for each record, one write for each field.
pub fn check(ops: &[Op]) -> Result<(), OpError> {
    if ops.len() > limit::TRANSACTION_OPERATIONS_MAX {
        return Err(OpError::Count { count: ops.len() });
    }
    let mut seen = BTreeSet::new();
    for (index, op) in ops.iter().enumerate() {
        if op.key.is_empty() || op.key.len() > limit::KEY_BYTES_MAX {
            return Err(OpError::Key { index });
        }
        if !seen.insert((op.table, op.key.as_str())) {
            return Err(OpError::Repeated { index });
        }
        match &op.kind {
            OpKind::Upsert { fields } => check_fields(index, fields)?,
            OpKind::Delete { observed } if observed.len() > limit::FIELDS_MAX => return Err(OpError::Fields { index }),
            OpKind::Delete { .. } => {}
        }
    }
    Ok(())
}

fn check_fields(index: usize, fields: &[(FieldId, FieldWrite)]) -> Result<(), OpError> {
    let ids: BTreeSet<FieldId> = fields.iter().map(|(id, _)| *id).collect();
    if ids.len() != fields.len() || fields.len() > limit::FIELDS_MAX {
        return Err(OpError::Fields { index });
    }
    for (_, write) in fields {
        match write {
            FieldWrite::Set { merge: Merge::Counter, .. } => return Err(OpError::SetOfCounter { index }),
            FieldWrite::Set { value, .. } if value.size_bytes() > limit::VALUE_BYTES_MAX => {
                return Err(OpError::Value { index });
            }
            FieldWrite::Set { .. } | FieldWrite::Increment { .. } => {}
        }
    }
    Ok(())
}
