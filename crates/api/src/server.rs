//! The listener: TLS or nothing, each handshake in its own task, everything bounded in number and time.

use crate::core::Core;
use crate::guard::Peer;
use crate::limit::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, HANDSHAKE_TIME_MAX, HEADER_BYTES_MAX, HEADER_TIME_MAX, SHUTDOWN_TIME_MAX,
    STREAMS_MAX,
};
use crate::openapi::router;
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

/// Protocols offered, preferred first; clients without ALPN speak HTTP/1.1.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Serves the API until `shutdown`; then finishes what is in flight, for at most [`SHUTDOWN_TIME_MAX`].
///
/// `tls` decides the certificate; what it says about protocols is replaced by what is served here.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    core: Arc<dyn Core>,
    shutdown: impl Future<Output = ()>,
) {
    let mut tls = rustls::ServerConfig::clone(&tls);
    tls.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let router = router(core);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer, slot) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        let connection = Connection { peer, router: router.clone(), stopped: stopped.clone(), _slot: slot };
        connections.spawn(connection.run(stream, acceptor.clone()));
    }
    drop(listener);
    drop(stop);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_TIME_MAX, drained).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests in flight were cut off");
        connections.shutdown().await;
    }
}

/// The next connection, once there is room for one.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, IpAddr, OwnedSemaphorePermit) {
    let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip().to_canonical(), slot),
            // The client went away before it was served.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from its first byte to its last.
struct Connection {
    peer: IpAddr,
    router: Router,
    stopped: watch::Receiver<()>,
    _slot: OwnedSemaphorePermit,
}

/// Serves until the connection ends; when the node stops, no request after those in flight is taken.
macro_rules! drive {
    ($connection:expr, $stopped:expr) => {{
        let mut connection = pin!($connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            // An error: the sender is gone, which is how it says stop.
            _ = $stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke off");
        }
    }};
}

impl Connection {
    async fn run(mut self, stream: TcpStream, acceptor: TlsAcceptor) {
        // Answers are written whole: waiting to merge them only adds time.
        let _ = stream.set_nodelay(true);
        let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream));
        let tls = tokio::select! {
            biased;
            _ = self.stopped.changed() => return,
            done = handshake => match done {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => {
                    tracing::debug!(peer = %self.peer, %error, "a TLS handshake failed");
                    return;
                }
                Err(_) => {
                    tracing::debug!(peer = %self.peer, "a TLS handshake took too long");
                    return;
                }
            },
        };
        let is_h2 = tls.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0]);
        let (peer, router) = (Peer(self.peer), self.router);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            router.clone().call(request)
        });
        let io = TokioIo::new(tls);
        if is_h2 {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new())
                .max_header_list_size(HEADER_BYTES_MAX as u32)
                .max_concurrent_streams(STREAMS_MAX)
                .keep_alive_interval(HEADER_TIME_MAX);
            drive!(http.serve_connection(io, service), self.stopped);
        } else {
            let mut http = http1::Builder::new();
            // No `pipeline_flush`: with unread bytes behind it, the refusal of a malformed head would never leave.
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX).max_header_size(HEADER_BYTES_MAX);
            drive!(http.serve_connection(io, service), self.stopped);
        }
    }
}
