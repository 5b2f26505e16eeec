//! Starting and stopping a node: spaces, state machines, groups, drivers, in that order.
//!
//! Nothing here knows RocksDB or QUIC: the simulator starts the same node on its own world.

use crate::driver::beat::Beat;
use crate::driver::desk::Filing;
use crate::driver::detect::Shard;
use crate::driver::duty::{self, Work};
use crate::driver::escalate::Escalation;
use crate::driver::known::Known;
use crate::driver::outbox::Outbox;
use crate::driver::proposer::Proposer;
use crate::driver::route::{Gate, Router};
use crate::driver::{anchor, pull, silence};
use crate::machine::Defect;
use crate::machine::command::Refusal;
use crate::machine::control::{ControlCommand, ControlMachine, ControlOutcome};
use crate::machine::data::{DataMachine, Observer};
use crate::machine::keys::KEYSPACES;
use crate::machine::ledger::Ledger;
use crate::machine::note::Note;
use crate::node::{ControlGroup, DataGroup, Node};
use crate::telemetry::metrics::Metrics;
use crate::world::World;
use consensus::{Group, GroupOptions, StartError, Timing};
use detection::rollout::Care;
use identity::{Account, Policy, SessionKey};
use keyring::SigningKey;
use model::cluster::{Cluster, Node as Place, Region};
use model::time::Clock;
use model::{GroupId, Hlc, NodeId, Origin};
use parking_lot::Mutex;
use pipeline::sink::Sink;
use pipeline::transform::enrich::Addresses;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The control group spans regions: everything takes that much longer there.
const CONTROL_SLOWER: u64 = 4;
/// How long leadership is given to be handed over before a node stops.
const HANDOVER_WAIT: Duration = Duration::from_millis(500);

/// What a node is started with.
pub struct Start {
    /// The cluster's description.
    pub cluster: Arc<Cluster>,
    /// This node's name in it.
    pub name: String,
    /// The doors to the world.
    pub world: World,
    /// Raft timing inside the region.
    pub timing: Timing,
    /// Signs this region's audit checkpoints.
    pub audit_key: SigningKey,
    /// How long sessions live.
    pub session_ms: u64,
    /// How dear passwords are to verify.
    pub password_cost: identity::password::Cost,
    /// What detection looks for, as it changes.
    pub rules: watch::Receiver<Known>,
    /// How new rules come into charge.
    pub care: Care,
    /// Where addresses are, if a list says it.
    pub addresses: Option<Arc<Addresses>>,
    /// Who is told outside.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Further duties, each done by one node of the region at a time.
    pub works: Vec<Arc<dyn Work>>,
    /// Only for the first start of a cluster: this node's disk is empty because it is new, not because it was lost.
    pub first: bool,
    /// This node lost its disk: it has to be let go by its groups and taken in again before it counts.
    pub lost: bool,
    /// Only for the first start of a cluster: the first session key and administrator.
    pub bootstrap: Option<(SessionKey, Account)>,
    /// **For tests only.** What is wrong with this node on purpose.
    pub defect: Option<Defect>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFailed {
    /// The description does not know the node.
    #[error("node '{0}' is not in the cluster's description")]
    Unknown(String),
    /// A disk failed, or holds what cannot be read.
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
    /// A group did not start.
    #[error(transparent)]
    Group(#[from] StartError),
}

/// A started node and the tasks that drive it.
pub struct Running {
    /// The node.
    pub node: Arc<Node>,
    router: Arc<Router>,
    tasks: JoinSet<()>,
}

struct Watcher {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    beat: Arc<Beat>,
    cluster: Arc<Cluster>,
}

impl Observer for Watcher {
    fn command(&self, group: GroupId, kind: &'static str) {
        self.metrics.commands.with_label_values(&[&group.to_string(), kind]).inc();
    }
    fn foreign(&self, _group: GroupId, origin: Origin, hlc: Hlc) {
        let behind_ms = self.clock.wall_ms().saturating_sub(hlc.wall_ms());
        let from =
            self.cluster.region(origin.region).map_or_else(|| origin.region.to_string(), |region| region.name.clone());
        self.metrics.remote_durable_seconds.with_label_values(&[&from]).observe(behind_ms as f64 / 1000.0);
    }
    fn conflict(&self, group: GroupId) {
        self.metrics.conflicts.with_label_values(&[&group.to_string()]).inc();
    }
    fn refused(&self, group: GroupId, action: &str, why: Refusal) {
        tracing::error!(%group, action, why = why.reason(), "a part of a report was refused: nothing of it was done");
        self.metrics.reports_refused.with_label_values(&[action]).inc();
    }
    fn entry(&self, group: GroupId, wall_ms: u64) {
        if group == self.cluster.home() {
            self.beat.heard(&*self.clock, wall_ms);
        }
    }
}

/// The groups of a node while it starts.
struct Groups<'a> {
    start: &'a Start,
    region: &'a Region,
    place: &'a Place,
    tasks: &'a mut JoinSet<()>,
}

impl Groups<'_> {
    async fn consensus(
        &self,
        id: GroupId,
        machine: Arc<dyn consensus::Machine>,
        slower: u64,
    ) -> Result<Group, StartError> {
        let timing = self.start.timing;
        let timing = Timing {
            heartbeat_ms: timing.heartbeat_ms * slower,
            election_min_ms: timing.election_min_ms * slower,
            election_max_ms: timing.election_max_ms * slower,
            ..timing
        };
        let options = GroupOptions {
            timing,
            plant_leader_restore: self.start.defect == Some(Defect::LeaderRestored),
            ..GroupOptions::new(id, self.place.id)
        };
        let world = &self.start.world;
        Group::start(options, world.engine.log(), Arc::clone(&world.link), machine).await
    }

    fn proposer(&mut self, group: &Group, id: GroupId) -> Proposer {
        Proposer::start(group.clone(), id, self.place.id, self.start.world.clone(), self.tasks)
    }

    async fn control(&mut self) -> Result<ControlGroup, StartFailed> {
        let cluster = &self.start.cluster;
        let space = self.start.world.engine.space("control", &KEYSPACES)?;
        let ledger = Ledger::new(Arc::clone(cluster), "control", GroupId::CONTROL);
        let machine = Arc::new(ControlMachine::open(space, Arc::clone(cluster), ledger)?);
        let group = self
            .consensus(GroupId::CONTROL, Arc::clone(&machine) as Arc<dyn consensus::Machine>, CONTROL_SLOWER)
            .await?;
        let proposer = self.proposer(&group, GroupId::CONTROL);
        Ok(ControlGroup { group, machine, proposer })
    }

    async fn data(&mut self, id: GroupId, observer: Arc<dyn Observer>) -> Result<DataGroup, StartFailed> {
        let cluster = &self.start.cluster;
        let space = self.start.world.engine.space(&format!("data-{}", id.get()), &KEYSPACES)?;
        let ledger = Ledger::new(Arc::clone(cluster), self.region.name.as_str(), id);
        let machine = DataMachine::open(id, self.region.origin(), cluster.partitions, space, ledger, observer)?;
        let machine = Arc::new(machine.planted(self.start.defect));
        let group = self.consensus(id, Arc::clone(&machine) as Arc<dyn consensus::Machine>, 1).await?;
        let proposer = self.proposer(&group, id);
        Ok(DataGroup { group, machine, proposer })
    }
}

impl Running {
    /// Starts a node; it elects, replicates and detects from now on.
    pub async fn start(mut start: Start) -> Result<Self, StartFailed> {
        let cluster = Arc::clone(&start.cluster);
        let (region, place) =
            cluster.node_named(&start.name).ok_or_else(|| StartFailed::Unknown(start.name.clone()))?;
        let router = Arc::new(Router::default());
        if start.lost {
            for group in (0..cluster.groups).map(GroupId::new).chain([GroupId::CONTROL]) {
                router.gate(group, Gate::Closed);
            }
        }
        start.world.link.serve(Arc::clone(&router) as Arc<dyn transport::Handler>);
        let metrics = Arc::new(Metrics::new());
        let clock = Arc::clone(&start.world.clock);
        let beat = Arc::new(Beat::default());
        let (of_metrics, of_beat) = (Arc::clone(&metrics), Arc::clone(&beat));
        let watcher = Watcher { metrics: of_metrics, clock, beat: of_beat, cluster: Arc::clone(&cluster) };
        let watcher = Arc::new(watcher);
        let mut tasks = JoinSet::new();
        let mut groups = Groups { start: &start, region, place, tasks: &mut tasks };
        let control = groups.control().await?;
        let mut data = BTreeMap::new();
        for id in (0..cluster.groups).map(GroupId::new) {
            data.insert(id, groups.data(id, Arc::clone(&watcher) as Arc<dyn Observer>).await?);
        }
        let all = data.values().map(|data| data.group.clone()).chain([control.group.clone()]).collect();
        router.groups(all);
        if start.first {
            initialize(&cluster, region, &control, &data).await;
        }
        let bootstrap = start.bootstrap.take();
        let (sinks, works) = (std::mem::take(&mut start.sinks), std::mem::take(&mut start.works));
        let (rules, care) = (start.rules.clone(), start.care.clone());
        let node = Arc::new(Node {
            region: region.clone(),
            place: place.clone(),
            world: start.world.clone(),
            control,
            data,
            metrics,
            audit_key: Arc::new(start.audit_key),
            session_ms: start.session_ms,
            password_cost: start.password_cost,
            stopping: AtomicBool::new(false),
            rules: rules.clone(),
            addresses: start.addresses.take(),
            archive: std::sync::OnceLock::new(),
            piped: std::sync::OnceLock::new(),
            policy: Policy::builtin(),
            capabilities: Mutex::default(),
            session_keys: Mutex::default(),
            incidents: tokio::sync::Mutex::default(),
            beat,
            sinks: sinks.clone(),
            links: Mutex::default(),
            cluster: Arc::clone(&cluster),
        });
        router.node(&node);
        let mut running = Self { node, router, tasks };
        running.drive(bootstrap, rules, care, sinks, works);
        Ok(running)
    }

    fn drive(
        &mut self,
        bootstrap: Option<(SessionKey, Account)>,
        rules: watch::Receiver<Known>,
        care: Care,
        sinks: Vec<Arc<dyn Sink>>,
        others: Vec<Arc<dyn Work>>,
    ) {
        let node = &self.node;
        for group in node.data.keys() {
            for peer in node.cluster.regions.iter().filter(|peer| peer.id != node.region.id) {
                self.tasks.spawn(pull::run(Arc::clone(node), *group, peer.id));
            }
        }
        self.tasks.spawn(anchor::run(Arc::clone(node)));
        self.tasks.spawn(silence::run(Arc::clone(node)));
        let of = node.cluster.detection_shards;
        let shard = |number| Shard { number, of, rules: rules.clone(), care: care.clone() };
        let mut works: Vec<Arc<dyn Work>> = vec![Arc::new(Filing), Arc::new(Escalation)];
        works.extend((0..of).map(|number| Arc::new(shard(number)) as Arc<dyn Work>));
        works.extend(sinks.into_iter().flat_map(Outbox::lanes).map(|lane| Arc::new(lane) as Arc<dyn Work>));
        works.extend(others);
        self.tasks.spawn(duty::run(Arc::clone(node), works));
        if let Some((key, account)) = bootstrap {
            self.tasks.spawn(set_up(Arc::clone(node), key, account));
        }
    }

    /// For a node started as `lost`: returns when every group counts on it again.
    pub async fn rejoin(&self) {
        crate::driver::rejoin::rejoin(&self.node, &self.router).await;
    }

    /// Hands over what this node leads, then stops everything. What was acknowledged is durable already.
    pub async fn stop(mut self) {
        self.node.stopping.store(true, Ordering::Release);
        let groups: Vec<Group> =
            self.node.data.values().map(|data| data.group.clone()).chain([self.node.control.group.clone()]).collect();
        for group in &groups {
            if group.is_leader() {
                let others = group.status().voters.into_iter().find(|voter| *voter != self.node.place.id);
                if let Some(other) = others {
                    let _ = tokio::time::timeout(HANDOVER_WAIT, group.transfer_leader(other)).await;
                }
            }
        }
        self.tasks.shutdown().await;
        for group in groups {
            group.shutdown().await;
        }
        self.node.world.link.close().await;
    }
}

/// First start: every node says the same, so that it does not matter which is heard first.
async fn initialize(cluster: &Cluster, region: &Region, control: &ControlGroup, data: &BTreeMap<GroupId, DataGroup>) {
    let all: BTreeSet<NodeId> = cluster.nodes().map(|(_, node)| node.id).collect();
    let here: BTreeSet<NodeId> = region.nodes.iter().map(|node| node.id).collect();
    let groups = data.values().map(|data| (&data.group, &here)).chain([(&control.group, &all)]);
    for (group, voters) in groups {
        if let Err(error) = group.initialize(voters).await {
            tracing::warn!(group = %group.id(), %error, "the group was not initialized");
        }
    }
}

/// Gives a new cluster its first session key and administrator; whichever node comes first does it.
async fn set_up(node: Arc<Node>, key: SessionKey, account: Account) {
    let mut changes = node.control.machine.changes();
    while node.control().keys.is_empty() {
        let note = Note {
            action: "cluster.bootstrap".into(),
            user: Some(account.login.as_str().to_owned()),
            node: node.place.id,
            ..Note::default()
        };
        let command = ControlCommand::Bootstrap { key: key.clone(), account: account.clone(), note };
        match node.propose_control(&command).await {
            Ok(ControlOutcome::User(_)) => tracing::info!("the cluster is set up"),
            Ok(_) => return,
            // No leader yet: something will change.
            Err(_) => {
                let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
            }
        }
    }
}
