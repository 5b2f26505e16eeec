//! Syslog listeners: RFC 5424 and RFC 3164 lines over UDP, TCP and TLS (RFC 5426, 6587, 5425).
//!
//! A peer is never answered, so what it sent cannot be asked for again: a line is safe once it is handed over.
//! A full channel stops reading. TCP peers feel it at once; datagrams are then dropped by the kernel, which is asked
//! how many they were.

use super::counters::add;
use super::handover::Handover;
use super::net::{Listener, peer_connections_max, peer_problem};
use super::{BATCH_EVENTS_MAX, Batch, Counters, Source, Surroundings};
use crate::resource::{Invalid, OpenError, Resource};
use crate::tls::ServerTls;
use bytes::Bytes;
use detection::source::framing::Framer;
use detection::{RejectReason, SourceKind};
use futures::future::BoxFuture;
use model::time::Clock;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::Sender;

/// Most bytes of one line or datagram.
pub const LINE_SIZE_BYTES_MAX: usize = 64 * 1024;
/// A connection that says nothing for so long is closed, unless the description says otherwise.
pub const SILENCE_SECONDS_MAX: u64 = 600;
/// Bytes read at once.
const CHUNK_SIZE_BYTES: usize = 16 * 1024;
/// How often the kernel is asked for datagrams that it dropped.
const DROPS_EVERY: Duration = Duration::from_secs(1);

/// How lines arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One datagram, one line.
    Udp,
    /// Octet-counted or newline-terminated frames.
    Tcp,
    /// The same inside TLS.
    Tls,
}

/// A syslog listener as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// How lines arrive.
    pub mode: Mode,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificate, where the mode is `tls`.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// A connection that says nothing for so long is closed.
    #[serde(default = "silence_seconds")]
    pub silence_seconds: u64,
    /// Most connections of one peer.
    #[serde(default = "peer_connections_max")]
    pub peer_connections_max: usize,
}

fn silence_seconds() -> u64 {
    SILENCE_SECONDS_MAX
}

impl SyslogConfig {
    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems = Vec::new();
        match (self.mode, &self.tls) {
            (Mode::Tls, None) => problems.push(Invalid::new(
                "tls",
                "mode = \"tls\" needs tls = { certificate = \"…\", key = \"…\" } (PEM files)",
            )),
            (Mode::Udp | Mode::Tcp, Some(_)) => {
                problems.push(Invalid::new("tls", "write mode = \"tls\", or take the certificate away"))
            }
            _ => {}
        }
        if self.silence_seconds == 0 {
            problems.push(Invalid::new("silence_seconds", "give connections at least 1 second"));
        }
        problems.extend(peer_problem(self.peer_connections_max));
        problems
    }

    /// What it claims.
    pub fn resources(&self) -> Vec<Resource> {
        vec![match self.mode {
            Mode::Udp => Resource::Udp(self.address),
            Mode::Tcp | Mode::Tls => Resource::Tcp(self.address),
        }]
    }

    /// Binds its address.
    pub(super) async fn open(&self, name: &str, around: &Surroundings) -> Result<Box<dyn Source>, OpenError> {
        let clock = Arc::clone(&around.clock);
        Ok(match self.mode {
            Mode::Udp => {
                let source = SyslogUdp::bind(name, self.address, clock).await?;
                Box::new(SyslogUdp { counters: Arc::clone(&around.counters), ..source })
            }
            Mode::Tcp | Mode::Tls => {
                let silence = Duration::from_secs(self.silence_seconds);
                let counters = Arc::clone(&around.counters);
                let bound = SyslogTcp::bind_counting(name, self.address, self.tls.as_ref(), silence, clock, counters);
                let source = bound.await?;
                Box::new(source.peer_connections_max(self.peer_connections_max))
            }
        })
    }
}

/// Syslog over UDP.
pub struct SyslogUdp {
    name: String,
    socket: UdpSocket,
    address: SocketAddr,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl SyslogUdp {
    /// Binds an address.
    pub async fn bind(name: &str, address: SocketAddr, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let bind = |error| OpenError::Bind { address, error };
        let socket = UdpSocket::bind(address).await.map_err(bind)?;
        let address = socket.local_addr().map_err(bind)?;
        Ok(Self { name: name.to_owned(), socket, address, clock, counters: Arc::default() })
    }

    /// The next datagrams: waits for one, then takes what is there.
    async fn datagrams(&self, buffer: &mut [u8]) -> io::Result<Vec<Result<Bytes, RejectReason>>> {
        let mut frames = Vec::new();
        let mut received = self.socket.recv_from(buffer).await;
        loop {
            match received {
                Ok((size, _)) if size > LINE_SIZE_BYTES_MAX => {
                    frames.push(Err(RejectReason::TooLarge { limit_bytes: LINE_SIZE_BYTES_MAX as u64 }));
                }
                Ok((size, _)) => frames.push(Ok(Bytes::copy_from_slice(&buffer[..size]))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(frames),
                // A peer's answer to an earlier datagram is no fault of this socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error),
            }
            if frames.len() >= BATCH_EVENTS_MAX {
                return Ok(frames);
            }
            received = self.socket.try_recv_from(buffer);
        }
    }
}

impl Source for SyslogUdp {
    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }
    fn run(self: Box<Self>, out: Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let counters = Arc::clone(&self.counters);
            let handover =
                Handover::new(SourceKind::Syslog, &self.name, Arc::clone(&self.clock), Arc::clone(&counters), out);
            let mut buffer = vec![0; LINE_SIZE_BYTES_MAX + 1];
            let (mut dropped, mut asked) = (0, self.clock.monotonic());
            loop {
                let frames = tokio::select! {
                    biased;
                    () = handover.out.closed() => return Ok(()),
                    frames = self.datagrams(&mut buffer) => frames?,
                };
                if handover.give(frames).await.is_err() {
                    return Ok(());
                }
                let now = self.clock.monotonic();
                if now.saturating_sub(asked) >= DROPS_EVERY {
                    asked = now;
                    let all = drops(&self.socket).unwrap_or(dropped);
                    add(&counters.lost, all.saturating_sub(dropped));
                    dropped = all;
                }
            }
        })
    }
}

/// How many datagrams the kernel dropped because this socket was not read in time.
fn drops(socket: &UdpSocket) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    let table = if socket.local_addr().ok()?.is_ipv4() { "/proc/self/net/udp" } else { "/proc/self/net/udp6" };
    drops_of(&std::fs::read_to_string(table).ok()?, inode)
}

/// The last column of the line with this inode.
fn drops_of(table: &str, inode: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.split_whitespace().nth(9) == Some(inode))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Syslog over TCP or TLS.
pub struct SyslogTcp {
    name: String,
    listener: Listener,
    silence: Duration,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl SyslogTcp {
    /// Binds an address; connections that say nothing for as long as `silence` are closed.
    pub async fn bind(
        name: &str,
        address: SocketAddr,
        tls: Option<&ServerTls>,
        silence: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Self::bind_counting(name, address, tls, silence, clock, Arc::default()).await
    }

    async fn bind_counting(
        name: &str,
        address: SocketAddr,
        tls: Option<&ServerTls>,
        silence: Duration,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Result<Self, OpenError> {
        let listener = Listener::bind(address, tls, &[], Arc::clone(&clock), Arc::clone(&counters)).await?;
        Ok(Self { name: name.to_owned(), listener, silence, clock, counters })
    }

    /// Looks for changed certificates so often, at most.
    pub fn look_every(mut self, every: Duration) -> Self {
        self.listener.look_every(every);
        self
    }

    /// Has at most so many connections of one peer.
    pub fn peer_connections_max(mut self, count: usize) -> Self {
        self.listener.peer_connections_max(count);
        self
    }
}

impl Source for SyslogTcp {
    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.listener.address]
    }
    fn run(self: Box<Self>, out: Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let handover = Handover::new(SourceKind::Syslog, &self.name, self.clock, self.counters, out.clone());
            let silence = self.silence;
            let serve = move |stream, _| {
                let handover = handover.clone();
                async move { read(stream, &handover, silence).await }
            };
            self.listener.run(out.closed(), serve).await;
            Ok(())
        })
    }
}

/// Reads frames until the end, the silence limit, or the pipeline's stop.
async fn read<R: AsyncRead + Unpin>(mut reader: R, handover: &Handover, silence: Duration) -> io::Result<()> {
    let mut framer = Framer::syslog(LINE_SIZE_BYTES_MAX);
    let mut chunk = vec![0; CHUNK_SIZE_BYTES];
    let mut frames = Vec::new();
    loop {
        let received = tokio::time::timeout(silence, reader.read(&mut chunk)).await;
        // What came before the end, whatever that was, is handed over first.
        let (size, ended) = match received {
            Ok(Ok(0)) => (0, Some(Ok(()))),
            Ok(Ok(size)) => (size, None),
            Ok(Err(error)) => (0, Some(Err(error))),
            Err(_) => (0, Some(Err(io::ErrorKind::TimedOut.into()))),
        };
        framer.push(&chunk[..size], &mut frames);
        if ended.is_some() {
            frames.extend(framer.finish());
        }
        if handover.give(frames.drain(..)).await.is_err() {
            return Ok(());
        }
        if let Some(ended) = ended {
            return ended;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_line_of_the_socket() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
            1: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41 2 0000000000000000 3\n \
            2: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 42 2 0000000000000000 17\n";
        assert_eq!(drops_of(table, "42"), Some(17));
        assert_eq!(drops_of(table, "4"), None);
    }
}
