//! Sinks against receivers that take, fail, wait and hang up.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::Severity;
use keyring::{MacKey, mac::Tag};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use pipeline::sink::{Notice, Refused, Sink, SinkConfig, Topic};
use prost::Message;
use std::time::Duration;
use support::receiver::{Deed, Receiver};
use support::tls::Authority;
use support::{NOW_MS, clock};
use tokio::io::AsyncReadExt;

const SECRET: &str = "a secret that both sides know";

fn notice(key: &str) -> Notice {
    Notice {
        key: key.to_owned(),
        topic: Topic::Incident,
        tenant: "acme".to_owned(),
        at_ms: NOW_MS,
        severity: Severity::High,
        subject: "Brute force".to_owned(),
        to: Vec::new(),
        body: r#"{"class_uid":2005}"#.to_owned(),
    }
}

fn open(config: &str) -> Box<dyn Sink> {
    let config: SinkConfig = toml::from_str(config).unwrap();
    assert_eq!(config.problems(), []);
    config.open("sink", &clock()).unwrap()
}

fn later(outcome: (usize, Result<(), Refused>)) -> usize {
    assert!(matches!(outcome.1, Err(Refused::Later(_))), "{outcome:?}");
    outcome.0
}

fn never(outcome: (usize, Result<(), Refused>)) -> usize {
    assert!(matches!(outcome.1, Err(Refused::Never(_))), "{outcome:?}");
    outcome.0
}

/// Long enough that no busy machine is taken for a receiver that does not answer.
const PATIENCE: u64 = 30;

async fn webhook(authority: &Authority, deeds: Vec<Deed>) -> (Receiver, Box<dyn Sink>) {
    webhook_within(authority, deeds, PATIENCE).await
}

async fn webhook_within(authority: &Authority, deeds: Vec<Deed>, seconds: u64) -> (Receiver, Box<dyn Sink>) {
    let receiver = Receiver::start(authority, deeds).await;
    std::fs::write(authority.path("secret"), format!("{SECRET}\n")).unwrap();
    let sink = open(&format!(
        "type = 'webhook'\nurl = '{}'\nsecret = '{}'\ntimeout_seconds = {seconds}\ntls = {{ ca = '{}' }}",
        receiver.url("/hook"),
        authority.path("secret").display(),
        authority.path("ca.pem").display()
    ));
    (receiver, sink)
}

#[tokio::test]
async fn a_webhook_signs_and_repeats_under_the_same_key_until_it_is_taken() {
    let authority = Authority::new();
    let deeds = [Deed::Answer(503, vec![]), Deed::HangUp, Deed::Answer(429, vec![])];
    let (receiver, sink) = webhook(&authority, deeds.to_vec()).await;
    for _ in 0..3 {
        assert_eq!(later(sink.deliver(&[notice("incident/1/2")]).await), 0);
    }
    assert_eq!(sink.deliver(&[notice("incident/1/2"), notice("incident/1/3")]).await, (2, Ok(())));
    let requests = receiver.requests();
    let keys: Vec<&str> = requests.iter().map(|request| request.headers["idempotency-key"].as_str()).collect();
    assert_eq!(keys, [["incident/1/2"; 4].as_slice(), &["incident/1/3"]].concat());
    for request in &requests {
        // As the module's documentation tells receivers.
        let (time, tag) = request.headers["holdfast-signature"].split_once(",v1=").unwrap();
        let seconds = time.strip_prefix("t=").unwrap();
        assert_eq!(seconds, (NOW_MS / 1_000).to_string());
        let signed = [seconds.as_bytes(), b".", &request.body].concat();
        let tag = Tag::from_slice(&hex::decode(tag).unwrap()).unwrap();
        MacKey::of_bytes(SECRET.as_bytes()).verify(&signed, &tag).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!((&body["topic"], &body["body"]["class_uid"]), (&"incident".into(), &2005.into()));
    }
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_in_time_is_asked_again_under_the_same_key() {
    let authority = Authority::new();
    // Whoever waits is not asked for anything else, however long the handshake took.
    let (receiver, sink) = webhook_within(&authority, vec![Deed::Wait; 1_000], 1).await;
    let asked = async {
        while receiver.requests().len() < 2 {
            assert_eq!(later(sink.deliver(&[notice("incident/1/2")]).await), 0);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap();
    assert!(receiver.requests().iter().all(|request| request.headers["idempotency-key"] == "incident/1/2"));
}

#[tokio::test]
async fn a_webhook_gives_up_on_a_wrong_request_and_goes_where_no_redirect_leads() {
    let authority = Authority::new();
    let elsewhere = Receiver::start(&authority, vec![]).await;
    let deeds = vec![Deed::Answer(200, vec![]), Deed::Answer(422, vec![]), Deed::Redirect(elsewhere.url("/stolen"))];
    let (receiver, sink) = webhook(&authority, deeds).await;
    assert_eq!(never(sink.deliver(&[notice("a"), notice("b"), notice("c")]).await), 1);
    assert_eq!(later(sink.deliver(&[notice("c")]).await), 0);
    assert_eq!((receiver.requests().len(), elsewhere.requests().len()), (3, 0));
    assert_eq!(never(sink.deliver(&[Notice { body: "not json".into(), ..notice("d") }]).await), 0);
    assert_eq!(never(sink.deliver(&[notice("a\r\nx: y")]).await), 0);
}

#[tokio::test]
async fn a_server_of_another_authority_is_told_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (receiver, _) = webhook(&authority, vec![]).await;
    std::fs::write(other.path("secret"), SECRET).unwrap();
    let sink = open(&format!(
        "type = 'webhook'\nurl = '{}'\nsecret = '{}'\ntls = {{ ca = '{}' }}",
        receiver.url("/hook"),
        other.path("secret").display(),
        other.path("ca.pem").display()
    ));
    later(sink.deliver(&[notice("a")]).await);
    assert_eq!(receiver.requests().len(), 0);
}

#[tokio::test]
async fn syslog_goes_over_tls_and_finds_its_receiver_again() {
    let authority = Authority::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = open(&format!(
        "type = 'syslog'\nhost = 'localhost'\nport = {}\ntimeout_seconds = {PATIENCE}\ntls = {{ ca = '{}' }}",
        listener.local_addr().unwrap().port(),
        authority.path("ca.pem").display()
    ));
    let acceptor = authority.acceptor();
    let take = async || {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await.unwrap();
        let mut bytes = vec![0; 4096];
        let size = stream.read(&mut bytes).await.unwrap();
        String::from_utf8(bytes[..size].to_vec()).unwrap()
    };
    let check = |line: String, key: &str| {
        let (size, line) = line.split_once(' ').unwrap();
        assert_eq!(size.parse::<usize>().unwrap(), line.len());
        let parsed = detection::source::syslog::parse(line.as_bytes(), NOW_MS).unwrap();
        assert_eq!((parsed.message.as_str(), parsed.parameters[0].2.as_str()), ("Brute force", key));
    };
    let (first, second) = ([notice("a")], [notice("b")]);
    let (outcome, line) = tokio::join!(sink.deliver(&first), take());
    assert_eq!(outcome, (1, Ok(())));
    check(line, "a");
    // The receiver has hung up. Until that is noticed lines go nowhere, as the module says.
    let mut taken = std::pin::pin!(take());
    let line = loop {
        tokio::select! {
            biased;
            line = &mut taken => break line,
            _ = sink.deliver(&second) => {}
        }
    };
    check(line, "b");
}

async fn mail(
    authority: &Authority,
    security: &str,
    ends: Vec<Option<&'static str>>,
) -> (support::smtp::Server, Box<dyn Sink>) {
    let server = support::smtp::Server::start(authority, security == "starttls", ends).await;
    std::fs::write(authority.path("password"), "secret").unwrap();
    let sink = open(&format!(
        "type = 'smtp'\nhost = 'localhost'\nport = {}\nsecurity = '{security}'\nca = '{}'\nusername = 'soc'\n\
         password = '{}'\nfrom = 'Holdfast <soc@example.org>'\nto = ['duty@example.org']\ntimeout_seconds = {PATIENCE}",
        server.address.port(),
        authority.path("ca.pem").display(),
        authority.path("password").display()
    ));
    (server, sink)
}

#[tokio::test]
async fn a_mail_goes_over_tls_or_starttls_and_keeps_its_message_id_when_repeated() {
    let authority = Authority::new();
    for security in ["tls", "starttls"] {
        let (server, sink) = mail(&authority, security, vec![Some("451 not now"), None, Some("250 taken")]).await;
        let evil = Notice { subject: "x\r\nBcc: eve@example.org\r\n.\r\nMAIL FROM:<eve@x.org>".into(), ..notice("k") };
        for _ in 0..2 {
            assert_eq!(later(sink.deliver(std::slice::from_ref(&evil)).await), 0);
        }
        assert_eq!(sink.deliver(std::slice::from_ref(&evil)).await, (1, Ok(())));
        let mails = server.mails();
        assert_eq!(mails.len(), 3, "one transaction for each attempt, whatever the subject says");
        for mail in &mails {
            assert_eq!(
                (mail.to.as_slice(), mail.login.is_some()),
                (["<duty@example.org>".to_owned()].as_slice(), true)
            );
            assert!(!mail.text.lines().any(|line| line.starts_with("Bcc")), "{}", mail.text);
            let id = |text: &str| text.lines().find(|line| line.starts_with("Message-ID")).unwrap().to_owned();
            assert_eq!(id(&mail.text), id(&mails[0].text));
        }
    }
}

#[tokio::test]
async fn a_mail_reaches_those_who_exist_and_nobody_else() {
    let authority = Authority::new();
    let (server, sink) = mail(&authority, "tls", vec![]).await;
    let to = |to: &[&str]| Notice { to: to.iter().map(|to| (*to).to_owned()).collect(), ..notice("k") };
    assert_eq!(sink.deliver(&[to(&["nobody@example.org", "ann@example.org"])]).await, (1, Ok(())));
    assert_eq!(server.mails()[0].to, ["<ann@example.org>"]);
    assert_eq!(never(sink.deliver(&[to(&["nobody@example.org"])]).await), 0);
    assert_eq!(never(sink.deliver(&[to(&["ann@example.org\r\nRCPT TO:<eve@example.org>"])]).await), 0);
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_wrong_password_keeps_mails_for_later() {
    let authority = Authority::new();
    let (server, sink) = mail(&authority, "tls", vec![]).await;
    std::fs::write(authority.path("password"), "wrong").unwrap();
    let _right = sink;
    let sink = open(&format!(
        "type = 'smtp'\nhost = 'localhost'\nport = {}\nca = '{}'\nusername = 'soc'\npassword = '{}'\n\
         from = 'soc@example.org'\nto = ['duty@example.org']",
        server.address.port(),
        authority.path("ca.pem").display(),
        authority.path("password").display()
    ));
    assert_eq!(later(sink.deliver(&[notice("k")]).await), 0);
    assert_eq!(server.mails().len(), 0);
}

#[tokio::test]
async fn otlp_finds_the_record_that_is_refused() {
    let authority = Authority::new();
    let partial = |count: i64| {
        let error_message = "too old".to_owned();
        let partial_success = Some(ExportLogsPartialSuccess { rejected_log_records: count, error_message });
        Deed::Answer(200, ExportLogsServiceResponse { partial_success }.encode_to_vec())
    };
    let deeds = vec![Deed::Answer(503, vec![]), partial(1), partial(0), partial(1)];
    let receiver = Receiver::start(&authority, deeds).await;
    std::fs::write(authority.path("token"), "Bearer abc\n").unwrap();
    let sink = open(&format!(
        "type = 'otlp'\nurl = '{}'\nauthorization = '{}'\ntls = {{ ca = '{}' }}",
        receiver.url("/v1/logs"),
        authority.path("token").display(),
        authority.path("ca.pem").display()
    ));
    let notices = [notice("a"), notice("b"), notice("c")];
    assert_eq!(later(sink.deliver(&notices).await), 0);
    assert_eq!(sink.deliver(&notices).await, (1, Err(Refused::Never("too old".to_owned()))));
    assert_eq!(sink.deliver(&notices[2..]).await, (1, Ok(())));
    let requests = receiver.requests();
    let records = |place: usize| {
        let request = ExportLogsServiceRequest::decode(requests[place].body.as_slice()).unwrap();
        request.resource_logs[0].scope_logs[0].log_records.clone()
    };
    assert_eq!([0, 1, 2, 3, 4].map(|place| records(place).len()), [3, 3, 1, 1, 1]);
    assert_eq!(records(0)[0].severity_number, 17);
    assert!(requests.iter().all(|request| request.headers["authorization"] == "Bearer abc"));
}

#[tokio::test]
async fn a_folder_holds_each_topic_by_day() {
    let folder = tempfile::tempdir().unwrap();
    let wants = "wants = { topics = ['incident', 'event'], severity_min = 'medium', tenants = ['acme'] }";
    let sink = open(&format!("type = 'directory'\nfolder = '{}'\n{wants}", folder.path().display()));
    assert!(sink.wants(&notice("a")));
    assert!(!sink.wants(&Notice { topic: Topic::Alert, ..notice("a") }));
    assert!(!sink.wants(&Notice { severity: Severity::Low, ..notice("a") }));
    assert!(!sink.wants(&Notice { tenant: "other".into(), ..notice("a") }));
    let event = Notice { topic: Topic::Event, at_ms: NOW_MS + 86_400_000, body: "{\n}".into(), ..notice("b") };
    let broken = Notice { body: "{".into(), ..notice("c") };
    assert_eq!(never(sink.deliver(&[notice("a"), event, broken]).await), 2);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let line: serde_json::Value = serde_json::from_str(&read("incident/2026-11-23-0000.ndjson")).unwrap();
    assert_eq!((&line["key"], &line["body"]["class_uid"]), (&"a".into(), &2005.into()));
    assert_eq!(read("event/2026-11-24-0000.ndjson").lines().count(), 1);
}

#[test]
fn a_description_that_cannot_be_says_what_to_do() {
    let check = |config: &str, field: &str| {
        let config: SinkConfig = toml::from_str(config).unwrap();
        let problems = config.problems();
        assert!(problems.iter().any(|problem| problem.field == field), "{config:?}: {problems:?}");
    };
    check("type = 'webhook'\nurl = 'http://soc.example/hook'\nsecret = 's'", "url");
    check("type = 'webhook'\nurl = 'https://a:b@soc.example/hook'\nsecret = 's'", "url");
    check("type = 'webhook'\nurl = 'https://soc.example'\nsecret = 's'\ntls = { key = 'k' }", "tls");
    check("type = 'otlp'\nurl = 'ftp://soc.example'", "url");
    check("type = 'syslog'\nhost = 'a:1'\nport = 1", "host");
    check("type = 'smtp'\nhost = 'mail.example'\nport = 25\nsecurity = 'none'\nfrom = 'a@example.org'", "security");
    check("type = 'smtp'\nhost = 'localhost'\nport = 25\nfrom = 'nobody'", "from");
    check("type = 'directory'\nfolder = 'f'\nsegment_size_bytes_max = 1", "segment_size_bytes_max");
    let unknown = toml::from_str::<SinkConfig>("type = 'directory'\nfolder = 'f'\ncolour = 'red'").unwrap_err();
    assert!(unknown.to_string().contains("colour"));
    for loopback in ["http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost/x", "https://soc.example/x"] {
        let config: SinkConfig =
            toml::from_str(&format!("type = 'webhook'\nurl = '{loopback}'\nsecret = 's'")).unwrap();
        assert_eq!(config.problems(), [], "{loopback}");
    }
}
