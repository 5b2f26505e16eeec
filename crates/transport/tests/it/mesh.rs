//! QUIC nodes of one cluster in this process, on ports the system chooses.

use model::cluster::Environment;
use model::entropy::Entropy;
use model::time::Clock;
use model::{NodeId, RegionId};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use transport::{Authority, Identity, Issued, Link, Peer, QuicLink, QuicOptions};

pub const NOW_MS: u64 = 1_800_000_000_000;
pub const YEAR_MS: u64 = 365 * 86_400_000;

pub struct Random;
impl Entropy for Random {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = RandomState::new().hash_one(chunk.len()).to_be_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

/// A wall clock that tests set.
pub struct Wall(pub AtomicU64);
impl Clock for Wall {
    fn wall_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

pub fn identity(node: u64) -> Identity {
    Identity {
        cluster: "mesh".into(),
        environment: Environment::Development,
        region: RegionId::new(node as u16),
        region_name: format!("region{node}"),
        node: NodeId::new(node),
        node_name: format!("node{node}"),
        zone: "protected".into(),
    }
}

pub struct Mesh {
    pub authority: Authority,
    pub wall: Arc<Wall>,
}

impl Mesh {
    pub fn new() -> Self {
        let authority = Authority::create("mesh", NOW_MS, &Random).expect("creates");
        Self { authority, wall: Arc::new(Wall(AtomicU64::new(NOW_MS))) }
    }

    pub fn issue(&self, node: u64) -> Issued {
        self.authority.issue_node(&identity(node), self.wall.wall_ms(), &Random).expect("issues")
    }

    /// Node `n` is in region `n`, zone "protected".
    pub fn options(&self, issued: Issued, peers: &[(u64, SocketAddr)]) -> QuicOptions {
        QuicOptions {
            address: "127.0.0.1:0".parse().expect("an address"),
            certificate_pem: issued.certificate_pem,
            key_pem: issued.key_pem,
            roots_pem: self.authority.certificate_pem().to_owned(),
            peers: peers.iter().map(|(node, address)| (NodeId::new(*node), *address)).collect::<BTreeMap<_, _>>(),
            allowed: Arc::new(|peer: &Peer| *peer == identity(peer.node.get()).peer()),
            clock: self.wall.clone(),
            entropy: Arc::new(Random),
        }
    }

    pub fn node(&self, node: u64, peers: &[(u64, SocketAddr)]) -> Arc<QuicLink> {
        Arc::new(QuicLink::bind(self.options(self.issue(node), peers)).expect("binds"))
    }

    /// The same, answering.
    pub fn server(&self, node: u64, peers: &[(u64, SocketAddr)]) -> Arc<QuicLink> {
        let link = self.node(node, peers);
        link.serve(Arc::new(crate::conformance::Echo::default()));
        link
    }
}

pub fn address(link: &QuicLink) -> SocketAddr {
    link.local_address().expect("is bound")
}

/// Waits until `what` is there: tasks of the other side are not in step with the test.
pub async fn eventually<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let polling = async {
        loop {
            if let Some(found) = what() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), polling).await.expect("it never happened")
}
