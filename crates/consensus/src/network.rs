//! openraft's network over a [`Link`]: questions to one other member.
//!
//! Appends are pipelined: a few are on their way at once, numbered so that the follower takes them
//! in order. Every call has a deadline.

use crate::gate::Gate;
use crate::load::{Load, answers, load};
use crate::options::{APPENDS_IN_FLIGHT_MAX, GroupOptions, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_IDLE};
use crate::shipment::Shipment;
use crate::types::{Snapshot, Types, Vote};
use crate::wire::{Answer, Offer, Order, Piece, Question, Receipt, Request};
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use model::{GroupId, NodeId, codec};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage::Checkpoint;
use transport::{FrameStream, Link, LinkError, Service};

/// Makes a [`Network`] for each other member.
pub(crate) struct Factory {
    link: Arc<dyn Link>,
    gate: Arc<Gate>,
    group: GroupId,
    node: NodeId,
    append_deadline: Duration,
    sessions: Arc<AtomicU64>,
}

impl Factory {
    pub fn new(options: &GroupOptions, link: Arc<dyn Link>, gate: Arc<Gate>) -> Self {
        Self {
            link,
            gate,
            group: options.group,
            node: options.node,
            // Longer than openraft's own limit (one heartbeat), which a slow sync would exceed.
            append_deadline: Duration::from_millis(options.timing.election_max_ms),
            sessions: Arc::new(AtomicU64::new(0)),
        }
    }

    fn client(&self, target: u64, pipelined: bool) -> Network {
        Network {
            link: Arc::clone(&self.link),
            gate: Arc::clone(&self.gate),
            group: self.group,
            node: self.node.get(),
            target,
            append_deadline: self.append_deadline,
            sessions: pipelined.then(|| Arc::clone(&self.sessions)),
        }
    }
}

impl RaftNetworkFactory<Types> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, _node: &openraft::EmptyNode) -> Network {
        self.client(target, true)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &openraft::EmptyNode) -> Network {
        self.client(target, false)
    }
}

/// Questions to one other member.
pub(crate) struct Network {
    link: Arc<dyn Link>,
    gate: Arc<Gate>,
    group: GroupId,
    node: u64,
    target: u64,
    append_deadline: Duration,
    /// Numbers the series of pipelined appends; `None` sends one at a time.
    sessions: Option<Arc<AtomicU64>>,
}

type Failure = RPCError<Types>;

impl Network {
    fn to(&self) -> NodeId {
        NodeId::new(self.target)
    }

    async fn ask(&self, question: Question, action: RPCTypes, deadline: Duration) -> Result<Answer, Failure> {
        let request = Bytes::from(codec::encode(&Request { group: self.group, body: question }));
        let answer = self.link.call(self.to(), Service::Raft, request, deadline).await;
        let bytes = answer.map_err(|error| self.failure(&error, action, deadline))?;
        codec::decode(&bytes).map_err(|error| NetworkError::new(&error).into())
    }

    fn failure(&self, error: &LinkError, action: RPCTypes, timeout: Duration) -> Failure {
        match error {
            LinkError::Timeout(_) => Timeout { action, id: self.node, target: self.target, timeout }.into(),
            _ => Unreachable::new(error).into(),
        }
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<Types>,
        order: Option<Order>,
        deadline: Duration,
    ) -> Result<AppendEntriesResponse<Types>, Failure> {
        if self.gate.is_shut() {
            return Err(Unreachable::from_string("this leader hears no quorum and keeps silent").into());
        }
        match self.ask(Question::Append { order, request }, RPCTypes::AppendEntries, deadline).await? {
            Answer::Append(response) => Ok(response),
            other => Err(mismatch(&other)),
        }
    }

    /// One append of a series, as openraft wants its outcome.
    async fn append_in_order(
        &self,
        request: AppendEntriesRequest<Types>,
        order: Option<Order>,
        deadline: Duration,
    ) -> Result<StreamAppendResult<Types>, Failure> {
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let response = self.append(request, order, deadline).await?;
        if matches!(response, AppendEntriesResponse::Conflict) {
            // Only the first of a series can really conflict; a later one came before its
            // predecessor, and openraft would take it for a follower that lost its log.
            if order.is_some_and(|order| order.place > 0) || previous.is_none() {
                return Err(NetworkError::from_string("an append overtook its predecessor").into());
            }
        }
        Ok(response.into_stream_result(previous, last))
    }
}

fn mismatch(answer: &Answer) -> Failure {
    NetworkError::from_string(format!("the answer is of another kind: {answer:?}")).into()
}

/// Whether a series goes on after this outcome: only after all of the append was taken.
fn went_through(outcome: &Result<StreamAppendResult<Types>, Failure>) -> bool {
    matches!(outcome, Ok(Ok(_)))
}

impl RaftNetworkV2<Types> for Network {
    type SnapshotData = Shipment;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Failure> {
        self.append(rpc, None, option.soft_ttl()).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, Failure>>, Failure>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let this = &*self;
        let session = this.sessions.as_ref().map(|sessions| sessions.fetch_add(1, Ordering::Relaxed));
        let (in_flight, deadline) = match session {
            Some(_) => (APPENDS_IN_FLIGHT_MAX, this.append_deadline),
            None => (1, option.soft_ttl()),
        };
        let appends = load(input).enumerate().map(move |(place, loaded)| {
            let order = session.map(|session| Order { session, place: place as u64 });
            let Load { request, riders } = loaded;
            let previous = request.prev_log_id;
            this.append_in_order(request, order, deadline).map(move |outcome| answers(riders, previous, outcome))
        });
        let outcomes = appends.buffered(in_flight).flat_map(futures::stream::iter).scan(false, |ended, outcome| {
            let item = if *ended { None } else { Some(outcome) };
            *ended = !item.as_ref().is_some_and(went_through);
            std::future::ready(item)
        });
        let outcomes: BoxStream<'s, _> = Box::pin(outcomes);
        std::future::ready(Ok(outcomes)).boxed()
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, Failure> {
        match self.ask(Question::Vote(rpc), RPCTypes::Vote, option.soft_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            other => Err(mismatch(&other)),
        }
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, Failure> {
        match self.ask(Question::PreVote(rpc), RPCTypes::Vote, option.soft_ttl()).await? {
            Answer::PreVote(response) => Ok(response),
            other => Err(mismatch(&other)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Failure> {
        match self.ask(Question::Transfer(req), RPCTypes::TransferLeader, option.soft_ttl()).await? {
            Answer::Transfer(response) => Ok(response),
            other => Err(mismatch(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Shipment::Local(checkpoint) = snapshot.snapshot else {
            return Err(NetworkError::from_string("a snapshot that is still arriving cannot be sent").into());
        };
        let files = checkpoint.files().map_err(|error| NetworkError::new(&error))?;
        let offer = Offer { group: self.group, vote, meta: snapshot.meta, files };
        let shipping = self.ship(offer, checkpoint);
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            vote = shipping => vote.map(SnapshotResponse::new),
        }
    }
}

impl Network {
    /// Offers a checkpoint, sends what the receiver lacks, and waits until it is installed.
    async fn ship(&self, offer: Offer, checkpoint: Arc<dyn Checkpoint>) -> Result<Vote, StreamingError<Types>> {
        let unreachable = |error: LinkError| StreamingError::from(Unreachable::new(&error));
        let mut frames = self.link.open(self.to(), Service::Snapshot).await.map_err(unreachable)?;
        self.send(&mut *frames, codec::encode(&offer)).await?;
        let wanted = match self.receipt(&mut *frames).await? {
            Receipt::Want(wanted) => wanted,
            Receipt::Done(vote) => return Ok(vote),
        };
        for file in wanted {
            let Some(meta) = offer.files.get(file as usize) else {
                return Err(NetworkError::from_string("the receiver wants a file that was not offered").into());
            };
            let mut offset = 0;
            while offset < meta.size_bytes {
                let bytes = checkpoint.read(&meta.name, offset, SNAPSHOT_CHUNK_BYTES);
                let bytes = bytes.map_err(|error| NetworkError::new(&error))?;
                if bytes.is_empty() {
                    return Err(NetworkError::from_string("a file of the checkpoint is too short").into());
                }
                offset += bytes.len() as u64;
                self.send(&mut *frames, codec::encode(&Piece { file, bytes: bytes.into() })).await?;
            }
        }
        match self.receipt(&mut *frames).await? {
            Receipt::Done(vote) => Ok(vote),
            Receipt::Want(_) => Err(NetworkError::from_string("the receiver asked twice").into()),
        }
    }

    async fn send(&self, frames: &mut dyn FrameStream, frame: Vec<u8>) -> Result<(), StreamingError<Types>> {
        match tokio::time::timeout(SNAPSHOT_IDLE, frames.send(frame.into())).await {
            Ok(sent) => sent.map_err(|error| Unreachable::new(&error).into()),
            Err(_) => Err(self.idle()),
        }
    }

    async fn receipt(&self, frames: &mut dyn FrameStream) -> Result<Receipt, StreamingError<Types>> {
        let frame = match tokio::time::timeout(SNAPSHOT_IDLE, frames.receive()).await {
            Ok(frame) => frame.map_err(|error| StreamingError::from(Unreachable::new(&error)))?,
            Err(_) => return Err(self.idle()),
        };
        let frame =
            frame.ok_or_else(|| StreamingError::from(Unreachable::from_string("the receiver refused the snapshot")))?;
        codec::decode(&frame).map_err(|error| NetworkError::new(&error).into())
    }

    fn idle(&self) -> StreamingError<Types> {
        let action = RPCTypes::InstallSnapshot;
        Timeout { action, id: self.node, target: self.target, timeout: SNAPSHOT_IDLE }.into()
    }
}
