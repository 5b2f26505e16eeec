//! TLS for QUIC: both sides show a certificate of the cluster's authority; keys can be replaced while running.
//!
//! Only TLS 1.3, never resumption (a resumed session would skip the certificate), never a name check by DNS:
//! who the other side is, its certificate's node name says, which the hello checks.

use super::QuicError;
use crate::identity::Identity;
use arc_swap::ArcSwap;
use keyring::{MacKey, Secret};
use model::entropy::Entropy;
use model::time::Clock;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, PeerMisbehaved, RootCertStore, SignatureScheme, version::TLS13};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The protocol on these links; another is refused in the handshake.
const ALPN: &[u8] = b"holdfast/1";

/// This node's certificate and key, replaceable.
#[derive(Debug)]
pub(super) struct Credentials {
    key: ArcSwap<CertifiedKey>,
}

impl Credentials {
    pub(super) fn new(key: CertifiedKey) -> Arc<Self> {
        Arc::new(Self { key: ArcSwap::from_pointee(key) })
    }
    pub(super) fn replace(&self, key: CertifiedKey) {
        self.key.store(Arc::new(key));
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key.load_full())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// A certificate with its key, and the name in it.
pub(super) fn read_credentials(
    certificate_pem: &str,
    key_pem: &str,
) -> Result<(CertifiedKey, Identity, ResetKey), QuicError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| QuicError::Certificate)?;
    let identity = Identity::of_certificate(chain.first().ok_or(QuicError::Certificate)?)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| QuicError::Key)?;
    let reset = ResetKey::derive(key.secret_der());
    let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|_| QuicError::Key)?;
    Ok((certified, identity, reset))
}

/// The configurations of both ends.
pub(super) fn configurations(
    credentials: &Arc<Credentials>,
    roots_pem: &str,
    clock: Arc<dyn Clock>,
) -> Result<(QuicClientConfig, QuicServerConfig), QuicError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let time: Arc<dyn TimeProvider> = Arc::new(Time(clock));
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(root.map_err(|_| QuicError::Roots)?).map_err(|_| QuicError::Roots)?;
    }
    let roots = Arc::new(roots);

    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|_| QuicError::Roots)?;
    let mut server = rustls::ServerConfig::builder_with_details(provider.clone(), time.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(credentials.clone());
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});

    let mut client = rustls::ClientConfig::builder_with_details(provider.clone(), time)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ChainVerifier { roots, provider }))
        .with_client_cert_resolver(credentials.clone());
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();

    let unfit = |_| QuicError::Tls(rustls::Error::General("no cipher suite for QUIC".into()));
    Ok((client.try_into().map_err(unfit)?, server.try_into().map_err(unfit)?))
}

/// The certificates' clock is the node's.
struct Time(Arc<dyn Clock>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.wall_ms())))
    }
}

/// The server's certificate chains to the cluster's authority and is valid now; its name is for the hello.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Signs stateless resets. The same after a restart, so that peers learn of one at their next packet instead of
/// after the idle timeout.
pub(super) struct ResetKey(MacKey);

impl ResetKey {
    fn derive(private_key: &[u8]) -> Self {
        let extract = MacKey::new(&Secret::from_bytes(*b"holdfast quic reset key extract "));
        Self(MacKey::new(&Secret::from_bytes(*extract.sign(private_key).as_bytes())))
    }
}

/// Random connection ids, any of which may have been an earlier life's: to these a reset is the answer.
pub(super) struct ConnectionIds(pub(super) Arc<dyn Entropy>);

impl quinn::ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        quinn::ConnectionId::new(&self.0.number().to_be_bytes())
    }
    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.0.sign(data).as_bytes());
    }
    fn signature_len(&self) -> usize {
        keyring::mac::TAG_SIZE_BYTES
    }
    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        let tag = keyring::Tag::from_slice(signature).map_err(|_| quinn::crypto::CryptoError)?;
        self.0.verify(data, &tag).map_err(|_| quinn::crypto::CryptoError)
    }
}
