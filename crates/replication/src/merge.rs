//! Merging one operation into one record: the only way a record changes, for local and foreign writes alike.
//!
//! Commutative, associative and idempotent over every delivery that keeps each origin's own order. No clock, no
//! schema, no arrival order: only stamps, dependencies and values decide.
//!
//! - `lww`: the greatest stamp (HLC, origin, sequence) wins.
//! - `max`, `min`: value and stamp grow independently, so such a field never falls back, not even over a deletion.
//! - `counter`: a running total per origin; a deletion takes away the totals it had seen, and no others.
//! - deletion: the greatest stamp stays as tombstone; a field is visible when its stamp is later.
//!
//! A field keeps its rule for life. Should a counter and a register meet under one id, the counter stays.

use crate::conflict::{Conflict, Side};
use crate::op::{FieldWrite, Op, OpKind};
use model::record::Tally;
use model::{FieldId, FieldState, Merge, Origin, Record, Stamp, TableId, TenantId, Value, VersionVector};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Who writes: from the change's header, or for a local write what that header will be.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Whose record.
    pub tenant: TenantId,
    /// The change's stamp.
    pub stamp: Stamp,
    /// What the writer's partition had applied of other origins.
    pub deps: &'a VersionVector,
}

impl Writer<'_> {
    /// Whether the writer had seen the change with this stamp. Its own earlier changes it always has.
    pub fn had_seen(&self, stamp: Stamp) -> bool {
        if stamp.origin == self.stamp.origin {
            stamp.sequence <= self.stamp.sequence
        } else {
            stamp.sequence <= self.deps.get(stamp.origin)
        }
    }
}

/// What a merge did to one field, as readers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    /// The field.
    pub field: FieldId,
    /// What readers saw; `None` when there was nothing to see.
    pub before: Option<Value>,
    /// What they see now.
    pub after: Option<Value>,
}

/// The result of a merge.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// To be stored.
    pub record: Record,
    /// What lost against what, for the conflict list.
    pub conflicts: Vec<Conflict>,
    /// The fields the operation touched, in order: for the audit entry. Also those whose value stayed.
    pub touched: Vec<FieldChange>,
}

/// Completes a local operation with what only the record knows: a deletion takes the counters' tallies it sees.
#[must_use]
pub fn observe(old: Option<&Record>, op: Op) -> Op {
    let OpKind::Delete { .. } = op.kind else { return op };
    let counters = old.into_iter().flat_map(|record| &record.fields).filter_map(|(id, state)| match state {
        FieldState::Counter { added, .. } => Some((*id, added.clone())),
        FieldState::Register { .. } => None,
    });
    Op { kind: OpKind::Delete { observed: counters.collect() }, ..op }
}

/// Merges one operation of `writer`'s change into a record.
pub fn merge(old: Option<&Record>, writer: Writer<'_>, op: &Op) -> Merged {
    let before = old.cloned().unwrap_or_default();
    let mut record = before.clone();
    let mut conflicts = Vec::new();
    let fields: Vec<FieldId> = match &op.kind {
        OpKind::Upsert { fields } => {
            for (id, write) in fields {
                conflicts.extend(conflict_of_write(&before, writer, op, *id, write));
                merge_field(&mut record.fields, writer.stamp, *id, write);
            }
            fields.iter().map(|(id, _)| *id).collect()
        }
        OpKind::Delete { observed } => {
            conflicts.extend(conflicts_of_delete(&before, writer, op));
            merge_delete(&mut record, writer.stamp, observed);
            before.visible().map(|(id, _)| id).collect()
        }
    };
    let seen = |record: &Record, id| record.visible().find(|(field, _)| *field == id).map(|(_, state)| state.value());
    let mut touched: Vec<FieldChange> = fields
        .into_iter()
        .map(|field| FieldChange { field, before: seen(&before, field), after: seen(&record, field) })
        .collect();
    touched.sort_by_key(|change| change.field);
    Merged { record, conflicts, touched }
}

fn merge_field(fields: &mut BTreeMap<FieldId, FieldState>, stamp: Stamp, id: FieldId, write: &FieldWrite) {
    match write {
        FieldWrite::Set { value, merge } => match fields.get_mut(&id) {
            None => {
                fields.insert(id, FieldState::Register { value: value.clone(), stamp });
            }
            Some(FieldState::Register { value: known, stamp: written }) => {
                let wins = match merge {
                    Merge::Lww | Merge::Counter => stamp >= *written,
                    Merge::Max => extreme(value, known) == Ordering::Greater,
                    Merge::Min => is_null(known) || !is_null(value) && extreme(value, known) == Ordering::Less,
                };
                if wins {
                    *known = value.clone();
                }
                *written = stamp.max(*written);
            }
            Some(FieldState::Counter { .. }) => {}
        },
        FieldWrite::Increment { by } => {
            let (added, _, latest) = counter(fields, id);
            let tally = added.entry(stamp.origin).or_default();
            // A running total holds each of the origin's changes once, however often it arrives.
            if stamp.sequence > tally.sequence {
                tally.total = tally.total.wrapping_add(*by);
                tally.sequence = stamp.sequence;
            }
            *latest = stamp.max(*latest);
        }
    }
}

fn merge_delete(record: &mut Record, stamp: Stamp, observed: &BTreeMap<FieldId, BTreeMap<Origin, Tally>>) {
    for (id, tallies) in observed {
        let (_, removed, _) = counter(&mut record.fields, *id);
        for (origin, tally) in tallies {
            let known = removed.entry(*origin).or_default();
            if tally.sequence > known.sequence {
                *known = *tally;
            }
        }
    }
    record.tombstone = record.tombstone.max(Some(stamp));
}

type Tallies = BTreeMap<Origin, Tally>;

/// The counter under this id; it takes the place of anything else.
fn counter(fields: &mut BTreeMap<FieldId, FieldState>, id: FieldId) -> (&mut Tallies, &mut Tallies, &mut Stamp) {
    let empty = || FieldState::Counter { added: BTreeMap::new(), removed: BTreeMap::new(), stamp: Stamp::default() };
    let state = fields.entry(id).or_insert_with(empty);
    if matches!(state, FieldState::Register { .. }) {
        *state = empty();
    }
    match state {
        FieldState::Counter { added, removed, stamp } => (added, removed, stamp),
        FieldState::Register { .. } => unreachable!("a register was just replaced by a counter"),
    }
}

/// A write conflicts with the value it meets, and with a deletion, when its writer had seen neither.
fn conflict_of_write(old: &Record, writer: Writer<'_>, op: &Op, field: FieldId, write: &FieldWrite) -> Vec<Conflict> {
    let FieldWrite::Set { value, merge: Merge::Lww } = write else { return Vec::new() };
    let incoming = Side { stamp: writer.stamp, value: Some(value.clone()) };
    let mut met = Vec::new();
    if let Some((_, FieldState::Register { value, stamp })) = old.visible().find(|(id, _)| *id == field) {
        met.push(Side { stamp: *stamp, value: Some(value.clone()) });
    }
    met.extend(old.tombstone.map(|stamp| Side { stamp, value: None }));
    met.retain(|side| !writer.had_seen(side.stamp));
    let mut conflicts: Vec<Conflict> = met
        .into_iter()
        .map(|side| Conflict::between(writer.tenant, op.table, &op.key, field, incoming.clone(), side))
        .collect();
    // When the write lost to both, the visible value is the winner, and one entry is enough.
    conflicts.dedup_by_key(|conflict| conflict.id);
    conflicts
}

/// A deletion conflicts with every visible value its writer had not seen. Counters never conflict.
fn conflicts_of_delete(old: &Record, writer: Writer<'_>, op: &Op) -> Vec<Conflict> {
    let (tenant, table): (TenantId, TableId) = (writer.tenant, op.table);
    old.visible()
        .filter_map(|(field, state)| match state {
            FieldState::Register { value, stamp } if !writer.had_seen(*stamp) => {
                let deletion = Side { stamp: writer.stamp, value: None };
                let met = Side { stamp: *stamp, value: Some(value.clone()) };
                Some(Conflict::between(tenant, table, &op.key, field, deletion, met))
            }
            FieldState::Register { .. } | FieldState::Counter { .. } => None,
        })
        .collect()
}

fn is_null(value: &Value) -> bool {
    matches!(value, Value::Null)
}

/// A total order of values: kinds by rank, then by content. Null is below everything.
fn extreme(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Int(one), Value::Int(other)) | (Value::Time(one), Value::Time(other)) => one.cmp(other),
        (Value::Float(one), Value::Float(other)) => one.total_cmp(other),
        (Value::Text(one), Value::Text(other)) => one.cmp(other),
        (Value::Bytes(one), Value::Bytes(other)) => one.cmp(other),
        _ => rank(one).cmp(&rank(other)),
    }
}

const fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Int(_) => 2,
        Value::Float(_) => 3,
        Value::Text(_) => 4,
        Value::Bytes(_) => 5,
        Value::Time(_) => 6,
    }
}
