//! OpenTelemetry logs.

use crate::resource::{Invalid, Resource};
use crate::tls::ServerTls;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Most bytes of one request after decompression, unless the description says otherwise.
pub const BODY_SIZE_BYTES: usize = 4 * 1024 * 1024;
/// The most a description may allow.
pub const BODY_SIZE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An OTLP listener as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where it listens for gRPC; by custom port 4317.
    #[serde(default)]
    pub grpc: Option<SocketAddr>,
    /// Where it listens for HTTP, path `/v1/logs`; by custom port 4318.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// Its certificate; without it both are in the clear.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// Most bytes of one request after decompression.
    #[serde(default = "body_size_bytes_max")]
    pub body_size_bytes_max: usize,
}

fn body_size_bytes_max() -> usize {
    BODY_SIZE_BYTES
}

impl OtlpConfig {
    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems = Vec::new();
        if self.grpc.is_none() && self.http.is_none() {
            problems.push(Invalid::new("grpc", "name an address for `grpc`, for `http`, or for both"));
        }
        if !(1024..=BODY_SIZE_BYTES_MAX).contains(&self.body_size_bytes_max) {
            let advice = format!("write a number from 1024 to {BODY_SIZE_BYTES_MAX}");
            problems.push(Invalid::new("body_size_bytes_max", advice));
        }
        problems
    }

    /// What it claims.
    pub fn resources(&self) -> Vec<Resource> {
        self.grpc.iter().chain(&self.http).map(|address| Resource::Tcp(*address)).collect()
    }
}
