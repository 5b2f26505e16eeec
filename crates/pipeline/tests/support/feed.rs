//! Topologies that a test feeds: the audit stream stands for any source, for it needs no socket.

use super::{NOW_MS, SOON, clock};
use detection::{Position, RawEvent, SourceKind};
use futures::future::BoxFuture;
use pipeline::dead;
use pipeline::runtime::{Host, Sinks};
use pipeline::source::{Batch, Counters, Source};
use pipeline::topology::Topology;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// A source that a test feeds.
struct Fed(mpsc::Receiver<Batch>);

impl Source for Fed {
    fn counters(&self) -> Arc<Counters> {
        Arc::default()
    }
    fn run(mut self: Box<Self>, out: mpsc::Sender<Batch>) -> BoxFuture<'static, std::io::Result<()>> {
        Box::pin(async move {
            while let Some(batch) = self.0.recv().await {
                if out.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// The other end of the source.
pub struct Feed(mpsc::Sender<Batch>);

impl Feed {
    /// Feeds lines as one batch, at places from `first` on; told when they are durable.
    pub async fn give(&self, source: SourceKind, first: u64, lines: &[impl AsRef<str>]) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        let events = (first..).zip(lines).map(|(sequence, line)| RawEvent {
            source,
            received_ms: NOW_MS,
            position: Some(Position { stream: "test".into(), sequence }),
            bytes: line.as_ref().to_owned().into(),
        });
        let batch = Batch { events: events.collect(), rejects: Vec::new(), done: Some(done) };
        tokio::time::timeout(SOON, self.0.send(batch)).await.expect("there is room").unwrap();
        told
    }
}

/// What is told of a batch.
pub async fn soon<T>(told: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
    tokio::time::timeout(SOON, told).await.expect("it is told")
}

/// A topology without a mistake.
pub fn topology(folder: &Path, text: &str) -> Topology {
    let (topology, findings) = Topology::read("t.toml", text, folder.to_owned());
    assert!(findings.is_empty(), "{findings:#?}");
    topology
}

/// A host whose audit stream is fed, with these sinks; nothing else is there.
pub fn host(folder: &Path, sinks: Sinks) -> (Host, Feed) {
    let (feed, fed) = mpsc::channel(1);
    let host = Host {
        clock: clock(),
        folder: folder.to_owned(),
        node: "eu-1".into(),
        tenant: "platform".into(),
        dead_letters_bytes_max: dead::BYTES_MAX,
        inlets: BTreeMap::new(),
        own_sources: BTreeMap::from([("audit".into(), Box::new(Fed(fed)) as Box<dyn Source>)]),
        sinks,
        witness: None,
    };
    (host, Feed(feed))
}
