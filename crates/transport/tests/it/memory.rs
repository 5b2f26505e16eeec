//! The network in memory: what its faults do, and that a seed decides them.

use crate::conformance::{DEADLINE, Echo, body, peer, suite};
use bytes::Bytes;
use model::NodeId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use transport::{Leg, Link, LinkError, MemoryLink, MemoryNetwork, Service};

const ONE: NodeId = NodeId::new(1);
const TWO: NodeId = NodeId::new(2);

fn two_nodes(seed: u64) -> (MemoryNetwork, Arc<MemoryLink>, Arc<MemoryLink>) {
    let network = MemoryNetwork::new(seed);
    let (a, b) = (network.join(peer(1)), network.join(peer(2)));
    a.serve(Arc::new(Echo::default()));
    b.serve(Arc::new(Echo::default()));
    (network, a, b)
}

fn slow(delay_ms: u64, jitter_ms: u64, loss_ppm: u32) -> impl Fn(NodeId, NodeId) -> Leg + Send + Sync + 'static {
    let (delay, jitter) = (Duration::from_millis(delay_ms), Duration::from_millis(jitter_ms));
    move |_, _| Leg { delay, jitter, loss_ppm }
}

#[tokio::test(start_paused = true)]
async fn conforms_when_perfect() {
    let network = MemoryNetwork::new(1);
    suite(network.join(peer(1)), network.join(peer(2)), Arc::default()).await;
}

#[tokio::test(start_paused = true)]
async fn conforms_when_slow() {
    let network = MemoryNetwork::new(1);
    network.set_conditions(slow(5, 10, 0));
    suite(network.join(peer(1)), network.join(peer(2)), Arc::default()).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_both_delays() {
    let (network, a, _b) = two_nodes(1);
    network.set_conditions(|from: NodeId, _: NodeId| Leg {
        delay: Duration::from_millis(if from == ONE { 40 } else { 25 }),
        ..Leg::default()
    });
    let start = Instant::now();
    a.call(TWO, Service::Raft, body(3), DEADLINE).await.expect("answers");
    assert_eq!(start.elapsed(), Duration::from_millis(65));
}

#[tokio::test(start_paused = true)]
async fn a_cut_in_either_direction_is_silence_then_unreachable() {
    for (from, to) in [(ONE, TWO), (TWO, ONE)] {
        let (network, a, _b) = two_nodes(1);
        network.cut(from, to);
        let second = Duration::from_secs(1);
        assert_eq!(a.call(TWO, Service::Raft, body(3), second).await, Err(LinkError::Timeout(TWO)));
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(a.call(TWO, Service::Raft, body(3), second).await, Err(LinkError::Unreachable(TWO)));
        network.heal(from, to);
        assert_eq!(a.call(TWO, Service::Raft, body(3), second).await, Ok(body(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_delays_a_stream_and_a_long_one_breaks_it() {
    let (network, a, _b) = two_nodes(1);
    let mut stream = a.open(TWO, Service::Pull).await.expect("opens");
    stream.send(body(1)).await.expect("sends");
    assert_eq!(stream.receive().await, Ok(Some(body(1))));
    network.cut(TWO, ONE);
    stream.send(body(2)).await.expect("sends");
    let soon = Duration::from_secs(3);
    assert!(tokio::time::timeout(soon, stream.receive()).await.is_err());
    network.heal(TWO, ONE);
    assert_eq!(stream.receive().await, Ok(Some(body(2))));
    network.cut(ONE, TWO);
    let start = Instant::now();
    assert_eq!(stream.receive().await, Err(LinkError::Closed(TWO)));
    assert_eq!(start.elapsed(), Duration::from_secs(6));
    network.heal_all();
    assert_eq!(stream.send(body(3)).await, Err(LinkError::Closed(TWO)), "what broke stays broken");
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_silent_and_its_next_life_hears_nothing_of_the_last() {
    let (network, a, _b) = two_nodes(1);
    network.set_conditions(slow(20, 0, 0));
    let mut stream = a.open(TWO, Service::Pull).await.expect("opens");
    stream.send(body(1)).await.expect("sends");
    assert_eq!(stream.receive().await, Ok(Some(body(1))));
    let call = a.call(TWO, Service::Raft, body(3), DEADLINE);
    let restart = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        network.kill(TWO);
        let reborn = network.join(peer(2));
        reborn.serve(Arc::new(Echo::default()));
    };
    let (answer, ()) = tokio::join!(call, restart);
    assert_eq!(answer, Err(LinkError::Timeout(TWO)));
    assert_eq!(stream.receive().await, Err(LinkError::Closed(TWO)), "a death is not a clean finish");
    assert_eq!(a.call(TWO, Service::Raft, body(3), DEADLINE).await, Ok(body(3)));
    network.kill(TWO);
    assert_eq!(a.call(TWO, Service::Raft, body(3), DEADLINE).await, Err(LinkError::Unreachable(TWO)));
}

#[tokio::test(start_paused = true)]
async fn a_close_tells_the_other_side_at_once() {
    let (_network, a, b) = two_nodes(1);
    let mut stream = a.open(TWO, Service::Pull).await.expect("opens");
    stream.send(body(1)).await.expect("sends");
    assert_eq!(stream.receive().await, Ok(Some(body(1))));
    let start = Instant::now();
    b.close().await;
    assert_eq!(stream.receive().await, Err(LinkError::Closed(TWO)));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

async fn history(seed: u64) -> Vec<(usize, bool, Duration)> {
    let (network, a, _b) = two_nodes(seed);
    network.set_conditions(slow(10, 30, 100_000));
    let start = Instant::now();
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..100 {
        let (a, events) = (a.clone(), events.clone());
        tasks.spawn(async move {
            let answer = a.call(TWO, Service::Raft, Bytes::new(), Duration::from_millis(500)).await;
            events.send((index, answer.is_ok(), start.elapsed())).expect("the receiver is there");
        });
    }
    drop(events);
    let mut history = Vec::new();
    while let Some(event) = seen.recv().await {
        history.push(event);
    }
    history
}

#[tokio::test(start_paused = true)]
async fn a_seed_decides_loss_and_order() {
    let first = history(7).await;
    assert_eq!(first, history(7).await);
    assert_ne!(first, history(8).await);
    let answered = first.iter().filter(|event| event.1).count();
    assert!((60..95).contains(&answered), "{answered} of 100 answered at 10 % loss each way");
    assert!(!first.is_sorted_by_key(|event| event.0), "calls overtake one another");
}
