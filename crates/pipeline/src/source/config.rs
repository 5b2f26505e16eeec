//! Sources as the topology file describes them.

use super::Source;
use super::listen::{SyslogTcp, SyslogUdp};
use crate::resource::{Invalid, OpenError, Resource};
use model::time::Clock;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// Syslog over UDP or TCP.
    Syslog(SyslogConfig),
}

/// A syslog listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// How lines arrive.
    pub mode: Mode,
    /// Where it listens.
    pub address: SocketAddr,
}

/// How lines arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One datagram, one line.
    Udp,
    /// Octet-counted or newline-terminated frames.
    Tcp,
}

/// What a source needs of its surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// The time of receipt.
    pub clock: Arc<dyn Clock>,
    /// Where sources keep what they have read.
    pub folder: PathBuf,
}

impl SourceConfig {
    /// Makes relative paths count from a folder: that of the topology file.
    pub fn resolve(&mut self, _folder: &Path) {}

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        Vec::new()
    }

    /// What it claims.
    pub fn resources(&self) -> Vec<Resource> {
        let Self::Syslog(config) = self;
        vec![match config.mode {
            Mode::Udp => Resource::Udp(config.address),
            Mode::Tcp => Resource::Tcp(config.address),
        }]
    }

    /// Opens its sockets and files; nothing is read yet.
    ///
    /// # Errors
    /// What could not be opened.
    pub async fn open(&self, name: &str, surroundings: &Surroundings) -> Result<Box<dyn Source>, OpenError> {
        let Self::Syslog(SyslogConfig { mode, address }) = self;
        let (name, clock, address) = (name.to_owned(), Arc::clone(&surroundings.clock), *address);
        let bind = |error| OpenError::Bind { address, error };
        Ok(match mode {
            Mode::Udp => {
                let socket = tokio::net::UdpSocket::bind(address).await.map_err(bind)?;
                Box::new(SyslogUdp { name, socket, clock })
            }
            Mode::Tcp => {
                let listener = tokio::net::TcpListener::bind(address).await.map_err(bind)?;
                Box::new(SyslogTcp { name, listener, clock })
            }
        })
    }
}
