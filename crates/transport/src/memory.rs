//! A network in memory, for tests and for the simulator: the same door as QUIC, with a world that can be made bad.
//!
//! Deterministic on a current-thread runtime with a paused clock: one seeded generator, ordered containers, no
//! clock but Tokio's. It must never be faster, safer or more talkative than QUIC is allowed to be: a lost message
//! is silence until the deadline, and a dead process says nothing.

mod stream;

use crate::link::{FRAME_BYTES_MAX, FrameStream, Handler, Link, LinkError, Peer, Service};
use async_trait::async_trait;
use bytes::Bytes;
use model::NodeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// After so long without a path a connection is given up, as over QUIC.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(6);
/// How long it takes to find that no connection can be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What one direction between two nodes does to a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// The least time on the way.
    pub delay: Duration,
    /// Up to so much is added at random to each message: calls overtake one another, frames of a stream do not.
    pub jitter: Duration,
    /// How many of a million messages are lost. A lost frame of a stream is sent again and only arrives later.
    pub loss_ppm: u32,
}

/// The quality of the network, asked for each message.
pub trait Conditions: Send + Sync + 'static {
    /// The leg a message takes that leaves now.
    fn leg(&self, from: NodeId, to: NodeId) -> Leg;
}

impl<F: Fn(NodeId, NodeId) -> Leg + Send + Sync + 'static> Conditions for F {
    fn leg(&self, from: NodeId, to: NodeId) -> Leg {
        self(from, to)
    }
}

/// What the network has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages and frames sent.
    pub sent: u64,
    /// Of these, how many were lost by chance.
    pub lost: u64,
    /// Bytes of bodies and frames sent.
    pub sent_bytes: u64,
}

/// The network that nodes join. Clones are the same network.
#[derive(Clone)]
pub struct MemoryNetwork {
    world: Arc<World>,
}

impl MemoryNetwork {
    /// A perfect network; `seed` decides what chance does when conditions are worse.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: seed,
            conditions: Arc::new(|_: NodeId, _: NodeId| Leg::default()),
            cuts: BTreeMap::new(),
            seats: BTreeMap::new(),
            traffic: Traffic::default(),
        };
        Self { world: Arc::new(World { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// A node starts (again): an earlier life of it is dead, and what it sent or awaits is dropped.
    pub fn join(&self, peer: Peer) -> Arc<MemoryLink> {
        let seat = Arc::new(Seat {
            peer,
            ended: Mutex::new(None),
            handler: Mutex::new(None),
            tasks: Mutex::new(JoinSet::new()),
        });
        let earlier = self.world.state().seats.insert(seat.peer.node, seat.clone());
        if let Some(earlier) = earlier {
            earlier.end(false);
        }
        self.world.changed.notify_waiters();
        Arc::new(MemoryLink { world: self.world.clone(), seat })
    }

    /// The process is gone, without a word to anyone; its handler's tasks are aborted.
    pub fn kill(&self, node: NodeId) {
        let seat = self.world.state().seats.get(&node).cloned();
        if let Some(seat) = seat {
            seat.end(false);
            self.world.changed.notify_waiters();
        }
    }

    /// From now on the network behaves like this.
    pub fn set_conditions(&self, conditions: impl Conditions) {
        self.world.state().conditions = Arc::new(conditions);
    }

    /// Nothing arrives from one node at the other, until healed; what is on the way is lost.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.world.state().cuts.entry((from, to)).or_insert_with(Instant::now);
        self.world.changed.notify_waiters();
    }

    /// Cuts every pair across two sets, in both directions.
    pub fn partition(&self, one: &[NodeId], other: &[NodeId]) {
        for (&a, &b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    /// Undoes [`Self::cut`].
    pub fn heal(&self, from: NodeId, to: NodeId) {
        self.world.state().cuts.remove(&(from, to));
        self.world.changed.notify_waiters();
    }

    /// Undoes every cut.
    pub fn heal_all(&self) {
        self.world.state().cuts.clear();
        self.world.changed.notify_waiters();
    }

    /// What was carried so far.
    pub fn traffic(&self) -> Traffic {
        self.world.state().traffic
    }
}

/// One node's door to a [`MemoryNetwork`].
pub struct MemoryLink {
    world: Arc<World>,
    seat: Arc<Seat>,
}

impl MemoryLink {
    async fn unreachable(to: NodeId, end: Instant) -> LinkError {
        sleep_until(end.min(Instant::now() + CONNECT_TIMEOUT)).await;
        LinkError::Unreachable(to)
    }
}

#[async_trait]
impl Link for MemoryLink {
    async fn call(&self, to: NodeId, service: Service, request: Bytes, deadline: Duration) -> Result<Bytes, LinkError> {
        if request.len() > FRAME_BYTES_MAX {
            return Err(LinkError::TooLarge { size_bytes: request.len() });
        }
        let end = Instant::now() + deadline;
        let Some((callee, handler)) = self.world.route(&self.seat, to) else {
            return Err(Self::unreachable(to, end).await);
        };
        let (answer, answered) = oneshot::channel();
        if let Some(delay) = self.world.fate(self.seat.peer.node, to, request.len()) {
            let carried =
                carry(self.world.clone(), self.seat.clone(), callee.clone(), delay, async move |peer: &Peer| {
                    handler.call(peer, service, request).await
                });
            callee.spawn(async move {
                if let Some(result) = carried.await {
                    let _ = answer.send(result);
                }
            });
        }
        match timeout_at(end, answered).await {
            Ok(Ok(result)) => result.map_err(|refusal| match refusal {
                Refusal::Refused => LinkError::Refused(to),
                Refusal::TooLarge(size_bytes) => LinkError::TooLarge { size_bytes },
            }),
            Ok(Err(_)) => {
                sleep_until(end).await;
                Err(LinkError::Timeout(to))
            }
            Err(_) => Err(LinkError::Timeout(to)),
        }
    }

    async fn open(&self, to: NodeId, service: Service) -> Result<Box<dyn FrameStream>, LinkError> {
        let route = self.world.route(&self.seat, to).filter(|(callee, _)| self.world.is_up(&self.seat, callee));
        let Some((callee, handler)) = route else {
            return Err(Self::unreachable(to, Instant::now() + CONNECT_TIMEOUT).await);
        };
        let (ours, theirs) = stream::pair(self.world.clone(), self.seat.clone(), callee.clone());
        let peer = self.seat.peer.clone();
        callee.spawn(async move {
            if theirs.arrived().await {
                handler.stream(&peer, service, Box::new(theirs)).await;
            }
        });
        Ok(Box::new(ours))
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        *self.seat.handler.lock().expect("no holder panics") = Some(handler);
    }

    async fn close(&self) {
        self.seat.end(true);
        self.world.changed.notify_waiters();
    }
}

enum Refusal {
    Refused,
    TooLarge(usize),
}

/// Takes a call there, and its answer back; `None` when either was lost on the way.
async fn carry(
    world: Arc<World>,
    caller: Arc<Seat>,
    callee: Arc<Seat>,
    delay: Duration,
    handle: impl AsyncFnOnce(&Peer) -> Option<Bytes>,
) -> Option<Result<Bytes, Refusal>> {
    let (from, to) = (caller.peer.node, callee.peer.node);
    sleep(delay).await;
    if !world.passes(&caller, &callee) {
        return None;
    }
    let answer = match handle(&caller.peer).await {
        Some(answer) if answer.len() > FRAME_BYTES_MAX => Err(Refusal::TooLarge(answer.len())),
        Some(answer) => Ok(answer),
        None => Err(Refusal::Refused),
    };
    let delay = world.fate(to, from, answer.as_ref().map_or(0, Bytes::len))?;
    sleep(delay).await;
    world.passes(&callee, &caller).then_some(answer)
}

/// One life of a node.
struct Seat {
    peer: Peer,
    ended: Mutex<Option<Ended>>,
    handler: Mutex<Option<Arc<dyn Handler>>>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Clone, Copy)]
struct Ended {
    at: Instant,
    /// It closed its connections; otherwise others must find out.
    told: bool,
}

impl Seat {
    fn end(&self, told: bool) {
        self.ended.lock().expect("no holder panics").get_or_insert_with(|| Ended { at: Instant::now(), told });
        let handler = self.handler.lock().expect("no holder panics").take();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder panics"));
        tasks.abort_all();
        drop(handler);
    }

    fn ended(&self) -> Option<Ended> {
        *self.ended.lock().expect("no holder panics")
    }

    /// Runs a task of this node. A handler that panicked is a finding: it panics here instead of passing unseen.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if self.ended().is_some() {
            return;
        }
        let mut panicked = None;
        {
            let mut tasks = self.tasks.lock().expect("no holder panics");
            while let Some(done) = tasks.try_join_next() {
                panicked = done.err().and_then(|error| error.try_into_panic().ok()).or(panicked);
            }
            tasks.spawn(task);
        }
        if let Some(panic) = panicked {
            std::panic::resume_unwind(panic);
        }
    }
}

struct State {
    random: u64,
    conditions: Arc<dyn Conditions>,
    cuts: BTreeMap<(NodeId, NodeId), Instant>,
    seats: BTreeMap<NodeId, Arc<Seat>>,
    traffic: Traffic,
}

impl State {
    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

struct World {
    state: Mutex<State>,
    /// Told after each cut, heal, start and end.
    changed: Notify,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Who answers at `to`, when a connection to it exists or can be made.
    fn route(&self, from: &Arc<Seat>, to: NodeId) -> Option<(Arc<Seat>, Arc<dyn Handler>)> {
        let callee = self.state().seats.get(&to).filter(|callee| !Arc::ptr_eq(callee, from))?.clone();
        if from.ended().is_some() || callee.ended().is_some() {
            return None;
        }
        if self.gives_up_at(from, &callee).is_some_and(|at| at <= Instant::now()) {
            return None;
        }
        let handler = callee.handler.lock().expect("no holder panics").clone()?;
        Some((callee, handler))
    }

    /// How long a message that leaves now is on its way; `None` when it is lost.
    fn fate(&self, from: NodeId, to: NodeId, size_bytes: usize) -> Option<Duration> {
        let (delay, lost) = self.chance(from, to, size_bytes);
        (!lost).then_some(delay)
    }

    fn chance(&self, from: NodeId, to: NodeId, size_bytes: usize) -> (Duration, bool) {
        let mut state = self.state();
        let leg = state.conditions.clone().leg(from, to);
        let lost = leg.loss_ppm > 0 && state.draw() % 1_000_000 < u64::from(leg.loss_ppm);
        let jitter_us = u64::try_from(leg.jitter.as_micros()).unwrap_or(u64::MAX - 1);
        let extra = if jitter_us == 0 { 0 } else { state.draw() % (jitter_us + 1) };
        state.traffic.sent += 1;
        state.traffic.lost += u64::from(lost);
        state.traffic.sent_bytes += size_bytes as u64;
        (leg.delay + Duration::from_micros(extra), lost)
    }

    /// Whether a message that arrives now is let in.
    fn passes(&self, from: &Seat, to: &Seat) -> bool {
        let cut = self.state().cuts.contains_key(&(from.peer.node, to.peer.node));
        !cut && from.ended().is_none() && to.ended().is_none()
    }

    fn is_up(&self, one: &Seat, other: &Seat) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// When the connection between two lives breaks, if nothing changes; `None` while it is well.
    fn gives_up_at(&self, one: &Seat, other: &Seat) -> Option<Instant> {
        let (a, b) = (one.peer.node, other.peer.node);
        let cuts = {
            let state = self.state();
            [state.cuts.get(&(a, b)).copied(), state.cuts.get(&(b, a)).copied()]
        };
        let cut = cuts.into_iter().flatten().min().map(|since| since + IDLE_TIMEOUT);
        let ended = |seat: &Seat| seat.ended().map(|end| if end.told { end.at } else { end.at + IDLE_TIMEOUT });
        [cut, ended(one), ended(other)].into_iter().flatten().min()
    }
}
