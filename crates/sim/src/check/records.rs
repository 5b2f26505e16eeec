//! Records in the end: nothing acknowledged is lost, what won is what had to win, counters are exact.

use super::{Evidence, Findings, Ids, RegionState};
use crate::history::{Kind, Outcome};
use crate::setup::{METER_KEYS, TENANTS};
use crate::workload::CALL_KEYS;
use model::{FieldId, FieldState, Stamp, Value, VersionVector};
use node::machine::command::Select;
use replication::{FieldWrite, OpKind};
use std::collections::{BTreeMap, BTreeSet};

/// The owner field of calls.
pub const OWNER: FieldId = FieldId::new(1);
/// The note field of calls.
pub const NOTE: FieldId = FieldId::new(2);
/// The counter of meters.
const COUNT: FieldId = FieldId::new(1);
/// Conflicts read of one tenant.
const CONFLICTS_MAX: usize = 100_000;

/// Every acknowledged change is in the log of every region that may have it, once; what failed is in none.
pub fn writes_survive(evidence: &Evidence, findings: &mut Findings) {
    let counted: Vec<BTreeMap<&str, u32>> = evidence
        .regions
        .iter()
        .map(|region| {
            let ids = region.changes.iter().filter_map(|change| change.body()?.request_id.as_deref());
            ids.fold(BTreeMap::new(), |mut counts, id| {
                *counts.entry(id).or_default() += 1;
                counts
            })
        })
        .collect();
    for op in evidence.history.iter().filter(|op| op.writes()) {
        let (id, key) = (op.idempotency(), evidence.request_id(op));
        for region in TENANTS[op.tenant].regions {
            let count = counted[*region].get(key.as_str()).copied().unwrap_or(0);
            match (op.outcome, count) {
                (Outcome::Ok, 0) => {
                    findings.push(format!("lost: {:?} {} ({id}) is not in region {region}", op.kind, op.key))
                }
                (Outcome::Failed, 1..) => {
                    findings.push(format!("undead: {:?} {} ({id}) failed and is in region {region}", op.kind, op.key))
                }
                (_, 2..) => {
                    findings.push(format!("twice: {:?} {} ({id}) is {count} times in region {region}", op.kind, op.key))
                }
                _ => {}
            }
        }
    }
}

/// One write of a field, or a deletion, as the log has it.
struct Write<'a> {
    stamp: Stamp,
    deps: &'a VersionVector,
    /// None for a deletion.
    value: Option<&'a Value>,
}

impl Write<'_> {
    /// Whether this writer had seen the other.
    fn has_seen(&self, other: &Self) -> bool {
        self.stamp.origin == other.stamp.origin || self.deps.get(other.stamp.origin) >= other.stamp.sequence
    }
}

fn writes_of<'a>(region: &'a RegionState, ids: &Ids, key: &str, field: FieldId) -> Vec<Write<'a>> {
    let mut writes = Vec::new();
    for change in region.changes.iter().filter(|change| change.header.tenant == ids.tenant) {
        let ops = change.body().into_iter().flat_map(|body| &body.ops);
        for op in ops.filter(|op| op.table == ids.calls && op.key == key) {
            let (stamp, deps) = (change.header.stamp(), &change.header.deps);
            match &op.kind {
                OpKind::Delete { .. } => writes.push(Write { stamp, deps, value: None }),
                OpKind::Upsert { fields } => {
                    let sets = fields.iter().filter(|(id, _)| *id == field).filter_map(|(_, write)| match write {
                        FieldWrite::Set { value, .. } => Some(value),
                        FieldWrite::Increment { .. } => None,
                    });
                    writes.extend(sets.map(|value| Write { stamp, deps, value: Some(value) }));
                }
            }
        }
    }
    writes
}

/// The last writer by stamp is what is read, and who lost without being seen is in the conflict list.
pub fn winners_are_right(evidence: &Evidence, findings: &mut Findings) {
    for (ids, plan) in evidence.ids.iter().zip(TENANTS) {
        for region in evidence.regions.iter().filter(|region| plan.regions.contains(&region.region)) {
            let machine = &region.node.data_of(ids.tenant).machine;
            let losers: BTreeSet<(String, FieldId, Stamp)> = machine
                .conflicts(ids.tenant, None, CONFLICTS_MAX)
                .unwrap_or_default()
                .into_iter()
                .map(|(_, conflict)| (conflict.key.clone(), conflict.field, conflict.loser.stamp))
                .collect();
            for key in CALL_KEYS {
                let found = machine.read_local(ids.tenant, ids.calls, &Select::Key(key.into())).unwrap_or_default();
                let record = found.records.first().map(|(_, record)| record.clone()).unwrap_or_default();
                for field in [OWNER, NOTE] {
                    let writes = writes_of(region, ids, key, field);
                    let latest = writes.last().and_then(|write| write.value.cloned());
                    let held = record.visible().find(|(id, _)| *id == field).map(|(_, state)| state.value());
                    if latest != held {
                        findings.push(format!(
                            "winner: region {} {}/{key} {field} is {held:?}, not {latest:?}",
                            region.region, plan.name
                        ));
                    }
                    // Deletions hide what they delete: only keys that are never deleted have the simple rule.
                    if writes.iter().any(|write| write.value.is_none()) {
                        continue;
                    }
                    for (index, write) in writes.iter().enumerate().take(writes.len().saturating_sub(1)) {
                        let was_seen = writes[index + 1..].iter().any(|later| later.has_seen(write));
                        if !was_seen && !losers.contains(&(key.to_owned(), field, write.stamp)) {
                            findings.push(format!(
                                "conflict: region {} {}/{key} lost {:?} in silence",
                                region.region, plan.name, write.value
                            ));
                        }
                    }
                }
            }
        }
    }
}

/// A counter is the sum of the increments in the log, and these are the acknowledged ones and some of the unknown.
pub fn counters_are_exact(evidence: &Evidence, findings: &mut Findings) {
    for (tenant, (ids, plan)) in evidence.ids.iter().zip(TENANTS).enumerate() {
        for key in METER_KEYS {
            let (mut sure, mut possible) = (0, 0);
            for op in evidence.history.iter().filter(|op| op.tenant == tenant) {
                let meter = if matches!(op.kind, Kind::Transact(_)) { "m0" } else { op.key.as_str() };
                let Some(by) = op.adds().filter(|_| meter == key) else { continue };
                match op.outcome {
                    Outcome::Ok => sure += by,
                    Outcome::Unknown if evidence.stamp(op).is_some() => sure += by,
                    Outcome::Unknown => possible += by,
                    Outcome::Failed => {}
                }
            }
            for region in evidence.regions.iter().filter(|region| plan.regions.contains(&region.region)) {
                let machine = &region.node.data_of(ids.tenant).machine;
                let found = machine.read_local(ids.tenant, ids.meters, &Select::Key(key.into())).unwrap_or_default();
                let state =
                    found.records.first().and_then(|(_, record)| record.fields.get(&COUNT).map(FieldState::value));
                if state != Some(Value::Int(sure)) {
                    findings.push(format!(
                        "counter: region {} {}/{key} is {state:?}, not {sure} (at most {possible} more unknown)",
                        region.region, plan.name
                    ));
                }
            }
        }
    }
}
