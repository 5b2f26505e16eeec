//! The audit logs: whole, alike on every node, and with each thing that was answered in them exactly once.

use super::{Evidence, Findings, rows};
use crate::history::{Kind, Outcome};
use crate::world::{World, groups_of};
use audit::merkle::leaf_hash;
use audit::{AuditEvent, Frontier};
use model::GroupId;
use node::Node;
use node::machine::keys;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::Space;

/// One log of a node: its group, its rows, and the head the node claims.
struct Log {
    group: GroupId,
    space: Arc<dyn Space>,
    size: u64,
    root: [u8; 32],
}

fn logs(node: &Node) -> Vec<Log> {
    let log = |group, space, (size, root)| Log { group, space, size, root };
    let data = node.data.iter().map(|(group, data)| log(*group, data.machine.read_space(), data.machine.audit_head()));
    let control = &node.control.machine;
    data.chain([log(GroupId::CONTROL, control.read_space(), control.audit_head())]).collect()
}

/// Every leaf is there, and the tree over them has the root the node claims; details fit their digests.
pub fn logs_verify(world: &World, findings: &mut Findings) {
    for node in world.nodes() {
        debug_assert_eq!(groups_of(&node).len(), node.data.len() + 1);
        for log in logs(&node) {
            let mut frontier = Frontier::new();
            let leaves = rows(&*log.space, keys::AUDIT_LEAF);
            let details: BTreeMap<Vec<u8>, Vec<u8>> = rows(&*log.space, keys::AUDIT_DETAIL).into_iter().collect();
            for (key, leaf) in &leaves {
                frontier.append(leaf_hash(leaf), |_, _| {});
                let digest = details.get(key).map(|detail| audit::event::DetailDigest::of(detail));
                let said = AuditEvent::decode(leaf).ok().and_then(|event| event.detail_digest);
                if digest != said {
                    findings
                        .push(format!("audit: {} {}: a leaf and its values do not fit", node.place.name, log.group));
                }
            }
            if leaves.len() as u64 != log.size || *frontier.root().as_bytes() != log.root {
                findings.push(format!(
                    "audit: {} {}: {} leaves, a root over {}",
                    node.place.name,
                    log.group,
                    leaves.len(),
                    log.size
                ));
            }
        }
    }
}

/// Each login, view and change that was answered has its entry, and no entry is there twice.
pub fn everything_is_recorded_once(evidence: &Evidence, findings: &mut Findings) {
    let mut entries: BTreeMap<String, Vec<AuditEvent>> = BTreeMap::new();
    for region in &evidence.regions {
        for log in logs(&region.node).into_iter().filter(|log| log.group != GroupId::CONTROL || region.region == 0) {
            for (_, leaf) in rows(&*log.space, keys::AUDIT_LEAF) {
                let Ok(event) = AuditEvent::decode(&leaf) else {
                    findings.push("audit: a leaf cannot be read".into());
                    continue;
                };
                if let Some(request) = event.request_id.clone() {
                    entries.entry(request).or_default().push(event);
                }
            }
        }
    }
    for (request, events) in &entries {
        let mut seen = BTreeMap::new();
        for event in events {
            *seen.entry((event.action.as_str().to_owned(), event.resource.clone())).or_insert(0) += 1;
        }
        for ((action, resource), count) in seen.into_iter().filter(|(_, count)| *count > 1) {
            findings.push(format!("audit: {action} of {resource:?} is there {count} times for request {request}"));
        }
    }
    for op in evidence.history.iter().filter(|op| op.outcome == Outcome::Ok) {
        // The answer to a repeated request is recorded where it was carried out.
        let Some((request, false)) = op.request else { continue };
        let wanted: &[&str] = match op.kind {
            Kind::Put => &["record.put"],
            Kind::Swap(_) | Kind::Patch | Kind::Increment(_) => &["record.patch"],
            Kind::Delete => &["record.delete"],
            Kind::Transact(_) => &["record.patch", "record.patch"],
            Kind::Read | Kind::SessionRead(_) | Kind::LocalRead => &["record.view"],
            Kind::Login => &["login"],
            Kind::WrongLogin => &["login.failed"],
            Kind::Ingest(_) => &["ingest"],
            Kind::Probe => &[],
        };
        let found = entries.get(&format!("{request:032x}")).map(Vec::as_slice).unwrap_or_default();
        let named: Vec<&str> =
            found.iter().map(|event| event.action.as_str()).filter(|name| wanted.contains(name)).collect();
        if named.len() != wanted.len() {
            findings.push(format!(
                "audit: {:?} of '{}' (request {request:032x}) has {named:?}, not {wanted:?}",
                op.kind, op.key
            ));
        }
    }
}
