//! Transactions: preconditions, operations, one change record, one audit leaf for each act.

use crate::machine::command::{
    Act, ActChange, IDEMPOTENCY_KEPT_MS, Idempotency, IdempotencyRow, Must, Outcome, Refusal, Transact, Written,
};
use crate::machine::data::Step;
use crate::machine::keys;
use crate::machine::note::Note;
use identity::FieldMask;
use model::codec::{decode, encode};
use model::{FieldId, FieldState, Merge, Record, Stamp, TenantId, Value, VersionVector};
use replication::{Body, Change, FieldChange, FieldWrite, Header, Op, observe};
use std::collections::BTreeMap;
use std::io;

impl Step<'_> {
    /// Carries out a transaction, or refuses all of it.
    pub(super) fn transact(&mut self, transact: Transact) -> io::Result<Outcome> {
        if let Some(idempotency) = &transact.idempotency
            && let Some(outcome) = self.replay(transact.tenant, idempotency)?
        {
            let refused = matches!(outcome, Outcome::Refused(_)).then(|| Refusal::IdempotencyReuse.reason().into());
            let resource = transact.acts.first().map(|act| act.resource.clone());
            self.record(&Note { action: "request.replay".into(), refused, resource, ..transact.note });
            return Ok(outcome);
        }
        let mut olds = Vec::with_capacity(transact.acts.len());
        for (index, act) in (0u32..).zip(&transact.acts) {
            let old = self.load(transact.tenant, act.table, &act.key)?;
            if let Some(refusal) = refuse(index, act, old.as_ref()) {
                let note = Note { refused: Some(refusal.reason().into()), ..note_of(&transact.note, act, &[]) };
                self.record(&note);
                return Ok(Outcome::Refused(refusal));
            }
            olds.push(old);
        }
        let ops: Vec<Op> =
            transact.acts.iter().zip(&olds).filter_map(|(act, old)| operation(act, old.as_ref())).collect();
        let weight: usize = ops.iter().map(Op::weight).sum();
        if replication::op::check(&ops).is_err() || weight > model::limit::TRANSACTION_BYTES_MAX {
            // What other regions would refuse must not be written here.
            let note = Note { refused: Some(Refusal::TooLarge.reason().into()), ..transact.note };
            self.record(&note);
            return Ok(Outcome::Refused(Refusal::TooLarge));
        }
        let written = self.write(&transact, &olds)?;
        if let Some(Idempotency { key, digest }) = &transact.idempotency {
            let row = IdempotencyRow { digest: Some(*digest), written: written.clone(), hlc: written.stamp.hlc };
            self.view.put(keys::IDEMPOTENCY, keys::idempotency(transact.tenant, key), encode(&row));
        }
        Ok(Outcome::Written(written))
    }

    fn replay(&self, tenant: TenantId, asked: &Idempotency) -> io::Result<Option<Outcome>> {
        let Some(bytes) = self.view.get(keys::IDEMPOTENCY, &keys::idempotency(tenant, &asked.key))? else {
            return Ok(None);
        };
        let row: IdempotencyRow = decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if self.wall_ms > row.hlc.wall_ms().saturating_add(IDEMPOTENCY_KEPT_MS) {
            return Ok(None);
        }
        if row.digest.is_some_and(|digest| digest != asked.digest) {
            return Ok(Some(Outcome::Refused(Refusal::IdempotencyReuse)));
        }
        Ok(Some(Outcome::Written(Written { replayed: true, ..row.written })))
    }

    fn write(&mut self, transact: &Transact, olds: &[Option<Record>]) -> io::Result<Written> {
        let partition = transact.tenant.partition(self.machine.partitions);
        let origin = self.machine.origin;
        let position = self.position(partition, origin);
        let deps: VersionVector = self.state.vector(partition).iter().filter(|(other, _)| *other != origin).collect();
        let hlc = self.tick();
        let header = Header {
            origin,
            sequence: position.sequence + 1,
            hlc,
            deps,
            tenant: transact.tenant,
            partition,
            schema_version: transact.schema_version,
        };
        let stamp = header.stamp();
        let mut ops = Vec::with_capacity(transact.acts.len());
        let mut results = Vec::with_capacity(transact.acts.len());
        for (act, old) in transact.acts.iter().zip(olds) {
            let existed = old.as_ref().is_some_and(Record::exists);
            let Some(op) = operation(act, old.as_ref()) else {
                results.push((existed, old.as_ref().filter(|_| existed).map(|record| seen_version(act, record))));
                continue;
            };
            let op = observe(old.as_ref(), op);
            let merged = self.store(header.writer(), &op, old.as_ref())?;
            self.record(&note_of(&transact.note, act, &merged.touched));
            results.push((existed, merged.record.exists().then(|| seen_version(act, &merged.record))));
            ops.push(op);
        }
        if !ops.is_empty() {
            let request_id = transact.idempotency.as_ref().map(|idempotency| idempotency.key.clone());
            self.keep(&Change::new(header, Body { request_id, trace: transact.trace, ops }, position.chain));
        }
        Ok(Written { stamp, vector: self.state.vector(partition), acts: results, replayed: false })
    }

    /// Remembers a request that another region carried out, so that a retry here does not repeat it.
    pub(super) fn keep_foreign_idempotency(&mut self, change: &Change) {
        let Some(body) = change.body() else { return };
        let Some(key) = &body.request_id else { return };
        let stamp = change.header.stamp();
        let acts =
            body.ops.iter().map(|op| (false, matches!(op.kind, replication::OpKind::Upsert { .. }).then_some(stamp)));
        let written =
            Written { stamp, vector: self.state.vector(change.header.partition), acts: acts.collect(), replayed: true };
        let row = IdempotencyRow { digest: None, written, hlc: stamp.hlc };
        self.view.put(keys::IDEMPOTENCY, keys::idempotency(change.header.tenant, key), encode(&row));
    }
}

impl Refusal {
    /// In the audit log's words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound(_) => "not found",
            Self::PreconditionRequired(_) => "precondition required",
            Self::PreconditionFailed(_) => "precondition failed",
            Self::IdempotencyReuse => "idempotency key reused",
            Self::TooLarge => "too large",
        }
    }
}

/// The version of a record as the caller knows it: fields it may not see do not count.
pub fn version_seen(seen: Option<&std::collections::BTreeSet<FieldId>>, record: &Record) -> Stamp {
    seen.map_or_else(|| record.version(), |fields| FieldMask::only(fields.clone()).version(record))
}

fn seen_version(act: &Act, record: &Record) -> Stamp {
    version_seen(act.seen.as_ref(), record)
}

fn refuse(index: u32, act: &Act, old: Option<&Record>) -> Option<Refusal> {
    let existing = old.filter(|record| record.exists());
    let version = existing.map(|record| seen_version(act, record));
    let is_at = |stamps: &[Stamp]| version.is_some_and(|version| stamps.contains(&version));
    let creates = matches!(act.change, ActChange::Put(_) | ActChange::Upsert { .. } | ActChange::Check);
    if existing.is_none() && !creates {
        return Some(Refusal::NotFound(index));
    }
    let holds = match &act.must {
        Must::Nothing => true,
        Must::BeAbsentOrStated if existing.is_some() => return Some(Refusal::PreconditionRequired(index)),
        Must::BeAbsentOrStated => true,
        Must::Exist => existing.is_some(),
        Must::BeAbsent => existing.is_none(),
        Must::BeAt(stamps) => is_at(stamps),
        Must::NotBeAt(stamps) => !is_at(stamps),
    };
    (!holds).then_some(Refusal::PreconditionFailed(index))
}

/// The operation that makes an act true; none where nothing is to change.
fn operation(act: &Act, old: Option<&Record>) -> Option<Op> {
    let fields = match &act.change {
        ActChange::Check => return None,
        ActChange::Delete => return Some(Op::delete(act.table, &act.key)),
        ActChange::Put(fields) => {
            let mut writes: BTreeMap<FieldId, FieldWrite> =
                fields.iter().map(|(id, merge, value)| (*id, assign(*id, *merge, value, old))).collect();
            // A put says what the record is: what it leaves out, of what the caller can see, goes.
            for (id, state) in old.into_iter().flat_map(Record::visible) {
                let known = act.seen.as_ref().is_none_or(|seen| seen.contains(&id));
                if known && !writes.contains_key(&id) {
                    writes.insert(id, clear(state));
                }
            }
            writes.into_iter().collect()
        }
        ActChange::Patch { set, increment } | ActChange::Upsert { set, increment } => {
            let sets = set.iter().map(|(id, merge, value)| (*id, assign(*id, *merge, value, old)));
            let increments = increment.iter().map(|(id, by)| (*id, FieldWrite::Increment { by: *by }));
            sets.chain(increments).collect()
        }
    };
    Some(Op::upsert(act.table, &act.key, fields))
}

/// Sets a field; a counter is set by adding what is missing.
fn assign(id: FieldId, merge: Merge, value: &Value, old: Option<&Record>) -> FieldWrite {
    if merge != Merge::Counter {
        return FieldWrite::Set { value: value.clone(), merge };
    }
    let current =
        old.and_then(|record| record.visible().find(|(field, _)| *field == id)).map(|(_, state)| state.value());
    let number = |value: Option<&Value>| if let Some(Value::Int(number)) = value { *number } else { 0 };
    FieldWrite::Increment { by: number(Some(value)).wrapping_sub(number(current.as_ref())) }
}

fn clear(state: &FieldState) -> FieldWrite {
    match state {
        FieldState::Register { .. } => FieldWrite::Set { value: Value::Null, merge: Merge::Lww },
        // An extreme never falls back but by deletion: null exceeds nothing, and the operation leaves it out.
        FieldState::Extreme { .. } => FieldWrite::Set { value: Value::Null, merge: Merge::Max },
        FieldState::Counter { .. } => match state.value() {
            Value::Int(total) => FieldWrite::Increment { by: total.wrapping_neg() },
            _ => FieldWrite::Increment { by: 0 },
        },
    }
}

/// The audit leaf of one act: what it touched, with old and new values.
fn note_of(base: &Note, act: &Act, touched: &[FieldChange]) -> Note {
    let action = match act.change {
        ActChange::Put(_) => "record.put",
        ActChange::Patch { .. } | ActChange::Upsert { .. } => "record.patch",
        ActChange::Delete => "record.delete",
        ActChange::Check => "record.view",
    };
    let name = |field: FieldId| act.names.get(&field).cloned().unwrap_or_else(|| field.to_string());
    let side = |pick: fn(&FieldChange) -> &Option<Value>| {
        let values: serde_json::Map<String, serde_json::Value> =
            touched.iter().filter_map(|change| Some((name(change.field), pick(change).as_ref()?.to_json()))).collect();
        (!values.is_empty()).then(|| serde_json::Value::Object(values).to_string())
    };
    Note {
        action: if base.action.is_empty() { action.into() } else { base.action.clone() },
        resource: Some(act.resource.clone()),
        fields: touched.iter().map(|change| name(change.field)).collect(),
        values: Some((side(|change| &change.before), side(|change| &change.after))),
        ..base.clone()
    }
}
