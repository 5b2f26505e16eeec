//! Sources on real sockets.

use bytes::Bytes;
use detection::{Position, SourceKind};
use pipeline::source::listen::{Lines, SyslogTcp, SyslogUdp};
use pipeline::source::{Batch, Source, channel};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

struct Fixed;
impl model::time::Clock for Fixed {
    fn wall_ms(&self) -> u64 {
        1_795_467_600_000
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Frames as they come, batch by batch.
struct Frames {
    from: tokio::sync::mpsc::Receiver<Batch>,
    waiting: VecDeque<Result<(u64, Bytes), &'static str>>,
}

impl Frames {
    async fn next(&mut self) -> Result<(u64, Bytes), &'static str> {
        while self.waiting.is_empty() {
            let Some(batch) = self.from.recv().await else { return Err("ended") };
            let sequence = |position: Option<Position>| position.expect("these sources have positions").sequence;
            self.waiting.extend(batch.events.into_iter().map(|raw| Ok((sequence(raw.position), raw.bytes))));
            self.waiting.extend(batch.rejects.into_iter().map(|reject| Err(reject.reason.label())));
        }
        self.waiting.pop_front().expect("it was filled")
    }
}

fn frames() -> (tokio::sync::mpsc::Sender<Batch>, Frames) {
    let (out, from) = channel();
    (out, Frames { from, waiting: VecDeque::new() })
}

#[tokio::test]
async fn syslog_arrives_over_tcp_in_both_framings_and_over_udp() {
    let (out, mut events) = frames();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = Box::new(SyslogTcp { name: "tcp".into(), listener, clock: Arc::new(Fixed) });
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(tcp.run(out.clone()));
    let mut peer = tokio::net::TcpStream::connect(address).await.unwrap();
    peer.write_all(b"<1>one\n7 <2>two!9999999 x").await.unwrap();
    assert_eq!(events.next().await, Ok((0, Bytes::from_static(b"<1>one"))));
    assert_eq!(events.next().await, Ok((1, Bytes::from_static(b"<2>two!"))));
    assert_eq!(events.next().await, Err("too_large"));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tasks.spawn(Box::new(SyslogUdp { name: "udp".into(), socket, clock: Arc::new(Fixed) }).run(out));
    let sender = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    sender.send_to(b"<3>three", address).await.unwrap();
    assert_eq!(events.next().await, Ok((0, Bytes::from_static(b"<3>three"))));
}

#[tokio::test]
async fn a_file_is_read_line_by_line_from_a_given_number() {
    let (out, mut events) = frames();
    let reader: &'static [u8] = b"first\n\nsecond";
    let stream = "file".into();
    let lines = Box::new(Lines { stream, kind: SourceKind::Syslog, first_sequence: 5, reader, clock: Arc::new(Fixed) });
    lines.run(out).await.unwrap();
    assert_eq!(events.next().await, Ok((5, Bytes::from_static(b"first"))));
    assert_eq!(events.next().await, Ok((6, Bytes::from_static(b"second"))));
    assert_eq!(events.next().await, Err("ended"));
}
