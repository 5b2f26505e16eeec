//! Merging one operation into one record: the only way a record changes, for local and foreign writes alike.
//!
//! Commutative, associative and idempotent over every delivery that keeps each origin's own order. No clock, no
//! schema, no arrival order: only stamps, dependencies and values decide.
//!
//! - `lww`: the greatest stamp (HLC, origin, sequence) wins.
//! - `max`, `min`: the most extreme value that no deletion took; the less extreme later ones stand behind it.
//! - `counter`: a running total per origin; a deletion takes away the totals it had seen, and no others.
//! - deletion: the greatest stamp stays as tombstone; a field is visible when its stamp is later.
//!   Values that are not are dropped at once; counters stay, because their totals run on.
//!
//! A field keeps its rule for life. Should rules meet under one id all the same, counters go before extremes before
//! registers.

use crate::conflict::{Conflict, Side};
use crate::op::{FieldWrite, Op, OpKind};
use model::record::Tally;
use model::{FieldId, FieldState, Merge, Origin, Record, Stamp, TenantId, Value, VersionVector};
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
    /// What lost against what, for the conflict list. Exact when each change is merged once, as admission ensures.
    pub conflicts: Vec<Conflict>,
    /// The fields the operation touched, in order: for the audit entry. Also those whose value stayed.
    pub touched: Vec<FieldChange>,
}

/// Completes a local operation with what only the record knows: a deletion takes the counters' tallies it sees, and
/// a `max` or `min` that does not exceed what is there is left out. The result is what goes into the change.
#[must_use]
pub fn observe(old: Option<&Record>, op: Op) -> Op {
    let Some(old) = old else { return op };
    let kind = match op.kind {
        OpKind::Upsert { mut fields } => {
            fields.retain(|(id, write)| match (write, old.fields.get(id)) {
                (FieldWrite::Set { value, merge }, Some(state @ FieldState::Extreme { .. })) => {
                    !at_least(*merge, &state.value(), value)
                }
                _ => true,
            });
            OpKind::Upsert { fields }
        }
        OpKind::Delete { .. } => {
            let counters = old.fields.iter().filter_map(|(id, state)| match state {
                FieldState::Counter { added, .. } => Some((*id, added.clone())),
                FieldState::Register { .. } | FieldState::Extreme { .. } => None,
            });
            OpKind::Delete { observed: counters.collect() }
        }
    };
    Op { kind, ..op }
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
                merge_field(&mut record, writer.stamp, *id, write);
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

fn merge_field(record: &mut Record, stamp: Stamp, id: FieldId, write: &FieldWrite) {
    let is_dead = record.tombstone.is_some_and(|tombstone| stamp <= tombstone);
    match write {
        FieldWrite::Set { .. } if is_dead => {}
        FieldWrite::Set { value, merge: merge @ (Merge::Max | Merge::Min) } => {
            merge_extreme(&mut record.fields, stamp, id, value, *merge);
        }
        FieldWrite::Set { value, merge: Merge::Lww | Merge::Counter } => {
            let incoming = FieldState::Register { value: value.clone(), stamp };
            match record.fields.get_mut(&id) {
                Some(FieldState::Register { stamp: written, .. }) if stamp < *written => {}
                Some(known @ FieldState::Register { .. }) => *known = incoming,
                Some(FieldState::Extreme { .. } | FieldState::Counter { .. }) => {}
                None => {
                    record.fields.insert(id, incoming);
                }
            }
        }
        FieldWrite::Increment { by } => {
            let (added, _, latest) = counter(&mut record.fields, id);
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

/// Keeps the candidates of which none is both earlier and less extreme than another.
fn merge_extreme(fields: &mut BTreeMap<FieldId, FieldState>, stamp: Stamp, id: FieldId, value: &Value, rule: Merge) {
    let alone = || FieldState::Extreme { candidates: BTreeMap::from([(stamp, value.clone())]) };
    match fields.get_mut(&id) {
        Some(FieldState::Extreme { candidates }) => {
            if candidates.range(stamp..).any(|(_, later)| at_least(rule, later, value)) {
                return;
            }
            candidates.retain(|known, other| *known > stamp || !at_least(rule, value, other));
            candidates.insert(stamp, value.clone());
        }
        Some(FieldState::Counter { .. }) => {}
        Some(register @ FieldState::Register { .. }) => *register = alone(),
        None => {
            fields.insert(id, alone());
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
    let tombstone = record.tombstone.expect("it was just set");
    record.fields.retain(|_, state| match state {
        FieldState::Register { stamp, .. } => *stamp > tombstone,
        FieldState::Extreme { candidates } => {
            candidates.retain(|stamp, _| *stamp > tombstone);
            !candidates.is_empty()
        }
        FieldState::Counter { .. } => true,
    });
}

type Tallies = BTreeMap<Origin, Tally>;

/// The counter under this id; it takes the place of anything else.
fn counter(fields: &mut BTreeMap<FieldId, FieldState>, id: FieldId) -> (&mut Tallies, &mut Tallies, &mut Stamp) {
    let empty = || FieldState::Counter { added: BTreeMap::new(), removed: BTreeMap::new(), stamp: Stamp::default() };
    let state = fields.entry(id).or_insert_with(empty);
    if !matches!(state, FieldState::Counter { .. }) {
        *state = empty();
    }
    match state {
        FieldState::Counter { added, removed, stamp } => (added, removed, stamp),
        _ => unreachable!("anything else was just replaced by a counter"),
    }
}

/// An `lww` write conflicts with the value it meets, and with a deletion, when its writer had seen neither.
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
    let unseen = old.visible().filter_map(|(field, state)| match state {
        FieldState::Register { value, stamp } if !writer.had_seen(*stamp) => Some((field, value, stamp)),
        _ => None,
    });
    unseen
        .map(|(field, value, stamp)| {
            let deletion = Side { stamp: writer.stamp, value: None };
            let met = Side { stamp: *stamp, value: Some(value.clone()) };
            Conflict::between(writer.tenant, op.table, &op.key, field, deletion, met)
        })
        .collect()
}

/// Whether `one` is at least as extreme as `other`. Null is less than everything, under both rules.
fn at_least(rule: Merge, one: &Value, other: &Value) -> bool {
    match (one, other) {
        (_, Value::Null) => true,
        (Value::Null, _) => false,
        _ if rule == Merge::Min => compare(one, other).is_le(),
        _ => compare(one, other).is_ge(),
    }
}

/// A total order of values: kinds by rank, then by content.
fn compare(one: &Value, other: &Value) -> Ordering {
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
