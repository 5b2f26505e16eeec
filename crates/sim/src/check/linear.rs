//! Reads: linearizable in a region, at least as new as their session, and never of another tenant.
//!
//! Writes of a record are ordered by their stamps, which the logs tell; so a register check needs no search.

use super::records::{NOTE, OWNER};
use super::{Evidence, Findings};
use crate::history::{Kind, Op, Outcome};
use crate::setup::TENANTS;
use model::{FieldId, Stamp, Value};
use replication::{FieldWrite, OpKind};
use std::collections::BTreeMap;

type Key<'a> = (usize, &'a str);

/// Every deletion of a call, by record.
fn deletions(evidence: &Evidence) -> BTreeMap<(usize, String), Vec<Stamp>> {
    let mut all: BTreeMap<(usize, String), Vec<Stamp>> = BTreeMap::new();
    for (tenant, ids) in evidence.ids.iter().enumerate() {
        for change in evidence.regions[0].changes.iter().filter(|change| change.header.tenant == ids.tenant) {
            let ops = change.body().into_iter().flat_map(|body| &body.ops);
            for op in ops.filter(|op| op.table == ids.calls && matches!(op.kind, OpKind::Delete { .. })) {
                all.entry((tenant, op.key.clone())).or_default().push(change.header.stamp());
            }
        }
    }
    all
}

/// Which change wrote a value, for each tenant.
fn writers(evidence: &Evidence) -> BTreeMap<(usize, FieldId, String), Stamp> {
    let mut all = BTreeMap::new();
    for (tenant, ids) in evidence.ids.iter().enumerate() {
        for change in evidence.regions[0].changes.iter().filter(|change| change.header.tenant == ids.tenant) {
            for op in change.body().into_iter().flat_map(|body| &body.ops).filter(|op| op.table == ids.calls) {
                let OpKind::Upsert { fields } = &op.kind else { continue };
                for (field, write) in fields {
                    if let FieldWrite::Set { value: Value::Text(text), .. } = write {
                        all.insert((tenant, *field, text.clone()), change.header.stamp());
                    }
                }
            }
        }
    }
    all
}

/// What an operation proves about a record at the time it returned.
fn proves(evidence: &Evidence, op: &Op) -> Option<Stamp> {
    if op.outcome != Outcome::Ok {
        return None;
    }
    match op.kind {
        Kind::Read => op.seen.as_ref()?.version,
        _ if op.writes_call() => evidence.stamp(op),
        _ => None,
    }
}

/// What was acknowledged or read before an operation began is in what it reads, and in what it overwrites.
pub fn reads_are_linearizable(evidence: &Evidence, findings: &mut Findings) {
    let (deletions, writers) = (deletions(evidence), writers(evidence));
    for region in 0..evidence.regions.len() {
        let mut by_key: BTreeMap<Key<'_>, Vec<&Op>> = BTreeMap::new();
        for op in
            evidence.history.iter().filter(|op| op.region == region && (op.writes_call() || op.kind == Kind::Read))
        {
            by_key.entry((op.tenant, op.key.as_str())).or_default().push(op);
        }
        for ((tenant, key), ops) in by_key {
            let gone = deletions.get(&(tenant, key.to_owned())).cloned().unwrap_or_default();
            let proofs: Vec<(u64, Stamp, &Op)> =
                ops.iter().filter_map(|op| Some((op.returned, proves(evidence, op)?, *op))).collect();
            for op in ops.iter().filter(|op| op.outcome == Outcome::Ok) {
                let before =
                    proofs.iter().filter(|(returned, _, _)| *returned < op.invoked).map(|(_, stamp, _)| *stamp).max();
                let Some(before) = before else { continue };
                let at = format!("region {region} {}/{key} op {}", TENANTS[tenant].name, op.id);
                match &op.seen {
                    None => {
                        if evidence.stamp(op).is_some_and(|stamp| stamp <= before) {
                            findings
                                .push(format!("linearizable: {at} wrote before {before:?}, which was there already"));
                        }
                    }
                    Some(seen) => match seen.version {
                        Some(version) if version < before => {
                            findings.push(format!("linearizable: {at} read {version:?} after {before:?} was there"));
                        }
                        Some(_) => {}
                        None if gone.iter().any(|stamp| *stamp >= before) => {}
                        None => findings.push(format!("linearizable: {at} found nothing after {before:?} was there")),
                    },
                }
            }
            values_are_new(evidence, &ops, &writers, &gone, findings);
        }
    }
    swaps_are_exclusive(evidence, findings);
}

/// Each field a read finds is at least as new as what was acknowledged for this field before it began.
fn values_are_new(
    evidence: &Evidence,
    ops: &[&Op],
    writers: &BTreeMap<(usize, FieldId, String), Stamp>,
    gone: &[Stamp],
    findings: &mut Findings,
) {
    for read in ops.iter().filter(|op| op.outcome == Outcome::Ok && op.kind == Kind::Read) {
        let Some(seen) = &read.seen else { continue };
        for (field, found) in [(OWNER, &seen.owner), (NOTE, &seen.note)] {
            let writes = |op: &&&Op| match op.kind {
                Kind::Put => true,
                Kind::Swap(_) | Kind::Transact(_) => field == OWNER,
                Kind::Patch => field == NOTE,
                _ => false,
            };
            let earlier = ops.iter().filter(|op| op.outcome == Outcome::Ok && op.returned < read.invoked);
            let least = earlier.filter(writes).filter_map(|op| evidence.stamp(op)).max();
            let stamp = found.as_ref().map(|value| writers.get(&(read.tenant, field, value.clone())).copied());
            match (stamp, least) {
                (Some(None), _) => {
                    findings.push(format!("phantom: op {} read {found:?}, which no change wrote", read.id))
                }
                (Some(Some(stamp)), Some(least)) if stamp < least => {
                    findings.push(format!("linearizable: op {} read {found:?} although {least:?} was there", read.id));
                }
                (None, Some(least)) if seen.version.is_some() && !gone.iter().any(|stamp| *stamp >= least) => {
                    findings.push(format!("linearizable: op {} lacks a field that {least:?} wrote", read.id));
                }
                _ => {}
            }
        }
    }
}

/// Of two writes that both say "if it is still this version", one is refused.
fn swaps_are_exclusive(evidence: &Evidence, findings: &mut Findings) {
    let mut won: BTreeMap<(usize, usize, &str, Stamp), u64> = BTreeMap::new();
    for op in evidence.history.iter().filter(|op| op.outcome == Outcome::Ok) {
        if let Kind::Swap(version) = op.kind
            && let Some(other) = won.insert((op.region, op.tenant, &op.key, version), op.id)
        {
            findings.push(format!("precondition: ops {other} and {} both replaced {version:?} of {}", op.id, op.key));
        }
    }
}

/// A session that moves to another region sees there what it wrote here.
pub fn sessions_see_their_writes(evidence: &Evidence, findings: &mut Findings) {
    let deletions = deletions(evidence);
    for op in evidence.history.iter().filter(|op| op.outcome == Outcome::Ok) {
        let Kind::SessionRead(least) = op.kind else { continue };
        let version = op.seen.as_ref().and_then(|seen| seen.version);
        let gone =
            deletions.get(&(op.tenant, op.key.clone())).is_some_and(|gone| gone.iter().any(|stamp| *stamp > least));
        if version.is_none_or(|version| version < least) && !(version.is_none() && gone) {
            findings.push(format!("session: op {} read {version:?} of {} and not its own {least:?}", op.id, op.key));
        }
    }
}

/// What a tenant's user reads was written by that tenant, and what may not be answered is not.
pub fn reads_stay_inside_their_tenant(evidence: &Evidence, findings: &mut Findings) {
    for op in evidence.history.iter().filter(|op| op.outcome == Outcome::Ok) {
        let mark = format!("{}~", TENANTS[op.tenant].name);
        let values = op.seen.iter().flat_map(|seen| [&seen.owner, &seen.note]).flatten();
        for value in values.filter(|value| !value.starts_with(&mark)) {
            findings.push(format!("tenants: op {} of {} read '{value}'", op.id, TENANTS[op.tenant].name));
        }
        if op.kind == Kind::Probe {
            findings.push(format!("tenants: op {} of {} was let into another tenant", op.id, TENANTS[op.tenant].name));
        }
        let is_data = !matches!(op.kind, Kind::Login | Kind::WrongLogin | Kind::Ingest(_));
        if is_data && !TENANTS[op.tenant].regions.contains(&op.region) {
            findings.push(format!("residency: op {} was answered in region {}", op.id, op.region));
        }
    }
}
