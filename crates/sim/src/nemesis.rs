//! What goes wrong, chosen by the seed: each run switches on some faults and leaves others out.
//!
//! Correlated crashes and leaders that fall and are back at once find what single crashes never do.

use crate::random::Random;
use crate::setup::{NODES, REGIONS};
use crate::world::World;
use model::{GroupId, NodeId};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A leader falls and is back before anyone has noticed.
    Bounce,
    /// One node is away for a while.
    Crash,
    /// A whole region is away for a while.
    Region,
    /// Power fails everywhere at once.
    Power,
    /// Power fails in one region, which is back at once.
    Flicker,
    /// One direction between two nodes of a region is cut.
    OneWay,
    /// A node is cut off from its region, in one direction or both.
    Isolate,
    /// A region is cut off from the others, in one direction or both.
    Divide,
    /// Messages are lost.
    Loss,
    /// Messages are late and overtake each other.
    Late,
    /// A wall clock jumps.
    Jump,
    /// A disk is slow.
    SlowDisk,
    /// The node that has a duty of its region falls.
    Hunt,
    /// Everything on the network is as it should be, for a moment.
    Mend,
}

const ALL: [Fault; 13] = [
    Fault::Bounce,
    Fault::Crash,
    Fault::Region,
    Fault::Power,
    Fault::Flicker,
    Fault::OneWay,
    Fault::Isolate,
    Fault::Divide,
    Fault::Loss,
    Fault::Late,
    Fault::Jump,
    Fault::SlowDisk,
    Fault::Hunt,
];

/// What this seed does.
pub struct Nemesis {
    random: Random,
    faults: Vec<Fault>,
    pace_ms: u64,
    rises: BTreeMap<(Instant, NodeId), ()>,
    mends: Option<Instant>,
    /// The region of a hunted node that is cut off until then: the others are its quorum.
    weakened: Option<usize>,
}

impl Nemesis {
    /// Chooses faults and their pace.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 0x4e3e);
        let mut faults: Vec<Fault> = ALL.into_iter().filter(|_| random.percent(45)).collect();
        if random.percent(60) {
            // What has found most is more likely.
            faults.extend([Fault::Bounce, Fault::Bounce]);
        }
        if random.percent(40) || faults.is_empty() {
            faults.extend([Fault::Power, Fault::Flicker]);
        }
        let pace_ms = random.between(200, 1_500);
        Self { random, faults, pace_ms, rises: BTreeMap::new(), mends: None, weakened: None }
    }

    /// Does nothing but to hunt those who detect, file and tell.
    pub fn hunter(seed: u64) -> Self {
        let mut random = Random::new(seed, 0x4e3f);
        let pace_ms = random.between(300, 1_200);
        Self { random, faults: vec![Fault::Hunt], pace_ms, rises: BTreeMap::new(), mends: None, weakened: None }
    }

    /// What this seed may do, for a reader.
    pub fn describe(&self) -> String {
        format!("faults {:?}, one each {} ms", self.faults, self.pace_ms)
    }

    /// How wrong each clock is from the start.
    pub fn skew(&mut self, world: &World) {
        if self.faults.contains(&Fault::Jump) {
            for node in world.all() {
                let off = self.random.between(0, 400) as i64 - 200;
                world.clock(node).set_off(off);
            }
        }
    }

    /// Waits a little, lets rise what is due, and does one thing.
    pub async fn step(&mut self, world: &mut World) {
        let pause = self.random.millis(self.pace_ms / 2, self.pace_ms * 2);
        let until = Instant::now() + pause;
        while let Some(((at, node), ())) = self.rises.pop_first() {
            if at > until {
                self.rises.insert((at, node), ());
                break;
            }
            tokio::time::sleep_until(at).await;
            world.trace.tell(format!("{node} rises"));
            world.start(node, false).await;
        }
        tokio::time::sleep_until(until).await;
        if self.mends.is_some_and(|at| at <= Instant::now()) {
            (self.mends, self.weakened) = (None, None);
            self.mend(world);
        }
        let fault = *self.random.pick(&self.faults.clone()).unwrap_or(&Fault::Bounce);
        self.act(world, fault).await;
    }

    fn mend(&self, world: &World) {
        world.trace.tell("the network is well".into());
        world.network.heal_all();
        world.weather.clear();
    }

    fn later(&mut self) {
        let at = Instant::now() + self.random.millis(300, 5_000);
        self.mends = Some(self.mends.map_or(at, |known| known.min(at)));
    }

    async fn fall(&mut self, world: &mut World, nodes: &[NodeId], from_ms: u64, to_ms: u64) {
        let away = self.random.millis(from_ms, to_ms);
        for node in nodes.iter().filter(|node| world.is_up(**node)).copied().collect::<Vec<_>>() {
            let kept = if self.random.percent(30) { self.random.below(4) } else { 0 };
            world.crash(node, kept).await;
            let apart = if from_ms == 0 { Duration::ZERO } else { self.random.millis(0, 300) };
            self.rises.insert((Instant::now() + away + apart, node), ());
        }
    }

    fn some_region(&mut self) -> usize {
        usize::try_from(self.random.below(REGIONS.len() as u64)).unwrap_or(0)
    }

    fn some_node(&mut self) -> NodeId {
        NodeId::new(1 + self.random.below(REGIONS.len() as u64 * NODES))
    }

    async fn act(&mut self, world: &mut World, fault: Fault) {
        match fault {
            Fault::Bounce => self.bounce(world).await,
            Fault::Crash => {
                let node = self.some_node();
                world.trace.tell(format!("{node} crashes"));
                self.fall(world, &[node], 200, 8_000).await;
            }
            Fault::Region | Fault::Flicker => {
                let region = self.some_region();
                world.trace.tell(format!("power fails in {} ({fault:?})", REGIONS[region]));
                let (from, to) = if fault == Fault::Region { (1_000, 6_000) } else { (0, 40) };
                self.fall(world, &world.of_region(region), from, to).await;
            }
            Fault::Power => {
                world.trace.tell("power fails everywhere".into());
                self.fall(world, &world.all(), 0, 1_000).await;
            }
            Fault::OneWay => {
                let nodes = world.of_region(self.some_region());
                let (from, to) = (self.random.pick(&nodes).copied(), self.random.pick(&nodes).copied());
                if let (Some(from), Some(to)) = (from, to)
                    && from != to
                {
                    world.trace.tell(format!("nothing passes from {from} to {to}"));
                    world.network.cut(from, to);
                    self.later();
                }
            }
            Fault::Isolate => {
                let node = self.some_node();
                let others: Vec<NodeId> = world.all().into_iter().filter(|other| *other != node).collect();
                let way = self.random.below(3);
                world.trace.tell(format!("{node} is cut off ({way})"));
                self.cut(world, &[node], &others, way);
            }
            Fault::Divide => {
                let region = self.some_region();
                let inside = world.of_region(region);
                let outside: Vec<NodeId> = world.all().into_iter().filter(|node| !inside.contains(node)).collect();
                let way = self.random.below(3);
                world.trace.tell(format!("{} is cut off ({way})", REGIONS[region]));
                self.cut(world, &inside, &outside, way);
            }
            Fault::Loss => {
                let ppm = self.random.between(1_000, 80_000);
                world.trace.tell(format!("{ppm} of a million messages are lost"));
                world.weather.loss_ppm.store(u32::try_from(ppm).unwrap_or(0), Ordering::Relaxed);
                self.later();
            }
            Fault::Late => {
                let (delay, jitter) = (self.random.below(60_000), self.random.below(150_000));
                world.trace.tell(format!("messages take {delay} to {} us more", delay + jitter));
                world.weather.delay_us.store(delay, Ordering::Relaxed);
                world.weather.jitter_us.store(jitter, Ordering::Relaxed);
                self.later();
            }
            Fault::Jump => {
                let node = self.some_node();
                let off = self.random.between(0, 6_000) as i64 - 3_000;
                world.trace.tell(format!("the clock of {node} is off by {off} ms"));
                world.clock(node).set_off(off);
            }
            Fault::SlowDisk => {
                let node = self.some_node();
                let time = self.random.millis(500, 4_000);
                world.trace.tell(format!("the disk of {node} is slow for {} ms", time.as_millis()));
                world.slow_disk(node, time);
            }
            Fault::Hunt => self.hunt(world).await,
            Fault::Mend => self.mend(world),
        }
    }

    /// The region keeps its quorum: there is somebody to take over.
    async fn hunt(&mut self, world: &mut World) {
        let region = self.some_region();
        if self.weakened == Some(region) || world.of_region(region).into_iter().any(|node| !world.is_up(node)) {
            return;
        }
        let leases = world.node_in(region).and_then(|node| node.home().machine.leases().ok()).unwrap_or_default();
        let leases: Vec<_> = leases.into_iter().collect();
        let Some((duty, lease)) = self.random.pick(&leases) else { return };
        if self.weakened.is_none() && self.random.percent(25) {
            // It lives, and believes in its lease until it hears of the next one.
            world.trace.tell(format!("{}, which has {duty}, is cut off", lease.holder));
            let others: Vec<NodeId> = world.all().into_iter().filter(|other| *other != lease.holder).collect();
            self.cut(world, &[lease.holder], &others, 2);
            self.mends = Some(Instant::now() + self.random.millis(2_000, 6_000));
            self.weakened = Some(region);
            return;
        }
        world.trace.tell(format!("{}, which has {duty}, falls", lease.holder));
        let away = if self.random.percent(50) { (0, 60) } else { (500, 4_000) };
        self.fall(world, &[lease.holder], away.0, away.1).await;
    }

    async fn bounce(&mut self, world: &mut World) {
        let groups = world.cluster.groups;
        let is_control = self.random.percent(10);
        let region = self.some_region();
        let group = GroupId::new(u16::try_from(self.random.below(u64::from(groups))).unwrap_or(0));
        let leader = if is_control { world.leader(None, GroupId::CONTROL) } else { world.leader(Some(region), group) };
        let Some(leader) = leader else { return };
        world.trace.tell(format!("{leader}, which leads, falls and is back"));
        self.fall(world, &[leader], 0, 30).await;
        // It is back before the next fault.
        self.rise_due(world, Duration::from_millis(31)).await;
    }

    async fn rise_due(&mut self, world: &mut World, within: Duration) {
        let until = Instant::now() + within;
        while let Some(((at, node), ())) = self.rises.pop_first() {
            if at > until {
                self.rises.insert((at, node), ());
                return;
            }
            tokio::time::sleep_until(at).await;
            world.start(node, false).await;
        }
    }

    fn cut(&mut self, world: &World, inside: &[NodeId], outside: &[NodeId], way: u64) {
        for (one, other) in inside.iter().flat_map(|one| outside.iter().map(move |other| (*one, *other))) {
            if way != 1 {
                world.network.cut(one, other);
            }
            if way != 0 {
                world.network.cut(other, one);
            }
        }
        self.later();
    }

    /// Everything is well again, and every node is up.
    pub async fn heal(&mut self, world: &mut World) {
        self.mend(world);
        self.rises.clear();
        for node in world.all() {
            world.clock(node).set_off(0);
            world.slow_disk(node, Duration::ZERO);
            world.start(node, false).await;
        }
    }
}
