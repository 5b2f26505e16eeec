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
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use transport::{LinkError, Service};

/// Where the batch before had so many commands, more are about to come: those it answered go on.
const SIBLINGS_MIN: usize = 8;
/// How long a batch waits for them. An entry costs three syncs and a dozen messages, whatever it holds.
const LINGER: Duration = Duration::from_millis(1);
/// Commands of one entry.
const BATCH_COMMANDS_MAX: usize = 512;
/// An entry takes no more commands once it has so many bytes of them.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of one command, and of all that share an entry: what an entry adds to them has room beside.
pub const COMMAND_BYTES_MAX: usize = consensus::COMMAND_BYTES_MAX - 64 * 1024;
/// Parcels waiting at this node for one group; more are refused as `Busy`.
const QUEUE_PARCELS_MAX: usize = 4096;
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
    /// It is larger than any command may be: nothing was done, and never will be.
    #[error("the command is too large")]
    TooLarge,
}

/// Commands that another node carries to the leader.
#[derive(Serialize, Deserialize)]
pub struct Forwarded {
    /// The group they are for.
    pub group: GroupId,
    commands: Vec<Bytes>,
}

impl Forwarded {
    /// Reads a request of another node; `None` if it is not one.
    pub fn decode(request: &[u8]) -> Option<Self> {
        decode(request).ok().filter(|forwarded: &Self| forwarded.commands.len() <= BATCH_COMMANDS_MAX)
    }
}

/// Commands that were carried out: where their entry is in the log, and one result for each.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Placed {
    index: u64,
    results: Vec<Bytes>,
}

/// What became of commands, on the wire too.
type Answer = Result<Placed, ProposeFailed>;

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its entry's place in the group's log: whoever has applied it has the command's effects.
    pub index: u64,
    /// What the state machine answered.
    pub result: Bytes,
}

/// Commands that came together and are answered together: one of this node's own, or what another node forwarded.
struct Parcel {
    commands: Vec<Bytes>,
    /// Another node has looked for the leader already, and looks again if it is not here.
    is_forwarded: bool,
    reply: oneshot::Sender<Answer>,
}

impl Parcel {
    fn size_bytes(&self) -> usize {
        self.commands.iter().map(Bytes::len).sum()
    }
}

/// The way to one group's leader.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Parcel>,
}

impl Proposer {
    /// Starts the driver in `tasks`.
    pub fn start(group: Group, id: GroupId, local: NodeId, world: World, tasks: &mut JoinSet<()>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_PARCELS_MAX);
        tasks.spawn(Courier { group, id, local, world }.run(waiting));
        Self { queue }
    }

    /// Has a command carried out; its result is what the state machine answered.
    pub async fn propose(&self, command: Bytes) -> Result<Done, ProposeFailed> {
        // Alone it fails alone: in a batch it would take the others with it.
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeFailed::TooLarge);
        }
        let Placed { index, results } = self.carry(vec![command], false).await?;
        let result = results.into_iter().next().ok_or(ProposeFailed::Unknown)?;
        Ok(Done { index, result })
    }

    async fn carry(&self, commands: Vec<Bytes>, is_forwarded: bool) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Parcel { commands, is_forwarded, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeFailed::Busy,
            mpsc::error::TrySendError::Closed(_) => ProposeFailed::Stopped,
        })?;
        // The driver went away with the commands in its hands: they may be on their way already.
        answer.await.unwrap_or(Err(ProposeFailed::Unknown))
    }

    /// Carries out commands that another node forwarded, in the same entries as this node's own, if this node leads.
    pub async fn answer_forwarded(&self, group: &Group, forwarded: Forwarded) -> Bytes {
        let answer =
            if group.is_leader() { self.carry(forwarded.commands, true).await } else { Err(ProposeFailed::NoLeader) };
        encode(&answer).into()
    }
}

/// Parcels that travel together.
#[derive(Default)]
struct Batch {
    parcels: Vec<Parcel>,
    commands: usize,
    size_bytes: usize,
}

impl Batch {
    fn push(&mut self, parcel: Parcel) {
        self.commands += parcel.commands.len();
        self.size_bytes += parcel.size_bytes();
        self.parcels.push(parcel);
    }

    fn is_full(&self) -> bool {
        self.commands >= BATCH_COMMANDS_MAX || self.size_bytes >= BATCH_BYTES_MAX
    }

    /// Whether a parcel can share the entry: one that is too large for it alone is the caller's mistake alone.
    fn has_room_for(&self, parcel: &Parcel) -> bool {
        self.parcels.is_empty() || self.size_bytes.saturating_add(parcel.size_bytes()) <= COMMAND_BYTES_MAX
    }

    /// The commands of all parcels, in order.
    fn all(&self) -> Vec<Bytes> {
        self.parcels.iter().flat_map(|parcel| &parcel.commands).cloned().collect()
    }

    /// Sends what another node forwarded back to it: only there is known how long its callers wait.
    fn return_forwarded(&mut self) {
        for parcel in self.parcels.extract_if(.., |parcel| parcel.is_forwarded) {
            let _ = parcel.reply.send(Err(ProposeFailed::NoLeader));
        }
    }

    /// A caller that has gone away is no reason to stop: its command is done or not all the same.
    fn answer(self, answer: Answer) {
        match answer {
            Err(failed) => {
                for parcel in self.parcels {
                    let _ = parcel.reply.send(Err(failed));
                }
            }
            Ok(Placed { index, results }) => {
                let mut results = results.into_iter();
                for parcel in self.parcels {
                    let results = results.by_ref().take(parcel.commands.len()).collect();
                    let _ = parcel.reply.send(Ok(Placed { index, results }));
                }
            }
        }
    }
}

/// Gives more commands the time to share a batch; the one that has no room in it is returned.
async fn linger(batch: &mut Batch, waiting: &mut mpsc::Receiver<Parcel>) -> Option<Parcel> {
    let until = tokio::time::Instant::now() + LINGER;
    while !batch.is_full() {
        match tokio::time::timeout_at(until, waiting.recv()).await {
            Ok(Some(next)) if batch.has_room_for(&next) => batch.push(next),
            Ok(next) => return next,
            Err(_) => break,
        }
    }
    None
}

struct Courier {
    group: Group,
    id: GroupId,
    local: NodeId,
    world: World,
}

impl Courier {
    /// One batch at a time: what arrives meanwhile shares the next one.
    async fn run(self, mut waiting: mpsc::Receiver<Parcel>) {
        // How many commands the batch before had.
        let mut siblings = 0;
        // What had no room in the batch before.
        let mut next = None;
        loop {
            let first = if next.is_some() { next.take() } else { waiting.recv().await };
            let Some(first) = first else { return };
            let mut batch = Batch::default();
            batch.push(first);
            while !batch.is_full() && next.is_none() {
                match waiting.try_recv() {
                    Ok(more) if batch.has_room_for(&more) => batch.push(more),
                    Ok(more) => next = Some(more),
                    Err(_) => break,
                }
            }
            if siblings >= SIBLINGS_MIN && next.is_none() {
                next = linger(&mut batch, &mut waiting).await;
            }
            siblings = batch.commands;
            self.deliver(batch).await;
        }
    }

    /// Takes a batch to whoever leads, looking for a leader until [`LEADER_WAIT`] is over.
    async fn deliver(&self, mut batch: Batch) {
        let deadline = tokio::time::Instant::now() + LEADER_WAIT;
        let mut changes = self.group.changes();
        loop {
            let leader = self.group.leader();
            if leader != Some(self.local) {
                batch.return_forwarded();
            }
            let commands = batch.all();
            let count = commands.len();
            if count == 0 {
                return;
            }
            let attempt = match leader {
                Some(leader) if leader == self.local => self.propose_here(commands).await,
                Some(leader) => self.forward(leader, commands).await,
                None => Err(ProposeFailed::NoLeader),
            };
            match attempt {
                Ok(placed) if placed.results.len() == count => return batch.answer(Ok(placed)),
                Ok(_) => return batch.answer(Err(ProposeFailed::Unknown)),
                Err(ProposeFailed::NoLeader) if tokio::time::Instant::now() < deadline => {
                    // Either something changes in the group, or it is time to look again.
                    let _ = tokio::time::timeout(RETRY_PAUSE, changes.changed()).await;
                }
                Err(failed) => return batch.answer(Err(failed)),
            }
        }
    }

    /// Sends to a leader elsewhere, and gives up as soon as the group has another one.
    async fn forward(&self, leader: NodeId, commands: Vec<Bytes>) -> Answer {
        let request = encode(&Forwarded { group: self.id, commands });
        let call = self.world.link.call(leader, Service::Propose, request.into(), ANSWER_WAIT);
        tokio::pin!(call);
        let mut changes = self.group.changes();
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut call => break answer,
                changed = changes.changed() => {
                    if changed.is_err() || self.group.leader().is_some_and(|now| now != leader) {
                        return Err(ProposeFailed::Unknown);
                    }
                }
            }
        };
        match answer {
            Ok(bytes) => decode(&bytes).unwrap_or(Err(ProposeFailed::Unknown)),
            Err(LinkError::Unreachable(_) | LinkError::Refused(_) | LinkError::TooLarge { .. }) => {
                Err(ProposeFailed::NoLeader)
            }
            Err(LinkError::Timeout(_) | LinkError::Closed(_)) => Err(ProposeFailed::Unknown),
        }
    }

    async fn propose_here(&self, commands: Vec<Bytes>) -> Answer {
        let mut nonce = [0; 16];
        self.world.entropy.fill(&mut nonce);
        let entry = Entry { wall_ms: self.world.clock.wall_ms(), nonce, commands };
        match self.group.propose(encode(&entry).into()).await {
            Ok(applied) => match decode(&applied.result) {
                Ok(results) => Ok(Placed { index: applied.index, results }),
                Err(_) => Err(ProposeFailed::Unknown),
            },
            Err(ProposeError::NotLeader { .. }) => Err(ProposeFailed::NoLeader),
            Err(ProposeError::TooLarge { .. }) => Err(ProposeFailed::TooLarge),
            Err(ProposeError::Unknown | ProposeError::Stopped) => Err(ProposeFailed::Unknown),
        }
    }
}
