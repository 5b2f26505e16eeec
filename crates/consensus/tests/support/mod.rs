//! A world of three (or more) nodes on one thread: memory disks that sync a little later, and a
//! network that can be cut.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod machine;

use async_trait::async_trait;
use bytes::Bytes;
use consensus::{Applied, Group, GroupOptions, ProposeError, StartError, group_of};
use machine::Journal;
use model::{GroupId, NodeId, RegionId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use storage::{Engine, MemoryEngine};
use tokio::time::Instant;
use transport::{FrameStream, Handler, Link, MemoryNetwork, Peer, Service};

pub const GROUP: GroupId = GroupId::new(3);

pub fn node(number: u64) -> NodeId {
    NodeId::new(number)
}

pub fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
    numbers.iter().copied().map(NodeId::new).collect()
}

pub fn peer(number: u64) -> Peer {
    Peer { node: node(number), region: RegionId::new(1), zone: "data".to_owned() }
}

/// Routes what arrives to the group it is for.
struct Router(Group);

#[async_trait]
impl Handler for Router {
    async fn call(&self, peer: &Peer, service: Service, request: Bytes) -> Option<Bytes> {
        assert_eq!(service, Service::Raft);
        assert_eq!(group_of(&request), Some(GROUP));
        self.0.handle_call(peer, request).await
    }
    async fn stream(&self, peer: &Peer, service: Service, mut stream: Box<dyn FrameStream>) {
        assert_eq!(service, Service::Snapshot);
        let Ok(Some(first)) = stream.receive().await else { return };
        self.0.handle_stream(peer, first, stream).await;
    }
}

/// A node that is up.
pub struct Life {
    pub group: Group,
    pub journal: Arc<Journal>,
    engine: MemoryEngine,
    syncing: tokio::task::JoinHandle<()>,
}

/// The groups of the nodes that are up, for clients that run beside the world.
pub type Groups = Arc<parking_lot::Mutex<BTreeMap<u64, Group>>>;

pub struct World {
    pub groups: Groups,
    pub network: MemoryNetwork,
    pub lives: BTreeMap<u64, Life>,
    pub disks: BTreeMap<u64, MemoryEngine>,
    pub options: fn(NodeId) -> GroupOptions,
}

impl World {
    pub fn new(seed: u64) -> Self {
        consensus::seed(seed);
        Self {
            network: MemoryNetwork::new(seed),
            groups: Groups::default(),
            lives: BTreeMap::new(),
            disks: BTreeMap::new(),
            options: |node| GroupOptions::new(GROUP, node),
        }
    }

    /// Three founders that have elected a leader.
    pub async fn founded(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.found(&[1, 2, 3]).await;
        world
    }

    pub async fn found(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.start(*number).await.unwrap();
        }
        for number in numbers {
            self.lives[number].group.initialize(&nodes(numbers)).await.unwrap();
        }
        self.leader().await;
    }

    /// Starts a node from what its disk holds.
    pub async fn start(&mut self, number: u64) -> Result<(), StartError> {
        let engine = self.disks.remove(&number).unwrap_or_default();
        let link = self.network.join(peer(number));
        let syncing = tokio::spawn(sync_now_and_then(engine.clone(), number));
        let journal = Journal::open(&engine);
        let group = Group::start((self.options)(node(number)), engine.log(), link.clone(), journal.clone()).await?;
        link.serve(Arc::new(Router(group.clone())));
        self.groups.lock().insert(number, group.clone());
        self.lives.insert(number, Life { group, journal, engine, syncing });
        Ok(())
    }

    /// Pulls a node's plug: what was not synced is lost.
    pub async fn crash(&mut self, number: u64) {
        let life = self.lives.remove(&number).expect("only a living node crashes");
        self.groups.lock().remove(&number);
        self.network.kill(node(number));
        self.disks.insert(number, life.engine.crash());
        life.syncing.abort();
        life.group.shutdown().await;
    }

    /// The leader that the living agree on.
    pub async fn leader(&self) -> u64 {
        self.leader_among(&self.lives.keys().copied().collect::<Vec<_>>()).await
    }

    pub async fn leader_among(&self, numbers: &[u64]) -> u64 {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let leads = |number: &&u64| self.lives[*number].group.is_leader();
            let best = numbers.iter().filter(leads).max_by_key(|number| self.lives[*number].group.status().term);
            if let Some(best) = best
                && numbers.iter().all(|number| self.lives[number].group.leader() == Some(node(*best)))
            {
                return *best;
            }
            assert!(Instant::now() < until, "no leader in 30 s: {:#?}", self.statuses());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn statuses(&self) -> Vec<consensus::GroupStatus> {
        self.lives.values().map(|life| life.group.status()).collect()
    }

    /// Writes through whoever leads among these, until it is acknowledged.
    pub async fn write_among(&self, numbers: &[u64], command: String) -> Applied {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            for number in numbers {
                let proposing = self.lives[number].group.propose(command.clone().into());
                match tokio::time::timeout(Duration::from_millis(300), proposing).await {
                    Ok(Ok(applied)) => return applied,
                    Ok(Err(ProposeError::NotLeader { .. } | ProposeError::Unknown)) | Err(_) => {}
                    Ok(Err(error)) => panic!("{error}"),
                }
            }
            assert!(Instant::now() < until, "no write in 30 s: {:#?}", self.statuses());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn write(&self, command: impl Into<String>) -> Applied {
        self.write_among(&self.lives.keys().copied().collect::<Vec<_>>(), command.into()).await
    }

    /// Waits until every living node has applied as much as the leader has.
    pub async fn settle(&self) {
        let leader = self.leader().await;
        let last = self.lives[&leader].group.status().last_log.unwrap();
        for life in self.lives.values() {
            tokio::time::timeout(Duration::from_secs(30), life.group.wait_applied(last))
                .await
                .unwrap_or_else(|_| panic!("not everything was applied: {:#?}", self.statuses()))
                .unwrap();
        }
    }

    /// All living nodes hold the same commands, in the same order, under the same indices.
    pub async fn assert_equal(&self) -> Vec<(u64, Vec<u8>)> {
        self.settle().await;
        let mut lives = self.lives.values();
        let first = lives.next().unwrap().journal.commands();
        lives.for_each(|life| assert_eq!(life.journal.commands(), first));
        first
    }
}

/// A disk that syncs 0.1 to 2 ms later than asked; each node at its own pace.
async fn sync_now_and_then(engine: MemoryEngine, number: u64) {
    let mut state = number;
    loop {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_micros(100 + (state >> 33) % 1_900)).await;
        engine.sync();
    }
}
