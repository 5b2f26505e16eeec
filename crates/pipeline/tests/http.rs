//! Events over HTTP: verdicts line by line, who is let in, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use pipeline::source::{Batch, Counters, SourceConfig, Surroundings, channel};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use support::tls::Authority;
use support::{SOON, clock};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

const TOKEN: &str = "sixteen bytes or more";
const NDJSON: &str = "application/x-ndjson";

struct Running {
    address: SocketAddr,
    counters: Arc<Counters>,
    batches: Receiver<Batch>,
    _folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Running {
    async fn start(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("type = 'http'\naddress = '127.0.0.1:0'\nbody_size_bytes_max = 65536\n{settings}");
        let config: SourceConfig = toml::from_str(&config).unwrap();
        config.look().unwrap();
        let around = Surroundings { clock: clock(), folder: folder.path().to_owned(), counters: Arc::default() };
        let source = config.open("http", &around).await.unwrap();
        let (address, counters) = (source.addresses()[0], source.counters());
        let (out, batches) = channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { source.run(out).await.unwrap() });
        Self { address, counters, batches, _folder: folder, _tasks: tasks }
    }

    /// Takes what comes next as durable, or not: its events, and the beginnings of its rejects.
    async fn take(&mut self, durable: bool) -> (Vec<String>, Vec<String>) {
        let batch = tokio::time::timeout(SOON, self.batches.recv()).await.expect("no batch came").unwrap();
        let done = batch.done.expect("a request waits for its answer");
        if durable {
            done.send(()).unwrap();
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let events = batch.events.iter().map(|raw| text(&raw.bytes));
        (events.collect(), batch.rejects.iter().map(|reject| text(&reject.sample)).collect())
    }

    fn counted(&self) -> BTreeMap<&'static str, u64> {
        self.counters.read().into()
    }
}

fn client(authority: &Authority, identified: bool) -> reqwest::Client {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(authority.client(identified).load().unwrap());
    builder.no_proxy().build().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn good_lines_are_taken_and_bad_ones_are_named_in_the_answer() {
    let authority = Authority::new();
    let mut running = Running::start("").await;
    let url = format!("http://{}/v1/events", running.address);
    let body = "{\"n\":1}\nno json\n\n{\"n\":2}\n[3]\n";
    let client = client(&authority, false);
    let post = |body: Vec<u8>, encoding: &'static str| {
        client.post(&url).header("content-type", NDJSON).header("content-encoding", encoding).body(body).send()
    };
    for (body, encoding) in [(body.as_bytes().to_vec(), "identity"), (gzip(body.as_bytes()), "gzip")] {
        let (answer, (events, rejects)) = tokio::join!(post(body, encoding), running.take(true));
        let answer = answer.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let verdicts: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let named = json!([{"line": 2, "reason": "not JSON at column 2"}, {"line": 5, "reason": "not a JSON object"}]);
        assert_eq!(verdicts, json!({"taken": 2, "rejected": 2, "lines": named}));
        assert_eq!(events, [r#"{"n":1}"#, r#"{"n":2}"#]);
        assert_eq!(rejects, ["no json", "[3]"]);
    }
    assert_eq!((running.counted()["events"], running.counted()["rejects"]), (4, 4));
    let (answer, _) = tokio::join!(post(b"{}".to_vec(), "identity"), running.take(false));
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
    assert_eq!(post(Vec::new(), "identity").await.unwrap().status().as_u16(), 200, "nothing is no mistake");
}

#[tokio::test]
async fn without_the_token_or_a_certificate_nobody_is_let_in() {
    let authority = Authority::new();
    let files = authority.server(true);
    std::fs::write(authority.path("token"), format!("{TOKEN}\n")).unwrap();
    let tls = format!(
        "token = '{}'\ntls = {{ certificate = '{}', key = '{}', client_ca = '{}' }}",
        authority.path("token").display(),
        files.certificate.display(),
        files.key.display(),
        files.client_ca.unwrap().display()
    );
    let mut running = Running::start(&tls).await;
    let url = format!("https://localhost:{}/v1/events", running.address.port());
    let post = |client: reqwest::Client, token: &'static str| {
        client.post(&url).header("content-type", NDJSON).header("authorization", token).body("{}").send()
    };
    assert!(post(client(&authority, false), "Bearer sixteen bytes or more").await.is_err(), "no certificate");
    let known = client(&authority, true);
    for wrong in ["Bearer sixteen bytes or les", "Basic sixteen bytes or more"] {
        let answer = post(known.clone(), wrong).await.unwrap();
        assert_eq!(answer.status().as_u16(), 401, "{wrong}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    }
    let (answer, (events, _)) = tokio::join!(post(known, "Bearer sixteen bytes or more"), running.take(true));
    assert_eq!((answer.unwrap().status().as_u16(), events), (200, vec!["{}".to_owned()]));
    assert!(running.batches.try_recv().is_err());
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_and_nothing_of_it_is_taken() {
    let authority = Authority::new();
    let mut running = Running::start("").await;
    let url = |path: &str| format!("http://{}{path}", running.address);
    let client = client(&authority, false);
    for (path, kind, encoding, body, status) in [
        ("/", NDJSON, "identity", b"{}".to_vec(), 404),
        ("/v1/events", "text/plain", "identity", b"{}".to_vec(), 415),
        ("/v1/events", NDJSON, "br", b"{}".to_vec(), 415),
        ("/v1/events", NDJSON, "gzip", b"{}".to_vec(), 400),
        ("/v1/events", NDJSON, "identity", vec![b' '; 65_537], 413),
        ("/v1/events", NDJSON, "gzip", gzip(&vec![b' '; 1 << 20]), 413),
    ] {
        let request = client.post(url(path)).header("content-type", kind).header("content-encoding", encoding);
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path} {kind} {encoding}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(client.get(url("/v1/events")).send().await.unwrap().status().as_u16(), 405);
    assert_eq!(running.counted()["refused"], 7);
    assert!(running.batches.try_recv().is_err());
}

#[tokio::test]
async fn one_peer_has_only_so_many_connections() {
    let running = Running::start("peer_connections_max = 2").await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(tokio::net::TcpStream::connect(running.address).await.unwrap());
    }
    // The third is closed at once, whatever the order in which they were accepted.
    let ends = futures::future::select_all(
        peers.iter_mut().map(|peer| Box::pin(async move { tokio::io::AsyncReadExt::read(peer, &mut [0; 1]).await })),
    );
    let (end, ..) = tokio::time::timeout(SOON, ends).await.expect("one of them is closed");
    assert!(end.map_or(true, |size| size == 0));
    assert_eq!((running.counted()["turned_away"], running.counted()["open"]), (1, 2));
}

#[test]
fn a_description_that_cannot_be_says_what_to_do() {
    for (settings, field) in [
        ("address = '0.0.0.0:1'\ntoken = 't'", "token"),
        ("address = '127.0.0.1:1'\nbody_size_bytes_max = 1", "body_size_bytes_max"),
        ("address = '127.0.0.1:1'\npeer_connections_max = 0", "peer_connections_max"),
    ] {
        let config: SourceConfig = toml::from_str(&format!("type = 'http'\n{settings}")).unwrap();
        assert!(config.problems().iter().any(|problem| problem.field == field), "{settings}");
    }
}
