//! Accepting connections: bounded in number, of all peers and of each; TLS off the accept loop and bounded in time.
//!
//! It reads nothing of what a peer says; who serves a connection does.

use super::Counters;
use super::counters::add;
use crate::resource::{Invalid, OpenError};
use crate::tls::{LOOK_EVERY, Reloading, ServerTls};
use model::time::Clock;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Most connections of one listener; further peers wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 256;
/// Most connections of one peer, unless the description says otherwise; further ones of its are closed at once.
pub const PEER_CONNECTIONS_MAX: usize = 64;
/// A TLS handshake takes no longer.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The default of `peer_connections_max`.
pub(super) fn peer_connections_max() -> usize {
    PEER_CONNECTIONS_MAX
}

/// What is wrong with a bound on one peer's connections.
pub(super) fn peer_problem(peer_connections_max: usize) -> Option<Invalid> {
    let fits = (1..=CONNECTIONS_MAX).contains(&peer_connections_max);
    let advice = format!("write a number from 1 to {CONNECTIONS_MAX}: a listener has no more connections");
    (!fits).then(|| Invalid::new("peer_connections_max", advice))
}

/// Who is at the other end: its address, or for IPv6 the network of 64 bits that one machine may have for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer(IpAddr);

impl Peer {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()),
            address => Self(address),
        }
    }
}

/// A listening socket and what its connections need.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) address: SocketAddr,
    tls: Option<Arc<Reloading>>,
    look_every: Duration,
    peer_connections_max: usize,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl Listener {
    /// Binds the address and reads the certificates.
    pub(super) async fn bind(
        address: SocketAddr,
        tls: Option<&ServerTls>,
        protocols: &'static [&'static [u8]],
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Result<Self, OpenError> {
        let tls = tls.map(|tls| Reloading::open(tls.clone(), protocols)).transpose()?.map(Arc::new);
        let bind = |error| OpenError::Bind { address, error };
        let socket = TcpListener::bind(address).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        let (look_every, peer_connections_max) = (LOOK_EVERY, PEER_CONNECTIONS_MAX);
        Ok(Self { socket, address, tls, look_every, peer_connections_max, clock, counters })
    }

    /// Looks for changed certificates so often, at most.
    pub(super) fn look_every(&mut self, every: Duration) {
        self.look_every = every;
    }

    /// Has at most so many connections of one peer.
    pub(super) fn peer_connections_max(&mut self, count: usize) {
        self.peer_connections_max = count;
    }

    /// Serves connections until `until` is ready; those that are open then are dropped.
    pub(super) async fn run<S, F>(self, until: impl Future<Output = ()>, serve: S)
    where
        S: Fn(Stream, Peer) -> F + Clone + Send + 'static,
        F: Future<Output = io::Result<()>> + Send,
    {
        let mut connections: JoinSet<()> = JoinSet::new();
        let peers = Arc::<Peers>::default();
        tokio::pin!(until);
        loop {
            tokio::select! {
                biased;
                () = &mut until => return,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.socket.accept(), if connections.len() < CONNECTIONS_MAX => {
                    let Ok((tcp, peer)) = accepted else {
                        // A peer gone early, or no file handles left: neither is helped by trying at once.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    let peer = Peer::of(peer.ip());
                    let Some(seat) = Seat::take(&peers, peer, self.peer_connections_max) else {
                        add(&self.counters.turned_away, 1);
                        continue;
                    };
                    let tls = self.tls.as_ref().map(|tls| tls.config(self.clock.monotonic(), self.look_every));
                    let (open, serve) = (Open::new(&self.counters), serve.clone());
                    connections.spawn(async move {
                        let _seat = seat;
                        let stream = match handshake(tcp, tls.map(TlsAcceptor::from)).await {
                            Ok(stream) => stream,
                            Err(error) => {
                                add(&open.0.handshakes_failed, 1);
                                tracing::debug!(?peer, %error, "a TLS handshake failed");
                                return;
                            }
                        };
                        if let Err(error) = serve(stream, peer).await {
                            add(&open.0.broken, 1);
                            tracing::debug!(?peer, %error, "a connection broke");
                        }
                    });
                }
            }
        }
    }
}

/// How many connections each peer has now; those that have none are not among them.
type Peers = Mutex<BTreeMap<Peer, usize>>;

/// One of the connections that a peer may have, while this lives.
struct Seat {
    peers: Arc<Peers>,
    peer: Peer,
}

impl Seat {
    fn take(peers: &Arc<Peers>, peer: Peer, most: usize) -> Option<Self> {
        let mut all = peers.lock();
        let count = all.entry(peer).or_default();
        let has_room = *count < most;
        *count += usize::from(has_room);
        drop(all);
        has_room.then(|| Self { peers: Arc::clone(peers), peer })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.peers.lock();
        if let Some(count) = all.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.peer);
            }
        }
    }
}

/// A connection that is counted as open while this lives.
struct Open(Arc<Counters>);

impl Open {
    fn new(counters: &Arc<Counters>) -> Self {
        add(&counters.connections, 1);
        add(&counters.open, 1);
        Self(Arc::clone(counters))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn handshake(tcp: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<Stream> {
    let Some(tls) = tls else { return Ok(Stream::Plain(tcp)) };
    match tokio::time::timeout(HANDSHAKE_TIME_MAX, tls.accept(tcp)).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream?))),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A connection, with TLS or without.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
