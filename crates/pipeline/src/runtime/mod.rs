//! A topology at work: sources, the plan between, and sinks, each in a task of its own.
//!
//! A source's batches go through all transforms in one go and into one bounded queue for each sink. Queues that are
//! full hold the source back; nothing is dropped on the way. A batch is acknowledged once every sink it reached has
//! taken it, or has it on disk.

mod ack;
mod bulk;
mod counters;
mod deliver;
mod disk;
mod morgue;
mod pump;
mod queue;
mod sides;
mod supervise;

pub use counters::{Board, Counters, Counts};
pub use deliver::Inlet;
pub use sides::Witness;

use crate::dead::DeadLetters;
use crate::plan::{NoPlan, Plan};
use crate::resource::OpenError;
use crate::sink::Sink;
use crate::source::{self, Source, Surroundings};
use crate::topology::{OWN_SINKS, Topology};
use bulk::Worker;
use deliver::{Delivery, Outlet};
use disk::Disk;
use futures::future::BoxFuture;
use model::time::Clock;
use morgue::Morgue;
use pump::Works;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use supervise::{Standing, kept};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a stop waits for what is on its way.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What a topology needs of the machine it runs on.
pub struct Host {
    /// The time of receipt, and of dead letters.
    pub clock: Arc<dyn Clock>,
    /// Where buffers, dead letters and what sources have read are kept.
    pub folder: PathBuf,
    /// This node's name: streams begin with it, so that no two nodes' positions are the same.
    pub node: Arc<str>,
    /// Whose events they are, where they do not say.
    pub tenant: Arc<str>,
    /// Most bytes of dead letters.
    pub dead_letters_bytes_max: u64,
    /// The platform's own sinks that are there, by their names.
    pub inlets: BTreeMap<Arc<str>, Arc<dyn Inlet>>,
    /// The platform's own sources that run here, by their names.
    pub own_sources: BTreeMap<Arc<str>, Box<dyn Source>>,
    /// The topology's sinks, open.
    pub sinks: Sinks,
    /// Who puts on record what commands do with dead letters.
    pub witness: Option<Arc<dyn Witness>>,
}

/// A topology's sinks, open, by their names.
pub type Sinks = BTreeMap<Arc<str>, Arc<dyn Sink>>;

/// Where dead letters are kept inside a host's folder.
pub fn dead_letters_folder(folder: &Path) -> PathBuf {
    folder.join("dead-letters")
}

/// Why a topology does not run.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// It cannot be made ready.
    #[error(transparent)]
    Plan(#[from] NoPlan),
    /// A source or sink does not open.
    #[error("{name}: {why}")]
    Component {
        /// Its name.
        name: Arc<str>,
        /// Why.
        why: OpenError,
    },
    /// One of the platform's own sinks that this node does not have.
    #[error("{name}: this node has no such sink")]
    NoInlet {
        /// Its name.
        name: Arc<str>,
    },
    /// The disk.
    #[error("{path}: {error}", path = path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A running topology. Dropping it stops it at once.
pub struct Pipeline {
    monitor: Monitor,
    /// Where its sources listen, by their names.
    addresses: BTreeMap<Arc<str>, Vec<std::net::SocketAddr>>,
    sources: JoinSet<()>,
    sides: JoinSet<()>,
    pumps: JoinSet<()>,
    deliveries: JoinSet<()>,
    ending: watch::Sender<bool>,
}

/// Sees what a running topology counts, also while it stops.
#[derive(Clone)]
pub struct Monitor {
    board: Board,
    morgue: Arc<Morgue>,
    sources: Arc<BTreeMap<Arc<str>, Arc<source::Counters>>>,
}

impl Monitor {
    /// Components of which a task has ended that should not have.
    pub fn down(&self) -> Vec<Arc<str>> {
        let all = self.board.read().into_iter();
        all.filter(|(_, counts)| counts.running == 0).map(|(name, _)| name).collect()
    }

    /// What it counts now.
    pub fn status(&self) -> Status {
        let (dead_letters_files_lost, dead_letters_bytes) = self.morgue.kept();
        let sources = self.sources.iter().map(|(name, counters)| {
            let counts = counters.read().into_iter().collect();
            (Arc::clone(name), counts)
        });
        let (components, sources) = (self.board.read(), sources.collect());
        Status { components, sources, dead_letters_bytes, dead_letters_files_lost }
    }
}

/// What a running topology says of itself.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Status {
    /// Of each component.
    pub components: BTreeMap<Arc<str>, Counts>,
    /// Of each source, what it counts of its own: connections, files, what was lost before it could be read.
    pub sources: BTreeMap<Arc<str>, BTreeMap<&'static str, u64>>,
    /// Bytes of dead letters that are kept.
    pub dead_letters_bytes: u64,
    /// Files of dead letters that went because their bound was met.
    pub dead_letters_files_lost: u64,
}

/// Opens a source once more.
type Reopen = Box<dyn Fn() -> BoxFuture<'static, Result<Box<dyn Source>, OpenError>> + Send>;
/// A source, open, and how it is opened again; the platform's own are not.
type Opened = (Arc<str>, Box<dyn Source>, Option<Reopen>);

/// What is put together while a topology starts.
struct Starting<'a> {
    topology: &'a Topology,
    folder: PathBuf,
    board: Board,
    morgue: Arc<Morgue>,
    ending: watch::Sender<bool>,
}

impl Pipeline {
    /// Starts a topology whose check found nothing: sinks first, sources last.
    ///
    /// # Errors
    /// What could not be opened; then nothing runs.
    pub async fn start(topology: &Topology, host: Host) -> Result<Self, NotStarted> {
        let plan = Arc::new(Plan::new(topology)?);
        let names = topology.voices().map(|(name, _)| name.split('.').next().unwrap_or_default().into());
        let board = Board::new(names.chain(topology.sinks.iter().map(|sink| Arc::clone(&sink.name))));
        let letters = dead_letters_folder(&host.folder);
        let opened = DeadLetters::open(&letters, host.dead_letters_bytes_max);
        let opened = opened.map_err(|error| NotStarted::Disk { path: letters.clone(), error })?;
        let morgue = Arc::new(Morgue::new(opened, board.clone(), Arc::clone(&host.clock)));
        let (ending, _) = watch::channel(false);
        let folder = host.folder.clone();
        let starting = Starting { topology, folder, board: board.clone(), morgue: Arc::clone(&morgue), ending };
        let mut deliveries = JoinSet::new();
        let queues = starting.sinks(&plan, &host, &mut deliveries)?;
        let tenants = topology.sources.iter().filter_map(|entry| Some((entry.name.clone(), entry.tenant.clone()?)));
        let tenants = Arc::new(tenants.collect());
        let works =
            Works { plan, board: board.clone(), morgue: Arc::clone(&morgue), queues: Arc::new(queues), tenants };
        let (mut sources, mut pumps, mut addresses) = (JoinSet::new(), JoinSet::new(), BTreeMap::new());
        let mut counters = BTreeMap::new();
        let witness = host.witness.clone();
        for opened in starting.open_sources(host).await? {
            let (name, source, _) = &opened;
            addresses.insert(Arc::clone(name), source.addresses());
            counters.insert(Arc::clone(name), source.counters());
            starting.source(opened, &works, &mut sources, &mut pumps)?;
        }
        let mut sides = JoinSet::new();
        sides.spawn(sides::reload(Arc::clone(&works.plan)));
        sides.spawn(sides::attend(works, letters, witness));
        let ending = starting.ending;
        let monitor = Monitor { board, morgue, sources: Arc::new(counters) };
        Ok(Self { monitor, addresses, sources, sides, pumps, deliveries, ending })
    }

    /// What sees its counters.
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    /// Where its sources listen: the ports that they got.
    pub fn addresses(&self) -> &BTreeMap<Arc<str>, Vec<std::net::SocketAddr>> {
        &self.addresses
    }

    /// Stops the sources, waits within a bound for what is on its way, and stops the rest. What was not acknowledged
    /// by then is brought again by its source, or lies on disk. Whether everything had arrived.
    pub async fn stop(mut self) -> bool {
        self.sides.shutdown().await;
        self.sources.shutdown().await;
        // A sink that waits for its pause is not waited for by those who read from disk.
        let _ = self.ending.send(true);
        let drained = async {
            while self.pumps.join_next().await.is_some() {}
            while self.deliveries.join_next().await.is_some() {}
        };
        let has_drained = tokio::time::timeout(DRAIN_MAX, drained).await.is_ok();
        self.pumps.shutdown().await;
        self.deliveries.shutdown().await;
        has_drained
    }
}

impl Starting<'_> {
    fn disk(&self, name: &Arc<str>, config: &crate::buffer::BufferConfig) -> Result<Arc<Disk>, NotStarted> {
        let path = self.folder.join("buffers").join(&**name);
        let opened = Disk::open(name, &path, config, self.board.of(name), Arc::clone(&self.morgue));
        opened.map_err(|error| NotStarted::Disk { path, error })
    }

    /// Starts the sinks that events can reach; the queue of each.
    fn sinks(
        &self,
        plan: &Plan,
        host: &Host,
        deliveries: &mut JoinSet<()>,
    ) -> Result<BTreeMap<Arc<str>, queue::Sender>, NotStarted> {
        let described = self.topology.sources.iter().map(|source| &source.name);
        let from: Vec<&Arc<str>> = described.chain(host.own_sources.keys()).collect();
        let reached: std::collections::BTreeSet<Arc<str>> =
            from.into_iter().flat_map(|source| plan.reached_from(source)).collect();
        let mut queues = BTreeMap::new();
        for sink in self.topology.sinks.iter().filter(|sink| reached.contains(&sink.name)) {
            let name = &sink.name;
            let outlet = if OWN_SINKS.contains(&&**name) {
                let inlet = host.inlets.get(name).cloned();
                let inlet = inlet.ok_or_else(|| NotStarted::NoInlet { name: name.clone() })?;
                Outlet::Own(inlet, Arc::clone(&host.tenant))
            } else {
                let sink = host.sinks.get(name).cloned().ok_or_else(|| NotStarted::NoInlet { name: name.clone() })?;
                Outlet::Outside(sink, Arc::clone(&host.tenant))
            };
            let counters = self.board.of(name);
            let (sender, mut queue) = queue::queue(&counters);
            let (delivering, filling) = (Standing::new(name, &counters), Standing::new(name, &counters));
            let morgue = Arc::clone(&self.morgue);
            let worker = Worker::new(Delivery { name: Arc::clone(name), outlet, counters, morgue });
            match &sink.buffer {
                None => {
                    deliveries.spawn(kept!(delivering, worker.empty_queue(&mut queue)));
                }
                Some(config) => {
                    let (disk, ending) = (self.disk(name, config)?, self.ending.subscribe());
                    let same = Arc::clone(&disk);
                    deliveries.spawn(kept!(filling, deliver::to_disk(&mut queue, &same)));
                    deliveries.spawn(kept!(delivering, worker.empty_disk(&disk, ending.clone())));
                }
            }
            queues.insert(Arc::clone(name), sender);
        }
        Ok(queues)
    }

    async fn open_sources(&self, host: Host) -> Result<Vec<Opened>, NotStarted> {
        let folder = host.folder.join("sources");
        std::fs::create_dir_all(&folder).map_err(|error| NotStarted::Disk { path: folder.clone(), error })?;
        let mut opened: Vec<Opened> = Vec::new();
        for entry in &self.topology.sources {
            let name: Arc<str> = format!("{}.{}", host.node, entry.name).into();
            let (clock, counters) = (Arc::clone(&host.clock), Arc::default());
            let (config, around) = (entry.config.clone(), Surroundings { clock, folder: folder.clone(), counters });
            let source = config.open(&name, &around).await;
            let source = source.map_err(|why| NotStarted::Component { name: Arc::clone(&entry.name), why })?;
            let reopen: Reopen = Box::new(move || {
                let (name, config, around) = (Arc::clone(&name), config.clone(), around.clone());
                Box::pin(async move { config.open(&name, &around).await })
            });
            opened.push((Arc::clone(&entry.name), source, Some(reopen)));
        }
        opened.extend(host.own_sources.into_iter().map(|(name, source)| (name, source, None)));
        Ok(opened)
    }

    fn source(
        &self,
        (name, source, reopen): Opened,
        works: &Works,
        sources: &mut JoinSet<()>,
        pumps: &mut JoinSet<()>,
    ) -> Result<(), NotStarted> {
        let (out, mut batches) = source::channel();
        let counters = self.board.of(&name);
        let standing = || Standing::new(&name, &counters);
        let (pumping, filling, running) = (standing(), standing(), standing());
        let (works, same) = (works.clone(), works.clone());
        let (source_name, same_name) = (Arc::clone(&name), Arc::clone(&name));
        let entry = self.topology.sources.iter().find(|entry| entry.name == name);
        match entry.and_then(|entry| entry.buffer.as_ref()) {
            None => {
                pumps.spawn(kept!(pumping, pump::straight(&works, &source_name, &mut batches)));
            }
            Some(config) => {
                let (disk, ending) = (self.disk(&name, config)?, self.ending.subscribe());
                let same_disk = Arc::clone(&disk);
                pumps.spawn(kept!(filling, pump::to_disk(&same, &same_name, &mut batches, &same_disk)));
                pumps.spawn(kept!(pumping, pump::from_disk(&works, &source_name, &disk, ending.clone())));
            }
        }
        match reopen {
            Some(reopen) => sources.spawn(supervise::described(running, source, reopen, out)),
            None => sources.spawn(supervise::own(running, source, out)),
        };
        Ok(())
    }
}
