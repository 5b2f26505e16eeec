//! Sources on real sockets.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use bytes::Bytes;
use detection::RejectReason;
use pipeline::source::syslog::{SILENCE_SECONDS_MAX, SyslogTcp, SyslogUdp};
use pipeline::source::{Batch, CONNECTIONS_MAX, Counters, Source, SourceConfig, Surroundings, channel};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::tls::Authority;
use support::{clock, frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const ANY: &str = "127.0.0.1:0";
const SILENCE: Duration = Duration::from_secs(SILENCE_SECONDS_MAX);

#[tokio::test]
async fn syslog_arrives_over_tcp_in_both_framings_and_over_udp() {
    let (out, mut events) = frames();
    let tcp = SyslogTcp::bind("tcp", "127.0.0.1:0".parse().unwrap(), None, SILENCE, clock()).await.unwrap();
    let (address, counters) = (tcp.addresses()[0], tcp.counters());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Box::new(tcp).run(out.clone()));
    let mut peer = tokio::net::TcpStream::connect(address).await.unwrap();
    peer.write_all(b"<1>one\n7 <2>two!9999999 x").await.unwrap();
    assert_eq!(events.next().await, Ok((0, Bytes::from_static(b"<1>one"))));
    assert_eq!(events.next().await, Ok((1, Bytes::from_static(b"<2>two!"))));
    assert_eq!(events.next().await, Err("too_large"));
    let counted: std::collections::BTreeMap<_, _> = counters.read().into();
    assert_eq!((counted["events"], counted["rejects"], counted["open"], counted["bytes"]), (2, 1, 1, 13));
    let udp = SyslogUdp::bind("udp", "127.0.0.1:0".parse().unwrap(), clock()).await.unwrap();
    let address = udp.addresses()[0];
    tasks.spawn(Box::new(udp).run(out));
    let sender = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    sender.send_to(b"<3>three", address).await.unwrap();
    assert_eq!(events.next().await, Ok((0, Bytes::from_static(b"<3>three"))));
}

/// Connects with TLS as a client of an authority.
async fn tls(authority: &Authority, address: SocketAddr, identified: bool) -> std::io::Result<TlsStream<TcpStream>> {
    let config = Arc::new(authority.client(identified).load().unwrap());
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect("localhost".try_into().unwrap(), tcp).await
}

fn counted(counters: &Counters) -> BTreeMap<&'static str, u64> {
    counters.read().into()
}

/// Waits until something that another task does has happened.
async fn until(mut holds: impl FnMut() -> bool) {
    let all = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("it never happened");
}

#[tokio::test]
async fn syslog_over_tls_lets_in_only_clients_of_its_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (out, mut events) = frames();
    let files = authority.server(true);
    let source = SyslogTcp::bind("tls", ANY.parse().unwrap(), Some(&files), SILENCE, clock()).await.unwrap();
    let (address, counters) = (source.addresses()[0], source.counters());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Box::new(source).run(out));
    let mut peer = tls(&authority, address, true).await.unwrap();
    peer.write_all(b"6 <1>one").await.unwrap();
    peer.flush().await.unwrap();
    assert_eq!(events.next().await, Ok((0, Bytes::from_static(b"<1>one"))));
    // A client without a certificate, one of another authority, and one that speaks no TLS at all.
    let mut stranger = tls(&authority, address, false).await.unwrap();
    let _ = stranger.write_all(b"6 <1>two").await;
    assert!(tls(&other, address, true).await.is_err());
    TcpStream::connect(address).await.unwrap().write_all(b"6 <1>three\n").await.unwrap();
    until(|| counted(&counters)["handshakes_failed"] == 3).await;
    assert_eq!((counted(&counters)["events"], counted(&counters)["open"]), (1, 1));
}

#[tokio::test]
async fn a_handshake_that_hangs_keeps_nobody_else_waiting() {
    let authority = Authority::new();
    let (out, mut events) = frames();
    let files = authority.server(false);
    let source = SyslogTcp::bind("tls", ANY.parse().unwrap(), Some(&files), SILENCE, clock()).await.unwrap();
    let address = source.addresses()[0];
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Box::new(source).run(out));
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut peer = tls(&authority, address, false).await.unwrap();
    peer.write_all(b"<1>one\n").await.unwrap();
    assert_eq!(events.next().await, Ok((0, Bytes::from_static(b"<1>one"))));
}

#[tokio::test]
async fn a_changed_certificate_is_used_for_the_next_connection_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let (out, _events) = frames();
    let files = authority.server(false);
    let source = SyslogTcp::bind("tls", ANY.parse().unwrap(), Some(&files), SILENCE, clock()).await.unwrap();
    let source = source.look_every(Duration::ZERO);
    let address = source.addresses()[0];
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Box::new(source).run(out));
    let shown = async || {
        let peer = tls(&authority, address, false).await.unwrap();
        peer.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown().await;
    assert_eq!(shown().await, first);
    // Written beside and renamed, as tools that renew certificates do.
    let replace = |from: &str, to: &str| std::fs::rename(authority.path(from), authority.path(to)).unwrap();
    authority.issue("next");
    replace("next.key", "server.key");
    assert_eq!(shown().await, first, "a key without its certificate is not used");
    replace("next.pem", "server.pem");
    let second = shown().await;
    assert_ne!(second, first);
    std::fs::write(authority.path("server.pem"), "rubbish").unwrap();
    assert_eq!(shown().await, second);
}

#[tokio::test]
async fn silence_ends_a_connection_and_what_came_before_is_kept() {
    let (out, mut events) = frames();
    let silence = Duration::from_millis(50);
    let source = SyslogTcp::bind("tcp", ANY.parse().unwrap(), None, silence, clock()).await.unwrap();
    let (address, counters) = (source.addresses()[0], source.counters());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Box::new(source).run(out));
    let mut peer = TcpStream::connect(address).await.unwrap();
    peer.write_all(b"<1>no end").await.unwrap();
    assert_eq!(events.next().await, Ok((0, Bytes::from_static(b"<1>no end"))));
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
    until(|| counted(&counters)["open"] == 0).await;
    assert_eq!(counted(&counters)["broken"], 1);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let (out, mut events) = frames();
    let source = SyslogTcp::bind("tcp", ANY.parse().unwrap(), None, SILENCE, clock()).await.unwrap();
    // All of them are one peer's here.
    let source = source.peer_connections_max(CONNECTIONS_MAX + 1);
    let (address, counters) = (source.addresses()[0], source.counters());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Box::new(source).run(out));
    let mut peers = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        peers.push(TcpStream::connect(address).await.unwrap());
    }
    until(|| counted(&counters)["open"] == CONNECTIONS_MAX as u64).await;
    let mut late = TcpStream::connect(address).await.unwrap();
    late.write_all(b"<1>late\n").await.unwrap();
    peers[7].write_all(b"<1>early\n").await.unwrap();
    assert_eq!(events.next().await, Ok((0, Bytes::from_static(b"<1>early"))));
    assert_eq!(counted(&counters)["connections"], CONNECTIONS_MAX as u64);
    peers.pop();
    assert_eq!(events.next().await, Ok((1, Bytes::from_static(b"<1>late"))));
}

#[tokio::test]
async fn a_full_channel_holds_a_tcp_peer_back_and_loses_nothing() {
    let (out, mut events) = frames();
    let source = SyslogTcp::bind("tcp", ANY.parse().unwrap(), None, SILENCE, clock()).await.unwrap();
    let (address, counters) = (source.addresses()[0], source.counters());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Box::new(source).run(out));
    const LINES: u64 = 60_000;
    tasks.spawn(async move {
        let mut peer = TcpStream::connect(address).await.unwrap();
        for number in 0..LINES {
            peer.write_all(format!("<1>{number}\n").as_bytes()).await?;
        }
        peer.shutdown().await
    });
    until(|| counted(&counters)["waits"] > 0).await;
    assert!(counted(&counters)["events"] < LINES);
    for number in 0..LINES {
        assert_eq!(events.next().await, Ok((number, Bytes::from(format!("<1>{number}")))));
    }
}

/// A clock that a second passes on between two looks.
struct Ticking(AtomicU64);

impl model::time::Clock for Ticking {
    fn wall_ms(&self) -> u64 {
        support::NOW_MS
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[tokio::test]
async fn datagrams_that_the_kernel_dropped_are_counted() {
    let (out, mut events) = frames();
    let clock = Arc::new(Ticking(AtomicU64::new(0)));
    let source = SyslogUdp::bind("udp", ANY.parse().unwrap(), clock).await.unwrap();
    let (address, counters) = (source.addresses()[0], source.counters());
    let sender = tokio::net::UdpSocket::bind(ANY).await.unwrap();
    // Nobody reads: the socket's buffer fills up.
    const SENT: u64 = 20_000;
    let line = [b'x'; 1000];
    for _ in 0..SENT {
        sender.send_to(&line, address).await.unwrap();
    }
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Box::new(source).run(out));
    tasks.spawn(async move {
        while events.next().await != Err("ended") {}
        Ok(())
    });
    until(|| counted(&counters)["events"] + counted(&counters)["lost"] >= SENT).await;
    assert!(counted(&counters)["lost"] > 0, "{:?}", counted(&counters));
    assert_eq!(counted(&counters)["events"] + counted(&counters)["lost"], SENT);
}

fn around(folder: &Path) -> Surroundings {
    Surroundings { clock: clock(), folder: folder.to_owned(), counters: Arc::default() }
}

async fn open(config: &str, folder: &Path) -> Box<dyn Source> {
    let config: SourceConfig = toml::from_str(config).unwrap();
    assert_eq!(config.problems(), []);
    config.open("source", &around(folder)).await.unwrap()
}

/// The next batch, not acknowledged.
async fn batch(from: &mut Receiver<Batch>) -> Batch {
    tokio::time::timeout(Duration::from_secs(30), from.recv()).await.expect("no batch came").expect("it ended")
}

fn texts(batch: &Batch) -> Vec<(u64, String)> {
    let one = |raw: &detection::RawEvent| {
        let place = raw.position.as_ref().unwrap().sequence;
        (place, String::from_utf8(raw.bytes.to_vec()).unwrap())
    };
    batch.events.iter().map(one).collect()
}

#[tokio::test]
async fn a_file_is_read_on_where_it_was_durable_and_again_where_it_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let (log, checkpoint) = (folder.path().join("a.log"), folder.path().join("source.checkpoint.json"));
    let config = format!(
        "type = 'file'\npaths = ['{}/*.log']\nformat = 'syslog'\npoll_milliseconds = 2",
        folder.path().display()
    );
    let append = |text: &str| {
        let mut file = std::fs::File::options().append(true).create(true).open(&log).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    };
    append("one\ntwo\n");
    let mut streams = BTreeSet::new();
    {
        let (out, mut from) = channel();
        let source = open(&config, folder.path()).await;
        let counters = source.counters();
        let task = tokio::spawn(source.run(out));
        let first = batch(&mut from).await;
        assert_eq!(texts(&first), [(0, "one".into()), (4, "two".into())]);
        streams.insert(first.events[0].position.clone().unwrap().stream);
        // Refused: it comes again, at the same positions.
        drop(first.done);
        append("three\n");
        let again = batch(&mut from).await;
        assert_eq!(texts(&again)[..2], [(0, "one".into()), (4, "two".into())]);
        let mut taken = texts(&again).len();
        again.done.unwrap().send(()).unwrap();
        while taken < 3 {
            let more = batch(&mut from).await;
            taken += texts(&more).len();
            more.done.unwrap().send(()).unwrap();
        }
        assert!(counted(&counters)["repeats"] >= 1);
        // What is durable is remembered soon, not at the end: there may be no end.
        until(|| std::fs::read_to_string(&checkpoint).is_ok_and(|text| text.contains("\"offset\": 14"))).await;
        append("four\n");
        let unacknowledged = batch(&mut from).await;
        assert_eq!(texts(&unacknowledged), [(14, "four".into())]);
        task.abort();
    }
    std::fs::rename(&log, folder.path().join("a.log.1")).unwrap();
    append("five\n");
    let (out, mut from) = channel();
    let _task = tokio::spawn(open(&config, folder.path()).await.run(out));
    let mut found = BTreeMap::new();
    while found.len() < 2 {
        let batch = batch(&mut from).await;
        for ((place, text), raw) in texts(&batch).into_iter().zip(&batch.events) {
            found.insert(text.clone(), place);
            assert_eq!(streams.contains(&raw.position.as_ref().unwrap().stream), text == "four", "{text}");
        }
        batch.done.unwrap().send(()).unwrap();
    }
    assert_eq!(found, BTreeMap::from([("four".into(), 14), ("five".into(), 0)]));
}

#[tokio::test]
async fn a_batch_that_is_durable_does_not_cover_for_one_before_it_that_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (log, checkpoint) = (folder.path().join("a.log"), folder.path().join("source.checkpoint.json"));
    std::fs::write(&log, "one\n").unwrap();
    let config = format!("type = 'file'\npaths = ['{}']\nformat = 'ndjson'\npoll_milliseconds = 2", log.display());
    let (out, mut from) = channel();
    let _task = tokio::spawn(open(&config, folder.path()).await.run(out));
    let first = batch(&mut from).await;
    // Added, not written over: the source may look at any moment.
    let mut file = std::fs::File::options().append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut file, b"two\n").unwrap();
    let second = batch(&mut from).await;
    assert_eq!((texts(&first), texts(&second)), (vec![(0, "one".into())], vec![(4, "two".into())]));
    // Neither order of answers leaves a gap.
    let _ = second.done.unwrap().send(());
    drop(first.done);
    let mut found = Vec::new();
    while found.len() < 2 {
        let again = batch(&mut from).await;
        found.extend(texts(&again));
        again.done.unwrap().send(()).unwrap();
    }
    assert_eq!(found, [(0, "one".into()), (4, "two".into())]);
    until(|| std::fs::read_to_string(&checkpoint).is_ok_and(|text| text.contains("\"offset\": 8"))).await;
}

#[tokio::test]
async fn badge_rows_are_events_and_bad_rows_say_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let table = "When;Who;Door;Result\n24.11.2026 09:15;\"Ann\nLee\";D1;granted\nsoon;bob;D1;granted\n\
                 24.11.2026 09:16;bob;D2;denied\n";
    std::fs::write(folder.path().join("day.csv"), table).unwrap();
    let config = format!(
        "type = 'badge_csv'\npaths = ['{}/*.csv']\ndelimiter = ';'\ntime_zone = 'Europe/Berlin'\n\
         time_format = '%d.%m.%Y %H:%M'\n\
         columns = {{ time = 'when', person = 'who', door = 'door', outcome = 'result' }}",
        folder.path().display()
    );
    let (out, mut from) = channel();
    let _task = tokio::spawn(open(&config, folder.path()).await.run(out));
    let batch = batch(&mut from).await;
    let events: Vec<_> = batch.events.iter().map(|raw| detection::normalise::normalise(raw).unwrap()).collect();
    assert_eq!(events.iter().map(|event| event.text("user.name").unwrap()).collect::<Vec<_>>(), ["Ann\nLee", "bob"]);
    assert_eq!((events[0].time_ms, events[1].text("status")), (1_795_508_100_000, Some("Failure")));
    let reason = RejectReason::BadRow { line: 4, column: "when".into() };
    assert_eq!(batch.rejects.iter().map(|reject| &reject.reason).collect::<Vec<_>>(), [&reason]);
    assert_eq!(&batch.rejects[0].sample[..], b"soon;bob;D1;granted");
}

#[test]
fn a_description_that_cannot_be_says_what_to_do() {
    let check = |config: &str, field: &str| {
        let config: SourceConfig = toml::from_str(config).unwrap();
        let problems = config.problems();
        assert!(problems.iter().any(|problem| problem.field == field), "{config:?}: {problems:?}");
    };
    check("type = 'syslog'\nmode = 'tls'\naddress = '127.0.0.1:0'", "tls");
    check("type = 'syslog'\nmode = 'udp'\naddress = '127.0.0.1:0'\ntls = { certificate = 'c', key = 'k' }", "tls");
    check("type = 'otlp'", "grpc");
    check("type = 'file'\npaths = []\nformat = 'ndjson'", "paths");
    check("type = 'file'\npaths = ['/a/[']\nformat = 'ndjson'", "paths");
    check("type = 'badge_csv'\npaths = ['a']\ncolumns = { time = 't' }", "columns");
    check("type = 'badge_csv'\npaths = ['a']\ncolumns = { time = 't', badge = 'b' }\ntime_zone = 'Mars'", "time_zone");
    check(
        "type = 'badge_csv'\npaths = ['a']\ncolumns = { time = 't', badge = 'b' }\ntime_format = '%!'",
        "time_format",
    );
    let unknown = toml::from_str::<SourceConfig>("type = 'file'\npaths = ['a']\nformat = 'csv'").unwrap_err();
    assert!(unknown.to_string().contains("ndjson"));
}
