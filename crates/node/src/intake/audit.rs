//! The platform's own audit stream as a source: the logs of the groups that this node leads, entry by entry.
//!
//! Each place is remembered once what came before it is durable outside. After a change of leaders entries may be told
//! again, under the same ids; none is left out.

use crate::driver::follow;
use crate::machine::keys;
use crate::node::Node;
use detection::{Position, RawEvent, SourceKind};
use futures::future::BoxFuture;
use pipeline::source::{BATCH_EVENTS_MAX, Batch, Counters, Source};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::Space;
use tokio::sync::{mpsc, oneshot};

/// Looks again at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The audit logs of the groups that this node leads.
pub(super) struct AuditStream {
    node: Arc<Node>,
    /// For each log, the next entry; JSON.
    places: BTreeMap<String, u64>,
    path: PathBuf,
    counters: Arc<Counters>,
}

impl AuditStream {
    /// Reads the places reached by an earlier run.
    pub(super) fn open(node: Arc<Node>, folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("audit.places.json");
        let places = match std::fs::read(&path) {
            // What cannot be read is begun again: repetitions have the same ids.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { node, places, path, counters: Arc::default() })
    }

    /// The next entries of a log that this node leads.
    fn read(&self, log: &str, space: &dyn Space) -> io::Result<(Vec<RawEvent>, u64)> {
        let from = self.places.get(log).copied().unwrap_or(0);
        let first = keys::number(from);
        let rows = space.scan(keys::AUDIT_LEAF, Bound::Included(&first), Bound::Unbounded, false, BATCH_EVENTS_MAX)?;
        let (received_ms, mut next, mut events) = (self.node.world.clock.wall_ms(), from, Vec::new());
        for (key, leaf) in rows {
            let Ok(sequence) = key.try_into().map(u64::from_be_bytes) else { continue };
            let position = Some(Position { stream: log.into(), sequence });
            events.push(RawEvent { source: SourceKind::Audit, received_ms, position, bytes: leaf.into() });
            next = sequence + 1;
        }
        Ok((events, next))
    }

    /// One turn over all logs: whether anything was read.
    async fn turn(&mut self, out: &mpsc::Sender<Batch>) -> io::Result<bool> {
        let node = Arc::clone(&self.node);
        let mut found = false;
        let data = node.data.iter().filter(|(_, data)| data.group.is_leader());
        let mut logs: Vec<(String, Arc<dyn Space>)> = data
            .map(|(id, data)| (format!("audit/{}-{}", node.region.name, id.get()), data.machine.read_space()))
            .collect();
        if node.control.group.is_leader() {
            logs.push(("audit/control".to_owned(), node.control.machine.read_space()));
        }
        for (log, space) in logs {
            let (events, next) = self.read(&log, &*space)?;
            if events.is_empty() {
                continue;
            }
            found = true;
            let bytes: usize = events.iter().map(|event| event.bytes.len()).sum();
            self.counters.events.fetch_add(events.len() as u64, Ordering::Relaxed);
            self.counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            let (done, told) = oneshot::channel();
            if out.send(Batch { events, rejects: Vec::new(), done: Some(done) }).await.is_err() {
                return Ok(false);
            }
            // What is not durable is read again with the next turn.
            if told.await.is_err() {
                self.counters.repeats.fetch_add(1, Ordering::Relaxed);
            } else {
                self.places.insert(log, next);
                let fresh = self.path.with_extension("new");
                std::fs::write(&fresh, serde_json::to_vec(&self.places)?)?;
                std::fs::rename(&fresh, &self.path)?;
            }
        }
        Ok(found)
    }
}

impl Source for AuditStream {
    fn name(&self) -> &str {
        pipeline::topology::AUDIT
    }
    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
    fn run(mut self: Box<Self>, out: mpsc::Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            while !out.is_closed() {
                match self.turn(&out).await {
                    Ok(true) => {}
                    Ok(false) => follow::more(&self.node, LOOK_EVERY).await,
                    // A full disk is none tomorrow: the stream goes on where it was.
                    Err(error) => {
                        self.counters.broken.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(%error, "the audit stream cannot be read, or its place not be kept");
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }
            }
            Ok(())
        })
    }
}
