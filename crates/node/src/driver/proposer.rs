//! Carries commands to a group's leader, many at a time.
//!
//! Commands that arrive while a batch is on its way share the next one: under load an entry of the
//! log, a round trip and a sync are shared by hundreds of commands. Knows nothing of what they say.

use crate::world::World;
use bytes::Bytes;
use consensus::{Group, ProposeError};
use model::codec::{decode, encode};
use model::{GroupId, NodeId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use transport::{LinkError, Service};

/// Batches on their way at once, per group and node. A further one leaves only when it is worth a journey: half as
/// many commands as travel already. So a few clients never wait for each other, and many share entries and syncs.
const BATCHES_IN_FLIGHT: usize = 3;
/// Commands of one entry.
const BATCH_COMMANDS_MAX: usize = 512;
/// Bytes of one entry.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Commands waiting at this node for one group; more are refused as `Busy`.
const QUEUE_COMMANDS_MAX: usize = 4096;
/// How long a command may look for a leader before it is given up.
const LEADER_WAIT: Duration = Duration::from_secs(3);
/// How long an answer of the leader may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The pause before asking again who leads, unless a change of leader ends it.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// One entry of a group's log: the clock of the leader, and encoded commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's wall clock when it proposed.
    pub wall_ms: u64,
    /// Drawn by the leader: what must not be guessed is derived from it, the same in every replica.
    pub nonce: [u8; 16],
    /// In the order in which they take effect.
    pub commands: Vec<Bytes>,
}

/// Why a command was not, or may not have been, carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ProposeFailed {
    /// No leader could be reached in time: nothing was done.
    #[error("no leader could be reached in time")]
    NoLeader,
    /// The leader was lost on the way: it may or may not have been done.
    #[error("the leader was lost on the way: the outcome is unknown")]
    Unknown,
    /// Too much is waiting already: nothing was done.
    #[error("too many commands are waiting")]
    Busy,
    /// This node is shutting down: nothing was done.
    #[error("the node is shutting down")]
    Stopped,
}

#[derive(Serialize, Deserialize)]
struct Forwarded {
    group: GroupId,
    commands: Vec<Bytes>,
}

/// A leader's answer to forwarded commands.
#[derive(Serialize, Deserialize)]
enum Answer {
    /// Where the entry is in the log, and one result for each command.
    Results {
        index: u64,
        results: Vec<Bytes>,
    },
    NotLeader,
    Unknown,
}

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its entry's place in the group's log: whoever has applied it has the command's effects.
    pub index: u64,
    /// What the state machine answered.
    pub result: Bytes,
}

struct Waiting {
    command: Bytes,
    reply: oneshot::Sender<Result<Done, ProposeFailed>>,
}

/// The way to one group's leader.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Waiting>,
}

impl Proposer {
    /// Starts the driver in `tasks`.
    pub fn start(group: Group, id: GroupId, local: NodeId, world: World, tasks: &mut JoinSet<()>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let courier = Arc::new(Courier { group, id, local, world });
        tasks.spawn(courier.run(waiting));
        Self { queue }
    }

    /// Has a command carried out; its result is what the state machine answered.
    pub async fn propose(&self, command: Bytes) -> Result<Done, ProposeFailed> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Waiting { command, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeFailed::Busy,
            mpsc::error::TrySendError::Closed(_) => ProposeFailed::Stopped,
        })?;
        // The driver went away with the command in its hands: it may be on its way already.
        answer.await.unwrap_or(Err(ProposeFailed::Unknown))
    }
}

struct Courier {
    group: Group,
    id: GroupId,
    local: NodeId,
    world: World,
}

impl Courier {
    async fn run(self: Arc<Self>, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batches = JoinSet::new();
        // Commands on their way, in all batches together.
        let mut travelling = 0;
        while let Some(first) = waiting.recv().await {
            // What a batch that panicked carried never arrives.
            travelling = if batches.is_empty() { 0 } else { travelling };
            let mut size_bytes = first.command.len();
            let mut batch = vec![first];
            loop {
                while batch.len() < BATCH_COMMANDS_MAX && size_bytes < BATCH_BYTES_MAX {
                    let Ok(next) = waiting.try_recv() else { break };
                    size_bytes += next.command.len();
                    batch.push(next);
                }
                while let Some(arrived) = batches.try_join_next() {
                    travelling -= arrived.unwrap_or(0);
                }
                let is_full = batch.len() >= BATCH_COMMANDS_MAX || size_bytes >= BATCH_BYTES_MAX;
                if batches.is_empty()
                    || (batches.len() < BATCHES_IN_FLIGHT && (is_full || batch.len() * 2 >= travelling))
                {
                    break;
                }
                // While this waits its turn, more commands come and share the batch.
                tokio::select! {
                    biased;
                    Some(arrived) = batches.join_next() => travelling -= arrived.unwrap_or(0),
                    Some(next) = waiting.recv(), if !is_full => {
                        size_bytes += next.command.len();
                        batch.push(next);
                    }
                }
            }
            let courier = Arc::clone(&self);
            let count = batch.len();
            travelling += count;
            batches.spawn(async move {
                let commands: Vec<Bytes> = batch.iter().map(|waiting| waiting.command.clone()).collect();
                let result = courier.deliver(commands).await;
                answer_all(batch, result);
                count
            });
        }
        while batches.join_next().await.is_some() {}
    }

    /// Takes a batch to whoever leads, looking for a leader until [`LEADER_WAIT`] is over.
    async fn deliver(&self, commands: Vec<Bytes>) -> Result<(u64, Vec<Bytes>), ProposeFailed> {
        let deadline = tokio::time::Instant::now() + LEADER_WAIT;
        let mut changes = self.group.changes();
        loop {
            let attempt = match self.group.leader() {
                Some(leader) if leader == self.local => propose_here(&self.group, &self.world, commands.clone()).await,
                Some(leader) => self.forward(leader, &commands).await,
                None => Answer::NotLeader,
            };
            match attempt {
                Answer::Results { index, results } if results.len() == commands.len() => return Ok((index, results)),
                Answer::Results { .. } | Answer::Unknown => return Err(ProposeFailed::Unknown),
                Answer::NotLeader if tokio::time::Instant::now() >= deadline => return Err(ProposeFailed::NoLeader),
                Answer::NotLeader => {
                    // Either something changes in the group, or it is time to look again.
                    let _ = tokio::time::timeout(RETRY_PAUSE, changes.changed()).await;
                }
            }
        }
    }

    /// Sends to a leader elsewhere, and gives up as soon as the group has another one.
    async fn forward(&self, leader: NodeId, commands: &[Bytes]) -> Answer {
        let request = encode(&Forwarded { group: self.id, commands: commands.to_vec() });
        let call = self.world.link.call(leader, Service::Propose, request.into(), ANSWER_WAIT);
        tokio::pin!(call);
        let mut changes = self.group.changes();
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut call => break answer,
                changed = changes.changed() => {
                    if changed.is_err() || self.group.leader().is_some_and(|now| now != leader) {
                        return Answer::Unknown;
                    }
                }
            }
        };
        match answer {
            Ok(bytes) => decode(&bytes).unwrap_or(Answer::Unknown),
            Err(LinkError::Unreachable(_) | LinkError::Refused(_) | LinkError::TooLarge { .. }) => Answer::NotLeader,
            Err(LinkError::Timeout(_) | LinkError::Closed(_)) => Answer::Unknown,
        }
    }
}

fn answer_all(batch: Vec<Waiting>, result: Result<(u64, Vec<Bytes>), ProposeFailed>) {
    // A caller that has gone away is no reason to stop: its command is done or not all the same.
    match result {
        Ok((index, results)) => {
            for (waiting, result) in batch.into_iter().zip(results) {
                let _ = waiting.reply.send(Ok(Done { index, result }));
            }
        }
        Err(failed) => {
            for waiting in batch {
                let _ = waiting.reply.send(Err(failed));
            }
        }
    }
}

async fn propose_here(group: &Group, world: &World, commands: Vec<Bytes>) -> Answer {
    let mut nonce = [0; 16];
    world.entropy.fill(&mut nonce);
    let entry = Entry { wall_ms: world.clock.wall_ms(), nonce, commands };
    match group.propose(encode(&entry).into()).await {
        Ok(applied) => {
            decode(&applied.result).map_or(Answer::Unknown, |results| Answer::Results { index: applied.index, results })
        }
        Err(ProposeError::NotLeader { .. }) => Answer::NotLeader,
        // Batches are bounded well below it, and a single command is bounded by the request it came from.
        Err(ProposeError::TooLarge { .. }) => Answer::Unknown,
        Err(ProposeError::Unknown | ProposeError::Stopped) => Answer::Unknown,
    }
}

/// The group that forwarded commands are for, to find it before [`answer_forwarded`].
pub fn forwarded_group(request: &[u8]) -> Option<GroupId> {
    decode::<Forwarded>(request).ok().map(|forwarded| forwarded.group)
}

/// Carries out commands that another node forwarded, if this node leads.
pub async fn answer_forwarded(group: &Group, world: &World, request: &[u8]) -> Option<Bytes> {
    let forwarded: Forwarded = decode(request).ok()?;
    if forwarded.commands.len() > BATCH_COMMANDS_MAX {
        return None;
    }
    let answer =
        if group.is_leader() { propose_here(group, world, forwarded.commands).await } else { Answer::NotLeader };
    Some(encode(&answer).into())
}
