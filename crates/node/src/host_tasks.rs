//! What a real machine adds to a node: metrics over HTTP, listeners for events, the webhook, signals.

use crate::config::{DetectionConfig, Webhook};
use crate::machine::note::Note;
use crate::node::Node;
use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use detection::{RawEvent, SourceKind};
use keyring::MacKey;
use pipeline::sink::{Notice, Refused, Sink, Topic};
use pipeline::source::syslog::{SILENCE_SECONDS_MAX, SyslogTcp, SyslogUdp};
use pipeline::source::{BATCH_EVENTS_MAX, Batch, Source};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use transport::QuicLink;

/// Scrapes at once; more wait.
const SCRAPES_MAX: usize = 8;
/// Bytes of a scrape's request line and headers.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
const SCRAPE_TIME: Duration = Duration::from_secs(5);
/// How long events wait for others before they are written.
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// Bytes read of a followed file at once.
const FOLLOW_BYTES: usize = 64 * 1024;
/// How often a followed file is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
const WEBHOOK_TIME: Duration = Duration::from_secs(5);

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

/// Serves `/metrics`, `/healthz` and `/readyz` in plain HTTP, for scrapers on this machine or a private network.
pub async fn metrics(listener: TcpListener, node: Arc<Node>, link: Arc<QuicLink>, until: impl Future<Output = ()>) {
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
        let (node, link) = (Arc::clone(&node), Arc::clone(&link));
        scrapes.spawn(async move {
            let _ = tokio::time::timeout(SCRAPE_TIME, scrape(stream, &node, &link)).await;
            drop(slot);
        });
    }
}

async fn scrape(mut stream: TcpStream, node: &Node, link: &QuicLink) -> std::io::Result<()> {
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
            ("200 OK", "text/plain; version=0.0.4", node.metrics.render())
        }
        b"/healthz" => ("200 OK", "text/plain", "ok\n".into()),
        b"/readyz" => match node.ready() {
            Ok(_) => ("200 OK", "text/plain", "ready\n".into()),
            Err(problem) => ("503 Service Unavailable", "text/plain", format!("{problem}\n")),
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
}

/// Starts the configured listeners for events.
pub async fn listen(config: &DetectionConfig, node: &Arc<Node>, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    let clock = || Arc::clone(&node.world.clock);
    let mut sources = Vec::new();
    let (sender, received) = pipeline::source::channel();
    if let Some(address) = config.syslog_udp {
        let name = format!("syslog-udp/{}", node.place.name);
        let source = SyslogUdp::bind(&name, address, clock()).await.context("detection.syslog_udp")?;
        sources.push(Box::new(source).run(sender.clone()));
    }
    if let Some(address) = config.syslog_tcp {
        let (name, silence) = (format!("syslog-tcp/{}", node.place.name), Duration::from_secs(SILENCE_SECONDS_MAX));
        let source = SyslogTcp::bind(&name, address, None, silence, clock()).await.context("detection.syslog_tcp")?;
        sources.push(Box::new(source).run(sender.clone()));
    }
    if let Some(path) = &config.file {
        let offset = config.file_offset.clone().unwrap_or_else(|| path.with_extension("offset"));
        tasks.spawn(follow(Arc::clone(node), path.clone(), offset));
    }
    if sources.is_empty() {
        return Ok(());
    }
    for source in sources {
        tasks.spawn(async move {
            if let Err(error) = source.await {
                tracing::error!(%error, "a source of events has ended");
            }
        });
    }
    tasks.spawn(write(Arc::clone(node), received));
    Ok(())
}

/// Writes what sources bring to the region's log, in batches; sources wait while it is behind.
async fn write(node: Arc<Node>, mut received: mpsc::Receiver<Batch>) {
    loop {
        let Some(mut batch) = received.recv().await else { return };
        let deadline = tokio::time::Instant::now() + BATCH_WAIT;
        let mut done: Vec<_> = batch.done.take().into_iter().collect();
        while batch.events.len() < BATCH_EVENTS_MAX {
            match tokio::time::timeout_at(deadline, received.recv()).await {
                Ok(Some(more)) => {
                    batch.events.extend(more.events);
                    batch.rejects.extend(more.rejects);
                    done.extend(more.done);
                }
                Ok(None) | Err(_) => break,
            }
        }
        for reject in batch.rejects {
            node.metrics.detection.with_label_values(&[reject.reason.label()]).inc();
            tracing::warn!(reason = %reject.reason, "a line was rejected");
        }
        let note = Note {
            action: "ingest".into(),
            tenant: Some("platform".into()),
            resource: Some("events/syslog".into()),
            node: node.place.id,
            ..Note::default()
        };
        // Until it is written the sources hold back: nothing that was taken is dropped.
        while let Err(problem) = node.take_in(batch.events.clone(), None, note.clone()).await {
            tracing::warn!(%problem, "events wait to be written");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for done in done {
            // A source that has ended does not need to know.
            let _ = done.send(());
        }
    }
}

/// Follows a log file from where it was left: each part is written to the region's log before its end is remembered,
/// so that a crash repeats lines but loses none. A file that became shorter was rotated and is read from its beginning.
async fn follow(node: Arc<Node>, path: PathBuf, remembered: PathBuf) {
    let mut offset: u64 =
        std::fs::read_to_string(&remembered).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    loop {
        let part = match read_part(&path, &mut offset) {
            Ok(part) if !part.is_empty() => part,
            Ok(_) => {
                tokio::time::sleep(FOLLOW_EVERY).await;
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the file cannot be followed");
                tokio::time::sleep(FOLLOW_EVERY * 10).await;
                continue;
            }
        };
        let lines: Vec<Bytes> =
            part.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(Bytes::copy_from_slice).collect();
        let note = Note {
            action: "ingest".into(),
            tenant: Some("platform".into()),
            resource: Some("events/file".into()),
            node: node.place.id,
            ..Note::default()
        };
        let received_ms = node.world.clock.wall_ms();
        let event = |bytes| RawEvent { source: SourceKind::Syslog, received_ms, position: None, bytes };
        let events: Vec<RawEvent> = lines.into_iter().map(event).collect();
        if let Err(problem) = node.take_in(events, None, note).await {
            tracing::warn!(%problem, "lines of the file wait to be written");
            tokio::time::sleep(FOLLOW_EVERY).await;
            continue;
        }
        offset += part.len() as u64;
        if let Err(error) = std::fs::write(&remembered, offset.to_string()) {
            tracing::warn!(%error, path = %remembered.display(), "the place in the file cannot be remembered");
        }
    }
}

/// Whole lines from `offset` on; a line longer than a part is cut there.
fn read_part(path: &Path, offset: &mut u64) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.len() < *offset {
        *offset = 0;
    }
    let mut part = vec![0; FOLLOW_BYTES];
    let count = std::os::unix::fs::FileExt::read_at(&file, &mut part, *offset)?;
    part.truncate(count);
    let whole = part.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole > 0 || count < FOLLOW_BYTES {
        part.truncate(whole);
    }
    Ok(part)
}

/// Announces incidents by HTTP POST, signed with HMAC-SHA256.
pub struct WebhookOut {
    client: reqwest::Client,
    url: String,
    key: MacKey,
}

impl WebhookOut {
    /// Reads the secret.
    pub fn new(config: &Webhook) -> anyhow::Result<Self> {
        let secret = std::fs::read(&config.secret).with_context(|| config.secret.display().to_string())?;
        let key = MacKey::new(&keyring::Secret::from_bytes(*blake3::hash(&secret).as_bytes()));
        let client = reqwest::Client::builder().timeout(WEBHOOK_TIME).build().context("the webhook's client")?;
        Ok(Self { client, url: config.url.clone(), key })
    }
}

#[async_trait]
impl Sink for WebhookOut {
    fn name(&self) -> &str {
        "webhook"
    }
    fn wants(&self, notice: &Notice) -> bool {
        matches!(notice.topic, Topic::Incident | Topic::Page | Topic::Ticket)
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        for (count, notice) in notices.iter().enumerate() {
            if !self.post(notice).await {
                return (count, Err(Refused::Later("the webhook did not take it".into())));
            }
        }
        (notices.len(), Ok(()))
    }
}

impl WebhookOut {
    async fn post(&self, notice: &Notice) -> bool {
        let body = Bytes::from(notice.body.clone());
        let topic = match notice.topic {
            Topic::Page => "page",
            Topic::Ticket => "ticket",
            _ => "incident",
        };
        let signature = hex::encode(self.key.sign(&body).as_bytes());
        let request = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header("idempotency-key", &notice.key)
            .header("holdfast-topic", topic)
            .header("holdfast-signature", format!("hmac-sha256={signature}"))
            .body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => true,
            Ok(answer) => {
                tracing::warn!(status = %answer.status(), "the webhook was refused");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "the webhook cannot be reached");
                false
            }
        }
    }
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
