//! Shares the region's duties out among its nodes, and does those of this node.
//!
//! The leader of the home group gives each duty to a node that it hears; a lease is a command, so all agree on it.
//! A node claims a lease for this life of its, and works under it until it sees the next one. Until it does, what it reports is refused at its place
//! in the log: nothing is done twice because two nodes believe in their lease.

mod post;

pub use post::Post;
pub(crate) use post::certainly;

use crate::machine::command::{Command, Lease};
use crate::node::Node;
use async_trait::async_trait;
use model::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;

/// How often the leader looks who lives.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A node not heard for so long has its duties taken away; heartbeats come several times a second.
const LIVES_WITHIN: Duration = Duration::from_millis(1_500);
/// Duties move to even out only after the same nodes have lived for so long.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// Before a report is tried again that found no leader.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// The pause before a duty is taken up again whose work has ended by itself, doubled each time up to the longest.
const AGAIN_AFTER_MIN: Duration = Duration::from_secs(1);
/// See [`AGAIN_AFTER_MIN`]. Work that lasted longer begins with the shortest again.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(300);

/// Work that one node of the region does at a time.
#[async_trait]
pub trait Work: Send + Sync + 'static {
    /// Its name, the same on every node, without zero bytes.
    fn duty(&self) -> String;
    /// Works until the lease is lost. Dropped when the node sees another lease; what was not reported was not done.
    async fn work(&self, post: Post) -> Lost;
}

/// The lease has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// Does this node's duties, and shares them out while it leads. Runs until the node stops.
pub async fn run(node: Arc<Node>, works: Vec<Arc<dyn Work>>) {
    let duties: BTreeSet<String> = works.iter().map(|work| work.duty()).collect();
    tokio::join!(share_out(Arc::clone(&node), duties), attend(node, works));
}

/// What this node does under a lease, or to get one.
struct Busy {
    epoch: u64,
    task: AbortHandle,
    since: Instant,
    /// Works, rather than to claim.
    works: bool,
    /// How many times in a row the work has ended by itself.
    ended: u32,
}

/// Works under the leases this node has claimed in this life.
async fn attend(node: Arc<Node>, works: Vec<Arc<dyn Work>>) {
    let mut drawn = [0; 8];
    node.world.entropy.fill(&mut drawn);
    let life = u64::from_be_bytes(drawn);
    let mut assigned = node.home().machine.assignments();
    let mut tasks = JoinSet::new();
    let mut busy: BTreeMap<String, Busy> = BTreeMap::new();
    loop {
        assigned.mark_unchanged();
        match node.home().machine.leases() {
            Ok(leases) => {
                for work in &works {
                    let duty = work.duty();
                    let lease = leases.get(&duty).filter(|lease| lease.holder == node.place.id).copied();
                    if busy.get(&duty).map(|busy| busy.epoch) == lease.map(|lease| lease.epoch) {
                        continue;
                    }
                    let before = busy.remove(&duty);
                    if let Some(before) = &before {
                        before.task.abort();
                    }
                    let Some(lease) = lease else { continue };
                    let (node, work, name) = (Arc::clone(&node), Arc::clone(work), duty.clone());
                    let works = lease.life == Some(life);
                    let task = if works {
                        tracing::info!(duty, epoch = lease.epoch, "this node takes up the duty");
                        tasks.spawn(async move {
                            work.work(Post::new(node, name, lease)).await;
                        })
                    } else {
                        tasks.spawn(claim(node, name, lease.epoch, life))
                    };
                    let ended = before.map_or(0, |before| before.ended);
                    let since = Instant::now();
                    busy.insert(duty, Busy { epoch: lease.epoch, task, since, works, ended });
                }
            }
            Err(error) => tracing::error!(%error, "the duties cannot be read"),
        }
        tokio::select! {
            biased;
            changed = assigned.changed() => if changed.is_err() {
                return;
            },
            Some(ended) = tasks.join_next_with_id() => {
                let (id, why) = how_it_ended(ended);
                let found = busy.iter_mut().find(|(_, busy)| busy.works && busy.task.id() == id);
                if let Some((duty, busy)) = found {
                    let ended = busy.ended(why);
                    let again = take_up_again(Arc::clone(&node), duty.clone(), (busy.epoch, life), ended);
                    (busy.task, busy.works) = (tasks.spawn(again), false);
                }
            }
        }
    }
}

/// Work that has ended by itself.
struct Ended {
    why: String,
    /// How long to wait before it is taken up again.
    pause: Duration,
    /// Whether somebody is told: the more often it ends in a row, the more seldom.
    is_told: bool,
}

impl Busy {
    fn ended(&mut self, why: String) -> Ended {
        let before = if self.since.elapsed() > AGAIN_AFTER_MAX { 0 } else { self.ended };
        self.ended = before.saturating_add(1);
        let pause = AGAIN_AFTER_MIN.saturating_mul(1 << before.min(16)).min(AGAIN_AFTER_MAX);
        Ended { why, pause, is_told: self.ended.is_power_of_two() }
    }
}

fn how_it_ended(ended: Result<(Id, ()), JoinError>) -> (Id, String) {
    match ended {
        Ok((id, ())) => (id, "it gave up".to_owned()),
        Err(error) => (error.id(), error.to_string()),
    }
}

/// Work has ended by itself. Where its lease still stands after a pause, nobody else will do it: that is told, and the
/// duty claimed once more, to go on from what was stored.
async fn take_up_again(node: Arc<Node>, duty: String, (epoch, life): (u64, u64), ended: Ended) {
    let Ended { why, pause, is_told } = ended;
    tokio::time::sleep(pause).await;
    let leases = node.home().machine.leases();
    if leases.is_ok_and(|leases| leases.get(&duty).is_none_or(|lease| lease.epoch != epoch)) {
        return;
    }
    tracing::error!(duty, why, "a duty's work ended; it is taken up again");
    node.metrics.duties.with_label_values(&[duty.as_str(), "taken_up_again"]).inc();
    if is_told {
        let text = format!("{duty} on {} ended and is taken up again: {why}", node.place.name);
        post::degraded(&node, &duty, text).await;
    }
    claim(node, duty, epoch, life).await;
}

/// Takes up what this node was given: what comes of it is another lease.
async fn claim(node: Arc<Node>, duty: String, epoch: u64, life: u64) {
    let command = Command::Claim { duty, epoch, life };
    while node.propose(node.cluster.home(), &command).await.is_err() {
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Gives duties to nodes that live, while this node leads the home group.
async fn share_out(node: Arc<Node>, duties: BTreeSet<String>) {
    let mut share: Option<Share> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let group = &node.home().group;
        if !group.is_leader() {
            share = None;
            continue;
        }
        let now = Instant::now();
        let share = share.get_or_insert_with(|| Share { since: now, living: BTreeSet::new(), settled: now });
        let heard = group.status().heard_ms;
        let lives = |id: &NodeId| {
            *id == node.place.id || heard.get(id).is_some_and(|ms| Duration::from_millis(*ms) < LIVES_WITHIN)
        };
        let living: BTreeSet<NodeId> = node.region.nodes.iter().map(|node| node.id).filter(lives).collect();
        let Ok(leases) = node.home().machine.leases() else { continue };
        if let Some((duty, to)) = share.next(now, living, &duties, &leases) {
            tracing::info!(duty, %to, "the duty is given");
            let command = Command::Assign { duty, to };
            // What fails now is tried again with the next look.
            let _ = node.propose_and_see(node.cluster.home(), &command).await;
        }
    }
}

/// What a leader knows about those it shares duties out to.
struct Share {
    /// Since when it leads.
    since: Instant,
    living: BTreeSet<NodeId>,
    /// Since when these live.
    settled: Instant,
}

impl Share {
    /// The next duty that should change hands, one at a time.
    fn next(
        &mut self,
        now: Instant,
        living: BTreeSet<NodeId>,
        duties: &BTreeSet<String>,
        leases: &BTreeMap<String, Lease>,
    ) -> Option<(String, NodeId)> {
        if living != self.living {
            (self.living, self.settled) = (living, now);
        }
        let holder = |duty: &String| leases.get(duty).map(|lease| lease.holder);
        let mut counts: BTreeMap<NodeId, usize> = self.living.iter().map(|id| (*id, 0)).collect();
        for id in duties.iter().filter_map(holder) {
            if let Some(count) = counts.get_mut(&id) {
                *count += 1;
            }
        }
        let (least, few) = counts.iter().map(|(id, count)| (*id, *count)).min_by_key(|(id, count)| (*count, *id))?;
        // A leader that has just been elected has not heard from those that live either.
        let knows = now.duration_since(self.since) >= LIVES_WITHIN;
        let is_free = |duty: &&String| match holder(duty) {
            None => true,
            Some(holder) => knows && !self.living.contains(&holder),
        };
        if let Some(duty) = duties.iter().find(is_free) {
            return Some((duty.clone(), least));
        }
        if now.duration_since(self.settled) < SETTLED_AFTER || !knows {
            return None;
        }
        let (most, many) = counts.iter().map(|(id, count)| (*id, *count)).max_by_key(|(id, count)| (*count, *id))?;
        if many < few + 2 {
            return None;
        }
        duties.iter().find(|duty| holder(duty) == Some(most)).map(|duty| (duty.clone(), least))
    }
}

#[cfg(test)]
mod tests;
