//! The doors of a node, watched: what goes through them is traced, and planted bugs sit in them.
//!
//! Without a planted bug a door changes nothing of what passes.

use crate::plant::Plant;
use crate::trace::Trace;
use async_trait::async_trait;
use bytes::Bytes;
use model::codec::{decode, encode};
use model::{GroupId, NodeId, TenantId};
use node::machine::command::Lease;
use node::machine::control::platform;
use node::machine::keys;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use storage::{Batch, Checkpoint, Done, Engine, Install, Keyspace, Log, LogCounters, LogWrite, MemoryEngine, Space};
use tokio::sync::Notify;
use transport::{FrameSink, FrameSource, FrameStream, Handler, Link, LinkError, MemoryLink, Service};

/// Text that only data of the pinned tenant holds.
pub const PINNED_MARK: &[u8] = b"globex~";

/// Rows of a shard's state begin with it, and the one that says where it has read to ends so.
const SHARD: &[u8] = b"rdetect";
const CURSOR: &[u8] = b"\0c";
/// Of 256 reports, those whose state is lost where it is stored apart.
const CUT: u8 = 64;

/// What every door of a node knows.
#[derive(Clone)]
pub struct Watch {
    /// Whose door.
    pub node: NodeId,
    /// Where it is written down.
    pub trace: Arc<Trace>,
    /// What is planted in it.
    pub plant: Option<Plant>,
    /// Whether data of the pinned tenant must never come here.
    pub is_forbidden: bool,
}

impl Watch {
    fn arrived(&self, what: &str, bytes: &[u8]) {
        self.trace.event(what, &[self.node.get()], bytes);
        if self.is_forbidden && bytes.windows(PINNED_MARK.len()).any(|window| window == PINNED_MARK) {
            self.trace.finding(format!("residency: {} received a pinned tenant's data", self.node));
        }
    }
}

/// A node's disks.
pub struct WatchedEngine {
    inner: MemoryEngine,
    log: Arc<WatchedLog>,
    watch: Watch,
}

impl WatchedEngine {
    /// Watches `inner`; `queued` is told of everything that wants to be written to the log.
    pub fn new(inner: MemoryEngine, watch: Watch, queued: Arc<Notify>) -> Self {
        let log = Arc::new(WatchedLog { inner: inner.log(), plant: watch.plant, queued, metas: Mutex::default() });
        Self { inner, log, watch }
    }
}

impl Engine for WatchedEngine {
    fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log) as Arc<dyn Log>
    }
    fn space(&self, name: &str, keyspaces: &[&'static str]) -> io::Result<Arc<dyn Space>> {
        let inner = self.inner.space(name, keyspaces)?;
        let has_data = name != "control";
        Ok(Arc::new(WatchedSpace { inner, has_data, watch: self.watch.clone() }))
    }
}

struct WatchedLog {
    inner: Arc<dyn Log>,
    plant: Option<Plant>,
    queued: Arc<Notify>,
    /// Votes that were never written, of a planted bug.
    metas: Mutex<BTreeMap<(GroupId, &'static str), Vec<u8>>>,
}

impl WatchedLog {
    fn is_forgotten(&self, key: &str) -> bool {
        self.plant == Some(Plant::VoteForgotten) && key == "vote"
    }
}

impl Log for WatchedLog {
    fn submit(&self, writes: Vec<LogWrite>, sync: bool, done: Done) {
        let mut kept = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                LogWrite::Meta { group, key, value } if self.is_forgotten(key) => {
                    self.metas.lock().insert((group, key), value);
                }
                other => kept.push(other),
            }
        }
        if self.plant == Some(Plant::EarlyAck) {
            self.inner.submit(kept, sync, Box::new(|_| {}));
            self.queued.notify_one();
            return done(Ok(()));
        }
        self.inner.submit(kept, sync, done);
        self.queued.notify_one();
    }
    fn entries(&self, group: GroupId, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        self.inner.entries(group, from, to, bytes_max)
    }
    fn bounds(&self, group: GroupId) -> io::Result<Option<(u64, u64)>> {
        self.inner.bounds(group)
    }
    fn meta(&self, group: GroupId, key: &'static str) -> io::Result<Option<Vec<u8>>> {
        if self.is_forgotten(key) {
            return Ok(self.metas.lock().get(&(group, key)).cloned());
        }
        self.inner.meta(group, key)
    }
    fn counters(&self) -> LogCounters {
        self.inner.counters()
    }
}

struct WatchedSpace {
    inner: Arc<dyn Space>,
    has_data: bool,
    watch: Watch,
}

impl WatchedSpace {
    /// Whether a planted bug hides this row.
    fn is_hidden(&self, keyspace: Keyspace, key: &[u8]) -> bool {
        match self.watch.plant {
            Some(Plant::DuplicateApply) => keyspace == keys::IDEMPOTENCY,
            Some(Plant::AlertTwice) => {
                keyspace == keys::DATA
                    && self.has_data
                    && key.starts_with(&keys::record(TenantId::PLATFORM, platform::ALERTS, ""))
            }
            Some(Plant::ClockOrdered) => keyspace == keys::META && key == keys::META_SCALARS,
            _ => false,
        }
    }

    fn spoil(&self, batch: &mut Batch) {
        match self.watch.plant {
            Some(Plant::AuditLeafDropped) => {
                batch.writes.retain(|(keyspace, key, _)| *keyspace != keys::AUDIT_LEAF || key.last() != Some(&77));
            }
            Some(Plant::CursorApart) if self.has_data => {
                let is_of_shard = |keyspace: Keyspace, key: &[u8]| keyspace == keys::DUTY && key.starts_with(SHARD);
                let mut cursors = batch
                    .writes
                    .iter()
                    .filter(|(keyspace, key, _)| is_of_shard(*keyspace, key) && key.ends_with(CURSOR));
                // The same in every replica: what is stored decides.
                let is_cut =
                    cursors.any(|(_, _, value)| blake3::hash(value.as_deref().unwrap_or_default()).as_bytes()[0] < CUT);
                if is_cut {
                    batch.writes.retain(|(keyspace, key, _)| !is_of_shard(*keyspace, key) || key.ends_with(CURSOR));
                }
            }
            Some(Plant::TenantMixed) if self.has_data => {
                for (keyspace, key, value) in &mut batch.writes {
                    let is_tenants = *keyspace == keys::DATA && key.len() > 8 && (key[7] == 1 || key[7] == 2);
                    let sum = value.iter().flatten().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
                    if is_tenants && sum.is_multiple_of(16) {
                        key[7] = 3 - key[7];
                    }
                }
            }
            _ => {}
        }
    }
}

impl Space for WatchedSpace {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if self.is_hidden(keyspace, key) {
            return Ok(None);
        }
        let value = self.inner.get(keyspace, key)?;
        let is_lease = keyspace == keys::DUTY && keys::lease_duty(key).is_some();
        if self.watch.plant != Some(Plant::AlertTwice) || !is_lease {
            return Ok(value);
        }
        let forgotten = |lease: Lease| Lease { number: 0, ..lease };
        Ok(value.map(|value| decode(&value).map_or(value, |lease| encode(&forgotten(lease)))))
    }
    fn scan(
        &self,
        keyspace: Keyspace,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut rows = self.inner.scan(keyspace, from, to, reverse, limit)?;
        if self.watch.plant == Some(Plant::StateForgotten) && keyspace == keys::DUTY {
            rows.retain(|(key, _)| !key.starts_with(SHARD) || key.ends_with(CURSOR));
        }
        Ok(rows)
    }
    fn write(&self, mut batch: Batch) -> io::Result<()> {
        self.spoil(&mut batch);
        let mut hasher = blake3::Hasher::new();
        for (keyspace, key, value) in &batch.writes {
            hasher.update(&[keyspace.0, u8::from(value.is_some())]);
            hasher.update(&(key.len() as u64).to_le_bytes());
            hasher.update(key);
            hasher.update(value.as_deref().unwrap_or_default());
        }
        self.watch.trace.event("apply", &[self.watch.node.get()], hasher.finalize().as_bytes());
        self.inner.write(batch)
    }
    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }
    fn checkpoint(&self) -> io::Result<Arc<dyn Checkpoint>> {
        self.inner.checkpoint()
    }
    fn install(&self) -> io::Result<Box<dyn Install>> {
        self.inner.install()
    }
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}

/// A node's network.
pub struct WatchedLink {
    inner: Arc<MemoryLink>,
    watch: Watch,
}

impl WatchedLink {
    /// Watches `inner`.
    pub fn new(inner: Arc<MemoryLink>, watch: Watch) -> Self {
        Self { inner, watch }
    }
}

#[async_trait]
impl Link for WatchedLink {
    async fn call(&self, to: NodeId, service: Service, request: Bytes, deadline: Duration) -> Result<Bytes, LinkError> {
        self.watch.trace.event("call", &[self.watch.node.get(), to.get(), service as u64], &request);
        let answer = self.inner.call(to, service, request, deadline).await;
        match &answer {
            Ok(bytes) => self.watch.arrived("answer", bytes),
            Err(error) => self.watch.arrived("no answer", error.to_string().as_bytes()),
        }
        answer
    }
    async fn open(&self, to: NodeId, service: Service) -> Result<Box<dyn FrameStream>, LinkError> {
        let stream = self.inner.open(to, service).await?;
        self.watch.trace.event("open", &[self.watch.node.get(), to.get(), service as u64], &[]);
        Ok(Box::new(WatchedStream { inner: stream, watch: self.watch.clone() }))
    }
    fn serve(&self, handler: Arc<dyn Handler>) {
        self.inner.serve(handler);
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

struct WatchedStream {
    inner: Box<dyn FrameStream>,
    watch: Watch,
}

struct WatchedSink {
    inner: Box<dyn FrameSink>,
    watch: Watch,
}

struct WatchedSource {
    inner: Box<dyn FrameSource>,
    watch: Watch,
}

#[async_trait]
impl FrameStream for WatchedStream {
    async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        self.watch.trace.event("send", &[self.watch.node.get()], &frame);
        self.inner.send(frame).await
    }
    async fn receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        let frame = self.inner.receive().await?;
        self.watch.arrived("frame", frame.as_deref().unwrap_or_default());
        Ok(frame)
    }
    fn split(self: Box<Self>) -> (Box<dyn FrameSink>, Box<dyn FrameSource>) {
        let (sink, source) = self.inner.split();
        let watch = self.watch;
        (Box::new(WatchedSink { inner: sink, watch: watch.clone() }), Box::new(WatchedSource { inner: source, watch }))
    }
}

#[async_trait]
impl FrameSink for WatchedSink {
    async fn send(&mut self, frame: Bytes) -> Result<(), LinkError> {
        self.watch.trace.event("send", &[self.watch.node.get()], &frame);
        self.inner.send(frame).await
    }
}

#[async_trait]
impl FrameSource for WatchedSource {
    async fn receive(&mut self) -> Result<Option<Bytes>, LinkError> {
        let frame = self.inner.receive().await?;
        self.watch.arrived("frame", frame.as_deref().unwrap_or_default());
        Ok(frame)
    }
}
