//! What a real machine adds to a node: metrics over HTTP, signals.

use crate::node::Node;
use crate::telemetry::pipeline::PipelineMetrics;
use pipeline::transform::enrich::Addresses;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use transport::QuicLink;

/// Scrapes at once; more wait.
const SCRAPES_MAX: usize = 8;
/// Bytes of a scrape's request line and headers.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
const SCRAPE_TIME: Duration = Duration::from_secs(5);

/// How often the list of addresses is looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(5);

/// How long a start may take until everything this node acknowledged is in its state again.
const RECOVERY_WAIT: Duration = Duration::from_secs(5);

/// Waits until this node's state has everything its logs had, within bounds: without a quorum that is not to be had,
/// and what is there is served all the same.
pub(crate) async fn recover(node: &Node) {
    let groups = node.data.values().map(|data| &data.group).chain([&node.control.group]);
    let all = futures::future::join_all(groups.map(|group| async move { (group.id(), group.recovered().await) }));
    if tokio::time::timeout(RECOVERY_WAIT, all).await.is_err() {
        tracing::warn!("not all groups have a quorum: serving what was applied before the stop");
    }
}

/// Reads a list of addresses again when it has changed. Runs until the node stops.
pub(crate) async fn reload(addresses: Arc<Addresses>) {
    loop {
        tokio::time::sleep(RELOAD_EVERY).await;
        let list = Arc::clone(&addresses);
        match tokio::task::spawn_blocking(move || list.reload()).await {
            Ok(Ok(true)) => tracing::info!("detection.addresses was read again"),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!(%error, "detection.addresses stays as it was"),
        }
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` in plain HTTP, for scrapers on this machine or a private network.
pub async fn metrics(
    listener: TcpListener,
    node: Arc<Node>,
    link: Arc<QuicLink>,
    pipeline: Arc<PipelineMetrics>,
    until: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(SCRAPES_MAX));
    let mut scrapes = JoinSet::new();
    tokio::pin!(until);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut until => return,
            accepted = listener.accept() => accepted,
        };
        while scrapes.try_join_next().is_some() {}
        let (Ok((stream, _)), Ok(slot)) = (accepted, Arc::clone(&slots).acquire_owned().await) else { continue };
        let (node, link, pipeline) = (Arc::clone(&node), Arc::clone(&link), Arc::clone(&pipeline));
        scrapes.spawn(async move {
            let _ = tokio::time::timeout(SCRAPE_TIME, scrape(stream, &node, &link, &pipeline)).await;
            drop(slot);
        });
    }
}

async fn scrape(
    mut stream: TcpStream,
    node: &Node,
    link: &QuicLink,
    pipeline: &PipelineMetrics,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let path = request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let (status, kind, body) = match path {
        b"/metrics" => {
            observe(node, link);
            ("200 OK", "text/plain; version=0.0.4", node.metrics.render() + &pipeline.render())
        }
        b"/healthz" => ("200 OK", "text/plain", "ok\n".into()),
        b"/readyz" => match (node.ready(), pipeline.down()) {
            (Ok(_), down) if down.is_empty() => ("200 OK", "text/plain", "ready\n".into()),
            (Ok(_), down) => {
                ("503 Service Unavailable", "text/plain", format!("not running in the pipeline: {}\n", down.join(", ")))
            }
            (Err(problem), _) => ("503 Service Unavailable", "text/plain", format!("{problem}\n")),
        },
        _ => ("404 Not Found", "text/plain", "try /metrics, /healthz or /readyz\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads what is only worth reading when someone looks.
fn observe(node: &Node, link: &QuicLink) {
    node.observe_groups();
    let metrics = &node.metrics;
    let log = node.world.engine.log().counters();
    for (what, value) in [("syncs", log.syncs), ("entries", log.entries), ("bytes", log.bytes)] {
        metrics.log.with_label_values(&[what]).set(value as f64);
    }
    let status = link.status();
    metrics.transport.with_label_values(&["refused"]).set(status.refused as f64);
    metrics.transport.with_label_values(&["peers"]).set(status.peers.len() as f64);
    // The second number of statm is the resident set, in pages.
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    metrics.resident_bytes.set(pages * 4096.0);
    metrics.clock_ahead_seconds.set(node.clock_ahead_ms() as f64 / 1_000.0);
}

/// Waits until a group has stopped by itself, and says why.
pub async fn stopped_group(node: &Node) -> String {
    let groups: Vec<_> = node.data.values().map(|data| &data.group).chain([&node.control.group]).collect();
    loop {
        if let Some(group) = groups.iter().find(|group| group.has_stopped()) {
            let fault = group.status().fault.unwrap_or_else(|| "no reason is known".into());
            return format!("group {} has stopped: {fault}", group.id());
        }
        let mut changes: Vec<_> = groups.iter().map(|group| group.changes()).collect();
        let any = futures::future::select_all(changes.iter_mut().map(|changes| Box::pin(changes.changed())));
        let _ = tokio::time::timeout(Duration::from_secs(1), any).await;
    }
}

/// Waits for SIGTERM or SIGINT.
pub async fn signal() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        biased;
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
