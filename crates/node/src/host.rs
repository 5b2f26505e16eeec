//! A node on a real machine: its configuration becomes RocksDB, QUIC, HTTPS, sockets and signals.

use crate::config::{self, Config, ConfigError};
use crate::core::NodeCore;
use crate::driver;
use crate::driver::known::Known;
use crate::host_certificates;
use crate::host_rules;
use crate::host_tasks;
use crate::intake::{self, Intake};
use crate::start::{Running, Start};
use crate::telemetry::pipeline::PipelineMetrics;
use crate::world::{SystemClock, SystemEntropy, World};
use anyhow::{Context, bail};
use consensus::Timing;
use keyring::SigningKey;
use model::cluster::Cluster;
use pipeline::transform::enrich::Addresses;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use storage::RocksEngine;
use storage::rocks::Options;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use transport::{QuicLink, QuicOptions};

/// A marker in the data directory: this node has begun its life in the cluster.
const BORN: &str = "born";

/// Runs a node until SIGTERM or SIGINT.
pub async fn run(
    config: Config,
    cluster: Cluster,
    first: bool,
    rejoin: bool,
    bootstrap: Option<&Path>,
) -> anyhow::Result<()> {
    let cluster = Arc::new(cluster);
    let (_, place) = cluster.node_named(&config.node).context("the configuration was checked")?;
    let place = place.clone();
    std::fs::create_dir_all(&config.data).with_context(|| config.data.display().to_string())?;
    let born = config.data.join(BORN);
    let lost = !born.exists() && rejoin;
    if !born.exists() && !first && !rejoin {
        bail!(
            "{}: this disk is empty. If the cluster is new, start every node with --first. If this node lost its disk, \
             it must not vote with what it has forgotten: start it with --rejoin, and its groups let it go and take it \
             in again.",
            config.data.display()
        );
    }
    if lost {
        // Half a rejoined state is no better than none: begin again from an empty folder.
        clear(&config.data)?;
    }
    let (world, link) = open(&config, &cluster, place.id)?;
    let (rules, refused_rules) = host_rules::read(&config.detection)?;
    let (tell_rules, rules) = watch::channel(Known::of(rules));
    let addresses = config.detection.addresses.as_deref().map(Addresses::open).transpose();
    let addresses = addresses.context("detection.addresses")?.map(Arc::new);
    let bootstrap = bootstrap.map(crate::command::init::read_bootstrap).transpose()?;
    let mut intake = Intake::load(&config, &world.clock)?;
    let mut sinks = intake.outbound()?;
    sinks.extend(intake::webhook(&config.detection, &world.clock)?);
    let raft = config.raft;
    let start = Start {
        cluster: Arc::clone(&cluster),
        name: config.node.clone(),
        world: world.clone(),
        timing: Timing {
            heartbeat_ms: raft.heartbeat_ms,
            election_min_ms: raft.election_min_ms,
            election_max_ms: raft.election_max_ms,
            ..Timing::default()
        },
        audit_key: read_audit_key(&config)?,
        session_ms: u64::from(config.sessions.lifetime_minutes) * 60_000,
        password_cost: identity::password::Cost::Standard,
        rules,
        care: config.detection.rollout.clone(),
        addresses: addresses.clone(),
        sinks,
        works: std::mem::take(&mut intake.works),
        first: first && !born.exists(),
        lost,
        bootstrap,
        defect: None,
    };
    // Listening comes before everything that others could notice: a port that is taken ends it here.
    let api = TcpListener::bind(place.api).await.with_context(|| format!("the API's address {}", place.api))?;
    let metrics =
        TcpListener::bind(place.metrics).await.with_context(|| format!("the metrics' address {}", place.metrics))?;
    let tls = api_tls(&config)?;
    let running = Running::start(start).await?;
    if lost {
        tracing::info!("waiting for the groups to take this node in again");
        tokio::select! {
            biased;
            stopped = host_tasks::signal() => {
                stopped?;
                running.stop().await;
                return Ok(());
            }
            () = running.rejoin() => {}
        }
    }
    host_tasks::recover(&running.node).await;
    std::fs::write(&born, config.node.as_bytes()).with_context(|| born.display().to_string())?;
    if config.archive.enabled {
        driver::archive::keep(&running.node, &config).context("the archive of events")?;
    }
    tracing::info!(node = %config.node, api = %place.api, metrics = %place.metrics, link = %place.link, "started");
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let until = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    tasks.spawn(driver::archive::run(Arc::clone(&running.node)));
    let core = Arc::new(NodeCore(Arc::clone(&running.node)));
    tasks.spawn(api::serve(api, tls, core, until(stopped.clone())));
    tasks.spawn(host_certificates::watch(Arc::clone(&running.node), host_certificates::of(&config)));
    if let Some(path) = config.detection.rules.clone() {
        tasks.spawn(host_rules::foretell(tell_rules.clone(), tell_rules.subscribe(), Arc::clone(&running.node)));
        tasks.spawn(host_rules::watch(path, refused_rules, tell_rules, Arc::clone(&running.node)));
    }
    if let Some(addresses) = addresses {
        tasks.spawn(host_tasks::reload(addresses));
    }
    let pipeline = intake.start(&running.node, &config).await?;
    let counted = Arc::new(PipelineMetrics::new(pipeline.monitor()));
    tasks.spawn(host_tasks::metrics(metrics, Arc::clone(&running.node), link, counted, until(stopped.clone())));
    tokio::select! {
        biased;
        signalled = host_tasks::signal() => signalled?,
        fault = host_tasks::stopped_group(&running.node) => {
            // Its disk failed under it: what it acknowledged is safe with the others, and nothing more may be.
            bail!("{fault}; this node stops");
        }
    }
    tracing::info!("stopping");
    running.node.stopping.store(true, std::sync::atomic::Ordering::Release);
    let _ = stop.send(true);
    if !pipeline.stop().await {
        tracing::warn!("events on their way were not waited for: their sources bring them again, or they are on disk");
    }
    // The API finishes what is in flight by itself.
    let api_done = async { while tasks.join_next().await.is_some_and(|done| done.is_ok()) {} };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(3), api_done).await;
    tasks.shutdown().await;
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}

fn clear(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn open(config: &Config, cluster: &Arc<Cluster>, node: model::NodeId) -> anyhow::Result<(World, Arc<QuicLink>)> {
    let clock = Arc::new(SystemClock::new());
    let entropy = Arc::new(SystemEntropy);
    let engine = RocksEngine::open(&config.data, Options::default()).with_context(|| {
        format!("the data directory {} (if it is damaged: move it away and start with --rejoin)", config.data.display())
    })?;
    let (_, place) = cluster.node(node).context("the node is in the description")?;
    let described = Arc::clone(cluster);
    let link = QuicLink::bind(QuicOptions {
        address: place.link,
        certificate_pem: config::read(&config.tls.certificate)?,
        key_pem: config::read(&config.tls.key)?,
        roots_pem: config::read(&config.tls.authority)?,
        peers: cluster.nodes().filter(|(_, peer)| peer.id != node).map(|(_, peer)| (peer.id, peer.link)).collect(),
        allowed: Arc::new(move |peer| transport::is_described(&described, peer)),
        clock: Arc::clone(&clock) as Arc<dyn model::time::Clock>,
        entropy: Arc::clone(&entropy) as Arc<dyn model::entropy::Entropy>,
    })
    .with_context(|| format!("the link's address {}", place.link))?;
    let link = Arc::new(link);
    let world = World { clock, entropy, engine: Arc::new(engine), link: Arc::clone(&link) as Arc<dyn transport::Link> };
    Ok((world, link))
}

fn read_audit_key(config: &Config) -> Result<SigningKey, ConfigError> {
    let text = config::read(&config.keys.audit)?;
    SigningKey::from_base64(text.trim()).map_err(|error| config::invalid(&config.keys.audit, &error))
}

/// The API's TLS configuration.
pub fn api_tls(config: &Config) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let path = &config.tls.api_certificate;
    let chain = CertificateDer::pem_file_iter(path).with_context(|| path.display().to_string())?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().with_context(|| path.display().to_string())?;
    let key =
        PrivateKeyDer::from_pem_file(&config.tls.api_key).with_context(|| config.tls.api_key.display().to_string())?;
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| format!("{} and {}", path.display(), config.tls.api_key.display()))?;
    Ok(Arc::new(tls))
}

/// Everything that `holdfast check-config` checks without starting: files, keys, certificates, rules.
pub fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    read_audit_key(config)?;
    api_tls(config)?;
    for path in [&config.tls.authority, &config.tls.certificate, &config.tls.key] {
        config::read(path)?;
    }
    let topology = intake::topology(&config.detection)?;
    let file = config.detection.pipeline.as_deref().unwrap_or(Path::new("[detection]"));
    let missing: Vec<String> =
        intake::look(&topology, &file.display().to_string()).iter().map(ToString::to_string).collect();
    if !missing.is_empty() {
        bail!("{}", missing.join("\n"));
    }
    let Some(folder) = &config.detection.rules else { return Ok(Vec::new()) };
    let (rules, errors) = detection::packs::load(folder)?;
    if host_rules::is_empty(&rules) {
        println!("{}: {}", folder.display(), host_rules::NO_RULES);
    }
    Ok(errors.iter().map(ToString::to_string).collect())
}
