//! The world of one run: nodes with their disks, clocks and links, and how they fall and rise.
//!
//! A node that crashes says nothing more, and finds on its disk what was synced, no more than what was queued.

use crate::clock::SimulatedClock;
use crate::door::{Watch, WatchedEngine, WatchedLink};
use crate::plant::Plant;
use crate::random::{Random, SeededEntropy};
use crate::setup;
use crate::sink::Outside;
use crate::trace::Trace;
use consensus::{Group, Timing};
use keyring::SigningKey;
use model::cluster::Cluster;
use model::{GroupId, NodeId};
use node::core::NodeCore;
use node::driver::known::Known;
use node::{Node, Running, Start, World as Doors};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use storage::MemoryEngine;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use transport::{Leg, MemoryNetwork, Peer};

/// How long a crashed group may take to end its tasks.
const END_WAIT: Duration = Duration::from_secs(1);

/// The network's weather, changed while it runs.
#[derive(Default)]
pub struct Weather {
    /// Of a million messages, how many are lost.
    pub loss_ppm: AtomicU32,
    /// Added to every delay at most, in microseconds: what makes messages overtake each other.
    pub jitter_us: AtomicU64,
    /// Added to every delay, in microseconds.
    pub delay_us: AtomicU64,
}

impl Weather {
    fn leg(&self, from: NodeId, to: NodeId) -> Leg {
        let is_near = region_of(from) == region_of(to);
        let (least, spread) = if is_near { (200, 800) } else { (20_000, 40_000) };
        Leg {
            delay: Duration::from_micros(least + self.delay_us.load(Ordering::Relaxed)),
            jitter: Duration::from_micros(spread + self.jitter_us.load(Ordering::Relaxed)),
            loss_ppm: self.loss_ppm.load(Ordering::Relaxed),
        }
    }
    /// Fair again.
    pub fn clear(&self) {
        self.loss_ppm.store(0, Ordering::Relaxed);
        self.jitter_us.store(0, Ordering::Relaxed);
        self.delay_us.store(0, Ordering::Relaxed);
    }
}

/// The position of a node's region.
pub fn region_of(node: NodeId) -> usize {
    usize::try_from((node.get() - 1) / setup::NODES).unwrap_or(usize::MAX)
}

/// The way of clients to the nodes that live.
#[derive(Clone)]
pub struct Seat {
    /// The node's API.
    pub core: Arc<NodeCore>,
    /// Ends when the node does: whoever waits for an answer gets none.
    pub ended: watch::Receiver<bool>,
}

/// All living nodes.
pub type Seats = Arc<Mutex<BTreeMap<NodeId, Seat>>>;

struct Life {
    running: Running,
    engine: MemoryEngine,
    syncing: JoinHandle<()>,
    ended: watch::Sender<bool>,
}

/// What of a node outlives its restarts.
struct Machine {
    clock: Arc<SimulatedClock>,
    /// Syncs are slow until then, in virtual microseconds.
    slow_until: Arc<AtomicU64>,
    disk: Option<MemoryEngine>,
    lives: u64,
}

/// The simulated world.
pub struct World {
    /// The description every node has.
    pub cluster: Arc<Cluster>,
    /// What happened.
    pub trace: Arc<Trace>,
    /// The network.
    pub network: MemoryNetwork,
    /// Its weather.
    pub weather: Arc<Weather>,
    /// The nodes that live.
    pub seats: Seats,
    /// What is planted.
    pub plant: Option<Plant>,
    /// Who is told outside.
    pub outside: Arc<Outside>,
    seed: u64,
    /// Times that a node fell.
    pub kills: u64,
    lives: BTreeMap<NodeId, Life>,
    machines: BTreeMap<NodeId, Machine>,
}

impl World {
    /// A world without nodes.
    pub fn new(seed: u64, groups: u16, plant: Option<Plant>, trace: Arc<Trace>) -> Self {
        consensus::seed(seed);
        let cluster = Arc::new(setup::cluster(groups));
        let network = MemoryNetwork::new(seed);
        let weather = Arc::new(Weather::default());
        let seen = Arc::clone(&weather);
        network.set_conditions(move |from, to| seen.leg(from, to));
        let start = Instant::now();
        let machine = || Machine {
            clock: Arc::new(SimulatedClock::new(start)),
            slow_until: Arc::default(),
            disk: None,
            lives: 0,
        };
        let machines = cluster.nodes().map(|(_, node)| (node.id, machine())).collect();
        Self {
            cluster,
            trace,
            network,
            weather,
            seats: Seats::default(),
            plant,
            outside: Arc::new(Outside::new(seed)),
            seed,
            lives: BTreeMap::new(),
            kills: 0,
            machines,
        }
    }

    /// Starts a node from what its disk holds; `first` for a new cluster.
    pub async fn start(&mut self, id: NodeId, first: bool) {
        if self.lives.contains_key(&id) {
            return;
        }
        let (region, place) = self.cluster.node(id).expect("machines are those of the description");
        let machine = self.machines.get_mut(&id).expect("machines are those of the description");
        machine.lives += 1;
        let engine = machine.disk.take().unwrap_or_default();
        let is_forbidden = setup::TENANTS.iter().any(|plan| !plan.regions.contains(&region_of(id)));
        let watch = Watch { node: id, trace: Arc::clone(&self.trace), plant: self.plant, is_forbidden };
        let queued = Arc::new(Notify::new());
        let purpose = id.get() * 1_000 + machine.lives;
        let disk = Disk {
            engine: engine.clone(),
            queued: Arc::clone(&queued),
            slow_until: Arc::clone(&machine.slow_until),
            random: Random::new(self.seed, purpose ^ 0xd15c_0000),
            trace: Arc::clone(&self.trace),
        };
        let syncing = tokio::spawn(disk.run());
        let link = self.network.join(Peer { node: id, region: region.id, zone: place.zone.clone() });
        let doors = Doors {
            clock: Arc::clone(&machine.clock) as _,
            entropy: Arc::new(SeededEntropy::new(Random::new(self.seed, purpose ^ 0xe477_0000))),
            engine: Arc::new(WatchedEngine::new(engine.clone(), watch.clone(), queued)),
            link: Arc::new(WatchedLink::new(link, watch)),
        };
        let start = Start {
            cluster: Arc::clone(&self.cluster),
            name: place.name.clone(),
            world: doors,
            timing: Timing::default(),
            audit_key: SigningKey::generate(&SeededEntropy::new(Random::new(self.seed, 0xa0d1))),
            session_ms: 3_600_000,
            password_cost: identity::password::Cost::Cheap,
            rules: watch::channel(Known::of(setup::rules())).1,
            care: detection::rollout::Care::default(),
            addresses: None,
            sinks: vec![Arc::clone(&self.outside) as _],
            works: Vec::new(),
            first,
            lost: false,
            bootstrap: first.then(|| setup::bootstrap(self.seed)),
            defect: self.plant.and_then(Plant::defect),
        };
        let (tell_end, ended) = watch::channel(false);
        match Running::start(start).await {
            Ok(running) => {
                let seat = Seat { core: Arc::new(NodeCore(Arc::clone(&running.node))), ended };
                self.seats.lock().insert(id, seat);
                self.lives.insert(id, Life { running, engine, syncing, ended: tell_end });
            }
            Err(error) => {
                self.trace.finding(format!("{} does not start again: {error}", place.name));
                syncing.abort();
                self.network.kill(id);
                machine.disk = Some(engine.crash());
            }
        }
    }

    /// Pulls a node's plug. `kept` queued writes had reached the disk, though nobody was told.
    pub async fn crash(&mut self, id: NodeId, kept: u64) {
        let Some(life) = self.lives.remove(&id) else { return };
        self.kills += 1;
        self.seats.lock().remove(&id);
        self.network.kill(id);
        let kept = usize::try_from(kept).unwrap_or(0).min(life.engine.pending());
        let disk = life.engine.crash_keeping(kept);
        life.syncing.abort();
        life.ended.send_replace(true);
        let groups = groups_of(&life.running.node);
        drop(life.running);
        for group in groups {
            let _ = tokio::time::timeout(END_WAIT, group.shutdown()).await;
        }
        self.machines.get_mut(&id).expect("machines are those of the description").disk = Some(disk);
    }

    /// Every node, living or not.
    pub fn all(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }
    /// The nodes of a region, by its position.
    pub fn of_region(&self, region: usize) -> Vec<NodeId> {
        self.machines.keys().copied().filter(|node| region_of(*node) == region).collect()
    }
    /// Whether a node lives.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.lives.contains_key(&id)
    }
    /// The nodes that live.
    pub fn nodes(&self) -> impl Iterator<Item = Arc<Node>> + '_ {
        self.lives.values().map(|life| Arc::clone(&life.running.node))
    }
    /// A living node of a region.
    pub fn node_in(&self, region: usize) -> Option<Arc<Node>> {
        let mut lives = self.lives.iter().filter(|(id, _)| region_of(**id) == region);
        lives.next().map(|(_, life)| Arc::clone(&life.running.node))
    }
    /// Any living node.
    pub fn any_node(&self) -> Option<Arc<Node>> {
        self.nodes().next()
    }
    /// A node's clock.
    pub fn clock(&self, id: NodeId) -> &SimulatedClock {
        &self.machines[&id].clock
    }
    /// Makes a node's syncs slow for a while.
    pub fn slow_disk(&self, id: NodeId, time: Duration) {
        let until = self.trace.now_us() + u64::try_from(time.as_micros()).unwrap_or(0);
        self.machines[&id].slow_until.store(until, Ordering::Relaxed);
    }
    /// Whether disks lie from now on.
    pub fn lie(&self, lies: bool) {
        self.lives.values().for_each(|life| life.engine.lie(lies));
    }
    /// Who leads a group, as the leader itself sees it, of the highest term.
    pub fn leader(&self, region: Option<usize>, group: GroupId) -> Option<NodeId> {
        let of_region = |id: &NodeId| region.is_none_or(|region| region_of(*id) == region);
        let groups = self.lives.iter().filter(|(id, _)| of_region(id)).filter_map(|(id, life)| {
            let node = &life.running.node;
            let group = if group == GroupId::CONTROL { &node.control.group } else { &node.data.get(&group)?.group };
            group.is_leader().then(|| (group.status().term, *id))
        });
        groups.max().map(|(_, id)| id)
    }
    /// Why a living node's disk or group has stopped, if one has.
    pub fn fault(&self) -> Option<String> {
        self.lives.values().find_map(|life| {
            let node = &life.running.node;
            let group = groups_of(node).into_iter().find_map(|group| group.status().fault);
            life.engine.failed().or(group).map(|why| format!("{} stopped by itself: {why}", node.place.name))
        })
    }
}

/// All groups of a node.
pub fn groups_of(node: &Node) -> Vec<Group> {
    node.data.values().map(|data| data.group.clone()).chain([node.control.group.clone()]).collect()
}

/// A disk that makes durable a little later what it was given.
struct Disk {
    engine: MemoryEngine,
    queued: Arc<Notify>,
    slow_until: Arc<AtomicU64>,
    random: Random,
    trace: Arc<Trace>,
}

impl Disk {
    async fn run(mut self) {
        loop {
            let waiting = self.engine.pending();
            if waiting == 0 {
                self.queued.notified().await;
                continue;
            }
            let is_slow = self.slow_until.load(Ordering::Relaxed) > self.trace.now_us() || self.random.below(200) == 0;
            let pause = if is_slow { self.random.micros(5_000, 80_000) } else { self.random.micros(50, 1_500) };
            tokio::time::sleep(pause).await;
            self.engine.sync_some(waiting);
        }
    }
}
