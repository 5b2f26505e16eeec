//! TLS for sources and sinks: certificates by path, read again when the files change.
//!
//! It trusts nobody by itself: a peer is checked against the authority that is named, or the system's.

use crate::resource::{Invalid, OpenError, resolve};
use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// How often a listener looks whether its certificates changed, at most.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How a listener identifies itself, and whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// Its certificate and the intermediate ones, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authority clients' certificates must be of, in PEM; without it clients need none.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// How a client checks a server, and identifies itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// The authority the server's certificate must be of, in PEM; without it the system's authorities count.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The client's own certificate, in PEM.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

impl ServerTls {
    /// Makes relative paths count from a folder.
    pub fn resolve(&mut self, folder: &Path) {
        resolve(&mut self.certificate, folder);
        resolve(&mut self.key, folder);
        self.client_ca.iter_mut().for_each(|path| resolve(path, folder));
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }

    /// Reads the files.
    pub fn load(&self, protocols: &[&[u8]]) -> Result<ServerConfig, OpenError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&self.certificate, error))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider)
                    .build()
                    .map_err(|error| tls(path, rustls::Error::General(error.to_string())))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates(&self.certificate)?, key(&self.key)?)
            .map_err(|error| tls(&self.certificate, error))?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

impl ClientTls {
    /// Makes relative paths count from a folder.
    pub fn resolve(&mut self, folder: &Path) {
        [&mut self.ca, &mut self.certificate, &mut self.key].into_iter().flatten().for_each(|p| resolve(p, folder));
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Option<Invalid> {
        (self.certificate.is_some() != self.key.is_some())
            .then(|| Invalid::new("tls", "name both `certificate` and `key`, or neither"))
    }

    /// Reads the files.
    pub fn load(&self) -> Result<ClientConfig, OpenError> {
        let roots = match &self.ca {
            Some(path) => roots(path)?,
            None => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                store
            }
        };
        let named = self.ca.clone().unwrap_or_else(|| "the system's authorities".into());
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&named, error))?
            .with_root_certificates(roots);
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(path)) => builder
                .with_client_auth_cert(certificates(certificate)?, key(path)?)
                .map_err(|error| tls(certificate, error)),
            _ => Ok(builder.with_no_client_auth()),
        }
    }
}

/// A listener's certificates as they are now.
pub struct Reloading {
    files: ServerTls,
    protocols: &'static [&'static [u8]],
    now: ArcSwap<ServerConfig>,
    seen: Mutex<Seen>,
    failures: AtomicU64,
}

/// Inode, time of writing, length.
type Stamp = (u64, SystemTime, u64);

struct Seen {
    at: Duration,
    stamps: Vec<Option<Stamp>>,
}

impl Reloading {
    /// Reads them; from now on [`Self::config`] looks whether they changed.
    pub fn open(files: ServerTls, protocols: &'static [&'static [u8]]) -> Result<Self, OpenError> {
        let stamps = stamps(&files);
        let now = ArcSwap::from_pointee(files.load(protocols)?);
        let seen = Mutex::new(Seen { at: Duration::ZERO, stamps });
        Ok(Self { files, protocols, now, seen, failures: AtomicU64::new(0) })
    }

    /// The configuration for the next connection; the files are looked at when `every` has passed since the last time.
    /// Files that cannot be used leave the old certificate in place, until they change again.
    pub fn config(&self, now: Duration, every: Duration) -> Arc<ServerConfig> {
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now.saturating_sub(seen.at) >= every {
            seen.at = now;
            let found = stamps(&self.files);
            if found != seen.stamps {
                seen.stamps = found;
                match self.files.load(self.protocols) {
                    Ok(config) => {
                        self.now.store(Arc::new(config));
                        tracing::info!(path = %self.files.certificate.display(), "a certificate was read again");
                    }
                    Err(error) => {
                        self.failures.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(%error, "a changed certificate cannot be used: the old one stays");
                    }
                }
            }
        }
        self.now.load_full()
    }

    /// How often changed files could not be used.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

fn stamps(files: &ServerTls) -> Vec<Option<Stamp>> {
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.modified().ok()?, metadata.len()))
    };
    files.files().map(stamp).collect()
}

fn tls(path: &Path, error: rustls::Error) -> OpenError {
    OpenError::Tls { path: path.to_owned(), error }
}

fn pem(path: &Path) -> impl Fn(rustls::pki_types::pem::Error) -> OpenError + '_ {
    move |error| match error {
        rustls::pki_types::pem::Error::Io(error) => OpenError::File { path: path.to_owned(), error },
        error => tls(path, rustls::Error::General(error.to_string())),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(pem(path))?.collect::<Result<_, _>>().map_err(pem(path))?;
    if found.is_empty() {
        return Err(tls(path, rustls::Error::General("no certificate in it".to_owned())));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, OpenError> {
    PrivateKeyDer::from_pem_file(path).map_err(pem(path))
}

fn roots(path: &Path) -> Result<RootCertStore, OpenError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| tls(path, error))?;
    }
    Ok(store)
}
