//! What an inbox is told, hears and asks for.

use crate::wire::{Answer, Ask};
use crate::{Change, Position};
use model::{GroupId, NodeId, Origin, PartitionId, RegionId};

/// What an inbox is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its group.
    pub group: GroupId,
    /// This region's present life.
    pub home: Origin,
    /// The region it pulls from.
    pub peer: RegionId,
    /// The peer's nodes, at least one: any of them can serve.
    pub nodes: Vec<NodeId>,
    /// The whole credit, in units of [`Change::weight`].
    pub window: u64,
    /// How far clocks may differ, in milliseconds.
    pub skew_ms_max: u64,
    /// How long a third region's own source may be down before this peer is asked to relay, in milliseconds.
    pub relay_after_ms: u64,
    /// The first wait before a new attempt, in milliseconds; doubles up to `reconnect_ms_max`.
    pub reconnect_ms_min: u64,
    /// The longest wait before a new attempt, in milliseconds.
    pub reconnect_ms_max: u64,
}

impl Config {
    /// With the usual bounds.
    pub fn new(group: GroupId, home: Origin, peer: RegionId, nodes: Vec<NodeId>) -> Self {
        Self {
            group,
            home,
            peer,
            nodes,
            window: 8 * 1024 * 1024,
            skew_ms_max: 500,
            relay_after_ms: 2_000,
            reconnect_ms_min: 50,
            reconnect_ms_max: 2_000,
        }
    }
}

/// The moment of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// For stamps. May jump.
    pub wall_ms: u64,
    /// For deadlines. Never goes back.
    pub monotonic_ms: u64,
}

/// What a link is doing. It never just stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Connected, and lacking at most [`super::LIVE_LAG_MAX`] changes.
    Live,
    /// Not connected, or lacking more.
    Lagging,
    /// The peer no longer keeps what is missing; a snapshot was asked for.
    NeedsSnapshot,
    /// A snapshot is being merged.
    Bootstrapping,
    /// A change from the future is held; the others pass.
    ClockQuarantine,
    /// The peer is fenced: nothing is pulled.
    Fenced,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The stream asked for by [`Effect::Open`] is open.
    Connected,
    /// It could not be opened, or has ended.
    Disconnected,
    /// The peer said something.
    Answer(Answer),
    /// Positions that moved, by whatever way: this link, another link, or a local write.
    Committed(Vec<(PartitionId, Origin, Position)>),
    /// A proposal is over; what it committed came before as [`Input::Committed`].
    Settled {
        /// Which.
        batch: u64,
    },
    /// This region's own link to a third region works.
    SourceUp(RegionId),
    /// This region's own link to a third region does not work.
    SourceDown(RegionId),
    /// The merge of a snapshot has begun.
    BootstrapBegan,
    /// It is done; what it brought came before as [`Input::Committed`]. Also when it failed.
    BootstrapEnded,
    /// The control plane fenced the peer.
    Fence,
    /// The control plane admits the peer again.
    Unfence,
    /// A deadline has come.
    Tick,
}

/// What the driver has to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open a stream to this node; answer with `Connected` or `Disconnected`.
    Open(NodeId),
    /// Close the stream. No `Disconnected` is expected; one that comes is harmless.
    Close,
    /// Send on the stream.
    Send(Ask),
    /// Propose to the group; answer with `Settled`. One at a time.
    Propose {
        /// To be named by `Settled`.
        batch: u64,
        /// In causal order.
        changes: Vec<Change>,
    },
    /// Fetch and merge a snapshot of this partition from the peer; answer with the bootstrap inputs.
    FetchSnapshot(PartitionId),
    /// Tell people.
    Alarm(Alarm),
}

/// What people should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A change does not continue its origin's sequence.
    Hole {
        /// Whose.
        origin: Origin,
        /// What should have come.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A change does not continue its origin's chain: damage, or two histories.
    BrokenChain {
        /// Whose.
        origin: Origin,
        /// Which change.
        sequence: u64,
    },
    /// A change breaks the rules of changes, or came uninvited.
    BadChange {
        /// Whose.
        origin: Origin,
        /// Which change.
        sequence: u64,
    },
    /// The peer sent more than it was given credit for.
    CreditExceeded,
    /// A change is from further in the future than clocks may differ.
    FromTheFuture {
        /// Whose.
        origin: Origin,
        /// Which change.
        sequence: u64,
        /// How far ahead, in milliseconds.
        ahead_ms: u64,
    },
    /// A proposal ended without committing all of its changes.
    NotCommitted,
}
