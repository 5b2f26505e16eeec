//! The receiver's side of a pull stream: one for each (group, peer region), at the group's leader.
//!
//! It opens the stream, checks every origin's sequence and chain, holds what is not ready, proposes what is in causal
//! order, and gives credit back for what is committed. It never applies anything and never waits: the driver carries
//! out the [`Effect`]s in order and reports what happened as [`Input`]s.
//!
//! Whatever it forgets is pulled again from what is committed: on any doubt it closes the stream and starts over.

mod interface;
mod queue;

pub use interface::{Alarm, Config, Effect, Input, Now, State};

use crate::wire::{Answer, Ask, Vectors};
use crate::{Change, Position, stamp};
use model::{Origin, PartitionId, RegionId, VersionVector};
use queue::{Queues, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// Changes of one proposal.
pub const BATCH_CHANGES_MAX: usize = 512;
/// A proposal ends with the change that reaches this weight.
pub const BATCH_WEIGHT: u64 = 1024 * 1024;
/// A link that lacks more changes than this is [`State::Lagging`].
pub const LIVE_LAG_MAX: u64 = 1_000;
/// How often what only this region wrote is acknowledged, in milliseconds. Foreign changes are at once.
const QUIET_ACK_MS: u64 = 500;
/// How long a change from the future is left alone before it is looked at again, in milliseconds.
const QUARANTINE_MS: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// To be opened at this moment, in monotonic milliseconds.
    Closed {
        retry_at: u64,
    },
    Opening,
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Pulling,
    NeedsSnapshot,
    Bootstrapping,
    Fenced,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Inbox {
    config: Config,
    phase: Phase,
    stream: Stream,
    attempts: u32,
    positions: BTreeMap<(PartitionId, Origin), Position>,
    vectors: Vectors,
    heads: Vectors,
    queues: Queues,
    batches: u64,
    in_flight: Option<u64>,
    in_flight_until: Vec<(PartitionId, Origin, u64)>,
    owed: u64,
    unacked: BTreeSet<PartitionId>,
    ack_at: Option<u64>,
    sources_down: BTreeMap<RegionId, u64>,
    relay: BTreeSet<RegionId>,
    quarantine: Option<(PartitionId, Origin, u64)>,
    look_at: Option<u64>,
}

impl Inbox {
    /// An inbox that knows what is committed, and opens its stream at the first step.
    pub fn new(config: Config, committed: impl IntoIterator<Item = (PartitionId, Origin, Position)>) -> Self {
        assert!(!config.nodes.is_empty(), "a region has at least one node");
        let mut inbox = Self {
            config,
            phase: Phase::Pulling,
            stream: Stream::Closed { retry_at: 0 },
            attempts: 0,
            positions: BTreeMap::new(),
            vectors: Vectors::new(),
            heads: Vectors::new(),
            queues: Queues::default(),
            batches: 0,
            in_flight: None,
            in_flight_until: Vec::new(),
            owed: 0,
            unacked: BTreeSet::new(),
            ack_at: None,
            sources_down: BTreeMap::new(),
            relay: BTreeSet::new(),
            quarantine: None,
            look_at: None,
        };
        for (partition, origin, position) in committed {
            inbox.advance(partition, origin, position);
        }
        inbox
    }

    /// What the link is doing.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Fenced => State::Fenced,
            Phase::NeedsSnapshot => State::NeedsSnapshot,
            Phase::Bootstrapping => State::Bootstrapping,
            Phase::Pulling if self.quarantine.is_some() => State::ClockQuarantine,
            Phase::Pulling if self.is_connected() && self.lag() <= LIVE_LAG_MAX => State::Live,
            Phase::Pulling => State::Lagging,
        }
    }
    /// Whether the stream is open.
    pub fn is_connected(&self) -> bool {
        self.stream == Stream::Open
    }
    /// How many changes the peer is known to have that are not committed here.
    pub fn lag(&self) -> u64 {
        let missing = |(partition, heads): (&PartitionId, &VersionVector)| -> u64 {
            let have = self.vectors.get(partition);
            let wanted = heads.iter().filter(|(origin, _)| self.wants(*origin));
            wanted.map(|(origin, head)| head.saturating_sub(have.map_or(0, |have| have.get(origin)))).sum()
        };
        self.heads.iter().map(missing).sum()
    }
    /// The weight of what is held, proposed or waiting for its causes.
    pub fn held_weight(&self) -> u64 {
        self.queues.weight()
    }
    /// The third regions this peer relays.
    pub fn relays(&self) -> &BTreeSet<RegionId> {
        &self.relay
    }

    /// When to call with [`Input::Tick`] at the latest, in monotonic milliseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        let retry = match self.stream {
            Stream::Closed { retry_at } if self.phase == Phase::Pulling => Some(retry_at),
            _ => None,
        };
        let relay = self.sources_down.iter().filter(|(region, _)| !self.relay.contains(region));
        let relay = relay.map(|(_, since)| since.saturating_add(self.config.relay_after_ms)).min();
        let ack = self.ack_at.filter(|_| self.is_connected());
        // While a batch is on its way nothing is looked at: its end is what is waited for.
        let look = self.look_at.filter(|_| self.in_flight.is_none() && self.phase == Phase::Pulling);
        [retry, relay, ack, look].into_iter().flatten().min()
    }

    /// Takes one input.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Connected => self.connected(effects),
            Input::Disconnected => self.disconnected(now),
            Input::Answer(answer) => self.answer(now, answer, effects),
            Input::Committed(moved) => self.committed(now, moved, effects),
            Input::Settled { batch } => self.settled(now, batch, effects),
            Input::SourceUp(region) => self.source_up(region),
            Input::SourceDown(region) => self.source_down(now, region),
            Input::BootstrapBegan => self.phase_from(&[Phase::NeedsSnapshot], Phase::Bootstrapping),
            Input::BootstrapEnded => self.phase_from(&[Phase::NeedsSnapshot, Phase::Bootstrapping], Phase::Pulling),
            Input::Fence => {
                self.close(now, effects);
                self.phase = Phase::Fenced;
            }
            Input::Unfence => self.phase_from(&[Phase::Fenced], Phase::Pulling),
            Input::Tick => {}
        }
        self.start_relays(now, effects);
        self.open_when_due(now, effects);
        self.acknowledge_when_due(now, effects);
        self.propose(now, effects);
    }

    /// Asserts what must always hold.
    pub fn check(&self) {
        self.queues.check();
        assert!(self.in_flight.is_some() || self.in_flight_until.is_empty(), "only a proposal has an end");
        assert!(
            self.is_connected() || self.queues.is_empty(),
            "what is not committed is forgotten with the stream, to be pulled again"
        );
        for ((partition, origin), position) in &self.positions {
            let known = self.vectors.get(partition).map_or(0, |vector| vector.get(*origin));
            assert_eq!(known, position.sequence, "vectors and positions say the same");
        }
    }

    fn phase_from(&mut self, from: &[Phase], to: Phase) {
        if from.contains(&self.phase) {
            self.phase = to;
        }
    }

    fn advance(&mut self, partition: PartitionId, origin: Origin, position: Position) -> bool {
        let known = self.positions.entry((partition, origin)).or_default();
        if position.sequence <= known.sequence {
            return false;
        }
        *known = position;
        self.vectors.entry(partition).or_default().raise(origin, position.sequence);
        true
    }

    fn connected(&mut self, effects: &mut Vec<Effect>) {
        if self.stream == Stream::Opening && self.phase == Phase::Pulling {
            self.stream = Stream::Open;
            self.relay.retain(|region| self.sources_down.contains_key(region));
            self.pull(effects);
        }
    }

    /// Starts the stream over from what is committed.
    fn pull(&mut self, effects: &mut Vec<Effect>) {
        self.forget();
        self.unacked.clear();
        self.ack_at = None;
        effects.push(Effect::Send(Ask::Pull {
            group: self.config.group,
            receiver: self.config.home,
            have: self.vectors.clone(),
            relay: self.relay.clone(),
            credit: self.config.window,
        }));
    }

    fn forget(&mut self) {
        self.queues.clear();
        self.owed = 0;
        self.quarantine = None;
        self.look_at = None;
    }

    fn disconnected(&mut self, now: Now) {
        if !matches!(self.stream, Stream::Closed { .. }) {
            self.forget();
            self.heads.clear();
            self.stream = Stream::Closed { retry_at: now.monotonic_ms.saturating_add(self.wait_ms()) };
            self.attempts = self.attempts.saturating_add(1);
        }
    }

    fn close(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if !matches!(self.stream, Stream::Closed { .. }) {
            effects.push(Effect::Close);
            self.disconnected(now);
        }
    }

    fn fail(&mut self, now: Now, alarm: Alarm, effects: &mut Vec<Effect>) {
        effects.push(Effect::Alarm(alarm));
        self.close(now, effects);
    }

    /// Doubles with each attempt; a fixed part of it differs between links, so that they do not all come at once.
    fn wait_ms(&self) -> u64 {
        let longest = self.config.reconnect_ms_max;
        let wait = self.config.reconnect_ms_min.saturating_mul(1 << self.attempts.min(16)).min(longest).max(1);
        let link = (u32::from(self.config.group.get()), self.config.peer.get(), self.attempts);
        let draw = crate::Digest::of(&[&model::codec::encode(&link)]);
        wait / 2 + u64::from(u32::from_le_bytes([draw.bytes()[0], draw.bytes()[1], 0, 0])) % (wait / 2 + 1)
    }

    fn open_when_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Stream::Closed { retry_at } = self.stream else { return };
        if self.phase == Phase::Pulling && now.monotonic_ms >= retry_at {
            let node = self.config.nodes[self.attempts as usize % self.config.nodes.len()];
            self.stream = Stream::Opening;
            effects.push(Effect::Open(node));
        }
    }

    fn answer(&mut self, now: Now, answer: Answer, effects: &mut Vec<Effect>) {
        if !self.is_connected() {
            return;
        }
        match answer {
            Answer::Changes(changes) => {
                for change in changes {
                    if let Err(alarm) = self.receive(change) {
                        return self.fail(now, alarm, effects);
                    }
                }
                self.attempts = 0;
                self.give_credit(effects);
            }
            Answer::Heads(heads) => {
                for (partition, vector) in heads {
                    self.heads.entry(partition).or_default().join(&vector);
                }
            }
            Answer::Truncated { partition, .. } => {
                self.close(now, effects);
                self.phase = Phase::NeedsSnapshot;
                effects.push(Effect::FetchSnapshot(partition));
            }
        }
    }

    /// The peer's own changes, relayed ones, and those of this region's earlier lives.
    fn wants(&self, origin: Origin) -> bool {
        let region = origin.region;
        (region == self.config.peer || region == self.config.home.region || self.relay.contains(&region))
            && origin != self.config.home
    }

    fn receive(&mut self, change: Change) -> Result<(), Alarm> {
        let (origin, sequence) = (change.header.origin, change.header.sequence);
        if change.check().is_err() || !self.wants(origin) {
            return Err(Alarm::BadChange { origin, sequence });
        }
        let (weight, key) = (change.weight(), (change.header.partition, origin));
        let position = self.positions.get(&key).copied().unwrap_or_default();
        match self.queues.push(position, change) {
            Ok(())
                if self.queues.weight() > self.config.window.saturating_add(crate::change::CHANGE_BYTES_MAX as u64) =>
            {
                Err(Alarm::CreditExceeded)
            }
            Ok(()) => Ok(()),
            Err(Refusal::Duplicate) => {
                self.owed += weight;
                Ok(())
            }
            Err(Refusal::Hole { expected }) => Err(Alarm::Hole { origin, expected, found: sequence }),
            Err(Refusal::BrokenChain) => Err(Alarm::BrokenChain { origin, sequence }),
        }
    }

    fn committed(&mut self, now: Now, moved: Vec<(PartitionId, Origin, Position)>, effects: &mut Vec<Effect>) {
        let (mut foreign, mut forked) = (false, None);
        for (partition, origin, position) in moved {
            if !self.advance(partition, origin, position) {
                continue;
            }
            self.unacked.insert(partition);
            foreign |= origin != self.config.home;
            match self.queues.release(partition, origin, position) {
                Ok(weight) => self.owed += weight,
                Err(sequence) => forked = Some(Alarm::BrokenChain { origin, sequence }),
            }
        }
        if foreign {
            self.ack_at = Some(now.monotonic_ms);
        } else if !self.unacked.is_empty() && self.ack_at.is_none() {
            self.ack_at = Some(now.monotonic_ms.saturating_add(QUIET_ACK_MS));
        }
        match forked {
            Some(alarm) => self.fail(now, alarm, effects),
            None => self.give_credit(effects),
        }
    }

    fn settled(&mut self, now: Now, batch: u64, effects: &mut Vec<Effect>) {
        if self.in_flight != Some(batch) {
            return;
        }
        self.in_flight = None;
        let until = std::mem::take(&mut self.in_flight_until);
        let committed = until.into_iter().all(|(partition, origin, sequence)| {
            self.vectors.get(&partition).is_some_and(|vector| vector.get(origin) >= sequence)
        });
        if !committed {
            self.fail(now, Alarm::NotCommitted, effects);
        }
    }

    /// Credit goes back in quarters of the window, or when nothing is held.
    fn give_credit(&mut self, effects: &mut Vec<Effect>) {
        let enough = self.owed >= self.config.window / 4 || self.queues.is_empty();
        if self.is_connected() && self.owed > 0 && enough {
            effects.push(Effect::Send(Ask::Grant { credit: std::mem::take(&mut self.owed) }));
        }
    }

    fn acknowledge_when_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.is_connected() && self.ack_at.is_some_and(|at| now.monotonic_ms >= at) {
            self.ack_at = None;
            let moved = std::mem::take(&mut self.unacked);
            let durable = moved.into_iter().filter_map(|id| self.vectors.get(&id).map(|vector| (id, vector.clone())));
            effects.push(Effect::Send(Ask::Ack { durable: durable.collect() }));
        }
    }

    fn source_down(&mut self, now: Now, region: RegionId) {
        if region != self.config.peer && region != self.config.home.region {
            self.sources_down.entry(region).or_insert(now.monotonic_ms);
        }
    }

    /// The relay goes on until the next pull: duplicates cost little, a new start costs more.
    fn source_up(&mut self, region: RegionId) {
        self.sources_down.remove(&region);
    }

    /// Asks for relays that are due, on a new stream: what is still under way on the old one belongs to the old wish,
    /// and only a new start sends the relayed changes before what depends on them, even when the window is full.
    fn start_relays(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let after = self.config.relay_after_ms;
        let due = |since: &u64| now.monotonic_ms >= since.saturating_add(after);
        let due: BTreeSet<RegionId> =
            self.sources_down.iter().filter(|(_, since)| due(since)).map(|(region, _)| *region).collect();
        if !due.is_subset(&self.relay) {
            self.relay = due;
            if self.is_connected() {
                self.close(now, effects);
                self.attempts = 0;
                self.stream = Stream::Closed { retry_at: now.monotonic_ms };
            }
        }
    }

    fn propose(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.in_flight.is_some() || self.phase != Phase::Pulling {
            return;
        }
        let skew = self.config.skew_ms_max;
        let early = |change: &Change| stamp::is_from_the_future(change.header.hlc, now.wall_ms, skew);
        let ready = self.queues.ready(&self.vectors, BATCH_CHANGES_MAX, BATCH_WEIGHT, early);
        let held = ready.early.map(|(partition, origin, sequence, _)| (partition, origin, sequence));
        if let Some((_, origin, sequence, hlc)) = ready.early
            && held != self.quarantine
        {
            let ahead_ms = hlc.wall_ms().saturating_sub(now.wall_ms);
            effects.push(Effect::Alarm(Alarm::FromTheFuture { origin, sequence, ahead_ms }));
        }
        self.quarantine = held;
        self.look_at = held.map(|_| now.monotonic_ms.saturating_add(QUARANTINE_MS));
        if !ready.changes.is_empty() {
            self.batches += 1;
            self.in_flight = Some(self.batches);
            self.in_flight_until = ready.until;
            effects.push(Effect::Propose { batch: self.batches, changes: ready.changes });
        }
    }
}
