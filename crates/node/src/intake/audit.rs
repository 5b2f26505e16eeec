//! The platform's own audit stream as a source: the audit logs of the region's groups, entry by entry.
//!
//! One node of the region tells it at a time. The place in each log is a row of that duty, moved once what came before
//! it is durable outside: whoever takes the duty over goes on there. What was told and not yet stored is told again,
//! under the same ids; nothing is left out.

use crate::driver::duty::{Lost, Post, Work};
use crate::driver::{follow, streams};
use async_trait::async_trait;
use detection::RawEvent;
use futures::future::BoxFuture;
use model::codec::{decode, encode};
use pipeline::source::{Batch, Counters, Source};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Looks again at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The row with the places.
const PLACES: &[u8] = b"p";

/// Where the pipeline takes batches, while it runs.
type Way = watch::Receiver<Option<mpsc::Sender<Batch>>>;

/// The source and the duty that feeds it.
pub(super) fn open() -> (AuditStream, AuditDuty) {
    let (tell, way) = watch::channel(None);
    let counters = Arc::<Counters>::default();
    (AuditStream { tell, counters: Arc::clone(&counters) }, AuditDuty { way, counters })
}

/// The end in the pipeline.
pub(super) struct AuditStream {
    tell: watch::Sender<Option<mpsc::Sender<Batch>>>,
    counters: Arc<Counters>,
}

impl Source for AuditStream {
    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
    fn run(self: Box<Self>, out: mpsc::Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            self.tell.send_replace(Some(out.clone()));
            out.closed().await;
            Ok(())
        })
    }
}

impl Drop for AuditStream {
    fn drop(&mut self) {
        // The pipeline ends once nobody can bring it anything.
        self.tell.send_replace(None);
    }
}

/// The duty of telling the audit logs of a region.
pub(super) struct AuditDuty {
    way: Way,
    counters: Arc<Counters>,
}

#[async_trait]
impl Work for AuditDuty {
    fn duty(&self) -> String {
        "pipeline/audit".to_owned()
    }

    async fn work(&self, mut post: Post) -> Lost {
        let stored = post.stored(PLACES).await.pop().and_then(|(_, row)| decode(&row).ok());
        let mut places: BTreeMap<String, u64> = stored.unwrap_or_default();
        let mut way = self.way.clone();
        loop {
            // An error means that there will be no pipeline any more: then nothing is told, until the node stops.
            if way.wait_for(Option::is_some).await.is_err() {
                return std::future::pending().await;
            }
            let mut has_told = false;
            for log in streams::names(&post.node).into_iter().filter(|stream| streams::is_audit(stream)) {
                has_told |= self.tell(&post, &way, log, &mut places).await;
            }
            if !has_told {
                follow::more(&post.node, LOOK_EVERY).await;
            } else if post.report(vec![(PLACES.to_vec(), Some(encode(&places)))], Vec::new()).await.is_err() {
                return Lost;
            }
        }
    }
}

impl AuditDuty {
    /// Tells the next entries of a log; whether its place has moved.
    async fn tell(&self, post: &Post, way: &Way, log: String, places: &mut BTreeMap<String, u64>) -> bool {
        let turn = streams::turn(&post.node, &log, places.get(&log).copied().unwrap_or(0));
        let Some(last) = turn.last else { return false };
        let next = last + 1;
        let events: Vec<RawEvent> = turn.events.into_iter().filter_map(|(_, taken)| Some(taken?.raw)).collect();
        let add = |counter: &AtomicU64, count: u64| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.counters.events, events.len() as u64);
        add(&self.counters.bytes, events.iter().map(|event| event.bytes.len() as u64).sum());
        let (done, told) = oneshot::channel();
        let batch = Batch { events, rejects: Vec::new(), done: Some(done) };
        // Held no longer than it takes: the pipeline waits at its end for all who could still bring something.
        let Some(out) = way.borrow().clone() else { return false };
        if out.send(batch).await.is_err() {
            return false;
        }
        drop(out);
        // What is not durable is read again with the next turn.
        let is_durable = told.await.is_ok();
        if is_durable {
            places.insert(log, next);
        } else {
            add(&self.counters.repeats, 1);
        }
        is_durable
    }
}
