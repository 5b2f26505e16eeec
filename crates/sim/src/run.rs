//! One run: a cluster is set up, things go wrong under load, everything is mended, and the oracle speaks.

use crate::check::{Evidence, Findings, changes, events, state};
use crate::client::Office;
use crate::history::History;
use crate::nemesis::Nemesis;
use crate::plant::Plant;
use crate::random::Random;
use crate::setup::{self, REGIONS};
use crate::trace::Trace;
use crate::workload::Workload;
use crate::world::{World, groups_of};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// After everything is mended, all must be well within this.
pub const HEAL_WITHIN: Duration = Duration::from_secs(30);
/// How long a new cluster may take until it serves.
const SETUP_WITHIN: Duration = Duration::from_secs(60);
/// Checks while it runs are this far apart.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// A hunt ends after so long for each of its kills.
const HUNT_PER_KILL: Duration = Duration::from_secs(5);

/// How long after the last event every window is closed: lateness, silence, the longest timespan.
const WINDOWS_CLOSE: Duration = Duration::from_secs(60 + 30 + 60 + 10);

/// What to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// Hunt those who have duties, so many times, and do nothing else.
    pub hunt: Option<u64>,
    /// Print what happens.
    pub verbose: bool,
    /// Print every event.
    pub dump: bool,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What does not hold; empty when all does.
    pub findings: Vec<String>,
    /// The hash of everything that happened.
    pub trace: String,
    /// Of so many events.
    pub events: u64,
    /// Operations of clients.
    pub operations: usize,
    /// Of them, acknowledged.
    pub acknowledged: usize,
    /// Times that a node fell.
    pub kills: u64,
    /// Alerts that were raised.
    pub alerts: usize,
    /// Titles of their rules.
    pub rules: BTreeSet<String>,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// The last things that were told.
    pub lines: Vec<String>,
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs one seed on this thread.
pub fn run(options: Options) -> Report {
    // A panic in a task of the node would end only that task: here it is a finding.
    std::panic::set_hook(Box::new(|panic| PANICS.lock().push(panic.to_string())));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&options.seed.to_le_bytes()))
        .build()
        .expect("a runtime without input and output always builds");
    let report = runtime.block_on(async { Play::new(options).perform().await });
    drop(runtime);
    let _ = std::panic::take_hook();
    let mut report = report;
    report.findings.extend(PANICS.lock().drain(..).map(|panic| format!("panic: {panic}")));
    report
}

struct Play {
    options: Options,
    world: World,
    trace: Arc<Trace>,
    history: History,
}

impl Play {
    /// Inside the runtime: the virtual clocks begin here.
    fn new(options: Options) -> Self {
        let mut random = Random::new(options.seed, 0x57a9e);
        let groups = u16::try_from(random.between(1, 2)).unwrap_or(1);
        let trace = Arc::new(Trace::new(options.verbose, options.dump));
        let world = World::new(options.seed, groups, options.plant, Arc::clone(&trace));
        Self { options, world, trace, history: History::default() }
    }

    async fn perform(mut self) -> Report {
        if let Err(error) = self.play().await {
            self.trace.finding(error);
        }
        let history = self.history.lock();
        let alerts = self.world.any_node().map(|node| events::stored(&node)).unwrap_or_default();
        let (trace, events) = self.trace.digest();
        Report {
            seed: self.options.seed,
            findings: self.trace.findings(),
            trace,
            events,
            operations: history.len(),
            acknowledged: history.iter().filter(|op| op.outcome == crate::history::Outcome::Ok).count(),
            kills: self.world.kills,
            alerts: alerts.len(),
            rules: alerts.into_values().map(|alert| alert.rule).collect(),
            virtual_ms: self.trace.now_us() / 1_000,
            lines: self.trace.lines(),
        }
    }

    async fn play(&mut self) -> Result<(), String> {
        let seed = self.options.seed;
        let office = self.set_up().await.map_err(|error| format!("the cluster was not set up: {error}"))?;
        let workload = Workload::new(Arc::new(office), Arc::clone(&self.history), self.options.hunt.is_some());
        let mut nemesis = if self.options.hunt.is_some() { Nemesis::hunter(seed) } else { Nemesis::new(seed) };
        self.trace.tell(format!("{} groups; {}", self.world.cluster.groups, nemesis.describe()));
        nemesis.skew(&self.world);
        self.world.lie(self.options.plant == Some(Plant::LyingFsync));
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for region in 0..REGIONS.len() {
            let random = Random::new(seed, 0xc11e + region as u64);
            clients.spawn(Arc::clone(&workload).run(region, random, stopped.clone()));
        }
        let end = match self.options.hunt {
            Some(kills) => Instant::now() + HUNT_PER_KILL * u32::try_from(kills).unwrap_or(u32::MAX),
            None => Instant::now() + Random::new(seed, 0x1e46).millis(8_000, 20_000),
        };
        let mut check_at = Instant::now();
        while Instant::now() < end && self.options.hunt.is_none_or(|kills| self.world.kills < kills) {
            nemesis.step(&mut self.world).await;
            if Instant::now() >= check_at {
                check_at = Instant::now() + CHECK_EVERY;
                self.check_as_you_go()?;
            }
        }
        self.trace.tell("everything is mended".into());
        nemesis.heal(&mut self.world).await;
        stop.send_replace(true);
        if self.options.hunt.is_some() {
            // What is told late is told after the mending too, and windows close when nothing more can come.
            while clients.join_next().await.is_some() {}
            tokio::time::sleep(WINDOWS_CLOSE).await;
        }
        let healed_at = Instant::now();
        while clients.join_next().await.is_some() {}
        let left = HEAL_WITHIN.saturating_sub(healed_at.elapsed());
        workload.prove_service(Random::new(seed, 0x9e41), left).await.map_err(|why| format!("recovery: {why}"))?;
        self.settle(healed_at + HEAL_WITHIN).await?;
        self.trace.tell(format!("settled {} ms after the mending", healed_at.elapsed().as_millis()));
        let history = self.history.lock().clone();
        let evidence = Evidence::gather(&self.world, history).ok_or("a region has no node")?;
        let conflicts: usize = evidence.regions.iter().map(|region| changes(&region.node).len()).sum();
        self.trace.event("rest", &[conflicts as u64], &[]);
        self.report(evidence.check(&self.world));
        Ok(())
    }

    fn report(&self, findings: Findings) {
        findings.into_iter().for_each(|finding| self.trace.finding(finding));
    }

    fn check_as_you_go(&self) -> Result<(), String> {
        if let Some(fault) = self.world.fault() {
            return Err(fault);
        }
        let mut findings = Findings::new();
        state::equal_vectors_mean_equal_digests(&self.world, &mut findings);
        state::replicas_are_equal(&self.world, &mut findings);
        match findings.into_iter().next() {
            Some(finding) => Err(finding),
            None if self.trace.findings().is_empty() => Ok(()),
            None => Err("what was found while it ran".into()),
        }
    }

    async fn set_up(&mut self) -> anyhow::Result<Office> {
        for node in self.world.all() {
            self.world.start(node, true).await;
        }
        let until = Instant::now() + SETUP_WITHIN;
        let is_ready = |node: &node::Node| {
            !node.control().keys.is_empty() && groups_of(node).iter().all(|group| group.leader().is_some())
        };
        while !self.world.nodes().all(|node| is_ready(&node)) {
            anyhow::ensure!(Instant::now() < until, "no leaders in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        setup::create(&self.world, self.options.seed).await?;
        let mut office = Office {
            seats: Arc::clone(&self.world.seats),
            trace: Arc::clone(&self.trace),
            plant: self.options.plant,
            tokens: Default::default(),
            requests: Default::default(),
        };
        office.log_in_all().await?;
        office.create_meters(&mut Random::new(self.options.seed, 0x3e7e)).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(office)
    }

    /// Waits until every node has what all have, and detection has caught up.
    async fn settle(&self, until: Instant) -> Result<(), String> {
        loop {
            let Some(why) = self.unsettled() else { return Ok(()) };
            if let Some(fault) = self.world.fault() {
                return Err(fault);
            }
            if Instant::now() >= until {
                return Err(format!("recovery: after {} s {why}", HEAL_WITHIN.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What is not yet as it must be.
    fn unsettled(&self) -> Option<String> {
        let nodes: Vec<_> = self.world.nodes().collect();
        let first = nodes.first()?;
        for node in &nodes {
            let name = &node.place.name;
            if let Some(group) = groups_of(node).into_iter().find(|group| group.leader().is_none()) {
                return Some(format!("{name} knows no leader of {}: {:?}", group.id(), group.status()));
            }
            if node.control.group.applied() != first.control.group.applied() {
                return Some(format!("{name} is behind in the control plane"));
            }
            let near = nodes.iter().find(|other| other.region.id == node.region.id)?;
            for (group, data) in &node.data {
                if data.machine.vectors() != first.data[group].machine.vectors() {
                    return Some(format!(
                        "{name} has {:?} of {group}, {} has {:?}",
                        data.machine.vectors(),
                        first.place.name,
                        first.data[group].machine.vectors()
                    ));
                }
                if data.group.applied() != near.data[group].group.applied() {
                    return Some(format!("{name} is behind in {group}"));
                }
            }
        }
        let regions: Vec<_> = (0..REGIONS.len()).filter_map(|region| self.world.node_in(region)).collect();
        events::difference(&events::undisturbed(&regions), first)
            .or_else(|| events::misfiled(first).into_iter().next())
            .or_else(|| events::untold(first, &self.world.outside))
    }
}
