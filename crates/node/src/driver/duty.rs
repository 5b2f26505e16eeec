//! Shares the region's duties out among its nodes, and does those of this node.
//!
//! The leader of the home group gives each duty to a node that it hears; a lease is a command, so all agree on it.
//! A node claims a lease for this life of its, and works under it until it sees the next one. Until it does, what it reports is refused at its place
//! in the log: nothing is done twice because two nodes believe in their lease.

use crate::machine::command::{Command, Lease, Outcome, Report, Row, Transact};
use crate::node::Node;
use async_trait::async_trait;
use model::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// How often the leader looks who lives.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A node not heard for so long has its duties taken away; heartbeats come several times a second.
const LIVES_WITHIN: Duration = Duration::from_millis(1_500);
/// Duties move to even out only after the same nodes have lived for so long.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// Before a report is tried again that found no leader.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Bytes of one part of a report: several fit into an entry of the log.
const PART_BYTES_MAX: usize = 512 * 1024;

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

/// A node at its duty.
pub struct Post {
    /// The node.
    pub node: Arc<Node>,
    duty: String,
    lease: Lease,
}

impl Post {
    /// The duty's name.
    pub fn duty(&self) -> &str {
        &self.duty
    }

    /// Rows of the duty's state whose keys begin with `prefix`.
    pub fn rows(&self, prefix: &[u8]) -> std::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.node.home().machine.duty_rows(&self.duty, prefix)
    }

    /// One row.
    pub fn row(&self, key: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.rows(key)?.into_iter().find(|(found, _)| found == key).map(|(_, value)| value))
    }

    /// Stores what was done, all of it or nothing, and tries until that is certain.
    pub async fn report(&mut self, rows: Vec<Row>, writes: Vec<Transact>) -> Result<(), Lost> {
        let mut part = Vec::new();
        let mut size_bytes = 0;
        let mut parts: Vec<(Vec<Row>, Vec<Transact>)> = Vec::new();
        // Records first: done twice they are done once, and they must be there when the rows say so.
        for transact in writes {
            let size: usize = transact.acts.iter().map(size_of_act).sum();
            if size_bytes + size > PART_BYTES_MAX && !part.is_empty() {
                parts.push((Vec::new(), std::mem::take(&mut part)));
                size_bytes = 0;
            }
            size_bytes += size;
            part.push(transact);
        }
        let mut set = Vec::new();
        for row in rows {
            let size = row.0.len() + row.1.as_ref().map_or(0, Vec::len);
            if size_bytes + size > PART_BYTES_MAX {
                parts.push((std::mem::take(&mut set), std::mem::take(&mut part)));
                size_bytes = 0;
            }
            size_bytes += size;
            set.push(row);
        }
        for (rows, writes) in parts {
            self.send(false, rows, writes).await?;
        }
        self.send(true, set, part).await
    }

    async fn send(&mut self, is_whole: bool, rows: Vec<Row>, writes: Vec<Transact>) -> Result<(), Lost> {
        let Lease { epoch, number, .. } = self.lease;
        let report = Report { duty: self.duty.clone(), epoch, number: number + 1, is_whole, rows, writes };
        let command = Command::Report(report);
        loop {
            match self.node.propose_and_see(self.node.cluster.home(), &command).await {
                Ok(Outcome::Noted) => {
                    self.lease.number += 1;
                    return Ok(());
                }
                Ok(Outcome::Fenced) => return Err(Lost),
                Ok(outcome) => {
                    // A report is made by this very version of the program: an answer that is none is a defect.
                    tracing::error!(duty = self.duty, ?outcome, "a report was not understood");
                    return Err(Lost);
                }
                // Whether it was done or not: the same number again is done once.
                Err(_) => tokio::time::sleep(RETRY_AFTER).await,
            }
        }
    }
}

fn size_of_act(act: &crate::machine::command::Act) -> usize {
    use crate::machine::command::ActChange;
    let values = match &act.change {
        ActChange::Put(set) | ActChange::Patch { set, .. } | ActChange::Upsert { set, .. } => set.as_slice(),
        ActChange::Delete | ActChange::Check => &[],
    };
    let size = |value: &model::Value| if let model::Value::Text(text) = value { text.len() } else { 16 };
    128 + act.key.len() + values.iter().map(|(_, _, value)| size(value)).sum::<usize>()
}

/// Does this node's duties, and shares them out while it leads. Runs until the node stops.
pub async fn run(node: Arc<Node>, works: Vec<Arc<dyn Work>>) {
    let duties: BTreeSet<String> = works.iter().map(|work| work.duty()).collect();
    tokio::join!(share_out(Arc::clone(&node), duties), attend(node, works));
}

/// Works under the leases this node has claimed in this life.
async fn attend(node: Arc<Node>, works: Vec<Arc<dyn Work>>) {
    let mut drawn = [0; 8];
    node.world.entropy.fill(&mut drawn);
    let life = u64::from_be_bytes(drawn);
    let mut assigned = node.home().machine.assignments();
    let mut tasks = JoinSet::new();
    // For each duty the epoch that this node works or claims under.
    let mut busy: BTreeMap<String, (u64, AbortHandle)> = BTreeMap::new();
    loop {
        assigned.mark_unchanged();
        match node.home().machine.leases() {
            Ok(leases) => {
                for work in &works {
                    let duty = work.duty();
                    let lease = leases.get(&duty).filter(|lease| lease.holder == node.place.id).copied();
                    if busy.get(&duty).map(|(epoch, _)| *epoch) == lease.map(|lease| lease.epoch) {
                        continue;
                    }
                    if let Some((_, task)) = busy.remove(&duty) {
                        task.abort();
                    }
                    let Some(lease) = lease else { continue };
                    let (node, work, name) = (Arc::clone(&node), Arc::clone(work), duty.clone());
                    let task = if lease.life == Some(life) {
                        tracing::info!(duty, epoch = lease.epoch, "this node takes up the duty");
                        tasks.spawn(async move {
                            work.work(Post { node, duty: name, lease }).await;
                        })
                    } else {
                        tasks.spawn(claim(node, name, lease.epoch, life))
                    };
                    busy.insert(duty, (lease.epoch, task));
                }
            }
            Err(error) => tracing::error!(%error, "the duties cannot be read"),
        }
        while tasks.try_join_next().is_some() {}
        if assigned.changed().await.is_err() {
            return;
        }
    }
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
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId::new(*id)).collect()
    }

    fn leases(of: &[(&str, u64)]) -> BTreeMap<String, Lease> {
        of.iter()
            .map(|(duty, id)| {
                ((*duty).to_owned(), Lease { holder: NodeId::new(*id), epoch: 2, life: Some(7), number: 0 })
            })
            .collect()
    }

    #[test]
    fn duties_go_to_those_that_live_and_move_only_once_things_are_settled() {
        let begin = Instant::now();
        let duties: BTreeSet<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
        let share = || Share { since: begin, living: BTreeSet::new(), settled: begin };
        let at = |ms| begin + Duration::from_millis(ms);
        let next = |share: &mut Share, ms, living: &[u64], held: &[(&str, u64)]| {
            share.next(at(ms), ids(living), &duties, &leases(held)).map(|(duty, to)| (duty, to.get()))
        };
        assert_eq!(next(&mut share(), 0, &[1], &[]), Some(("a".into(), 1)), "what nobody has is given at once");
        let held = [("a", 1), ("b", 2), ("c", 1), ("d", 2)];
        let mut new = share();
        assert_eq!(next(&mut new, 100, &[1], &held), None, "a new leader has not heard the others yet");
        assert_eq!(next(&mut new, 1_600, &[1], &held), Some(("b".into(), 1)), "2 is dead");
        assert_eq!(next(&mut new, 1_700, &[1, 2, 3], &held), None, "3 has just come");
        assert_eq!(next(&mut new, 12_000, &[1, 2, 3], &held), Some(("b".into(), 3)));
        let even = [("a", 1), ("b", 2), ("c", 3), ("d", 2)];
        assert_eq!(next(&mut new, 13_000, &[1, 2, 3], &even), None, "one more is even enough");
    }
}
