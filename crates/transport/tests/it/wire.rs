//! The protocol byte by byte: a hostile peer with a good certificate, and one without any.

use crate::conformance::body;
use crate::mesh::{Mesh, Random, address, eventually};
use model::NodeId;
use model::entropy::Entropy;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;
use transport::{FRAME_BYTES_MAX, Issued, Link, Service};

/// Believes everyone: it is the server that is tested.
#[derive(Debug)]
struct Gullible;
impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn connect(
    to: std::net::SocketAddr,
    issued: Option<Issued>,
    alpn: &str,
) -> Result<Connection, quinn::ConnectionError> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut tls = match issued {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(vec![certificate], key).expect("fits")
        }
    };
    tls.alpn_protocols = vec![alpn.into()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("fits QUIC")));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
    endpoint.connect_with(config, to, "anything").expect("connects").await
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn hello(expected: u64) -> Vec<u8> {
    framed(&[b"holdfast".as_slice(), &[1], &77_u64.to_be_bytes(), &expected.to_be_bytes()].concat())
}

/// Sends bytes on a new stream and gives back what comes, or `None` when the stream is reset.
async fn say(connection: &Connection, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await.expect("opens");
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    receive.read_to_end(1 << 20).await.ok()
}

#[tokio::test]
async fn what_is_malformed_closes_its_stream_only_and_is_counted() {
    let mesh = Mesh::new();
    let server = mesh.server(1, &[]);
    let connection = connect(address(&server), Some(mesh.issue(2)), "holdfast/1").await.expect("connects");
    let welcome = say(&connection, &hello(1)).await.expect("is let in");
    assert_eq!(welcome.len(), 4 + 8 + 1 + 8);
    let mut held = connection.open_bi().await.expect("opens");
    held.0.write_all(&[1, Service::Raft as u8, 0, 0]).await.expect("writes");

    let raft = Service::Raft as u8;
    let call = |body: &[u8]| [&[1, raft], framed(body).as_slice()].concat();
    assert_eq!(say(&connection, &call(b"body")).await, Some([&[0], framed(b"body").as_slice()].concat()));
    assert_eq!(say(&connection, &[1, Service::Status as u8, 0, 0, 0, 0]).await, Some(vec![1]));
    let too_large = ((FRAME_BYTES_MAX + 1) as u32).to_be_bytes();
    let refused = say(&connection, &[&[1, raft], too_large.as_slice()].concat()).await;
    assert_eq!(refused, Some([&[2], too_large.as_slice()].concat()));
    let malformed: [&[u8]; 9] = [
        &[],
        &[1],
        &[3, raft, 0, 0, 0, 0],
        &[1, 99, 0, 0, 0, 0],
        &[1, raft],
        &[1, raft, 0, 0],
        &[1, raft, 0, 0, 0, 9, b'x'],
        &[2, 0, 0, 0, 0, 0],
        &[0],
    ];
    for bytes in malformed {
        assert_eq!(say(&connection, bytes).await, None, "{bytes:?}");
    }
    let counted = || server.status().peers[&NodeId::new(2)].malformed;
    // The frame that was too large is one of them.
    assert_eq!(counted(), malformed.len() as u64 + 1);
    let pull = Service::Pull as u8;
    for bytes in [&[2, pull, 0xff, 0, 0, 0], [2, pull, 0, 0, 0, 9].as_slice()] {
        let before = counted();
        assert_eq!(say(&connection, bytes).await, Some(Vec::new()), "the handler has ended its side");
        assert_eq!(counted(), before + 1);
    }
    for opening in [[1, raft], [2, pull], [3, raft], [1, 0]].into_iter().cycle().take(200) {
        let mut noise = [0; 48];
        Random.fill(&mut noise);
        let _ = say(&connection, &[opening.as_slice(), &noise].concat()).await;
    }
    held.0.write_all(&[0, 1, b'x']).await.expect("writes");
    let answer = held.1.read_to_end(100).await.expect("a neighbour's noise changes nothing");
    assert_eq!(answer, [0, 0, 0, 0, 1, b'x']);
}

#[tokio::test]
async fn a_bad_hello_is_refused() {
    let mesh = Mesh::new();
    let server = mesh.server(1, &[]);
    let future_version = framed(&[b"holdfast".as_slice(), &[2], &[0; 16]].concat());
    let large = [&(FRAME_BYTES_MAX as u32).to_be_bytes(), [0; 100].as_slice()].concat();
    let cases: [(&[u8], &str); 5] = [
        (&hello(3), "expected n3, found n1"),
        (&future_version, "malformed hello"),
        (&large, "malformed hello"),
        (&hello(1)[..9], "malformed hello"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed hello"),
    ];
    for (bytes, why) in cases {
        let connection = connect(address(&server), Some(mesh.issue(2)), "holdfast/1").await.expect("connects");
        let _ = say(&connection, bytes).await;
        let closed = connection.closed().await.to_string();
        assert!(closed.contains(why), "{closed}");
    }
    assert_eq!(server.status().accepted, 0);
    assert_eq!(server.status().refused, 5);
}

#[tokio::test]
async fn who_has_no_certificate_or_another_protocol_is_refused() {
    let mesh = Mesh::new();
    let server = mesh.server(1, &[]);
    // The client of TLS 1.3 believes to be connected; its first stream tells it otherwise.
    let closed = match connect(address(&server), None, "holdfast/1").await {
        Ok(connection) => {
            assert_eq!(say(&connection, &hello(1)).await, None);
            connection.closed().await
        }
        Err(error) => error,
    };
    assert!(closed.to_string().contains("certificate"), "{closed}");
    let (_, said) = eventually(|| server.status().refusals.first().cloned()).await;
    assert!(said.contains("no certificates"), "{said}");
    assert!(connect(address(&server), Some(mesh.issue(2)), "h3").await.is_err());
    let client = mesh.authority.issue_api_server(&[], &[], crate::mesh::NOW_MS, &Random).expect("issues");
    if let Ok(connection) = connect(address(&server), Some(client), "holdfast/1").await {
        assert_eq!(say(&connection, &hello(1)).await, None);
    }
    assert_eq!(server.status().accepted, 0);
}

#[tokio::test]
async fn a_restart_with_the_same_certificate_replaces_the_connection() {
    let mesh = Mesh::new();
    let server = mesh.server(1, &[]);
    let issued = mesh.issue(2);
    let first = connect(address(&server), Some(issued.clone()), "holdfast/1").await.expect("connects");
    say(&first, &hello(1)).await.expect("is let in");
    let second = connect(address(&server), Some(issued), "holdfast/1").await.expect("connects");
    say(&second, &hello(1)).await.expect("is let in");
    assert!(first.closed().await.to_string().contains("replaced"));
    assert_eq!(server.status().peers[&NodeId::new(2)].connects, 2);
    let gone = server.call(NodeId::new(2), Service::Raft, body(1), Duration::from_millis(50)).await;
    assert!(gone.is_err(), "this peer never answers");
}
