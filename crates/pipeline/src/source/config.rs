//! Sources as the topology file describes them.
//!
//! A description is checked here, and opened; what a source does is said beside its code.

use super::{Counters, Source, badge, file, http, otlp, syslog};
use crate::resource::{Invalid, OpenError, Resource};
use model::time::Clock;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A source: `type = "syslog"`, `"otlp"`, `"http"`, `"file"` or `"badge_csv"`, and the settings of that type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// Syslog over UDP, TCP or TLS.
    Syslog(syslog::SyslogConfig),
    /// OpenTelemetry logs over gRPC and HTTP.
    Otlp(otlp::OtlpConfig),
    /// JSON objects, one a line, over HTTP.
    Http(http::HttpConfig),
    /// Log files that are followed through rotation.
    File(file::FileConfig),
    /// Badge readers' and visitors' records as CSV files.
    BadgeCsv(badge::BadgeConfig),
}

/// What a source needs of its surroundings.
#[derive(Clone)]
pub struct Surroundings {
    /// The time of receipt.
    pub clock: Arc<dyn Clock>,
    /// Where sources keep what they have read: one file each, by name.
    pub folder: PathBuf,
    /// What the source counts; the same numbers when it is opened again.
    pub counters: Arc<Counters>,
}

impl Surroundings {
    /// The file in which a source keeps what it has read.
    pub fn checkpoint(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.checkpoint.json"))
    }
}

impl SourceConfig {
    /// Makes relative paths count from a folder: that of the topology file.
    pub fn resolve(&mut self, folder: &Path) {
        match self {
            Self::Syslog(config) => config.tls.iter_mut().for_each(|tls| tls.resolve(folder)),
            Self::Otlp(config) => config.tls.iter_mut().for_each(|tls| tls.resolve(folder)),
            Self::Http(config) => config.resolve(folder),
            Self::File(config) => file::resolve(&mut config.paths, folder),
            Self::BadgeCsv(config) => file::resolve(&mut config.paths, folder),
        }
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        match self {
            Self::Syslog(config) => config.problems(),
            Self::Otlp(config) => config.problems(),
            Self::Http(config) => config.problems(),
            Self::File(config) => config.problems(),
            Self::BadgeCsv(config) => config.problems(),
        }
    }

    /// What it claims.
    pub fn resources(&self) -> Vec<Resource> {
        match self {
            Self::Syslog(config) => config.resources(),
            Self::Otlp(config) => config.resources(),
            Self::Http(config) => vec![Resource::Tcp(config.address)],
            Self::File(_) | Self::BadgeCsv(_) => Vec::new(),
        }
    }

    /// Reads the secrets and certificates that it names, as its start would.
    ///
    /// # Errors
    /// The first of them that is not there, or is not what it should be.
    pub fn look(&self) -> Result<(), OpenError> {
        let tls = match self {
            Self::Syslog(config) => &config.tls,
            Self::Otlp(config) => &config.tls,
            Self::Http(config) => return config.look(),
            Self::File(_) | Self::BadgeCsv(_) => &None,
        };
        tls.iter().try_for_each(|tls| tls.load(&[]).map(drop))
    }

    /// Opens its sockets and files under a name that stays the same over restarts; nothing is read yet.
    pub async fn open(&self, name: &str, surroundings: &Surroundings) -> Result<Box<dyn Source>, OpenError> {
        if let Some(problem) = self.problems().into_iter().next() {
            return Err(problem.into());
        }
        match self {
            Self::Syslog(config) => config.open(name, surroundings).await,
            Self::File(config) => config.open(name, surroundings),
            Self::Otlp(config) => config.open(surroundings).await,
            Self::Http(config) => config.open(surroundings).await,
            Self::BadgeCsv(config) => config.open(name, surroundings),
        }
    }
}
