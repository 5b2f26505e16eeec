//! What runs, what is stuck, where it answers, and how regions compare.

use super::wait::internal;
use crate::machine::command::Lease;
use crate::node::Node;
use api::core::Answer;
use api::problem::{Problem, Unavailable};
use api::types::{
    Caller, ClusterStatus, Convergence, DutyStatus, Endpoints, GroupStatus, Health, LinkStatus, PartitionHash,
    RegionEndpoints, Stuck,
};
use consensus::Role;
use identity::{Action, Session};
use model::{GroupId, NodeId, TenantId};
use replication::inbox::State;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Node {
    /// The secret that seals page tokens: derived from the oldest session key, so every node has the same.
    pub(crate) fn page_secret(&self) -> [u8; 32] {
        let control = self.control();
        control.keys.first().map_or([0; 32], |key| key.secret.derive("holdfast page token 1").as_bytes().to_owned())
    }

    pub(crate) fn health_view(&self) -> Health {
        Health { status: "ok", node: self.place.name.clone(), region: self.region.name.clone() }
    }

    /// Ready: set up, not stopping, and every group has a leader.
    pub(crate) fn ready(&self) -> Answer<Health> {
        let not = |reason, detail: String| Err(Problem::unavailable(reason, detail, Duration::from_secs(1)));
        if self.stopping.load(Ordering::Acquire) {
            return not(Unavailable::ShuttingDown, "the node is stopping".into());
        }
        if self.control().keys.is_empty() {
            return not(Unavailable::Starting, "the control plane has not been set up or read yet".into());
        }
        let mute = self.data.iter().find(|(_, data)| !data.group.is_led());
        match mute {
            Some((group, _)) => {
                not(Unavailable::NoQuorum, format!("group {} has no leader with a majority", group.get()))
            }
            None => Ok(self.health_view()),
        }
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        let region = |region: &model::cluster::Region| RegionEndpoints {
            name: region.name.clone(),
            api: region.nodes.iter().map(|node| format!("https://{}", node.api)).collect(),
        };
        Endpoints {
            cluster: self.cluster.name.clone(),
            region: self.region.name.clone(),
            regions: self.cluster.regions.iter().map(region).collect(),
        }
    }

    /// Sets the gauges that follow the groups and links.
    pub(crate) fn observe_groups(&self) {
        let metrics = &self.metrics;
        for (id, data) in &self.data {
            let name = id.get().to_string();
            metrics.applied_index.with_label_values(&[&name]).set(data.group.applied().unwrap_or(0).cast_signed());
            metrics.leading.with_label_values(&[&name]).set(i64::from(data.group.is_leader()));
            metrics.audit_leaves.with_label_values(&[&name]).set(data.machine.audit_head().0.cast_signed());
        }
        for (id, data) in &self.data {
            for (region, age_ms) in self.exposure_ms(data) {
                let labels = [id.get().to_string(), self.region_name(region)];
                metrics
                    .exposure_seconds
                    .with_label_values(&labels.each_ref().map(String::as_str))
                    .set(age_ms as f64 / 1000.0);
            }
        }
        metrics.link_state.reset();
        for ((group, region), link) in self.links.lock().iter() {
            let labels = [group.get().to_string(), self.region_name(*region), link_state(link.state).to_owned()];
            metrics.link_state.with_label_values(&labels.each_ref().map(String::as_str)).set(1);
        }
    }

    /// For each other region: the age of the oldest change of this region that it has not made durable.
    fn exposure_ms(&self, data: &crate::node::DataGroup) -> Vec<(model::RegionId, u64)> {
        let (origin, now_ms) = (self.region.origin(), self.world.clock.wall_ms());
        let (vectors, progress) = (data.machine.vectors(), data.machine.progress());
        let age_of = |region: model::RegionId| {
            let has = progress.get(&region);
            let oldest = vectors.iter().filter_map(|(partition, vector)| {
                let durable = has.and_then(|has| has.get(partition)).map_or(0, |has| has.get(origin));
                let missing = (vector.get(origin) > durable)
                    .then(|| data.machine.changes_after(*partition, origin, durable, 1).ok()?.pop())
                    .flatten()?;
                Some(now_ms.saturating_sub(missing.header.hlc.wall_ms()))
            });
            oldest.max().unwrap_or(0)
        };
        let others = self.cluster.regions.iter().map(|region| region.id).filter(|region| *region != self.region.id);
        others.map(|region| (region, age_of(region))).collect()
    }

    pub(super) fn node_name(&self, id: NodeId) -> String {
        self.cluster.node(id).map_or_else(|| id.to_string(), |(_, node)| node.name.clone())
    }

    /// What runs, and what is stuck and why.
    pub(crate) async fn cluster_status(&self, caller: &Caller, session: &Session) -> Answer<ClusterStatus> {
        self.permit(caller, session, Action::ClusterRead, TenantId::PLATFORM, "cluster").await?;
        let raft: Vec<consensus::GroupStatus> =
            self.data.values().map(|data| data.group.status()).chain([self.control.group.status()]).collect();
        let links: Vec<LinkStatus> = self
            .links
            .lock()
            .iter()
            .map(|((group, region), link)| LinkStatus {
                region: self.region_name(*region),
                group: group.get().to_string(),
                state: link_state(link.state).into(),
                behind: Some(link.behind),
                lag_ms: None,
            })
            .collect();
        Ok(ClusterStatus {
            cluster: self.cluster.name.clone(),
            region: self.region.name.clone(),
            node: self.place.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            groups: raft.iter().map(|status| self.group_view(status)).collect(),
            duties: self.duties()?,
            stuck: raft.iter().filter_map(|status| self.stuck_group(status)).chain(self.stuck_links()).collect(),
            links,
        })
    }

    fn duties(&self) -> Answer<Vec<DutyStatus>> {
        let leases = self.home().machine.leases().map_err(|error| internal("the duties cannot be read", &error))?;
        let view = |(duty, lease): (String, Lease)| DutyStatus {
            node: self.node_name(lease.holder),
            epoch: lease.epoch,
            duty,
        };
        Ok(leases.into_iter().map(view).collect())
    }

    fn group_view(&self, status: &consensus::GroupStatus) -> GroupStatus {
        GroupStatus {
            group: group_name(status.group),
            leader: status.leader.map(|leader| self.node_name(leader)),
            role: role_name(status.role).into(),
            term: status.term,
            committed: status.committed.unwrap_or(0),
            applied: status.applied.unwrap_or(0),
            voters: status.voters.iter().map(|voter| self.node_name(*voter)).collect(),
        }
    }

    fn stuck_group(&self, status: &consensus::GroupStatus) -> Option<Stuck> {
        let what = format!("group {}", group_name(status.group));
        let stuck = |why: String| Some(Stuck { what: what.clone(), why, since_ms: None });
        if let Some(fault) = &status.fault {
            return stuck(format!("stopped on this node: {fault}"));
        }
        if status.voters.is_empty() {
            return stuck("it was never initialized: start every node of a new cluster with --first".into());
        }
        if !status.is_led {
            return stuck("no leader with a majority: a majority of its voters cannot be reached from here".into());
        }
        let (applied, committed) = (status.applied.unwrap_or(0), status.committed.unwrap_or(0));
        if applied + 1_000 < committed {
            return stuck(format!("{} entries are committed and not applied here yet", committed - applied));
        }
        let behind =
            status.matched.iter().find(|(_, matched)| matched.unwrap_or(0) + 1_000 < status.last_log.unwrap_or(0));
        behind.and_then(|(node, matched)| {
            stuck(format!(
                "{} has only index {} of {}",
                self.node_name(*node),
                matched.unwrap_or(0),
                status.last_log.unwrap_or(0)
            ))
        })
    }

    fn stuck_links(&self) -> Vec<Stuck> {
        let links = self.links.lock();
        let stuck = links.iter().filter(|(_, link)| link.state != State::Live);
        let view = stuck.map(|((group, region), link)| Stuck {
            what: format!("link from {} for group {}", self.region_name(*region), group.get()),
            why: match link.state {
                State::Lagging if !link.connected => "none of the region's nodes answers".into(),
                State::Lagging => format!("{} changes behind", link.behind),
                State::NeedsSnapshot => "the other region no longer keeps what is missing here".into(),
                State::Bootstrapping => "merging a snapshot".into(),
                State::ClockQuarantine => "a change from the future is held: compare the regions' clocks".into(),
                State::Fenced | State::Live => "fenced".into(),
            },
            since_ms: Some(link.since_ms),
        });
        view.collect()
    }

    /// Hash and vector of each partition here: equal vectors must have equal hashes.
    pub(crate) async fn convergence(&self, caller: &Caller, session: &Session) -> Answer<Convergence> {
        self.permit(caller, session, Action::ClusterRead, TenantId::PLATFORM, "convergence").await?;
        let mut partitions = Vec::new();
        for data in self.data.values() {
            for (partition, vector, hash) in
                data.machine.digests().map_err(|error| super::wait::internal("the hashes cannot be read", &error))?
            {
                partitions.push(PartitionHash {
                    partition: partition.get(),
                    hash: hex::encode(hash),
                    vector: vector.iter().map(|(origin, sequence)| (origin.to_string(), sequence)).collect(),
                });
            }
        }
        partitions.sort_by_key(|partition| partition.partition);
        Ok(Convergence { region: self.region.name.clone(), partitions })
    }
}

fn group_name(group: GroupId) -> String {
    if group == GroupId::CONTROL { "control".into() } else { group.get().to_string() }
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}

/// The word for a link's state in the API and in metrics.
pub(crate) const fn link_state(state: State) -> &'static str {
    match state {
        State::Live => "live",
        State::Lagging => "lagging",
        State::NeedsSnapshot => "needs_snapshot",
        State::Bootstrapping => "bootstrapping",
        State::ClockQuarantine => "clock_quarantine",
        State::Fenced => "fenced",
    }
}
