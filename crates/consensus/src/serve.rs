//! What a group answers to its other members.
//!
//! Nothing a peer says is believed about who it is: a message that speaks for another node than the
//! peer's certificate does is refused.

use crate::options::SNAPSHOT_IDLE;
use crate::shipment::{Shipment, blocking, is_acceptable};
use crate::types::{Raft, Snapshot, Types, Vote};
use crate::wire::{Answer, Offer, Order, Piece, Question, Receipt, Request};
use bytes::Bytes;
use futures::poll;
use model::{GroupId, NodeId, codec};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::task::Poll;
use std::time::Duration;
use storage::Space;
use tokio::sync::watch;
use tokio::time::Instant;
use transport::{FrameStream, Peer};

/// How long an append waits for the one before it.
const ORDER_WAIT: Duration = Duration::from_millis(20);
/// Members whose order is remembered.
const LANES_MAX: usize = 64;

/// The order in which each peer's appends have been taken, and when the last one of a leader came.
#[derive(Default)]
pub(crate) struct Lanes {
    lanes: Mutex<BTreeMap<NodeId, watch::Sender<Lane>>>,
    heard: Mutex<Option<Instant>>,
}

/// Which append is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lane {
    session: u64,
    next: u64,
}

impl Lanes {
    fn of(&self, peer: NodeId) -> watch::Sender<Lane> {
        let mut lanes = self.lanes.lock();
        if lanes.len() >= LANES_MAX && !lanes.contains_key(&peer) {
            // Order is an optimisation: forgetting it costs a repeated append.
            lanes.clear();
        }
        lanes.entry(peer).or_default().clone()
    }

    /// When a leader was last heard.
    pub fn heard(&self) -> Option<Instant> {
        *self.heard.lock()
    }

    /// Waits, for a moment at most, until the appends before this one have been taken.
    async fn wait(lane: &watch::Sender<Lane>, order: Order) {
        if order.place == 0 {
            return;
        }
        let mut receiver = lane.subscribe();
        let is_next = |lane: &Lane| lane.session == order.session && lane.next >= order.place;
        // After the wait openraft finds out by itself what is missing.
        let _ = tokio::time::timeout(ORDER_WAIT, receiver.wait_for(is_next)).await;
    }

    fn taken(lane: &watch::Sender<Lane>, order: Order) {
        lane.send_replace(Lane { session: order.session, next: order.place + 1 });
    }
}

/// Answers one question; `None` refuses it.
pub(crate) async fn answer(raft: &Raft, group: GroupId, lanes: &Lanes, peer: &Peer, request: &[u8]) -> Option<Bytes> {
    let request: Request = codec::decode(request).ok()?;
    if request.group != group || !speaks_for_itself(&request.body, peer) {
        return None;
    }
    let answer = match request.body {
        Question::Append { order, request } => {
            let response = append(raft, lanes, peer, order, request).await?;
            // Whatever became of its entries: unless there is a later leader, this one lives.
            if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                *lanes.heard.lock() = Some(Instant::now());
            }
            Answer::Append(response)
        }
        Question::Vote(request) => Answer::Vote(raft.vote(request).await.ok()?),
        Question::PreVote(request) => Answer::PreVote(raft.pre_vote(request).await.ok()?),
        Question::Transfer(request) => Answer::Transfer(raft.handle_transfer_leader(request).await.ok()?),
    };
    Some(codec::encode(&answer).into())
}

fn speaks_for_itself(question: &Question, peer: &Peer) -> bool {
    let vote = match question {
        Question::Append { request, .. } => {
            // What openraft relies on without checking: entries follow each other.
            let mut expected = request.prev_log_id.map_or(0, |previous| previous.index() + 1);
            let consecutive = request.entries.iter().all(|entry| {
                let fits = entry.log_id.index() == expected;
                expected += 1;
                fits
            });
            if !consecutive || !request.vote.is_committed() {
                return false;
            }
            &request.vote
        }
        Question::Vote(request) | Question::PreVote(request) => &request.vote,
        Question::Transfer(request) => request.from_leader(),
    };
    vote_is_of(vote, peer)
}

fn vote_is_of(vote: &Vote, peer: &Peer) -> bool {
    vote.leader_id().voted_for == peer.node.get()
}

async fn append(
    raft: &Raft,
    lanes: &Lanes,
    peer: &Peer,
    order: Option<Order>,
    request: AppendEntriesRequest<Types>,
) -> Option<AppendEntriesResponse<Types>> {
    let Some(order) = order else { return raft.append_entries(request).await.ok() };
    let lane = lanes.of(peer.node);
    Lanes::wait(&lane, order).await;
    let mut appending = Box::pin(raft.append_entries(request));
    // The first poll hands the append to openraft; its successor may come while this one waits for
    // the disk.
    let polled = poll!(appending.as_mut());
    Lanes::taken(&lane, order);
    match polled {
        Poll::Ready(response) => response.ok(),
        Poll::Pending => appending.await.ok(),
    }
}

/// Receives a snapshot whose offer has arrived. Any error just ends the stream: the leader tries
/// again, and what has arrived is dropped.
pub(crate) async fn receive_snapshot(
    raft: &Raft,
    space: &dyn Space,
    group: GroupId,
    peer: &Peer,
    offer: &[u8],
    frames: &mut dyn FrameStream,
) {
    let Ok(offer) = codec::decode::<Offer>(offer) else { return };
    if offer.group != group
        || !offer.vote.is_committed()
        || !vote_is_of(&offer.vote, peer)
        || !is_acceptable(&offer.files)
    {
        tracing::warn!(%group, peer = %peer.node, "a snapshot was refused");
        return;
    }
    match receive_files(space, &offer, frames).await {
        Ok(shipment) => {
            let snapshot = Snapshot { meta: offer.meta, snapshot: shipment };
            match raft.install_full_snapshot(offer.vote, snapshot).await {
                Ok(response) => send(frames, &Receipt::Done(response.vote)).await.unwrap_or_default(),
                Err(error) => tracing::error!(%group, %error, "a snapshot was not installed"),
            }
        }
        Err(reason) => tracing::warn!(%group, peer = %peer.node, reason, "a snapshot did not arrive"),
    }
}

async fn receive_files(
    space: &dyn Space,
    offer: &Offer,
    frames: &mut dyn FrameStream,
) -> Result<Shipment, &'static str> {
    let disk = |_: std::io::Error| "the disk failed";
    let mut install = blocking(|| space.install()).map_err(disk)?;
    let mut wanted = Vec::new();
    for (place, file) in offer.files.iter().enumerate() {
        if !blocking(|| install.has(file)).map_err(disk)? {
            // An empty file exists too, and no piece will come for it.
            install.append(&file.name, &[]).map_err(disk)?;
            wanted.push(u32::try_from(place).map_err(|_| "too many files")?);
        }
    }
    send(frames, &Receipt::Want(wanted.clone())).await?;
    for place in wanted {
        let file = &offer.files[place as usize];
        let mut missing = file.size_bytes;
        while missing > 0 {
            let frame = tokio::time::timeout(SNAPSHOT_IDLE, frames.receive()).await;
            let frame = frame.map_err(|_| "the sender fell silent")?.map_err(|_| "the link failed")?;
            let piece: Piece =
                codec::decode(&frame.ok_or("the sender stopped")?).map_err(|_| "a piece does not decode")?;
            let length = piece.bytes.len() as u64;
            if piece.file != place || length == 0 || length > missing {
                return Err("a piece is not the one that was expected");
            }
            blocking(|| install.append(&file.name, &piece.bytes)).map_err(disk)?;
            missing -= length;
        }
    }
    Ok(Shipment::Received { install, files: offer.files.clone() })
}

async fn send(frames: &mut dyn FrameStream, receipt: &Receipt) -> Result<(), &'static str> {
    let sending = frames.send(codec::encode(receipt).into());
    tokio::time::timeout(SNAPSHOT_IDLE, sending)
        .await
        .map_err(|_| "the sender fell silent")?
        .map_err(|_| "the link failed")
}
