//! One HTTP connection of a client, the same code for both products.
//!
//! No pool, no retries, no redirects: a request goes out on this connection or fails.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How a connection is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One request at a time.
    Http1,
    /// Several at a time; clones share the connection.
    Http2,
}

/// An open connection.
pub enum Connection {
    /// HTTP/1.1.
    One(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2.
    Two(http2::SendRequest<Full<Bytes>>),
}

/// What came back.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
    /// Headers and trailers.
    pub headers: HeaderMap,
}

impl Connection {
    /// Opens a connection, with TLS if a configuration is given.
    pub async fn open(address: SocketAddr, tls: Option<Arc<rustls::ClientConfig>>, protocol: Protocol) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| address.to_string())?;
        stream.set_nodelay(true)?;
        match tls {
            None => Self::shake(stream, protocol).await,
            Some(tls) => {
                let name = ServerName::IpAddress(address.ip().into());
                let stream =
                    TlsConnector::from(tls).connect(name, stream).await.with_context(|| address.to_string())?;
                Self::shake(stream, protocol).await
            }
        }
    }

    async fn shake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, protocol: Protocol) -> Result<Self> {
        let io = TokioIo::new(stream);
        // The connection's task ends when the last sender is dropped.
        match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Ok(Self::One(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Ok(Self::Two(sender))
            }
        }
    }

    /// Another handle on the same connection, where the protocol has them.
    pub fn share(&self) -> Option<Self> {
        match self {
            Self::One(_) => None,
            Self::Two(sender) => Some(Self::Two(sender.clone())),
        }
    }

    /// Sends a request and waits for the whole answer.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let response = match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        let collected = body.collect().await?;
        let mut headers = head.headers;
        if let Some(trailers) = collected.trailers() {
            headers.extend(trailers.clone());
        }
        Ok(Answer { status: head.status, body: collected.to_bytes(), headers })
    }
}

/// What a client of a cluster trusts: its authority only.
pub fn trust(authority_pem: &[u8], protocol: Protocol) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem) {
        roots.add(certificate.map_err(|error| anyhow::anyhow!("ca.pem: {error}"))?)?;
    }
    let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![match protocol {
        Protocol::Http1 => b"http/1.1".to_vec(),
        Protocol::Http2 => b"h2".to_vec(),
    }];
    Ok(Arc::new(tls))
}
