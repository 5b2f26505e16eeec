//! Links over QUIC with mutual TLS: one connection per pair of nodes, a stream per call.
//!
//! Either side may dial, and calls go both ways over the connection. (Two nodes that dial each other at the same
//! moment keep two, and use the one dialled by the lower node.) A connection counts only after both have said
//! hello: with TLS 1.3 a client believes to be connected before its certificate was looked at.
//! Nothing that arrives may panic, and no service can take another one's places.

mod dial;
mod serve;
mod slot;
mod stream;
mod tls;

use crate::frame::{Answer, Decoder, LENGTH_BYTES, OPENING_BYTES, Opening, length};
use crate::identity::{Identity, IdentityError};
use crate::link::{FRAME_BYTES_MAX, FrameStream, Handler, Link, LinkError, Peer, Service};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use model::NodeId;
use model::entropy::Entropy;
use model::time::Clock;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, TransportConfig, VarInt};
use slot::Slot;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use stream::{QuicStream, SendHalf};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// A connection without a sign of life for so long is lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(6);
/// How often the side that dialled gives a sign of life.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Streams (so also calls) that one node may have open on one connection; more wait on its side.
const STREAMS_MAX: u32 = 1024;
/// Calls of one service that are handled at once, from all nodes together; more are refused.
const CALLS_MAX: usize = 512;
/// Bodies of one service's calls that are held at once, in KiB; more wait to be read.
const CALLS_KIB_MAX: u32 = 64 * 1024;
/// Unread bytes of one stream: 100 ms at 100 Mbit/s is 1.25 MB.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Unread bytes of one connection: some streams that no one reads must not stop the calls beside them.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// Bytes sent on one connection and not yet acknowledged.
const SEND_WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Refusals that `status` remembers.
const REFUSALS_MAX: usize = 16;
/// How long a stream may take to be opened: dialling, and waiting for another stream to end.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long `close` waits for the others to have heard it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Small bodies are copied behind their header, to be one write.
const COPY_BYTES_MAX: usize = 4096;
/// Calls go before streams: a snapshot must not delay a heartbeat.
const CALL_PRIORITY: i32 = 1;

/// Why a connection or stream was ended: on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Code {
    Closing = 0,
    Malformed = 1,
    Abandoned = 2,
    NotLetIn = 3,
    Replaced = 4,
}

impl From<Code> for VarInt {
    fn from(code: Code) -> Self {
        Self::from_u32(code as u32)
    }
}

/// What a link is made of.
pub struct QuicOptions {
    /// Where to listen (UDP).
    pub address: SocketAddr,
    /// This node's certificate; its name is this node's identity.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// The authority (or authorities, while one is replaced) of the cluster.
    pub roots_pem: String,
    /// Where the other nodes are.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// Who is in the cluster: see [`crate::identity::is_described`].
    pub allowed: Arc<dyn Fn(&Peer) -> bool + Send + Sync>,
    /// For the certificates' validity.
    pub clock: Arc<dyn Clock>,
    /// For jitter, and to tell one life of this process from another.
    pub entropy: Arc<dyn Entropy>,
}

/// Why a link cannot be made, or its certificate not replaced.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// This node's certificate is not PEM.
    #[error("the node's certificate cannot be read")]
    Certificate,
    /// The key is not PEM, or belongs to another certificate.
    #[error("the node's private key cannot be read, or is not that of its certificate")]
    Key,
    /// An authority's certificate cannot be read, or there is none.
    #[error("the authority's certificate cannot be read")]
    Roots,
    /// The certificate does not name a node.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The new certificate is another node's.
    #[error("the new certificate is of '{0}'")]
    OtherIdentity(Box<Identity>),
    /// The TLS library refused.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// What a link has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuicStatus {
    /// By node.
    pub peers: BTreeMap<NodeId, PeerStatus>,
    /// Connections from others that were let in.
    pub accepted: u64,
    /// Connections from others that were not.
    pub refused: u64,
    /// The latest of these: where from, and why.
    pub refusals: Vec<(SocketAddr, String)>,
    /// Calls and streams refused because too many were running.
    pub overloaded: u64,
}

/// What happened between this node and another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// Where it is dialled.
    pub address: Option<SocketAddr>,
    /// The round trip of the connection, when there is one.
    pub rtt: Option<Duration>,
    /// Connections made, by either side.
    pub connects: u64,
    /// Attempts to dial that failed.
    pub failures: u64,
    /// Why the latest attempt failed or the latest connection ended, unless another has been made since.
    pub error: Option<String>,
    /// Bytes of bodies and frames sent.
    pub sent_bytes: u64,
    /// Bytes of bodies and frames received.
    pub received_bytes: u64,
    /// Its streams that did not keep to the protocol.
    pub malformed: u64,
}

/// One node's door to the others over QUIC. Dropping it ends everything it runs.
pub struct QuicLink {
    shared: Arc<Shared>,
    credentials: Arc<tls::Credentials>,
}

/// What the tasks of a link share.
struct Shared {
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    identity: Identity,
    allowed: Arc<dyn Fn(&Peer) -> bool + Send + Sync>,
    entropy: Arc<dyn Entropy>,
    boot: u64,
    slots: Mutex<BTreeMap<NodeId, Arc<Slot>>>,
    handler: OnceLock<Arc<dyn Handler>>,
    tasks: Mutex<JoinSet<()>>,
    services: BTreeMap<Service, Places>,
    accepted: AtomicU64,
    refused: AtomicU64,
    refusals: Mutex<VecDeque<(SocketAddr, String)>>,
    overloaded: AtomicU64,
}

/// What one service may take: its own, so that a service waiting for another cannot starve it.
struct Places {
    calls: Semaphore,
    kib: Semaphore,
}

impl QuicLink {
    /// Listens, and can call; answers once [`Link::serve`] is called. Needs a Tokio runtime.
    pub fn bind(options: QuicOptions) -> Result<Self, QuicError> {
        let (key, identity, reset_key) = tls::read_credentials(&options.certificate_pem, &options.key_pem)?;
        let credentials = tls::Credentials::new(key);
        let (client, server) = tls::configurations(&credentials, &options.roots_pem, options.clock)?;
        let bind_error = |error| QuicError::Bind { address: options.address, error };
        let endpoint = listen(options.address, server, reset_key, options.entropy.clone()).map_err(bind_error)?;
        let local = identity.node;
        let slots = options.peers.into_iter().filter(|(node, _)| *node != local);
        let shared = Shared {
            endpoint,
            client: client_configuration(client),
            identity,
            allowed: options.allowed,
            boot: options.entropy.number(),
            entropy: options.entropy,
            slots: Mutex::new(slots.map(|(node, address)| (node, Slot::new(node, Some(address)))).collect()),
            handler: OnceLock::new(),
            tasks: Mutex::new(JoinSet::new()),
            services: (0..=u8::MAX)
                .filter_map(crate::frame::service_numbered)
                .map(|service| {
                    let kib = Semaphore::new(CALLS_KIB_MAX as usize);
                    (service, Places { calls: Semaphore::new(CALLS_MAX), kib })
                })
                .collect(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refusals: Mutex::new(VecDeque::new()),
            overloaded: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), credentials })
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Where it listens.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Where a node is from now on; an existing connection stays.
    pub fn set_peer(&self, node: NodeId, address: SocketAddr) {
        if node != self.shared.identity.node {
            self.shared.slot_or_new(node).set_address(Some(address));
        }
    }

    /// A node is no longer part of the cluster: its connection is closed.
    pub fn remove_peer(&self, node: NodeId) {
        let slot = self.shared.slots.lock().expect("no holder panics").remove(&node);
        if let Some(slot) = slot {
            slot.close(Code::NotLetIn, "no longer in this cluster");
        }
    }

    /// Shows another certificate of the same node from the next connection on; existing ones stay.
    pub fn reload(&self, certificate_pem: &str, key_pem: &str) -> Result<(), QuicError> {
        let (key, identity, _) = tls::read_credentials(certificate_pem, key_pem)?;
        if identity != self.shared.identity {
            return Err(QuicError::OtherIdentity(Box::new(identity)));
        }
        self.credentials.replace(key);
        Ok(())
    }

    /// What happened so far.
    pub fn status(&self) -> QuicStatus {
        let shared = &self.shared;
        let slots = shared.slots.lock().expect("no holder panics").clone();
        QuicStatus {
            peers: slots.into_iter().map(|(node, slot)| (node, slot.status())).collect(),
            accepted: shared.accepted.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            refusals: shared.refusals.lock().expect("no holder panics").iter().cloned().collect(),
            overloaded: shared.overloaded.load(Ordering::Relaxed),
        }
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        self.shared.endpoint.close(Code::Closing.into(), b"closing");
        self.shared.tasks.lock().expect("no holder panics").abort_all();
    }
}

#[async_trait]
impl Link for QuicLink {
    async fn call(&self, to: NodeId, service: Service, request: Bytes, deadline: Duration) -> Result<Bytes, LinkError> {
        if request.len() > FRAME_BYTES_MAX {
            return Err(LinkError::TooLarge { size_bytes: request.len() });
        }
        let end = Instant::now() + deadline;
        let opened = timeout_at(end, self.shared.open(to)).await;
        let Ok(Ok((slot, send, receive))) = opened else {
            return Err(LinkError::Unreachable(to));
        };
        match timeout_at(end, exchange(&slot, send, receive, service, request)).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::Timeout(to)),
        }
    }

    async fn open(&self, to: NodeId, service: Service) -> Result<Box<dyn FrameStream>, LinkError> {
        let opened = timeout(OPEN_TIMEOUT, self.shared.open(to)).await;
        let (slot, mut send, receive) = opened.unwrap_or(Err(LinkError::Unreachable(to)))?;
        let opening = Bytes::copy_from_slice(&Opening::Stream(service).encode());
        send.write_chunk(opening).await.map_err(|_| LinkError::Closed(to))?;
        Ok(Box::new(QuicStream::new(slot, send, receive, Decoder::default())))
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        if self.shared.handler.set(handler).is_ok() {
            self.shared.spawn(serve::accept(self.shared.clone()));
        }
    }

    async fn close(&self) {
        self.shared.endpoint.close(Code::Closing.into(), b"closing");
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock().expect("no holder panics"));
        tasks.shutdown().await;
        for slot in self.shared.slots.lock().expect("no holder panics").values() {
            // Who waits for a dial that was stopped must not wait on.
            slot.failed("closing".to_owned(), 0);
        }
        let _ = timeout(CLOSE_TIMEOUT, self.shared.endpoint.wait_idle()).await;
    }
}

/// Sends a request and reads its answer. An error after this began is never `Unreachable`.
async fn exchange(
    slot: &Slot,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    service: Service,
    request: Bytes,
) -> Result<Bytes, LinkError> {
    let to = slot.node();
    let closed = |_| LinkError::Closed(to);
    let _ = send.set_priority(CALL_PRIORITY);
    // If this future is dropped half-way, the other side sees a reset instead of a short request.
    let mut send = SendHalf::new(send);
    let mut head = BytesMut::with_capacity(OPENING_BYTES + LENGTH_BYTES + request.len().min(COPY_BYTES_MAX));
    head.extend_from_slice(&Opening::Call(service).encode());
    head.extend_from_slice(&length(&request));
    let size_bytes = request.len();
    send.write(head, request).await.map_err(closed)?;
    send.finish();
    slot.count_sent(size_bytes);
    match stream::read(&mut Decoder::default(), &mut { receive }, Decoder::answer).await {
        Ok(Some(Answer::Done(answer))) => {
            slot.count_received(answer.len());
            Ok(answer)
        }
        Ok(Some(Answer::Refused)) => Err(LinkError::Refused(to)),
        Ok(Some(Answer::TooLarge { size_bytes })) => Err(LinkError::TooLarge { size_bytes }),
        Ok(None) | Err(_) => Err(LinkError::Closed(to)),
    }
}

impl Shared {
    /// A new stream to a node, over its connection or a new one. Nothing was sent when this fails.
    async fn open(
        self: &Arc<Self>,
        to: NodeId,
    ) -> Result<(Arc<Slot>, quinn::SendStream, quinn::RecvStream), LinkError> {
        let slot = self.slots.lock().expect("no holder panics").get(&to).cloned();
        let slot = slot.ok_or(LinkError::Unreachable(to))?;
        // A connection may turn out to be lost when it is used: then one new one is tried.
        for _ in 0..2 {
            let connection: Connection = dial::connection(self, &slot).await?;
            if let Ok((send, receive)) = connection.open_bi().await {
                return Ok((slot, send, receive));
            }
        }
        Err(LinkError::Unreachable(to))
    }

    fn slot_or_new(&self, node: NodeId) -> Arc<Slot> {
        let mut slots = self.slots.lock().expect("no holder panics");
        slots.entry(node).or_insert_with(|| Slot::new(node, None)).clone()
    }

    /// Who is at the other end of a connection, if it may be.
    fn authenticate(&self, connection: &Connection) -> Result<Identity, IdentityError> {
        let chain = connection.peer_identity().ok_or(IdentityError::NotACertificate)?;
        let chain = chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>();
        let chain = chain.map_err(|_| IdentityError::NotACertificate)?;
        let identity = Identity::of_certificate(chain.first().ok_or(IdentityError::NotACertificate)?)?;
        self.identity.accepts(&identity, &*self.allowed)?;
        if identity.node == self.identity.node {
            // A second process with this node's certificate, or this one.
            return Err(IdentityError::OtherNode { expected: self.identity.node, found: identity.node });
        }
        Ok(identity)
    }

    fn count_refusal(&self, address: SocketAddr, reason: String) {
        tracing::warn!(%address, %reason, "a connection was refused");
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut refusals = self.refusals.lock().expect("no holder panics");
        if refusals.len() == REFUSALS_MAX {
            refusals.pop_front();
        }
        refusals.push_back((address, reason));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().expect("no holder panics");
        while let Some(done) = tasks.try_join_next() {
            serve::report(done);
        }
        tasks.spawn(task);
    }
}

fn listen(
    address: SocketAddr,
    server: QuicServerConfig,
    reset_key: tls::ResetKey,
    entropy: Arc<dyn Entropy>,
) -> io::Result<Endpoint> {
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
    server.transport_config(Arc::new(transport(None))).migration(false).max_incoming(serve::HANDSHAKES_MAX);
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    endpoint.cid_generator(move || Box::new(tls::ConnectionIds(entropy.clone())));
    let socket = std::net::UdpSocket::bind(address)?;
    Endpoint::new(endpoint, Some(server), socket, Arc::new(quinn::TokioRuntime))
}

fn client_configuration(client: QuicClientConfig) -> quinn::ClientConfig {
    let mut client = quinn::ClientConfig::new(Arc::new(client));
    client.transport_config(Arc::new(transport(Some(KEEP_ALIVE))));
    client
}

/// Only the side that dialled keeps a connection alive: its pings show both sides that the other lives.
fn transport(keep_alive: Option<Duration>) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IDLE_TIMEOUT.try_into().expect("six seconds are few")))
        .keep_alive_interval(keep_alive)
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .initial_rtt(Duration::from_millis(100))
        .datagram_receive_buffer_size(None);
    transport
}
