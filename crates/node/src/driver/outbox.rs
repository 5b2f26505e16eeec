//! Tells the outside what was stored: one node of the region at a time for each sink.
//!
//! Follows the records of alerts, incidents and notices. A notice's key is that of what it tells, so that a receiver
//! knows repetitions; the place moves only after the sink has taken it, so that nothing is left out.

use crate::driver::detect::{ONLY, note};
use crate::driver::duty::{Lost, Post, Work};
use crate::driver::follow::{self, Wrote};
use crate::machine::command::Transact;
use crate::machine::control::platform;
use crate::machine::note::Note;
use crate::node::Node;
use async_trait::async_trait;
use detection::Alert;
use detection::incident::Change;
use model::codec::{decode, encode};
use pipeline::sink::{Notice, Refused, Sink, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The row with the place in the change log.
const PLACE: &[u8] = b"c";
/// Looks again at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A sink that is new is told of what was stored so long ago, and nothing older.
const LOOK_BACK_MS: u64 = 3_600_000;
/// The pause after a sink could not take a notice: doubled each time up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The duty of telling one sink.
pub struct Outbox(pub Arc<dyn Sink>);

#[async_trait]
impl Work for Outbox {
    fn duty(&self) -> String {
        format!("sink/{}", self.0.name())
    }

    async fn work(&self, mut post: Post) -> Lost {
        let stored: Option<u64> = post.row(PLACE).ok().flatten().and_then(|row| decode(&row).ok());
        let since_ms = match stored {
            Some(_) => 0,
            None => post.node.world.clock.wall_ms().saturating_sub(LOOK_BACK_MS),
        };
        let mut place = stored.unwrap_or(0);
        loop {
            let (wrote, end) = match follow::after(&post.node, place) {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(%error, "the change log cannot be read");
                    (Vec::new(), place)
                }
            };
            if end == place {
                follow::more(&post.node, LOOK_EVERY).await;
                continue;
            }
            let wrote = wrote.iter().filter(|wrote| wrote.at_ms >= since_ms);
            let mut notices = Vec::new();
            for wrote in wrote {
                notices.extend(notice(&post.node, wrote).await.filter(|notice| self.0.wants(notice)));
            }
            if !notices.is_empty() {
                let refused = self.tell(&post.node, &notices).await;
                let heard = heard(&post.node, self.0.name(), &notices, &refused);
                if post.report(vec![(PLACE.to_vec(), Some(encode(&end)))], heard).await.is_err() {
                    return Lost;
                }
            }
            // Nothing of it was for this sink: the place is stored with the next that is.
            place = end;
        }
    }
}

impl Outbox {
    /// Tells notices in order, each until it is taken or refused for good. What is refused is recorded, and returned
    /// by its key with the reason.
    async fn tell(&self, node: &Node, mut notices: &[Notice]) -> BTreeMap<String, String> {
        let mut pause = PAUSE_MIN;
        let mut all_refused = BTreeMap::new();
        while !notices.is_empty() {
            let (taken, outcome) = self.0.deliver(notices).await;
            node.metrics.notices.with_label_values(&[self.0.name(), "taken"]).inc_by(taken as u64);
            if taken > 0 {
                pause = PAUSE_MIN;
            }
            notices = notices.get(taken..).unwrap_or_default();
            match outcome {
                Ok(()) => {}
                Err(Refused::Later(reason)) => {
                    node.metrics.notices.with_label_values(&[self.0.name(), "later"]).inc();
                    tracing::warn!(sink = self.0.name(), reason, "a notice waits");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(Refused::Never(reason)) => {
                    let Some((refused, rest)) = notices.split_first() else { return all_refused };
                    node.metrics.notices.with_label_values(&[self.0.name(), "refused"]).inc();
                    all_refused.insert(refused.key.clone(), reason.clone());
                    self.record(node, refused, reason).await;
                    notices = rest;
                }
            }
        }
        all_refused
    }

    async fn record(&self, node: &Node, notice: &Notice, reason: String) {
        tracing::error!(sink = self.0.name(), key = notice.key, reason, "a notice was refused for good");
        let resource = format!("sinks/{}/{}", self.0.name(), notice.key);
        let note = Note { refused: Some(reason), ..note(node, "notice.refused", resource) };
        let command = crate::machine::command::Command::Note(note);
        while node.propose(node.cluster.home(), &command).await.is_err() {
            tokio::time::sleep(PAUSE_MIN).await;
        }
    }
}

/// What a sink's answers change here: tickets say what it knows.
fn heard(node: &Node, sink: &str, notices: &[Notice], refused: &BTreeMap<String, String>) -> Vec<Transact> {
    let tickets = notices.iter().filter(|notice| notice.topic == Topic::Ticket);
    let transact = |notice: &Notice| {
        let note = note(node, "ticket.update", notice.key.clone());
        node.ticket_heard(sink, notice, refused.get(&notice.key).cloned(), &note)
    };
    tickets.filter_map(transact).collect()
}

/// What the outside is told of a record.
async fn notice(node: &Node, wrote: &Wrote) -> Option<Notice> {
    let json = wrote.text(ONLY)?;
    match wrote.table {
        platform::ALERTS => Some(Notice::of_alert(&serde_json::from_str::<Alert>(json).ok()?)),
        platform::INCIDENTS => {
            let change = Change::decode(json.as_bytes()).ok()?;
            let mut shelf = node.incidents.lock().await;
            let incident = shelf.refresh(node).ok()?.get(change.incident)?;
            let entry = incident.history.iter().find(|entry| entry.change.id() == change.id())?;
            Some(Notice::of_incident(incident, entry))
        }
        platform::NOTICES => serde_json::from_str(json).ok(),
        _ => None,
    }
}
