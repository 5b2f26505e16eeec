//! Listeners: bytes from sockets and files into the channel.
//!
//! They open nothing and read no clock of their own. A full channel stops reading: TCP peers feel it at once,
//! UDP datagrams are then dropped by the kernel, whose counters tell.

use super::{Batch, Source};
use bytes::Bytes;
use detection::source::framing::Framer;
use detection::{Position, RawEvent, Reject, RejectReason, SourceKind};
use futures::future::BoxFuture;
use model::time::Clock;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

/// Most bytes of one line or datagram.
pub const LINE_SIZE_BYTES_MAX: usize = 64 * 1024;
/// Most connections of one TCP listener; further peers wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 256;
/// A connection that says nothing for so long is closed.
pub const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes read at once.
const CHUNK_SIZE_BYTES: usize = 16 * 1024;

/// What every listener needs to number and hand over events.
#[derive(Clone)]
struct Handover {
    kind: SourceKind,
    stream: Arc<str>,
    sequence: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    out: Sender<Batch>,
}

impl Handover {
    /// A stream that cannot be replayed is a new one at each start, so that its numbers never repeat.
    fn new(kind: SourceKind, name: &str, clock: Arc<dyn Clock>, out: Sender<Batch>) -> Self {
        let stream = format!("{name}@{}", clock.wall_ms()).into();
        Self { kind, stream, sequence: Arc::default(), clock, out }
    }

    async fn give(&self, frames: impl IntoIterator<Item = Result<Bytes, RejectReason>>) -> Result<(), Closed> {
        let mut batch = Batch::default();
        for frame in frames {
            let (bytes, reason) = match frame {
                Ok(bytes) => (bytes, None),
                Err(reason) => (Bytes::new(), Some(reason)),
            };
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
            let raw = RawEvent {
                source: self.kind,
                received_ms: self.clock.wall_ms(),
                position: Some(Position { stream: self.stream.clone(), sequence }),
                bytes,
            };
            match reason {
                None => batch.events.push(raw),
                Some(reason) => batch.rejects.push(Reject::of(&raw, reason)),
            }
        }
        if batch.events.is_empty() && batch.rejects.is_empty() {
            return Ok(());
        }
        self.out.send(batch).await.map_err(|_| Closed)
    }
}

/// The receiver is gone: the pipeline has stopped.
struct Closed;

/// Syslog over UDP: one datagram, one line.
pub struct SyslogUdp {
    /// Its name.
    pub name: String,
    /// A bound socket.
    pub socket: UdpSocket,
    /// The time of receipt.
    pub clock: Arc<dyn Clock>,
}

impl Source for SyslogUdp {
    fn name(&self) -> &str {
        &self.name
    }
    fn run(self: Box<Self>, out: Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let handover = Handover::new(SourceKind::Syslog, &self.name, self.clock, out);
            let mut buffer = vec![0; LINE_SIZE_BYTES_MAX + 1];
            loop {
                let size = match self.socket.recv_from(&mut buffer).await {
                    Ok((size, _)) => size,
                    // A peer's answer to an earlier datagram is no fault of this socket.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                    Err(error) => return Err(error),
                };
                let frame = if size > LINE_SIZE_BYTES_MAX {
                    Err(RejectReason::TooLarge { limit_bytes: LINE_SIZE_BYTES_MAX as u64 })
                } else {
                    Ok(Bytes::copy_from_slice(&buffer[..size]))
                };
                if handover.give([frame]).await.is_err() {
                    return Ok(());
                }
            }
        })
    }
}

/// Syslog over TCP: octet-counted or newline-terminated frames.
pub struct SyslogTcp {
    /// Its name.
    pub name: String,
    /// A bound listener.
    pub listener: TcpListener,
    /// The time of receipt.
    pub clock: Arc<dyn Clock>,
}

impl Source for SyslogTcp {
    fn name(&self) -> &str {
        &self.name
    }
    fn run(self: Box<Self>, out: Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let handover = Handover::new(SourceKind::Syslog, &self.name, self.clock, out);
            // Dropped with this future, and its connections with it.
            let mut connections: JoinSet<()> = JoinSet::new();
            loop {
                tokio::select! {
                    biased;
                    () = handover.out.closed() => return Ok(()),
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                    accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                        let Ok((connection, peer)) = accepted else {
                            // A peer gone early, or no file handles left: neither is helped by trying at once.
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                            continue;
                        };
                        let handover = handover.clone();
                        connections.spawn(async move {
                            let framer = Framer::syslog(LINE_SIZE_BYTES_MAX);
                            if let Err(error) = read(connection, framer, &handover, Some(SILENCE_MAX)).await {
                                tracing::debug!(%peer, %error, "syslog connection ended");
                            }
                        });
                    }
                }
            }
        })
    }
}

/// Lines of a file, or of anything else that can be read to its end.
pub struct Lines<R> {
    /// The stream its events are positions in: the same file must have the same name to be known again.
    pub stream: Arc<str>,
    /// How to parse its lines.
    pub kind: SourceKind,
    /// The number of the first line.
    pub first_sequence: u64,
    /// The open file.
    pub reader: R,
    /// The time of receipt.
    pub clock: Arc<dyn Clock>,
}

impl<R: AsyncRead + Unpin + Send + 'static> Source for Lines<R> {
    fn name(&self) -> &str {
        &self.stream
    }
    fn run(self: Box<Self>, out: Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let sequence = Arc::new(AtomicU64::new(self.first_sequence));
            let handover = Handover { kind: self.kind, stream: self.stream, sequence, clock: self.clock, out };
            read(self.reader, Framer::lines(LINE_SIZE_BYTES_MAX), &handover, None).await
        })
    }
}

/// Reads frames until the end, the silence limit, or the pipeline's stop.
async fn read<R: AsyncRead + Unpin>(
    mut reader: R,
    mut framer: Framer,
    handover: &Handover,
    silence: Option<Duration>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_SIZE_BYTES];
    let mut frames = Vec::new();
    loop {
        let size = match silence {
            Some(limit) => tokio::time::timeout(limit, reader.read(&mut chunk)).await.unwrap_or(Ok(0))?,
            None => reader.read(&mut chunk).await?,
        };
        framer.push(&chunk[..size], &mut frames);
        if size == 0 {
            frames.extend(framer.finish());
        }
        if handover.give(frames.drain(..)).await.is_err() {
            return Ok(());
        }
        if size == 0 {
            return Ok(());
        }
    }
}
