//! Links over QUIC: they conform, reconnect, and change their certificates while running.

use crate::conformance::{DEADLINE, Echo, body, suite};
use crate::mesh::{Mesh, YEAR_MS, address, eventually};
use model::NodeId;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use transport::quic::IDLE_TIMEOUT;
use transport::{Link, LinkError, QuicError, QuicLink, Service};

const ONE: NodeId = NodeId::new(1);
const TWO: NodeId = NodeId::new(2);

#[tokio::test]
async fn conforms_and_uses_one_connection_both_ways() {
    let mesh = Mesh::new();
    let b = mesh.node(2, &[]);
    let a = mesh.node(1, &[(2, address(&b))]);
    suite(a.clone(), b.clone(), Arc::default()).await;
    let (from_a, from_b) = (a.status(), b.status());
    assert_eq!((from_a.accepted, from_b.accepted), (0, 1));
    assert_eq!((from_a.peers[&TWO].connects, from_b.peers[&ONE].connects), (1, 1));
    assert_eq!((from_b.refused, from_b.overloaded), (0, 0));
    assert!(from_a.peers[&TWO].rtt.is_some_and(|rtt| rtt < Duration::from_secs(1)));
    assert!(from_a.peers[&TWO].sent_bytes > 64 << 20);
    a.close().await;
    assert_eq!(a.call(TWO, Service::Raft, body(1), DEADLINE).await, Err(LinkError::Unreachable(TWO)));
    eventually(|| b.status().peers[&ONE].rtt.is_none().then_some(())).await;
    assert_eq!(b.status().peers[&ONE].error.as_deref(), Some("closed by the other side: closing"));
}

#[tokio::test]
async fn both_may_dial_at_once() {
    let mesh = Mesh::new();
    for _ in 0..10 {
        let (a, b) = (mesh.server(1, &[]), mesh.server(2, &[]));
        a.set_peer(TWO, address(&b));
        b.set_peer(ONE, address(&a));
        let (to_b, to_a) =
            tokio::join!(a.call(TWO, Service::Raft, body(9), DEADLINE), b.call(ONE, Service::Raft, body(9), DEADLINE),);
        assert_eq!((to_b, to_a), (Ok(body(9)), Ok(body(9))));
    }
}

#[tokio::test]
async fn a_node_that_is_not_there_is_unreachable_and_not_dialled_again_at_once() {
    let mesh = Mesh::new();
    let b = mesh.node(2, &[]);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let a = mesh.node(1, &[(2, silent.local_addr().expect("is bound"))]);
    let soon = Duration::from_millis(50);
    assert_eq!(a.call(TWO, Service::Raft, body(1), soon).await, Err(LinkError::Unreachable(TWO)));
    a.remove_peer(TWO);
    assert!(matches!(a.open(TWO, Service::Pull).await, Err(LinkError::Unreachable(_))));
    b.serve(Arc::new(Echo::default()));
    a.set_peer(TWO, address(&b));
    assert_eq!(a.call(TWO, Service::Raft, body(1), DEADLINE).await, Ok(body(1)));
}

/// A node in a runtime of its own, so that it can die without a word.
fn doomed(
    mesh: &Mesh,
    port: Option<std::net::SocketAddr>,
    issued: &transport::Issued,
) -> (tokio::runtime::Runtime, QuicLink) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let link = {
        let _inside = runtime.enter();
        let mut options = mesh.options(issued.clone(), &[]);
        options.address = port.unwrap_or(options.address);
        let link = QuicLink::bind(options).expect("binds");
        link.serve(Arc::new(Echo::default()));
        link
    };
    (runtime, link)
}

#[tokio::test]
async fn a_restarted_peer_is_found_again_before_the_idle_timeout() {
    let mesh = Mesh::new();
    let issued = mesh.issue(2);
    let (runtime, b) = doomed(&mesh, None, &issued);
    let there = address(&b);
    let a = mesh.node(1, &[(2, there)]);
    assert_eq!(a.call(TWO, Service::Raft, body(7), DEADLINE).await, Ok(body(7)));
    let mut stream = a.open(TWO, Service::Pull).await.expect("opens");
    stream.send(body(1)).await.expect("sends");
    assert_eq!(stream.receive().await, Ok(Some(body(1))));
    runtime.shutdown_background();
    drop(b);
    let reborn =
        eventually(|| std::net::UdpSocket::bind(there).ok().map(drop).map(|()| doomed(&mesh, Some(there), &issued)));
    let (runtime, b) = reborn.await;
    let start = Instant::now();
    let mut answers = Vec::new();
    while !matches!(answers.last(), Some(Ok(_))) {
        answers.push(a.call(TWO, Service::Raft, body(8), Duration::from_millis(300)).await);
    }
    assert!(start.elapsed() < IDLE_TIMEOUT, "{:?} {answers:?}", start.elapsed());
    assert_eq!(stream.receive().await, Err(LinkError::Closed(TWO)), "a death is not a clean finish");
    drop(b);
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_certificate_is_replaced_while_running() {
    let mesh = Mesh::new();
    let b = mesh.server(2, &[]);
    let a = mesh.node(1, &[(2, address(&b))]);
    assert_eq!(a.call(TWO, Service::Raft, body(1), DEADLINE).await, Ok(body(1)));
    mesh.wall.0.fetch_add(YEAR_MS, Ordering::SeqCst);
    mesh.wall.0.fetch_add(1_000, Ordering::SeqCst);
    assert_eq!(a.call(TWO, Service::Raft, body(2), DEADLINE).await, Ok(body(2)), "what is connected stays");
    let (a_new, b_new) = (mesh.issue(1), mesh.issue(2));
    let late = mesh.node(1, &[(2, address(&b))]);
    assert_eq!(late.call(TWO, Service::Raft, body(3), DEADLINE).await, Err(LinkError::Unreachable(TWO)));
    let error = late.status().peers[&TWO].error.clone().expect("says why");
    assert!(error.contains("expired"), "{error}");
    b.reload(&b_new.certificate_pem, &b_new.key_pem).expect("reloads");
    let later = mesh.node(1, &[(2, address(&b))]);
    assert_eq!(later.call(TWO, Service::Raft, body(4), DEADLINE).await, Ok(body(4)));
    assert!(matches!(a.reload(&b_new.certificate_pem, &b_new.key_pem), Err(QuicError::OtherIdentity(_))));
    assert!(matches!(a.reload(&a_new.certificate_pem, &b_new.key_pem), Err(QuicError::Key)));
    a.reload(&a_new.certificate_pem, &a_new.key_pem).expect("reloads");
}

#[tokio::test]
async fn a_service_that_waits_does_not_starve_another() {
    let mesh = Mesh::new();
    let b = mesh.server(2, &[]);
    let a = mesh.node(1, &[(2, address(&b))]);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let a = a.clone();
        waiting.spawn(async move { a.call(TWO, Service::ReadIndex, body(1), DEADLINE).await });
    }
    for _ in 0..88 {
        let refused = waiting.join_next().await.expect("600 were begun").expect("no panic");
        assert_eq!(refused, Err(LinkError::Refused(TWO)));
    }
    assert_eq!(b.status().overloaded, 88);
    assert_eq!(a.call(TWO, Service::Raft, body(1), DEADLINE).await, Ok(body(1)));
}
