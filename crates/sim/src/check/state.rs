//! What nodes and regions hold: replicas alike, regions alike, change logs sound, tenants apart.

use super::{Evidence, Findings, rows};
use crate::door::PINNED_MARK;
use crate::setup::{REGIONS, TENANTS};
use crate::world::{World, region_of};
use model::{GroupId, PartitionId, TenantId};
use node::machine::keys::{self, KEYSPACES};
use replication::Digest;
use std::collections::BTreeMap;
use storage::Keyspace;

/// Nodes of a region that have applied the same hold the same, byte by byte.
pub fn replicas_are_equal(world: &World, findings: &mut Findings) {
    let mut first: BTreeMap<(usize, GroupId), (Option<u64>, String, blake3::Hash)> = BTreeMap::new();
    for node in world.nodes() {
        for (group, data) in &node.data {
            let space = data.machine.read_space();
            let mut hasher = blake3::Hasher::new();
            for number in 1..KEYSPACES.len() {
                for (key, value) in rows(&*space, Keyspace(u8::try_from(number).unwrap_or(0))) {
                    hasher.update(&(key.len() as u64).to_le_bytes()).update(&key).update(&value);
                }
            }
            let (applied, hash) = (data.group.applied(), hasher.finalize());
            let at = (region_of(node.place.id), *group);
            let known = first.entry(at).or_insert_with(|| (applied, node.place.name.clone(), hash));
            if known.0 == applied && known.2 != hash {
                findings.push(format!(
                    "replicas: {} and {} differ in group {group} at {applied:?}",
                    known.1, node.place.name
                ));
            }
        }
    }
}

/// Equal vectors mean equal digests, at any time: called while the world runs too.
pub fn equal_vectors_mean_equal_digests(world: &World, findings: &mut Findings) {
    let mut known: BTreeMap<(PartitionId, Vec<(model::Origin, u64)>), (String, [u8; 32])> = BTreeMap::new();
    let pinned: Vec<PartitionId> = pinned_partitions(world);
    for node in world.nodes() {
        let is_allowed = TENANTS.iter().all(|plan| plan.regions.contains(&region_of(node.place.id)));
        for data in node.data.values() {
            for (partition, vector, digest) in data.machine.digests().unwrap_or_default() {
                if pinned.contains(&partition) && !is_allowed {
                    continue;
                }
                let key = (partition, vector.iter().collect());
                let first = known.entry(key).or_insert_with(|| (node.place.name.clone(), digest));
                if first.1 != digest {
                    findings.push(format!(
                        "convergence: {} and {} have the same vector of {partition} and different digests",
                        first.0, node.place.name
                    ));
                }
            }
        }
    }
}

fn pinned_partitions(world: &World) -> Vec<PartitionId> {
    let Some(node) = world.any_node() else { return Vec::new() };
    let control = node.control();
    let pinned = control.tenants.values().filter(|tenant| tenant.allowed_regions.len() < REGIONS.len());
    pinned.map(|tenant| world.cluster.partition(tenant.id)).collect()
}

/// At rest every region holds the same records of the tenants whose data may be there.
pub fn regions_are_equal(evidence: &Evidence, findings: &mut Findings) {
    let first = &evidence.regions[0];
    for other in &evidence.regions[1..] {
        for (group, data) in &first.node.data {
            if data.machine.vectors() != other.node.data[group].machine.vectors() {
                findings.push(format!(
                    "convergence: regions 0 and {} have different vectors of group {group}",
                    other.region
                ));
            }
        }
        let tenants =
            evidence.ids.iter().map(|ids| ids.tenant).zip(TENANTS.map(|plan| plan.regions.contains(&other.region)));
        for (tenant, is_allowed) in tenants.chain([(TenantId::PLATFORM, true)]) {
            let here = records_of(&first.node, tenant);
            let there = records_of(&other.node, tenant);
            if is_allowed && here != there {
                let differ =
                    here.iter().find(|(key, value)| there.get(*key) != Some(value)).map(|(key, _)| key.clone());
                let name = differ.as_deref().map(keys::record_key).unwrap_or_default().to_owned();
                findings.push(format!(
                    "convergence: regions 0 and {} hold different records of {tenant}: '{name}'",
                    other.region
                ));
            }
            if !is_allowed && !there.is_empty() {
                findings.push(format!("residency: region {} holds records of {tenant}", other.region));
            }
        }
    }
}

fn records_of(node: &node::Node, tenant: TenantId) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let space = node.data_of(tenant).machine.read_space();
    let all = rows(&*space, keys::DATA);
    all.into_iter().filter(|(key, _)| key.starts_with(&tenant.get().to_be_bytes())).collect()
}

/// Every origin's sequence is whole, its chain verifies, its clock never goes back.
pub fn logs_are_sound(evidence: &Evidence, findings: &mut Findings) {
    for region in &evidence.regions {
        for data in region.node.data.values() {
            for (partition, positions) in data.machine.positions() {
                for (origin, position) in positions {
                    let changes = data.machine.changes_after(partition, origin, 0, usize::MAX).unwrap_or_default();
                    let (mut last, mut chain, mut hlc) = (0, Digest::ZERO, model::Hlc::ZERO);
                    for change in &changes {
                        let header = &change.header;
                        if header.sequence != last + 1 || !change.follows(chain) {
                            findings.push(format!(
                                "chain: region {} {partition} {origin} breaks after {last}",
                                region.region
                            ));
                            break;
                        }
                        if header.hlc <= hlc {
                            findings.push(format!(
                                "clock: region {} {partition} {origin} goes from {hlc} to {} at {}",
                                region.region, header.hlc, header.sequence
                            ));
                        }
                        (last, chain, hlc) = (header.sequence, change.chain, header.hlc);
                    }
                    if last != position.sequence || chain != position.chain {
                        findings.push(format!(
                            "chain: region {} {partition} {origin} is said to be at {} and holds {last}",
                            region.region, position.sequence
                        ));
                    }
                }
            }
        }
    }
}

/// A tenant's values are under its own keys only, and nowhere where its data may not be.
pub fn tenants_are_apart(evidence: &Evidence, world: &World, findings: &mut Findings) {
    for region in &evidence.regions {
        for data in region.node.data.values() {
            let space = data.machine.read_space();
            for (key, value) in rows(&*space, keys::DATA) {
                let head = key.first_chunk::<8>().copied().map_or(u64::MAX, u64::from_be_bytes);
                for (ids, plan) in evidence.ids.iter().zip(TENANTS) {
                    let mark = format!("{}~", plan.name);
                    if head != ids.tenant.get() && holds(&value, mark.as_bytes()) {
                        findings.push(format!(
                            "tenants: region {} has a value of {} under a key of t{head}",
                            region.region, plan.name
                        ));
                    }
                }
            }
        }
    }
    let forbidden = world.nodes().filter(|node| !TENANTS[1].regions.contains(&region_of(node.place.id)));
    for node in forbidden {
        for data in node.data.values() {
            let space = data.machine.read_space();
            for (number, name) in KEYSPACES.iter().enumerate() {
                let all = rows(&*space, Keyspace(u8::try_from(number).unwrap_or(0)));
                if all.iter().any(|(_, value)| holds(value, PINNED_MARK)) {
                    findings.push(format!("residency: {} holds a pinned tenant's value in '{name}'", node.place.name));
                }
            }
        }
    }
}

fn holds(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}
