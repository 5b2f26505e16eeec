//! Drives the inbox of one link: what this region pulls of another, for one group, while this node leads it.

use crate::machine::command::Command;
use crate::machine::note::Note;
use crate::node::Node;
use crate::telemetry::trace;
use model::{GroupId, NodeId, Origin, PartitionId, RegionId};
use replication::inbox::{Alarm, Config, Effect, Inbox, Input, Now, State};
use replication::wire::{Answer, Ask};
use replication::{Change, Content, Position};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use transport::{FrameSource, FrameStream, LinkError, Service};

/// Inputs waiting for the inbox; the stream waits when it is full.
const INPUTS_MAX: usize = 64;
/// Messages waiting to be sent on a stream.
const ASKS_MAX: usize = 256;
/// An alarm about the same origin is recorded so often; the log of the node has each.
const RECORDED_EVERY: Duration = Duration::from_secs(15 * 60);
/// How often other links are looked at when nothing else happens.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// A link as others see it: for relays, status and metrics.
#[derive(Clone, Copy, Debug)]
pub struct LinkView {
    /// What it is doing.
    pub state: State,
    /// Whether its stream is open.
    pub connected: bool,
    /// Changes the peer is known to have that are not here.
    pub behind: u64,
    /// When it entered this state, in milliseconds since 1970.
    pub since_ms: u64,
}

/// What the tasks of a link tell its driver. Streams are numbered: a late word of an old one is ignored.
enum Event {
    Opened { stream: u64, opened: Result<Box<dyn FrameStream>, LinkError> },
    Said { stream: u64, answer: Option<Answer> },
    Settled { batch: u64 },
}

/// Runs until the node stops.
pub async fn run(node: Arc<Node>, group: GroupId, peer: RegionId) {
    let mut pulse = node.data.get(&group).expect("drivers run for groups that are here").group.changes();
    loop {
        if node.data[&group].group.is_leader() {
            Puller::new(Arc::clone(&node), group, peer).lead().await;
            node.links.lock().remove(&(group, peer));
        }
        if pulse.changed().await.is_err() {
            return;
        }
    }
}

struct Puller {
    node: Arc<Node>,
    group: GroupId,
    peer: RegionId,
    inbox: Inbox,
    known: BTreeMap<(PartitionId, Origin), Position>,
    sources: BTreeMap<RegionId, bool>,
    stream: u64,
    asks: Option<mpsc::Sender<Ask>>,
    events: mpsc::Sender<Event>,
    heard: Option<mpsc::Receiver<Event>>,
    tasks: JoinSet<()>,
    streams: JoinSet<()>,
    /// When an alarm was last recorded.
    recorded: BTreeMap<(&'static str, Origin), Instant>,
}

impl Puller {
    fn new(node: Arc<Node>, group: GroupId, peer: RegionId) -> Self {
        let region = node.cluster.region(peer).expect("a peer is in the cluster's description");
        // Nodes of a region are tried in turn; leaders of different groups begin with different ones.
        let mut nodes: Vec<NodeId> = region.nodes.iter().map(|node| node.id).collect();
        let begin = usize::from(group.get()) % nodes.len();
        nodes.rotate_left(begin);
        let config = Config::new(group, node.region.origin(), peer, nodes);
        let known = positions(&node, group);
        let inbox =
            Inbox::new(config, known.iter().map(|((partition, origin), position)| (*partition, *origin, *position)));
        let (events, heard) = mpsc::channel(INPUTS_MAX);
        Self {
            node,
            group,
            peer,
            inbox,
            known,
            sources: BTreeMap::new(),
            stream: 0,
            asks: None,
            events,
            heard: Some(heard),
            tasks: JoinSet::new(),
            streams: JoinSet::new(),
            recorded: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        let clock = &self.node.world.clock;
        Now { wall_ms: clock.wall_ms(), monotonic_ms: u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX) }
    }

    /// Pulls until this node no longer leads the group.
    async fn lead(mut self) {
        let data = &self.node.data[&self.group];
        let (mut pulse, mut applied) = (data.group.changes(), data.machine.changes());
        let mut heard = self.heard.take().expect("the receiver is taken once");
        self.step(Input::Tick);
        loop {
            let pause = match self.inbox.next_deadline() {
                Some(deadline) => {
                    Duration::from_millis(deadline.saturating_sub(self.now().monotonic_ms)).min(LOOK_AROUND)
                }
                None => LOOK_AROUND,
            };
            tokio::select! {
                biased;
                changed = pulse.changed() => {
                    if changed.is_err() || !self.node.data[&self.group].group.is_leader() {
                        return;
                    }
                }
                changed = applied.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.committed();
                }
                Some(event) = heard.recv() => self.hear(event),
                () = tokio::time::sleep(pause) => self.step(Input::Tick),
            }
            self.look_around();
            while self.tasks.try_join_next().is_some() {}
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Opened { stream, opened } if stream == self.stream => match opened {
                Ok(opened) => {
                    self.talk(opened);
                    self.step(Input::Connected);
                }
                Err(_) => self.step(Input::Disconnected),
            },
            Event::Said { stream, answer } if stream == self.stream => match answer {
                Some(answer) => self.step(Input::Answer(answer)),
                None => {
                    self.asks = None;
                    self.step(Input::Disconnected);
                }
            },
            Event::Settled { batch } => {
                self.committed();
                self.step(Input::Settled { batch });
            }
            Event::Opened { .. } | Event::Said { .. } => {}
        }
    }

    /// Tells the inbox what has been committed since it was last told.
    fn committed(&mut self) {
        let now = positions(&self.node, self.group);
        let moved: Vec<_> = now
            .iter()
            .filter(|(key, position)| self.known.get(*key) != Some(*position))
            .map(|((partition, origin), position)| (*partition, *origin, *position))
            .collect();
        self.known = now;
        if !moved.is_empty() {
            self.step(Input::Committed(moved));
        }
    }

    /// Tells the inbox which third regions this group reaches by itself, and others how this link is.
    fn look_around(&mut self) {
        let others: Vec<(RegionId, bool)> = {
            let links = self.node.links.lock();
            let regions = self.node.cluster.regions.iter().map(|region| region.id);
            let third = regions.filter(|region| *region != self.peer && *region != self.node.region.id);
            third.map(|region| (region, links.get(&(self.group, region)).is_some_and(|link| link.connected))).collect()
        };
        for (region, up) in others {
            if self.sources.insert(region, up) != Some(up) {
                self.step(if up { Input::SourceUp(region) } else { Input::SourceDown(region) });
            }
        }
        let (state, connected, behind) = (self.inbox.state(), self.inbox.is_connected(), self.inbox.lag());
        let mut links = self.node.links.lock();
        let before = links.get(&(self.group, self.peer)).copied();
        let since_ms = match before {
            Some(view) if view.state == state => view.since_ms,
            _ => self.node.world.clock.wall_ms(),
        };
        links.insert((self.group, self.peer), LinkView { state, connected, behind, since_ms });
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.inbox.step(self.now(), input, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Open(to) => {
                self.stream += 1;
                self.asks = None;
                self.streams.abort_all();
                let (link, events, stream) = (Arc::clone(&self.node.world.link), self.events.clone(), self.stream);
                self.streams.spawn(async move {
                    let opened = link.open(to, Service::Pull).await;
                    let _ = events.send(Event::Opened { stream, opened }).await;
                });
            }
            Effect::Close => {
                self.stream += 1;
                self.asks = None;
                self.streams.abort_all();
            }
            Effect::Send(ask) => {
                // A full queue means that nothing has left for long: the stream ends by itself.
                if self.asks.as_ref().is_none_or(|asks| asks.try_send(ask).is_err()) {
                    self.asks = None;
                }
            }
            Effect::Propose { batch, changes } => self.propose(batch, changes),
            Effect::FetchSnapshot(partition) => {
                tracing::error!(%partition, peer = %self.peer, "the other region no longer keeps what is missing here");
            }
            Effect::Alarm(alarm) => self.alarm(alarm),
        }
    }

    fn alarm(&mut self, alarm: Alarm) {
        tracing::warn!(group = %self.group, peer = %self.node.region_name(self.peer), ?alarm, "replication");
        let Some((action, origin, why)) = told(&alarm) else { return };
        let now = Instant::now();
        let last = self.recorded.insert((action, origin), now);
        if let Some(last) = last.filter(|last| now.duration_since(*last) < RECORDED_EVERY) {
            self.recorded.insert((action, origin), last);
            return;
        }
        let note = Note {
            action: action.into(),
            refused: Some(why),
            resource: Some(format!("regions/{}", self.node.region_name(origin.region))),
            node: self.node.place.id,
            ..Note::default()
        };
        let (node, group) = (Arc::clone(&self.node), self.group);
        self.tasks.spawn(async move {
            if let Err(failed) = node.propose(group, &Command::Note(note)).await {
                tracing::error!(%group, %failed, "an alarm of replication could not be recorded");
            }
        });
    }

    fn propose(&mut self, batch: u64, changes: Vec<Change>) {
        let control = self.node.control();
        let here = self.node.region.id;
        let traces: Vec<_> = changes.iter().filter_map(|change| change.body()?.trace).collect();
        let judged = changes.into_iter().map(|change| {
            // Residency is enforced by the receiver too: content that should not have come is dropped unread.
            match control.tenants.get(&change.header.tenant) {
                Some(tenant) if !tenant.allows(here) => (change.withheld(), false),
                Some(_) => (change, true),
                None => {
                    let has_content = matches!(change.content, Content::Body(_));
                    (change, has_content)
                }
            }
        });
        let command = Command::Foreign { from: self.peer, changes: judged.collect() };
        let (node, group, events) = (Arc::clone(&self.node), self.group, self.events.clone());
        self.tasks.spawn(async move {
            // They end when the changes are durable here.
            let _followed: Vec<tracing::Span> = traces
                .into_iter()
                .map(|to| trace::followed(tracing::debug_span!("replicate", node = %node.place.name, %group), to))
                .collect();
            if let Err(failed) = node.propose(group, &command).await {
                tracing::debug!(%group, %failed, "foreign changes were not proposed");
            }
            let _ = events.send(Event::Settled { batch }).await;
        });
    }

    /// Reads and writes a stream until it ends.
    fn talk(&mut self, stream: Box<dyn FrameStream>) {
        let (mut sink, source) = stream.split();
        let (asks, mut waiting) = mpsc::channel::<Ask>(ASKS_MAX);
        self.asks = Some(asks);
        let (events, number) = (self.events.clone(), self.stream);
        self.streams.spawn(async move {
            let sending = async {
                while let Some(ask) = waiting.recv().await {
                    if sink.send(ask.encode().into()).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                biased;
                () = listen(source, &events, number) => {}
                () = sending => {}
            }
            let _ = events.send(Event::Said { stream: number, answer: None }).await;
        });
    }
}

/// What the audit log says of an alarm, for those that others must hear of: who, what, and why.
fn told(alarm: &Alarm) -> Option<(&'static str, Origin, String)> {
    match alarm {
        Alarm::FromTheFuture { origin, ahead_ms, .. } => {
            Some(("clock.quarantine", *origin, format!("{ahead_ms} ms ahead: held until its time has come")))
        }
        Alarm::BrokenChain { origin, sequence } => {
            Some(("replication.refused", *origin, format!("change {sequence} does not continue its chain")))
        }
        Alarm::BadChange { origin, sequence } => {
            Some(("replication.refused", *origin, format!("change {sequence} breaks the rules of changes")))
        }
        // These heal by asking again.
        Alarm::Hole { .. } | Alarm::CreditExceeded | Alarm::NotCommitted => None,
    }
}

async fn listen(mut source: Box<dyn FrameSource>, events: &mpsc::Sender<Event>, stream: u64) {
    while let Ok(Some(frame)) = source.receive().await {
        let Ok(answer) = Answer::decode(&frame) else {
            tracing::warn!("a region answered with something unreadable");
            return;
        };
        if events.send(Event::Said { stream, answer: Some(answer) }).await.is_err() {
            return;
        }
    }
}

fn positions(node: &Node, group: GroupId) -> BTreeMap<(PartitionId, Origin), Position> {
    let all = node.data[&group].machine.positions();
    let flat = |(partition, origins): (PartitionId, BTreeMap<Origin, Position>)| {
        origins.into_iter().map(move |(origin, position)| ((partition, origin), position))
    };
    all.into_iter().flat_map(flat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clock_or_a_broken_chain_does_is_recorded_and_what_heals_is_not() {
        let origin = Origin { region: RegionId::new(2), incarnation: 0 };
        let action = |alarm: Alarm| told(&alarm).map(|(action, ..)| action);
        let early = Alarm::FromTheFuture { origin, sequence: 7, ahead_ms: 90_000 };
        assert_eq!(told(&early).unwrap().2, "90000 ms ahead: held until its time has come");
        assert_eq!(action(early), Some("clock.quarantine"));
        assert_eq!(action(Alarm::BrokenChain { origin, sequence: 7 }), Some("replication.refused"));
        assert_eq!(action(Alarm::Hole { origin, expected: 1, found: 2 }), None);
    }
}
