//! The node's pipeline: its topology from the configuration, its sinks, and the region's log as the detector's sink.

mod audit;

use crate::config::{self, Config, DetectionConfig};
use crate::core::ingest::{KnownBy, Taken};
use crate::driver::duty::Work;
use crate::machine::command::Identity;
use crate::machine::note::Note;
use crate::node::Node;
use crate::world::SystemClock;
use anyhow::{Context, bail};
use async_trait::async_trait;
use detection::RawEvent;
use model::TenantId;
use model::time::Clock;
use pipeline::dead::{Act, Doing};
use pipeline::outbound::{open_sinks, outbound};
use pipeline::plan::Plan;
use pipeline::runtime::{Host, Inlet, Monitor, Pipeline, Sinks, Witness, dead_letters_folder};
use pipeline::sink::config::{SinkConfig, Wants};
use pipeline::sink::webhook::WebhookConfig;
use pipeline::sink::{Refused, Sink, Topic};
use pipeline::source::Source;
use pipeline::tls::ClientTls;
use pipeline::topology::{AUDIT, DETECTOR, Finding, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How long an attempt of the webhook may take.
const WEBHOOK_SECONDS: u64 = 5;
/// Whose events those of the pipeline are.
const TENANT: &str = "platform";

/// Where a node keeps what its pipeline keeps, inside its data.
pub fn folder(data: &Path) -> PathBuf {
    data.join("pipeline")
}

/// Reads and checks the topology of a configuration.
///
/// # Errors
/// All that is wrong with it, a line each.
pub fn topology(config: &DetectionConfig) -> anyhow::Result<Topology> {
    let (name, text, folder) = match &config.pipeline {
        Some(path) => {
            let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
            (path.display().to_string(), config::read(path)?, folder)
        }
        None => ("[detection]".to_owned(), written_out(config)?, PathBuf::from(".")),
    };
    let (topology, findings) = Topology::read(&name, &text, folder);
    if findings.is_empty() {
        return Ok(topology);
    }
    bail!("{}", findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// What is wrong with the secrets and certificates that a topology names.
pub fn look(topology: &Topology, file: &str) -> Vec<Finding> {
    topology.look(file, &(Arc::new(SystemClock::new()) as Arc<dyn Clock>))
}

/// The topology that the configuration's own keys stand for.
fn written_out(config: &DetectionConfig) -> anyhow::Result<String> {
    let mut sources = toml::Table::new();
    let listen = |mode: &str, address: std::net::SocketAddr| {
        toml::toml! { type = "syslog" }
            .into_iter()
            .chain([("mode".to_owned(), mode.into()), ("address".to_owned(), address.to_string().into())])
            .collect::<toml::Table>()
    };
    sources.extend(config.syslog_udp.map(|address| ("syslog-udp".to_owned(), listen("udp", address).into())));
    sources.extend(config.syslog_tcp.map(|address| ("syslog-tcp".to_owned(), listen("tcp", address).into())));
    if let Some(path) = &config.file {
        let path = path.to_str().context("detection.file: not UTF-8")?;
        let mut file = toml::toml! { type = "file"
        format = "syslog" };
        file.insert("paths".into(), vec![toml::Value::from(path)].into());
        sources.insert("file".into(), file.into());
    }
    let mut root = toml::Table::new();
    root.insert("sources".into(), sources.into());
    Ok(toml::to_string(&root)?)
}

/// The one webhook of the configuration's own keys: it is told of incidents, pages and tickets.
///
/// # Errors
/// What is wrong with its address or its secret.
pub fn webhook(config: &DetectionConfig, clock: &Arc<dyn Clock>) -> anyhow::Result<Option<Arc<dyn Sink>>> {
    let Some(webhook) = &config.webhook else { return Ok(None) };
    let topics = BTreeSet::from([Topic::Incident, Topic::Page, Topic::Ticket]);
    let described = SinkConfig::Webhook(WebhookConfig {
        url: webhook.url.clone(),
        secret: webhook.secret.clone(),
        tls: ClientTls::default(),
        timeout_seconds: WEBHOOK_SECONDS,
        wants: Wants { topics, ..Wants::default() },
    });
    let sink = described.open("webhook", clock).map_err(|error| anyhow::anyhow!("detection.webhook: {error}"))?;
    Ok(Some(Arc::from(sink)))
}

/// A running pipeline, as requests see it.
pub(crate) struct Piped {
    pub(crate) monitor: Monitor,
    /// The folder with its dead letters.
    pub(crate) dead_letters: PathBuf,
    /// Whose turn it is with them: one request's at a time.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

/// A topology and its sinks, open.
pub struct Intake {
    topology: Topology,
    sinks: Sinks,
    own_sources: BTreeMap<Arc<str>, Box<dyn Source>>,
    /// What the node has to do for it, as long as it has the duty.
    pub works: Vec<Arc<dyn Work>>,
}

impl Intake {
    /// Reads the topology of a configuration and opens its sinks.
    ///
    /// # Errors
    /// What is wrong with it, or does not open.
    pub fn load(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Self> {
        let topology = topology(&config.detection)?;
        let sinks = open_sinks(&topology, clock).map_err(|(name, error)| anyhow::anyhow!("sink {name}: {error}"))?;
        let (mut own_sources, mut works) = (BTreeMap::new(), Vec::new());
        if !Plan::new(&topology)?.reached_from(AUDIT).is_empty() {
            let (stream, duty) = audit::open();
            own_sources.insert(AUDIT.into(), Box::new(stream) as Box<dyn Source>);
            works.push(Arc::new(duty) as Arc<dyn Work>);
        }
        Ok(Self { topology, sinks, own_sources, works })
    }

    /// The sinks that alerts and incidents are told.
    ///
    /// # Errors
    /// A transform that does not open.
    pub fn outbound(&self) -> anyhow::Result<Vec<Arc<dyn Sink>>> {
        Ok(outbound(&self.topology, &self.sinks)?)
    }

    /// Starts it.
    ///
    /// # Errors
    /// What does not open.
    pub async fn start(self, node: &Arc<Node>, config: &Config) -> anyhow::Result<Pipeline> {
        let folder = folder(&config.data);
        let log = RegionLog { node: Arc::clone(node), topology: self.topology.clone() };
        let host = Host {
            clock: Arc::clone(&node.world.clock),
            folder,
            node: node.place.name.as_str().into(),
            tenant: TENANT.into(),
            dead_letters_bytes_max: config.detection.dead_letters_bytes_max,
            inlets: BTreeMap::from([(DETECTOR.into(), Arc::new(log) as Arc<dyn Inlet>)]),
            own_sources: self.own_sources,
            sinks: self.sinks,
            witness: Some(Arc::new(Register(Arc::clone(node)))),
        };
        let dead_letters = dead_letters_folder(&host.folder);
        let pipeline = Pipeline::start(&self.topology, host).await.context("the pipeline")?;
        let piped = Piped { monitor: pipeline.monitor(), dead_letters, turn: Arc::default() };
        anyhow::ensure!(node.piped.set(piped).is_ok(), "the pipeline runs already");
        Ok(pipeline)
    }
}

/// What commands did with dead letters, on its way into the audit log.
struct Register(Arc<Node>);

#[async_trait]
impl Witness for Register {
    async fn saw(&self, act: &Act) -> bool {
        let node = &self.0;
        let action = match act.doing {
            Doing::Drop => "dead_letters.drop",
            Doing::Replay => "dead_letters.replay",
        };
        let old = serde_json::json!({"letters": act.letters, "count": act.count, "by": act.by});
        let note = Note {
            action: action.into(),
            tenant: Some(TENANT.into()),
            user: Some(act.by.clone()),
            resource: Some(format!("pipeline/{}/dead-letters", node.place.name)),
            values: Some((Some(old.to_string()), None)),
            node: node.place.id,
            ..Note::default()
        };
        node.record(TenantId::PLATFORM, note).await.is_ok()
    }
}

/// What an event is known by that comes again because nobody knows whether it was taken: its place, which no other
/// event ever has, or its content where it has none; and what was made of it, for several ways may lead here.
fn identity(event: &RawEvent) -> Identity {
    let own = event.id();
    Identity::of("holdfast event of the pipeline 1", &[own.as_bytes(), &[event.source as u8], &event.bytes])
}

/// The region's log of events, which detection reads.
struct RegionLog {
    node: Arc<Node>,
    topology: Topology,
}

/// Events as those of a tenant.
fn of(tenant: &str, events: impl IntoIterator<Item = RawEvent>) -> Vec<Taken> {
    events.into_iter().map(|raw| Taken { raw, tenant: Some(tenant.to_owned()) }).collect()
}

impl RegionLog {
    /// Whether a tenant's events may lie here.
    fn admit(&self, tenant: &str) -> Result<(), Refused> {
        let control = self.node.control();
        match control.tenant(tenant) {
            _ if tenant == TENANT => Ok(()),
            None => Err(Refused::Never(format!("there is no tenant '{tenant}'"))),
            Some(known) if !known.allows(self.node.region.id) => {
                Err(Refused::Never(format!("events of '{tenant}' must not be in this region")))
            }
            Some(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Inlet for RegionLog {
    async fn take(&self, tenant: &str, events: Vec<RawEvent>) -> Result<(), Refused> {
        self.admit(tenant)?;
        // What is read again after a crash comes stream by stream in its order, so that repetitions are left out.
        let mut streams: BTreeMap<Arc<str>, Vec<RawEvent>> = BTreeMap::new();
        let mut others = Vec::new();
        for event in events {
            let stream = event.position.as_ref().map(|position| Arc::clone(&position.stream));
            match stream.filter(|stream| self.topology.is_read_again(stream)) {
                Some(stream) => streams.entry(stream).or_default().push(event),
                None => others.push(event),
            }
        }
        let note = Note {
            action: "ingest".into(),
            tenant: Some(tenant.into()),
            resource: Some("events/pipeline".into()),
            node: self.node.place.id,
            ..Note::default()
        };
        let later = |problem: api::problem::Problem| Refused::Later(problem.to_string());
        if !others.is_empty() {
            let known = KnownBy::Each(others.iter().map(|event| Some(identity(event))).collect());
            self.node.take_in(of(tenant, others), known, &note).await.map_err(later)?;
        }
        for (stream, events) in streams {
            self.node.take_in(of(tenant, events), KnownBy::Place(&stream), &note).await.map_err(later)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::{Position, SourceKind};

    #[test]
    fn an_event_that_comes_again_is_known_by_its_place_or_else_by_what_it_says() {
        let event = |stream: Option<&str>, sequence, received_ms, text: &'static str| RawEvent {
            source: SourceKind::Otlp,
            received_ms,
            position: stream.map(|stream| Position { stream: stream.into(), sequence }),
            bytes: text.as_bytes().into(),
        };
        assert_eq!(identity(&event(None, 0, 1, "a")), identity(&event(None, 0, 2, "a")), "sent again later");
        assert_ne!(identity(&event(None, 0, 1, "a")), identity(&event(None, 0, 1, "b")));
        let line = |sequence, text| event(Some("eu-1.syslog@5"), sequence, 1, text);
        assert_eq!(identity(&line(7, "a")), identity(&line(7, "a")));
        assert_ne!(identity(&line(7, "a")), identity(&line(8, "a")), "two lines that say the same");
        assert_ne!(identity(&line(7, "a")), identity(&line(7, "b")), "two ways of one line");
    }

    #[test]
    fn the_configuration_s_own_keys_are_a_topology() {
        let config: DetectionConfig =
            toml::from_str("syslog_udp = '127.0.0.1:0'\nsyslog_tcp = '127.0.0.1:0'\nfile = '/var/log/auth.log'")
                .unwrap();
        let topology = topology(&config).unwrap();
        let names: Vec<&str> = topology.sources.iter().map(|source| &*source.name).collect();
        assert_eq!(names, ["file", "syslog-tcp", "syslog-udp"]);
        let plan = Plan::new(&topology).unwrap();
        assert!(names.iter().all(|name| plan.reached_from(name) == [DETECTOR.into()]));
        assert!(topology.is_read_again("eu-1.file@5/1") && !topology.is_read_again("eu-1.syslog-udp@5"));
        assert!(self::topology(&DetectionConfig::default()).unwrap().sources.is_empty());
    }
}
