//! The listener: TLS, its patience, both versions of HTTP, and its end.

use crate::fake::Fake;
use api::limit::{HANDSHAKE_TIME_MAX, HEADER_BYTES_MAX, SHUTDOWN_TIME_MAX};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

struct Running {
    core: Arc<Fake>,
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let core = Arc::new(Fake::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let served = tokio::spawn(api::serve(listener, Arc::new(tls), core.clone(), shutdown));
        Self { core, address, certificate, stop: Some(stop), served }
    }

    async fn connect(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap()
    }

    fn request(&self, key: &str) -> Request<Empty<Bytes>> {
        let token = self.core.token("alice", self.address.ip());
        Request::get(format!("https://localhost/v1/tenants/acme/tables/calls/records/{key}"))
            .header("authorization", format!("Bearer {token}"))
            .header("host", "localhost")
            .body(Empty::new())
            .unwrap()
    }
}

#[tokio::test]
async fn http_1_and_2_are_served_on_one_port_to_the_socket_s_address() {
    let running = Running::start().await;
    let one = TokioIo::new(running.connect(&[b"http/1.1"]).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(one).await.unwrap();
    let one = tokio::spawn(connection);
    for _ in 0..2 {
        let response = sender.send_request(running.request("k")).await.unwrap();
        assert_eq!(response.status(), 404, "kept alive, and the session's address is the socket's");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("no such record"));
    }
    let two = TokioIo::new(running.connect(&[b"h2"]).await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), two).await.unwrap();
    let two = tokio::spawn(connection);
    let response = sender.send_request(running.request("k")).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (404, http::Version::HTTP_2));
    drop(sender);
    one.abort();
    two.abort();
}

#[tokio::test]
async fn plain_text_gets_nothing_but_the_end() {
    let running = Running::start().await;
    let mut plain = TcpStream::connect(running.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "at most a TLS alert");
}

#[tokio::test]
async fn a_slow_handshake_delays_nobody_and_is_ended() {
    let running = Running::start().await;
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(&[0x16, 0x03]).await.unwrap();
    let quick = TokioIo::new(running.connect(&[b"http/1.1"]).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(quick).await.unwrap();
    let driven = tokio::spawn(connection);
    assert_eq!(sender.send_request(running.request("k")).await.unwrap().status(), 404);
    driven.abort();
    tokio::time::pause();
    tokio::time::advance(HANDSHAKE_TIME_MAX).await;
    tokio::time::resume();
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn huge_headers_are_refused() {
    let running = Running::start().await;
    let mut tls = running.connect(&[b"http/1.1"]).await;
    // Without an end, and no longer than it must be: a server that closes on unread bytes resets the connection.
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}", "y".repeat(HEADER_BYTES_MAX));
    tls.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tls.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
}

#[tokio::test]
async fn what_is_not_http_is_refused_even_with_more_behind_it() {
    let running = Running::start().await;
    let mut tls = running.connect(&[]).await;
    tls.write_all(b"\x00\x01 nonsense\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    tls.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_takes_nothing_new() {
    let mut running = Running::start().await;
    let io = TokioIo::new(running.connect(&[b"http/1.1"]).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let driven = tokio::spawn(connection);
    let idle = running.connect(&[b"http/1.1"]).await;
    let request = running.request("held");
    let answer = tokio::spawn(async move { sender.send_request(request).await });
    running.core.entered.notified().await;
    running.stop.take().unwrap().send(()).unwrap();
    let mut idle_end = Vec::new();
    let (mut idle_read, _idle_write) = tokio::io::split(idle);
    let _ = idle_read.read_to_end(&mut idle_end).await;
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
    assert!(!running.served.is_finished());
    running.core.release.notify_one();
    assert_eq!(answer.await.unwrap().unwrap().status(), 404);
    running.served.await.unwrap();
    let _ = driven.await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let mut running = Running::start().await;
    let io = TokioIo::new(running.connect(&[b"h2"]).await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driven = tokio::spawn(connection);
    let request = running.request("held");
    let answer = tokio::spawn(async move { sender.send_request(request).await });
    running.core.entered.notified().await;
    tokio::time::pause();
    running.stop.take().unwrap().send(()).unwrap();
    tokio::time::advance(SHUTDOWN_TIME_MAX).await;
    running.served.await.unwrap();
    assert!(answer.await.unwrap().is_err(), "cut off");
    let _ = driven.await;
}
