//! Certificates made for a test.

use pipeline::tls::{ClientTls, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::PathBuf;

/// An authority and a folder for what it signs.
pub struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a new certificate and its key for localhost, under a name.
    pub fn issue(&self, name: &str) {
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
    }

    /// A server's files; with `clients` it lets nobody in without a certificate of this authority.
    pub fn server(&self, clients: bool) -> ServerTls {
        self.issue("server");
        let client_ca = clients.then(|| self.path("ca.pem"));
        ServerTls { certificate: self.path("server.pem"), key: self.path("server.key"), client_ca }
    }

    /// A client's files, with a certificate of its own or without.
    pub fn client(&self, identified: bool) -> ClientTls {
        self.issue("client");
        let own = |name: &str| identified.then(|| self.path(name));
        ClientTls { ca: Some(self.path("ca.pem")), certificate: own("client.pem"), key: own("client.key") }
    }

    /// What accepts connections under the server's certificate.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        std::sync::Arc::new(self.server(false).load(&[]).unwrap()).into()
    }
}
