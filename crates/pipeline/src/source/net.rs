//! Accepting connections: bounded in number, TLS off the accept loop and bounded in time.
//!
//! It reads nothing of what a peer says; who serves a connection does.

use super::Counters;
use super::counters::add;
use crate::resource::OpenError;
use crate::tls::{LOOK_EVERY, Reloading, ServerTls};
use model::time::Clock;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
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
/// A TLS handshake takes no longer.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket and what its connections need.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) address: SocketAddr,
    tls: Option<Arc<Reloading>>,
    look_every: Duration,
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
        Ok(Self { socket, address, tls, look_every: LOOK_EVERY, clock, counters })
    }

    /// Looks for changed certificates so often, at most.
    pub(super) fn look_every(&mut self, every: Duration) {
        self.look_every = every;
    }

    /// Serves connections until `until` is ready; those that are open then are dropped.
    pub(super) async fn run<S, F>(self, until: impl Future<Output = ()>, serve: S)
    where
        S: Fn(Stream) -> F + Clone + Send + 'static,
        F: Future<Output = io::Result<()>> + Send,
    {
        let mut connections: JoinSet<()> = JoinSet::new();
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
                    let tls = self.tls.as_ref().map(|tls| tls.config(self.clock.monotonic(), self.look_every));
                    let (open, serve) = (Open::new(&self.counters), serve.clone());
                    connections.spawn(async move {
                        let stream = match handshake(tcp, tls.map(TlsAcceptor::from)).await {
                            Ok(stream) => stream,
                            Err(error) => {
                                add(&open.0.handshakes_failed, 1);
                                tracing::debug!(%peer, %error, "a TLS handshake failed");
                                return;
                            }
                        };
                        if let Err(error) = serve(stream).await {
                            add(&open.0.broken, 1);
                            tracing::debug!(%peer, %error, "a connection broke");
                        }
                    });
                }
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
