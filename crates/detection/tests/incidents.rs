//! Incidents and what is told about them; sources on real sockets.

mod incident_support;

use bytes::Bytes;
use detection::incident::{Act, Deed, Desk, Effect, Incident, Input, Options, Refusal, Status};
use detection::sink::{Sink, webhook::Webhook};
use detection::source::listen::{Lines, SyslogTcp, SyslogUdp};
use detection::source::{Intake, Source, channel};
use detection::{EntityKind, Severity, SourceKind};
use incident_support::{NOW_MS, alert, step};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

#[test]
fn alerts_that_share_an_address_are_one_incident_and_others_are_not() {
    let mut desk = Desk::new(Options::default());
    let region = (EntityKind::Region, "eu");
    let (first, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(1, 1_000, Severity::Medium, &[(EntityKind::Address, "a"), region])));
    let (second, change) =
        step(&mut desk, NOW_MS, Input::Alert(alert(2, 2_000, Severity::High, &[(EntityKind::Address, "a"), region])));
    assert_eq!((first.id, second.severity, second.alerts.len()), (second.id, Severity::High, 2));
    assert!(matches!(change.change.deed, Deed::AlertJoined { .. }));
    let (third, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(3, 3_000, Severity::Low, &[(EntityKind::Address, "b"), region])));
    assert_ne!(third.id, first.id, "a region alone joins nothing that has better");
    let late = 3_000 + 2 * 60 * 60 * 1_000;
    let (fourth, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(4, late, Severity::Low, &[(EntityKind::Address, "a")])));
    assert_ne!(fourth.id, first.id, "too long after");
    let mut effects = Vec::new();
    desk.step(9, Input::Alert(alert(1, 1_000, Severity::Medium, &[(EntityKind::Address, "a"), region])), &mut effects);
    assert!(effects.is_empty(), "an alert raised again changes nothing");
}

#[test]
fn an_incident_lives_from_open_to_closed_and_keeps_its_history() {
    let mut desk = Desk::new(Options::default());
    let (incident, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(1, 1_000, Severity::High, &[(EntityKind::User, "ann")])));
    let act = |act: Act| Input::Act { incident: incident.id, by: "soc".into(), why: None, act };
    let refused = |desk: &mut Desk, input| {
        let mut effects = Vec::new();
        desk.step(8, input, &mut effects);
        match effects.as_slice() {
            [Effect::Refused { reason, .. }] => *reason,
            other => panic!("{other:?}"),
        }
    };
    let (now, _) = step(&mut desk, NOW_MS, act(Act::Acknowledge));
    assert_eq!(now.status, Status::InProgress);
    assert_eq!(refused(&mut desk, act(Act::Acknowledge)), Refusal::AlreadyAcknowledged);
    step(&mut desk, NOW_MS, act(Act::Assign { to: "bob".into() }));
    step(&mut desk, NOW_MS, act(Act::Comment { text: "seen before".into() }));
    assert_eq!(refused(&mut desk, act(Act::Close { post_mortem: "  ".into() })), Refusal::TextRequired);
    let (closed, _) =
        step(&mut desk, NOW_MS, act(Act::Close { post_mortem: "a script; its address is blocked".into() }));
    assert_eq!(closed.status, Status::Closed);
    assert_eq!(refused(&mut desk, act(Act::Assign { to: "eve".into() })), Refusal::Closed);
    let revisions: Vec<u64> = closed.history.iter().map(|entry| entry.revision).collect();
    assert_eq!(revisions, [1, 2, 3, 4, 5]);
    let (next, _) =
        step(&mut desk, NOW_MS, Input::Alert(alert(2, 1_500, Severity::High, &[(EntityKind::User, "ann")])));
    assert_ne!(next.id, closed.id, "a closed incident takes no alerts");
    let mut restored = Desk::new(Options::default());
    restored.restore(closed.history.iter().chain(&next.history).map(|entry| (*entry.change).clone()));
    assert_eq!(restored.get(closed.id), Some(&closed));
    let (joined, _) =
        step(&mut restored, NOW_MS, Input::Alert(alert(3, 1_600, Severity::High, &[(EntityKind::User, "ann")])));
    assert_eq!(joined.id, next.id);
}

#[test]
fn a_webhook_is_signed_and_keyed_by_revision() {
    let mut desk = Desk::new(Options::default());
    let (incident, change) =
        step(&mut desk, NOW_MS, Input::Alert(alert(1, 1_000, Severity::High, &[(EntityKind::User, "ann")])));
    let sign = Box::new(|time_ms: u64, body: &[u8]| format!("{time_ms}:{}", body.len()));
    let hook =
        Webhook { name: "soc".into(), url: "https://soc.example/hook".into(), severity_min: Severity::Low, sign };
    let request = hook.request(&incident, &change).unwrap();
    assert_eq!(hook.request(&incident, &change).unwrap(), request);
    assert!(request.headers.contains(&("holdfast-signature", format!("{NOW_MS}:{}", request.body.len()))));
    let act = Input::Act { incident: incident.id, by: "soc".into(), why: None, act: Act::Acknowledge };
    let (_, later) = step(&mut desk, NOW_MS, act);
    assert_ne!(hook.request(&incident, &later).unwrap().idempotency_key, request.idempotency_key);
    let low = Incident { severity: Severity::Informational, ..incident };
    assert_eq!(hook.request(&low, &change), None);
}

struct Fixed;
impl model::time::Clock for Fixed {
    fn wall_ms(&self) -> u64 {
        1_795_467_600_000
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn bytes_of(intake: Option<Intake>) -> Result<(u64, Bytes), &'static str> {
    match intake {
        Some(Intake::Event(raw)) => Ok((raw.position.expect("these sources have positions").sequence, raw.bytes)),
        Some(Intake::Reject(reject)) => Err(reject.reason.label()),
        None => Err("ended"),
    }
}

#[tokio::test]
async fn syslog_arrives_over_tcp_in_both_framings_and_over_udp() {
    let (out, mut events) = channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = Box::new(SyslogTcp { name: "tcp".into(), listener, clock: Arc::new(Fixed) });
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(tcp.run(out.clone()));
    let mut peer = tokio::net::TcpStream::connect(address).await.unwrap();
    peer.write_all(b"<1>one\n7 <2>two!9999999 x").await.unwrap();
    assert_eq!(bytes_of(events.recv().await), Ok((0, Bytes::from_static(b"<1>one"))));
    assert_eq!(bytes_of(events.recv().await), Ok((1, Bytes::from_static(b"<2>two!"))));
    assert_eq!(bytes_of(events.recv().await), Err("too_large"));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tasks.spawn(Box::new(SyslogUdp { name: "udp".into(), socket, clock: Arc::new(Fixed) }).run(out));
    let sender = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    sender.send_to(b"<3>three", address).await.unwrap();
    assert_eq!(bytes_of(events.recv().await), Ok((0, Bytes::from_static(b"<3>three"))));
}

#[tokio::test]
async fn a_file_is_read_line_by_line_from_a_given_number() {
    let (out, mut events) = channel();
    let reader: &'static [u8] = b"first\n\nsecond";
    let stream = "file".into();
    let lines = Box::new(Lines { stream, kind: SourceKind::Syslog, first_sequence: 5, reader, clock: Arc::new(Fixed) });
    lines.run(out).await.unwrap();
    assert_eq!(bytes_of(events.recv().await), Ok((5, Bytes::from_static(b"first"))));
    assert_eq!(bytes_of(events.recv().await), Ok((6, Bytes::from_static(b"second"))));
    assert_eq!(bytes_of(events.recv().await), Err("ended"));
}
