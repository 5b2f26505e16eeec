//! Calls per second between two nodes in one process over loopback: `cargo run --release --example rpc -p transport`.

use async_trait::async_trait;
use bytes::Bytes;
use model::cluster::Environment;
use model::entropy::Entropy;
use model::time::Clock;
use model::{NodeId, RegionId};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use transport::{Authority, FrameStream, Handler, Identity, Link, Peer, QuicLink, QuicOptions, Service};

const NOW_MS: u64 = 1_800_000_000_000;
const TWO: NodeId = NodeId::new(2);

struct Fixed;
impl Clock for Fixed {
    fn wall_ms(&self) -> u64 {
        NOW_MS
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}
impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&RandomState::new().hash_one(0).to_be_bytes()[..chunk.len()]);
        }
    }
}

struct Echo;
#[async_trait]
impl Handler for Echo {
    async fn call(&self, _: &Peer, _: Service, request: Bytes) -> Option<Bytes> {
        Some(request)
    }
    async fn stream(&self, _: &Peer, _: Service, mut stream: Box<dyn FrameStream>) {
        while let Ok(Some(_)) = stream.receive().await {}
    }
}

fn node(authority: &Authority, node: u64, peers: BTreeMap<NodeId, std::net::SocketAddr>) -> QuicLink {
    let identity = Identity {
        cluster: "bench".into(),
        environment: Environment::Development,
        region: RegionId::new(1),
        region_name: "eu".into(),
        node: NodeId::new(node),
        node_name: format!("eu-{node}"),
        zone: "protected".into(),
    };
    let issued = authority.issue_node(&identity, NOW_MS, &Fixed).expect("issues");
    let link = QuicLink::bind(QuicOptions {
        address: "127.0.0.1:0".parse().expect("an address"),
        certificate_pem: issued.certificate_pem,
        key_pem: issued.key_pem,
        roots_pem: authority.certificate_pem().to_owned(),
        peers,
        allowed: Arc::new(|_: &Peer| true),
        clock: Arc::new(Fixed),
        entropy: Arc::new(Fixed),
    })
    .expect("binds");
    link.serve(Arc::new(Echo));
    link
}

async fn calls(link: &Arc<QuicLink>, size_bytes: usize, in_flight: usize, each: usize) {
    let body = Bytes::from(vec![7; size_bytes]);
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (link, body) = (link.clone(), body.clone());
        tasks.spawn(async move {
            for _ in 0..each {
                link.call(TWO, Service::Raft, body.clone(), Duration::from_secs(10)).await.expect("answers");
            }
        });
    }
    tasks.join_all().await;
    let taken = start.elapsed();
    let rate = (in_flight * each) as f64 / taken.as_secs_f64();
    let each_us = taken.as_secs_f64() * 1e6 / each as f64;
    println!("{size_bytes:>8} B, {in_flight:>3} in flight: {rate:>9.0} calls/s, {each_us:>7.0} µs each");
}

#[tokio::main]
async fn main() {
    let authority = Authority::create("bench", NOW_MS, &Fixed).expect("creates");
    let b = node(&authority, 2, BTreeMap::new());
    let there = b.local_address().expect("is bound");
    let a = Arc::new(node(&authority, 1, BTreeMap::from([(TWO, there)])));
    calls(&a, 64, 1, 2_000).await;
    calls(&a, 64, 1, 10_000).await;
    calls(&a, 64, 64, 4_000).await;
    calls(&a, 16 * 1024, 64, 300).await;
    let (start, frame) = (Instant::now(), Bytes::from(vec![7; 1 << 20]));
    let mut stream = a.open(TWO, Service::Snapshot).await.expect("opens");
    for _ in 0..512 {
        stream.send(frame.clone()).await.expect("sends");
    }
    let (sink, mut source) = stream.split();
    drop(sink);
    assert_eq!(source.receive().await, Ok(None));
    println!("one stream, 512 MiB: {:.0} MiB/s", 512.0 / start.elapsed().as_secs_f64());
}
