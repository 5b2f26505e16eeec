//! A Raft group on this node: start it, propose to it, read from it, change its members.

use crate::error::{ChangeError, ProposeError, StartError};
use crate::gate::{Gate, is_silent};
use crate::log::LogStore;
use crate::machine::Machine;
use crate::network::Factory;
use crate::options::{COMMAND_BYTES_MAX, GroupOptions};
use crate::serve::{self, Lanes};
use crate::state::StateMachine;
use crate::status::{GroupStatus, Pulse, Role};
use crate::types::{Command, LogId, Raft, Types};
use bytes::Bytes;
use model::{GroupId, NodeId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError,
    LinearizableReadError, RaftError,
};
use openraft::{EmptyNode, RaftMetrics, ReadPolicy, ServerState};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use storage::Log;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use transport::{FrameStream, Link, Peer};

/// Between two attempts to propose to a leader that is still to hear from a quorum.
const NEW_LEADER_WAIT: Duration = Duration::from_millis(5);

/// A leader that was not heard for so many of the longest election timeouts does not lead any more.
const UNHEARD_TIMEOUTS: u32 = 5;

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its place in the log.
    pub index: u64,
    /// What the machine answered.
    pub result: Bytes,
}

/// A Raft group on this node. Clones are the same group.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    options: GroupOptions,
    raft: Raft,
    machine: Arc<dyn Machine>,
    gate: Arc<Gate>,
    lanes: Lanes,
    applied: watch::Receiver<Option<u64>>,
    /// Where the log ended when this node started.
    last_at_start: Option<u64>,
    pulse: watch::Receiver<Pulse>,
    /// Held while a snapshot arrives: one at a time.
    receiving: tokio::sync::Mutex<()>,
    tasks: Mutex<JoinSet<()>>,
}

impl Group {
    /// Reads the log and the position, checks them, and takes part.
    pub async fn start(
        options: GroupOptions,
        log: Arc<dyn Log>,
        link: Arc<dyn Link>,
        machine: Arc<dyn Machine>,
    ) -> Result<Self, StartError> {
        let group = options.group;
        let config = options.config().validate();
        let config = config.map_err(|error| StartError::Options { group, reason: error.to_string() })?;
        let store = LogStore::open(group, log)?;
        let (state, applied) =
            StateMachine::open(Arc::clone(&machine)).map_err(|source| StartError::Disk { group, source })?;
        store.check_reaches(state.applied())?;
        let last_at_start = store.last();
        let gate = Arc::new(Gate::default());
        let factory = Factory::new(&options, link, Arc::clone(&gate));
        let raft = Raft::new(options.node.get(), Arc::new(config), factory, store.clone(), state).await;
        let raft = raft.map_err(|error| StartError::Refused { group, reason: error.to_string() })?;
        let (sender, pulse) = watch::channel(pulse(&raft, *applied.borrow()));
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_over(options.clone(), raft.clone(), store, Arc::clone(&gate), applied.clone(), sender));
        let inner = Inner {
            options,
            raft,
            machine,
            gate,
            lanes: Lanes::default(),
            applied,
            last_at_start,
            pulse,
            receiving: tokio::sync::Mutex::default(),
            tasks: Mutex::new(tasks),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Which group this is.
    pub fn id(&self) -> GroupId {
        self.inner.options.group
    }

    /// Founds the group with these voters. Every founding voter may call it, at every start: where
    /// the group exists already it does nothing.
    pub async fn initialize(&self, voters: &BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let voters: BTreeMap<u64, EmptyNode> = voters.iter().map(|node| (node.get(), EmptyNode {})).collect();
        match self.inner.raft.initialize(voters).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(ChangeError::Refused { reason: error.to_string() }),
            Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
        }
    }

    /// Orders a command and waits until this node has applied it.
    ///
    /// May be called many times at once; what is called together is synced together.
    pub async fn propose(&self, command: Bytes) -> Result<Applied, ProposeError> {
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { size_bytes: command.len() });
        }
        if self.has_stopped() {
            return Err(ProposeError::Stopped);
        }
        let timing = &self.inner.options.timing;
        let proposing = async {
            let patience = Instant::now() + Duration::from_millis(timing.election_max_ms);
            loop {
                let written = self.inner.raft.client_write(Command(command.clone())).await;
                let Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) = written else {
                    return written.map_err(|_| ProposeError::Unknown);
                };
                // A new leader refuses, certainly without effect, until a quorum has answered it.
                if forward.reason != ForwardReason::LeaseExpired || !self.is_leader() || Instant::now() >= patience {
                    return Err(ProposeError::NotLeader { leader: leader(&forward) });
                }
                tokio::time::sleep(NEW_LEADER_WAIT).await;
            }
        };
        match tokio::time::timeout(Duration::from_millis(timing.propose_ms), proposing).await {
            Ok(Ok(response)) => Ok(Applied { index: response.log_id.index(), result: response.data.0 }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// One read-index round: everything acknowledged before the call has an index up to the one
    /// returned. Read the state after [`Group::wait_applied`] of it. Only on the leader; callers
    /// share a round.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        match self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { leader: leader(&forward) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ProposeError::NotLeader { leader: None })
            }
            Err(RaftError::Fatal(_)) => Err(ProposeError::Stopped),
        }
    }

    /// Waits until this node has applied everything up to `index`. Sets no deadline of its own.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ProposeError> {
        let mut applied = self.inner.applied.clone();
        let waited = applied.wait_for(|applied| applied.is_some_and(|applied| applied >= index)).await;
        waited.map(|_| ()).map_err(|_| ProposeError::Stopped)
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.pulse.borrow().leader
    }

    /// Whether this node believes that it leads. Never enough for a linearizable read.
    pub fn is_leader(&self) -> bool {
        self.inner.pulse.borrow().role == Role::Leader
    }

    /// Whether a leader with a quorum was heard lately. [`Group::leader`] may name one that has died: without a
    /// quorum nobody takes its place.
    pub fn is_led(&self) -> bool {
        let bound = Duration::from_millis(self.inner.options.timing.election_max_ms) * UNHEARD_TIMEOUTS;
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_alone = metrics.membership_config.membership().voter_ids().all(|id| id == metrics.id);
        match role(&metrics) {
            Role::Leader => is_alone || quorum_age(&metrics).is_some_and(|age| age < bound),
            Role::Follower | Role::Learner => self.inner.lanes.heard().is_some_and(|heard| heard.elapsed() < bound),
            Role::Candidate | Role::Stopped => false,
        }
    }

    /// The last index applied here.
    pub fn applied(&self) -> Option<u64> {
        *self.inner.applied.borrow()
    }

    /// Waits until everything is applied that the log held when this node started, but for what another leader has
    /// taken back. Until then the state may be older than what this node has acknowledged. Sets no deadline: without
    /// a quorum nothing is known to be committed.
    pub async fn recovered(&self) -> Result<(), ProposeError> {
        let mut changes = self.changes();
        loop {
            let last_now = self.inner.raft.metrics().borrow_watched().last_log_index;
            if self.applied() >= self.inner.last_at_start.min(last_now) {
                return Ok(());
            }
            changes.changed().await.map_err(|_| ProposeError::Stopped)?;
        }
    }

    /// Ticks when role, term, leader or applied index change from now on.
    pub fn changes(&self) -> watch::Receiver<Pulse> {
        let mut pulse = self.inner.pulse.clone();
        // A clone has seen what its original has, which never looks: it would tick at once, each time.
        pulse.mark_unchanged();
        pulse
    }

    /// Whether the group has stopped on this node, by [`Group::shutdown`] or because the disk failed.
    pub fn has_stopped(&self) -> bool {
        self.inner.pulse.borrow().role == Role::Stopped
    }

    /// Everything about the group on this node.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let index = |id: &Option<LogId>| id.as_ref().map(LogId::index);
        let matched = metrics.replication.iter().flatten();
        let heard = metrics.heartbeat.iter().flatten();
        GroupStatus {
            group: self.id(),
            node: self.inner.options.node,
            role: role(&metrics),
            term: metrics.current_term,
            leader: metrics.current_leader.map(NodeId::new),
            last_log: metrics.last_log_index,
            committed: index(&metrics.local_committed),
            applied: *self.inner.applied.borrow(),
            snapshot: index(&metrics.snapshot),
            purged: index(&metrics.purged),
            voters: membership.voter_ids().map(NodeId::new).collect(),
            learners: membership.learner_ids().map(NodeId::new).collect(),
            last_quorum_acked_ms: quorum_age(&metrics).map(|age| age.as_millis() as u64),
            heard_ms: heard
                .filter(|(node, _)| **node != metrics.id)
                .filter_map(|(node, at)| {
                    let age = openraft::Instant::elapsed(&**at.as_ref()?);
                    Some((NodeId::new(*node), age.as_millis() as u64))
                })
                .collect(),
            matched: matched
                .filter(|(node, _)| **node != metrics.id)
                .map(|(node, id)| (NodeId::new(*node), index(id)))
                .collect(),
            is_led: self.is_led(),
            silent: self.inner.gate.is_shut(),
            fault: metrics
                .running_state
                .err()
                .filter(|fault| !matches!(fault, Fatal::Stopped))
                .map(|fault| fault.to_string()),
        }
    }

    /// Adds a node without a vote and waits until it has nearly caught up. On the leader.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        self.inner.raft.add_learner(node.get(), EmptyNode {}, true).await.map(|_| ()).map_err(refusal)
    }

    /// Makes exactly these nodes the voters, through a joint configuration; new ones must be
    /// learners. Nodes that are left out leave the group. On the leader.
    pub async fn change_members(&self, voters: &BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let voters: BTreeSet<u64> = voters.iter().map(|node| node.get()).collect();
        self.inner.raft.change_membership(voters, false).await.map(|_| ()).map_err(refusal)
    }

    /// Asks another voter to lead; watch [`Group::changes`] for the outcome. On the leader.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ChangeError> {
        self.inner.raft.trigger().transfer_leader(to.get()).await.map_err(|_| ChangeError::Stopped)
    }

    /// Answers [`transport::Service::Raft`] for this group; `None` refuses.
    pub async fn handle_call(&self, peer: &Peer, request: Bytes) -> Option<Bytes> {
        serve::answer(&self.inner.raft, self.id(), &self.inner.lanes, peer, &request).await
    }

    /// Owns a stream of [`transport::Service::Snapshot`] whose first frame named this group.
    pub async fn handle_stream(&self, peer: &Peer, first: Bytes, mut stream: Box<dyn FrameStream>) {
        // A second snapshot at once is refused by closing its stream: the leader tries again.
        let Ok(_one_at_a_time) = self.inner.receiving.try_lock() else { return };
        let space = self.inner.machine.space();
        serve::receive_snapshot(&self.inner.raft, &*space, self.id(), peer, &first, &mut *stream).await;
    }

    /// Asks for a checkpoint now; what it holds may then be purged from the log.
    pub async fn checkpoint(&self) -> Result<(), ChangeError> {
        self.inner.raft.trigger().snapshot().await.map_err(|_| ChangeError::Stopped)
    }

    /// Stops taking part. What has been acknowledged is on disk.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(group = %self.id(), %error, "the group did not stop cleanly");
        }
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        tasks.shutdown().await;
    }
}

fn leader(forward: &ForwardToLeader<Types>) -> Option<NodeId> {
    forward.leader_id.map(NodeId::new)
}

fn refusal(error: RaftError<Types, ClientWriteError<Types>>) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ChangeError::NotLeader { leader: leader(&forward) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        )) => ChangeError::Busy,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ChangeError::Refused { reason: error.to_string() }
        }
        RaftError::APIError(_) => ChangeError::Unknown,
        RaftError::Fatal(_) => ChangeError::Stopped,
    }
}

fn role(metrics: &RaftMetrics<Types>) -> Role {
    match (&metrics.running_state, metrics.state) {
        (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
        (_, ServerState::Learner) => Role::Learner,
        (_, ServerState::Follower) => Role::Follower,
        (_, ServerState::Candidate) => Role::Candidate,
        (_, ServerState::Leader) => Role::Leader,
    }
}

fn pulse(raft: &Raft, applied: Option<u64>) -> Pulse {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    Pulse { role: role(&metrics), term: metrics.current_term, leader: metrics.current_leader.map(NodeId::new), applied }
}

fn quorum_age(metrics: &RaftMetrics<Types>) -> Option<Duration> {
    metrics.last_quorum_acked.as_ref().map(|acked| openraft::Instant::elapsed(&**acked))
}

/// Follows one group: passes on its changes, asks for checkpoints, and keeps a deaf leader silent.
async fn watch_over(
    options: GroupOptions,
    raft: Raft,
    store: LogStore,
    gate: Arc<Gate>,
    mut applied: watch::Receiver<Option<u64>>,
    sender: watch::Sender<Pulse>,
) {
    let mut metrics = raft.metrics();
    let mut ticks = tokio::time::interval(Duration::from_millis(options.timing.heartbeat_ms));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let lease = Duration::from_millis(options.timing.election_max_ms);
    let mut asked_at = None;
    let mut led_since: Option<(u64, Instant)> = None;
    loop {
        let alive = tokio::select! {
            biased;
            changed = applied.changed() => changed.is_ok(),
            changed = metrics.changed() => changed.is_ok(),
            _ = ticks.tick() => true,
        };
        let now = pulse(&raft, *applied.borrow());
        sender.send_if_modified(|pulse| std::mem::replace(pulse, now) != now);
        if now.role == Role::Stopped || !alive {
            break;
        }
        let (snapshot, quorum_age, has_peers) = {
            let metrics = metrics.borrow_watched();
            let voters = metrics.membership_config.membership().voter_ids();
            (
                metrics.snapshot.as_ref().map(LogId::index),
                quorum_age(&metrics),
                voters.filter(|id| *id != metrics.id).count() > 0,
            )
        };
        if now.role == Role::Leader && has_peers {
            let since = match led_since {
                Some((term, since)) if term == now.term => since,
                _ => led_since.insert((now.term, Instant::now())).1,
            };
            gate.set(is_silent(quorum_age.unwrap_or(since.elapsed()).min(since.elapsed()), lease));
        } else {
            led_since = None;
            gate.set(false);
        }
        let next = now.applied.map_or(0, |applied| applied + 1);
        let base = snapshot.max(asked_at).map_or(0, |held| held + 1);
        let is_due = next.saturating_sub(base) > options.checkpoint_entries
            || (next > base && store.appended_bytes() > options.checkpoint_bytes);
        if is_due && raft.trigger().snapshot().await.is_ok() {
            asked_at = now.applied;
            store.reset_appended_bytes();
        }
    }
    gate.set(false);
    sender.send_modify(|pulse| pulse.role = Role::Stopped);
}
