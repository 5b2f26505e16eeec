//! OTLP logs over gRPC and HTTP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::event::RAW_SIZE_BYTES_MAX;
use detection::normalise::normalise;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use pipeline::source::{Batch, Counters, SourceConfig, Surroundings, channel};
use prost::Message;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::tls::Authority;
use support::{NOW_MS, SOON, clock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

/// Most bytes of a request in these tests.
const BODY: usize = 1024 * 1024;

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(text(value)), ..KeyValue::default() }
}

fn request(bodies: &[&str]) -> ExportLogsServiceRequest {
    let record =
        |body: &&str| LogRecord { time_unix_nano: NOW_MS * 1_000_000, body: Some(text(body)), ..LogRecord::default() };
    let resource = Some(Resource { attributes: vec![attribute("host.name", "h1")], ..Resource::default() });
    let scope_logs = vec![ScopeLogs { log_records: bodies.iter().map(record).collect(), ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }] }
}

/// Records with nothing in them: two bytes each.
fn empty(count: usize) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { log_records: vec![LogRecord::default(); count], ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
}

/// A running source.
struct Running {
    grpc: SocketAddr,
    http: SocketAddr,
    counters: Arc<Counters>,
    batches: Receiver<Batch>,
    _folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Running {
    async fn start(tls: Option<&Authority>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = tls.map(|authority| authority.server(false)).map_or(String::new(), |files| {
            format!("tls = {{ certificate = '{}', key = '{}' }}", files.certificate.display(), files.key.display())
        });
        let config =
            format!("type = 'otlp'\ngrpc = '127.0.0.1:0'\nhttp = '127.0.0.1:0'\nbody_size_bytes_max = {BODY}\n{tls}");
        let config: SourceConfig = toml::from_str(&config).unwrap();
        let around = Surroundings { clock: clock(), folder: folder.path().to_owned(), counters: Arc::default() };
        let source = config.open("otlp", &around).await.unwrap();
        let (addresses, counters) = (source.addresses(), source.counters());
        let (out, batches) = channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { source.run(out).await.unwrap() });
        let (grpc, http) = (addresses[0], addresses[1]);
        Self { grpc, http, counters, batches, _folder: folder, _tasks: tasks }
    }

    async fn batch(&mut self) -> Batch {
        tokio::time::timeout(SOON, self.batches.recv()).await.expect("no batch came").unwrap()
    }

    /// Takes what comes next as durable, or not; the messages of its events.
    async fn take(&mut self, durable: bool) -> Vec<String> {
        let batch = self.batch().await;
        let done = batch.done.expect("a request waits for its answer");
        if durable {
            done.send(()).unwrap();
        }
        let message = |raw| normalise(raw).unwrap().text("message").unwrap_or_default().to_owned();
        batch.events.iter().map(message).collect()
    }

    fn counted(&self) -> BTreeMap<&'static str, u64> {
        self.counters.read().into()
    }
}

async fn grpc(running: &Running) -> LogsServiceClient<Channel> {
    LogsServiceClient::connect(format!("http://{}", running.grpc)).await.unwrap()
}

#[tokio::test]
async fn grpc_answers_once_records_are_durable_and_says_so_when_they_are_not() {
    let mut running = Running::start(None).await;
    let mut client = grpc(&running).await.send_compressed(CompressionEncoding::Gzip);
    for durable in [true, false] {
        let mut client = client.clone();
        let answer = tokio::spawn(async move { client.export(request(&["a", "b"])).await });
        let batch = running.batch().await;
        assert_eq!(batch.events.len(), 2);
        assert!(!answer.is_finished(), "nothing is durable yet");
        if durable {
            batch.done.unwrap().send(()).unwrap();
            assert_eq!(answer.await.unwrap().unwrap().into_inner().partial_success, None);
        } else {
            drop(batch.done);
            assert_eq!(answer.await.unwrap().unwrap_err().code(), Code::Unavailable);
        }
    }
    let large = "x".repeat(RAW_SIZE_BYTES_MAX);
    let (answer, taken) = tokio::join!(client.export(request(&["a", &large, "c"])), running.take(true));
    assert_eq!(taken, ["a", "c"]);
    let partial = answer.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 1);
    assert!(partial.error_message.contains("larger than"), "{}", partial.error_message);
    assert_eq!(running.counted()["rejects"], 1);
}

#[tokio::test]
async fn grpc_refuses_what_is_too_large_compressed_or_not() {
    let mut running = Running::start(None).await;
    let large = "x".repeat(2 * BODY);
    let plain = grpc(&running).await.export(request(&[&large])).await.unwrap_err();
    assert_eq!(plain.code(), Code::OutOfRange);
    let mut client = grpc(&running).await.send_compressed(CompressionEncoding::Gzip);
    assert_eq!(client.export(request(&[&large])).await.unwrap_err().code(), Code::ResourceExhausted);
    let bomb = client.export(empty(BODY / 2 - 64)).await.unwrap_err();
    assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb}");
    assert!(bomb.message().contains("memory"), "{bomb}");
    // The connection serves on.
    let (answer, taken) = tokio::join!(client.export(request(&["a"])), running.take(true));
    assert_eq!((answer.unwrap().into_inner().partial_success, taken), (None, vec!["a".to_owned()]));
    assert_eq!(running.counted()["refused"], 3);
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_known_again() {
    let mut running = Running::start(None).await;
    let mut client = grpc(&running).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut client = client.clone();
        let answer = tokio::spawn(async move { client.export(request(&["a"])).await });
        let batch = running.batch().await;
        ids.push(batch.events[0].id());
        drop(batch.done);
        answer.await.unwrap().unwrap_err();
    }
    assert_eq!(ids[0], ids[1]);
    client.export(request(&[])).await.unwrap();
    assert!(running.batches.try_recv().is_err(), "a request without records makes no batch");
}

#[tokio::test]
async fn http_takes_protobuf_and_json_over_tls() {
    let authority = Authority::new();
    let mut running = Running::start(Some(&authority)).await;
    let client = reqwest::Client::builder().tls_backend_preconfigured(authority.client(false).load().unwrap());
    let client = client.no_proxy().build().unwrap();
    let url = format!("https://localhost:{}/v1/logs", running.http.port());
    let post = |kind: &'static str, body: Vec<u8>| client.post(&url).header("content-type", kind).body(body).send();
    let (answer, taken) =
        tokio::join!(post("application/x-protobuf", request(&["a"]).encode_to_vec()), running.take(true));
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), taken), (200, vec!["a".to_owned()]));
    let decoded = ExportLogsServiceResponse::decode(answer.bytes().await.unwrap()).unwrap();
    assert_eq!(decoded.partial_success, None);
    // As the specification writes it: hexadecimal ids, numbers of 64 bits as strings.
    let json = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1795467600000000000",
        "traceId":"5b8aa5a2d2c872e8321cf37308d69df2","severityNumber":9,"body":{"stringValue":"b"},
        "attributes":[{"key":"count","value":{"intValue":"7"}}]}]}]}]}"#;
    let (answer, taken) = tokio::join!(post("application/json; charset=utf-8", json.to_vec()), running.take(true));
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), taken), (200, vec!["b".to_owned()]));
    assert_eq!(answer.headers()["content-type"], "application/json");
    let (answer, _) = tokio::join!(post("application/json", json.to_vec()), running.take(false));
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
    assert!(answer.text().await.unwrap().contains(r#""code":14"#));
}

#[tokio::test]
async fn http_says_what_is_wrong_with_a_request() {
    let authority = Authority::new();
    let mut running = Running::start(Some(&authority)).await;
    let client = reqwest::Client::builder().tls_backend_preconfigured(authority.client(false).load().unwrap());
    let client = client.no_proxy().build().unwrap();
    let url = |path: &str| format!("https://localhost:{}{path}", running.http.port());
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let protobuf = "application/x-protobuf";
    let good = request(&["a"]).encode_to_vec();
    let bomb = gzip(&vec![0; 16 * BODY]);
    let many = empty(BODY / 2 - 64);
    let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}{{}}]}}]}}]}}"#, "{},".repeat(BODY / 4));
    let json = json.into_bytes();
    for (path, kind, encoding, body, status) in [
        ("/v1/traces", protobuf, "identity", good.clone(), 404),
        ("/v1/logs", "text/plain", "identity", good.clone(), 415),
        ("/v1/logs", protobuf, "br", good.clone(), 415),
        ("/v1/logs", protobuf, "identity", b"rubbish".to_vec(), 400),
        ("/v1/logs", "application/json", "identity", b"{\"resourceLogs\":7}".to_vec(), 400),
        ("/v1/logs", protobuf, "gzip", good.clone(), 400),
        ("/v1/logs", protobuf, "identity", vec![0; BODY + 1], 413),
        ("/v1/logs", protobuf, "gzip", bomb, 413),
        // A few kilobytes that would be a hundred megabytes once decoded.
        ("/v1/logs", protobuf, "gzip", gzip(&many.encode_to_vec()), 413),
        ("/v1/logs", "application/json", "gzip", gzip(&json), 413),
    ] {
        let request = client.post(url(path)).header("content-type", kind).header("content-encoding", encoding);
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path} {kind} {encoding}");
    }
    assert_eq!(client.get(url("/v1/logs")).send().await.unwrap().status().as_u16(), 405);
    assert_eq!(running.counted()["refused"], 11);
    let request = client.post(url("/v1/logs")).header("content-type", protobuf).header("content-encoding", "gzip");
    let (answer, taken) = tokio::join!(request.body(gzip(&good)).send(), running.take(true));
    assert_eq!((answer.unwrap().status().as_u16(), taken), (200, vec!["a".to_owned()]));
}

/// A connection on which nothing is said; when it is closed.
async fn closed(address: SocketAddr, said: &[u8]) -> Duration {
    let mut peer = TcpStream::connect(address).await.unwrap();
    peer.write_all(said).await.unwrap();
    let began = tokio::time::Instant::now();
    let mut bytes = [0; 1024];
    while peer.read(&mut bytes).await.is_ok_and(|size| size > 0) {}
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_no_request_begins_is_closed() {
    let running = Running::start(None).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for address in [running.grpc, running.http] {
        for said in [b"".as_slice(), &preface[..7], preface, b"POST /v1/logs HTTP/1.1\r\nhost:"] {
            let open = tokio::time::timeout(Duration::from_secs(300), closed(address, said)).await;
            let open = open.unwrap_or_else(|_| panic!("{address} holds {:?}", String::from_utf8_lossy(said)));
            assert!(open < Duration::from_secs(60), "{open:?}");
        }
    }
}

#[tokio::test]
async fn bodies_that_never_come_hold_up_nobody() {
    let mut running = Running::start(None).await;
    // More than there were turns to be had once.
    let mut slow = Vec::new();
    for _ in 0..60 {
        let mut peer = TcpStream::connect(running.http).await.unwrap();
        let head = "POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
        peer.write_all(head.as_bytes()).await.unwrap();
        slow.push(peer);
    }
    let mut client = grpc(&running).await;
    let (answer, taken) = tokio::join!(client.export(request(&["a"])), running.take(true));
    assert_eq!((answer.unwrap().into_inner().partial_success, taken), (None, vec!["a".to_owned()]));
    drop(slow);
}
