//! A link with a delay: UDP datagrams are held for half the round trip, in each direction.
//!
//! Datagrams are never lost, reordered or changed. The timer's grain (a millisecond) adds to the delay, never takes away.

use anyhow::{Context as _, Result};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Datagrams on their way in one direction of one connection; more are dropped, as a router would.
const HELD_MAX: usize = 65_536;
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A proxy in front of one node's link; it ends when dropped.
pub struct Proxy {
    /// Where the other side finds the node.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port for datagrams to `target`.
    pub async fn start(target: SocketAddr, one_way: Duration) -> Result<Self> {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.context("a proxy's socket")?);
        let address = front.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = forward(front, target, one_way).await {
                eprintln!("      the delayed link to {target} broke: {error:#}");
            }
        });
        Ok(Self { address, _tasks: tasks })
    }
}

/// Takes datagrams from any number of sources; each has a socket of its own towards the target, so that answers find back.
async fn forward(front: Arc<UdpSocket>, target: SocketAddr, one_way: Duration) -> Result<()> {
    let mut sources: HashMap<SocketAddr, mpsc::Sender<(Instant, Vec<u8>)>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let (length, source) = front.recv_from(&mut buffer).await?;
        let due = Instant::now() + one_way;
        if let Entry::Vacant(unknown) = sources.entry(source) {
            let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
            back.connect(target).await?;
            let (there, held) = mpsc::channel(HELD_MAX);
            tasks.spawn(release(held, Arc::clone(&back), None));
            let (here, answers) = mpsc::channel(HELD_MAX);
            tasks.spawn(release(answers, Arc::clone(&front), Some(source)));
            tasks.spawn(collect(back, here, one_way));
            unknown.insert(there);
        }
        let _ = sources[&source].try_send((due, buffer[..length].to_vec()));
    }
}

/// Takes what the target answers.
async fn collect(socket: Arc<UdpSocket>, here: mpsc::Sender<(Instant, Vec<u8>)>, one_way: Duration) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // A target that is not up yet refuses: its datagrams are lost, the link goes on.
        if let Ok(length) = socket.recv(&mut buffer).await {
            let _ = here.try_send((Instant::now() + one_way, buffer[..length].to_vec()));
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Sends each datagram when it is due.
async fn release(mut held: mpsc::Receiver<(Instant, Vec<u8>)>, socket: Arc<UdpSocket>, to: Option<SocketAddr>) {
    while let Some((due, datagram)) = held.recv().await {
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        let _ = match to {
            Some(to) => socket.send_to(&datagram, to).await,
            None => socket.send(&datagram).await,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_go_there_and_back_in_order_and_late() {
        let echo = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(echo.local_addr().unwrap(), Duration::from_millis(20)).await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(proxy.address).await.unwrap();
        let sent = Instant::now();
        for number in 0..10_u8 {
            client.send(&[number]).await.unwrap();
        }
        let mut buffer = [0; 8];
        for number in 0..10 {
            let (length, from) = echo.recv_from(&mut buffer).await.unwrap();
            assert_eq!(buffer[..length], [number]);
            echo.send_to(&buffer[..length], from).await.unwrap();
        }
        for number in 0..10 {
            let length = client.recv(&mut buffer).await.unwrap();
            assert_eq!(buffer[..length], [number]);
        }
        assert!(sent.elapsed() >= Duration::from_millis(40));
    }
}
