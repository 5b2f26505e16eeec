//! Sinks as the topology file describes them.
//!
//! A description is checked here, and opened; what a sink does is said beside its code.

use super::{Notice, Sink, Topic, directory, mail, otlp, parquet, syslog, webhook};
use crate::resource::{Invalid, OpenError, Resource};
use detection::Severity;
use model::time::Clock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// A sink: `type = "webhook"`, `"syslog"`, `"smtp"`, `"otlp"`, `"directory"` or `"parquet"`, and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SinkConfig {
    /// HTTP POST, signed.
    Webhook(webhook::WebhookConfig),
    /// Syslog over TCP or TLS.
    Syslog(syslog::SyslogConfig),
    /// E-mail.
    Smtp(mail::SmtpConfig),
    /// OpenTelemetry logs over HTTP.
    Otlp(otlp::OtlpConfig),
    /// Files of JSON lines.
    Directory(directory::DirectoryConfig),
    /// Parquet files in a folder or an object store.
    Parquet(parquet::ParquetConfig),
}

/// Which notices a sink is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wants {
    /// About what; empty means all that it listens to.
    #[serde(default)]
    pub topics: BTreeSet<Topic>,
    /// How grave at least.
    #[serde(default)]
    pub severity_min: Severity,
    /// Of which tenants; empty means of all.
    #[serde(default)]
    pub tenants: BTreeSet<String>,
}

impl Wants {
    /// Whether a notice is among them.
    pub fn admit(&self, notice: &Notice) -> bool {
        (self.topics.is_empty() || self.topics.contains(&notice.topic))
            && notice.severity >= self.severity_min
            && (self.tenants.is_empty() || self.tenants.contains(&notice.tenant))
    }
}

impl SinkConfig {
    /// Makes relative paths count from a folder: that of the topology file.
    pub fn resolve(&mut self, folder: &Path) {
        match self {
            Self::Webhook(config) => config.resolve(folder),
            Self::Syslog(config) => config.tls.iter_mut().for_each(|tls| tls.resolve(folder)),
            Self::Smtp(config) => config.resolve(folder),
            Self::Otlp(config) => config.resolve(folder),
            Self::Directory(config) => crate::resource::resolve(&mut config.folder, folder),
            Self::Parquet(config) => config.resolve(folder),
        }
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        match self {
            Self::Webhook(config) => config.problems(),
            Self::Syslog(config) => config.problems(),
            Self::Smtp(config) => config.problems(),
            Self::Otlp(config) => config.problems(),
            Self::Directory(config) => config.problems(),
            Self::Parquet(config) => config.problems(),
        }
    }

    /// What it claims.
    pub fn resources(&self) -> Vec<Resource> {
        match self {
            Self::Directory(config) => vec![Resource::Folder(config.folder.clone())],
            Self::Parquet(config) => config.folder.iter().cloned().map(Resource::Folder).collect(),
            Self::Webhook(_) | Self::Syslog(_) | Self::Smtp(_) | Self::Otlp(_) => Vec::new(),
        }
    }

    /// Reads the secrets and certificates that it names, as its start would, and makes nothing.
    ///
    /// # Errors
    /// The first of them that is not there, or is not what it should be.
    pub fn look(&self, clock: &Arc<dyn Clock>) -> Result<(), OpenError> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Parquet(config) => config.look(clock),
            Self::Webhook(_) | Self::Syslog(_) | Self::Smtp(_) | Self::Otlp(_) => self.open("look", clock).map(drop),
        }
    }

    /// Reads its secrets and certificates; nothing is sent yet.
    pub fn open(&self, name: &str, clock: &Arc<dyn Clock>) -> Result<Box<dyn Sink>, OpenError> {
        if let Some(problem) = self.problems().into_iter().next() {
            return Err(problem.into());
        }
        Ok(match self {
            Self::Webhook(config) => Box::new(webhook::Webhook::open(name, config, Arc::clone(clock))?),
            Self::Syslog(config) => Box::new(syslog::Syslog::open(name, config)?),
            Self::Smtp(config) => Box::new(mail::Mail::open(name, config)?),
            Self::Otlp(config) => Box::new(otlp::Otlp::open(name, config)?),
            Self::Directory(config) => Box::new(directory::Directory::open(name, config)?),
            Self::Parquet(config) => Box::new(parquet::Parquet::open(name, config, clock)?),
        })
    }
}
