//! Sources on real sockets.

mod support;

use bytes::Bytes;
use pipeline::source::Source;
use pipeline::source::syslog::{SILENCE_SECONDS_MAX, SyslogTcp, SyslogUdp};
use std::time::Duration;
use support::{clock, frames};
use tokio::io::AsyncWriteExt;

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
