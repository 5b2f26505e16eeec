//! A node's configuration: one TOML file, unknown keys refused, secrets by path.

use detection::rollout::Care;
use model::cluster::Cluster;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The whole file. Paths are relative to the file's folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's name in the cluster's description.
    pub node: String,
    /// The cluster's description.
    pub cluster: PathBuf,
    /// Where this node keeps everything it stores.
    pub data: PathBuf,
    /// Certificates and keys.
    pub tls: Tls,
    /// Keys that are not TLS's.
    pub keys: Keys,
    /// Raft timing inside a region.
    #[serde(default)]
    pub raft: RaftTiming,
    /// Detection.
    #[serde(default)]
    pub detection: DetectionConfig,
    /// Events of the past.
    #[serde(default)]
    pub archive: ArchiveConfig,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Sessions and logins.
    #[serde(default)]
    pub sessions: Sessions,
}

/// Certificates and keys, PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The cluster's authority.
    pub authority: PathBuf,
    /// This node's certificate for links.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The API's certificate.
    pub api_certificate: PathBuf,
    /// Its key.
    pub api_key: PathBuf,
}

/// Keys that are not TLS's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The key that signs this region's audit checkpoints.
    pub audit: PathBuf,
}

/// Raft timing inside a region; the control plane's group, which spans regions, is four times slower.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftTiming {
    /// Between heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// A follower waits at least this long before it stands for election.
    pub election_min_ms: u64,
    /// And at most this long.
    pub election_max_ms: u64,
}

impl Default for RaftTiming {
    fn default() -> Self {
        Self { heartbeat_ms: 150, election_min_ms: 350, election_max_ms: 550 }
    }
}

/// Detection.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectionConfig {
    /// A folder of Sigma rules, or a `packs.toml`; without one nothing is detected. Looked at again while it runs.
    pub rules: Option<PathBuf>,
    /// How rules that changed come into charge: in shadow first, then watched.
    pub rollout: Care,
    /// A list of networks (CSV or TOML: `network`, `country`), by which the platform's own logins are located. Read
    /// again when it changes.
    pub addresses: Option<PathBuf>,
    /// The topology of sources, transforms and sinks; instead of the four that follow.
    pub pipeline: Option<PathBuf>,
    /// Most bytes of dead letters that are kept.
    pub dead_letters_bytes_max: u64,
    /// Where syslog comes in over UDP.
    pub syslog_udp: Option<std::net::SocketAddr>,
    /// Where syslog comes in over TCP.
    pub syslog_tcp: Option<std::net::SocketAddr>,
    /// A log file to follow.
    pub file: Option<PathBuf>,
    /// Where incidents are announced.
    pub webhook: Option<Webhook>,
}

impl Default for DetectionConfig {
    fn default() -> Self {
        Self {
            rules: None,
            // Ten minutes in shadow; and a new rule may raise a thousand alerts a day before it is held to be wrong.
            rollout: Care { shadow_ms: 600_000, alerts_free: 1_000, ..Care::default() },
            addresses: None,
            pipeline: None,
            dead_letters_bytes_max: pipeline::dead::BYTES_MAX,
            syslog_udp: None,
            syslog_tcp: None,
            file: None,
            webhook: None,
        }
    }
}

/// A webhook: each incident's revision is sent once it is stored, at least once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `https://…`, or `http://` to this machine.
    pub url: String,
    /// A file with the secret that signs the body (HMAC-SHA256).
    pub secret: PathBuf,
}

/// Events of the past: what is kept of them on this node, in `archive/` of its data.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveConfig {
    /// Whether this node keeps any.
    pub enabled: bool,
    /// How many days, for tenants of each continuity class from 0 to 3.
    pub retention_days: [u32; 4],
    /// Bytes of all files: beyond it the oldest leave, and that is on record.
    pub max_bytes: u64,
    /// What must be kept whatever its age.
    pub holds: Vec<LegalHold>,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self { enabled: true, retention_days: [400, 400, 180, 90], max_bytes: 100 << 30, holds: Vec::new() }
    }
}

/// A legal hold on events of a tenant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LegalHold {
    /// Whose events.
    pub tenant: String,
    /// From this moment on, such as `2026-01-01T00:00:00Z`; from the beginning when not given.
    pub from: Option<String>,
    /// Up to this moment; without end when not given.
    pub to: Option<String>,
    /// Why, for people.
    pub reason: String,
}

impl LegalHold {
    /// The span of time that is held.
    pub fn span(&self) -> Result<archive::Span, String> {
        let moment = |text: &Option<String>, otherwise: u64| match text {
            None => Ok(otherwise),
            Some(text) => text
                .parse::<jiff::Timestamp>()
                .ok()
                .and_then(|moment| u64::try_from(moment.as_millisecond()).ok())
                .ok_or_else(|| format!("archive.holds of {}: '{text}' is not a moment", self.tenant)),
        };
        let all = archive::Span::ALL;
        Ok(archive::Span { from_ms: moment(&self.from, all.from_ms)?, to_ms: moment(&self.to, all.to_ms)? })
    }
}

/// Logs and traces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// `info`, or a filter such as `info,consensus=debug`.
    pub log: String,
    /// An OTLP collector (gRPC), such as `http://127.0.0.1:4317`; traces are off without one.
    pub otlp: Option<String>,
    /// The share of requests that are traced when the client does not decide, 0 to 1.
    pub trace_ratio: f64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info,openraft=warn".into(), otlp: None, trace_ratio: 1.0 }
    }
}

/// Sessions and logins.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// How long a session lives.
    pub lifetime_minutes: u32,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { lifetime_minutes: 480 }
    }
}

/// Why a configuration is refused. Each says which file, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that the configuration names cannot be read.
    #[error("{path}: {error}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}", path = .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        reason: String,
    },
}

impl Config {
    /// Reads and checks the file and the cluster's description beside it.
    pub fn load(path: &Path) -> Result<(Self, Cluster), ConfigError> {
        let text = read(path)?;
        let mut config: Self = toml::from_str(&text).map_err(|error| invalid(path, &error))?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        config.check().map_err(|reason| invalid(path, &reason))?;
        let cluster_text = read(&config.cluster)?;
        let cluster = Cluster::parse(&cluster_text).map_err(|error| invalid(&config.cluster, &error))?;
        if cluster.node_named(&config.node).is_none() {
            let names: Vec<&str> = cluster.nodes().map(|(_, node)| node.name.as_str()).collect();
            let reason = format!("node '{}' is not in the cluster; it has {}", config.node, names.join(", "));
            return Err(invalid(path, &reason));
        }
        Ok((config, cluster))
    }

    fn resolve(&mut self, folder: &Path) {
        let paths = [
            &mut self.cluster,
            &mut self.data,
            &mut self.tls.authority,
            &mut self.tls.certificate,
            &mut self.tls.key,
            &mut self.tls.api_certificate,
            &mut self.tls.api_key,
            &mut self.keys.audit,
        ];
        let detection = &mut self.detection;
        let DetectionConfig { rules, addresses, file, pipeline, .. } = detection;
        let optional = [rules.as_mut(), addresses.as_mut(), file.as_mut(), pipeline.as_mut()];
        let secret = detection.webhook.as_mut().map(|webhook| &mut webhook.secret);
        for path in paths.into_iter().chain(optional.into_iter().flatten()).chain(secret) {
            *path = folder.join(&*path);
        }
    }

    fn check(&self) -> Result<(), String> {
        let RaftTiming { heartbeat_ms, election_min_ms, election_max_ms } = self.raft;
        if heartbeat_ms < 10 || heartbeat_ms * 2 >= election_min_ms {
            return Err(format!(
                "raft.heartbeat_ms = {heartbeat_ms}: at least 10, and less than half of election_min_ms = {election_min_ms}"
            ));
        }
        if election_max_ms <= election_min_ms {
            return Err(format!(
                "raft.election_max_ms = {election_max_ms}: must be more than election_min_ms = {election_min_ms}"
            ));
        }
        if !(0.0..=1.0).contains(&self.telemetry.trace_ratio) {
            return Err(format!("telemetry.trace_ratio = {}: between 0 and 1", self.telemetry.trace_ratio));
        }
        if !(1..=24 * 60).contains(&self.sessions.lifetime_minutes) {
            return Err(format!("sessions.lifetime_minutes = {}: between 1 and 1440", self.sessions.lifetime_minutes));
        }
        let detection = &self.detection;
        let has_keys = detection.syslog_udp.is_some()
            || detection.syslog_tcp.is_some()
            || detection.file.is_some()
            || detection.webhook.is_some();
        if detection.pipeline.is_some() && has_keys {
            return Err("detection.pipeline: describe syslog_udp, syslog_tcp, file and webhook in that file".into());
        }
        if self.archive.retention_days.contains(&0) {
            return Err("archive.retention_days: at least 1".into());
        }
        for hold in &self.archive.holds {
            hold.span()?;
        }
        if let Some(webhook) = &self.detection.webhook
            && !webhook.url.starts_with("https://")
            && !webhook.url.starts_with("http://127.0.0.1")
        {
            return Err(format!("detection.webhook.url = '{}': https only, or http to 127.0.0.1", webhook.url));
        }
        Ok(())
    }
}

/// Reads a text file, naming it on failure.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })
}

/// Names the file of a reason.
pub fn invalid(path: &Path, reason: &impl ToString) -> ConfigError {
    ConfigError::Invalid { path: path.to_owned(), reason: reason.to_string() }
}
