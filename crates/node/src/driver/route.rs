//! What other nodes ask of this one, and which of them may: the peer's region and zone decide.

use crate::driver::proposer::Forwarded;
use crate::driver::{rejoin, serve};
use crate::node::Node;
use async_trait::async_trait;
use bytes::Bytes;
use consensus::Group;
use model::GroupId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use transport::{FrameStream, Handler, Peer, Service};

/// Answers other nodes, once the node it belongs to has started.
#[derive(Default)]
pub struct Router {
    node: std::sync::OnceLock<Weak<Node>>,
    groups: std::sync::OnceLock<Vec<Group>>,
    gates: Mutex<BTreeMap<GroupId, Gate>>,
}

/// What a group's Raft messages may do on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Everything: the ordinary case.
    Open,
    /// Everything but asking for this node's vote.
    Learning,
    /// Nothing.
    Closed,
}

impl Router {
    /// Consensus must answer before the node is whole: groups elect while it starts.
    pub fn groups(&self, groups: Vec<Group>) {
        assert!(self.groups.set(groups).is_ok(), "groups are set once");
    }
    /// From now on everything is answered.
    pub fn node(&self, node: &Arc<Node>) {
        assert!(self.node.set(Arc::downgrade(node)).is_ok(), "the node is set once");
    }
    fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get()?.iter().find(|group| group.id() == id)
    }
    /// Opens or closes a group.
    pub fn gate(&self, group: GroupId, gate: Gate) {
        self.gates.lock().insert(group, gate);
    }
    fn passes(&self, group: GroupId, request: &[u8]) -> bool {
        match self.gates.lock().get(&group).copied().unwrap_or(Gate::Open) {
            Gate::Open => true,
            Gate::Learning => !consensus::asks_for_vote(request),
            Gate::Closed => false,
        }
    }
    fn running(&self) -> Option<Arc<Node>> {
        self.node.get()?.upgrade()
    }
    /// A data group belongs to one region; the control group to all.
    fn may(&self, peer: &Peer, group: GroupId) -> bool {
        group == GroupId::CONTROL || self.running().is_none_or(|node| node.region.id == peer.region)
    }
}

#[async_trait]
impl Handler for Router {
    async fn call(&self, peer: &Peer, service: Service, request: Bytes) -> Option<Bytes> {
        match service {
            Service::Raft => {
                let id =
                    consensus::group_of(&request).filter(|id| self.may(peer, *id) && self.passes(*id, &request))?;
                self.group(id)?.handle_call(peer, request).await
            }
            Service::Propose => {
                let forwarded = Forwarded::decode(&request).filter(|forwarded| self.may(peer, forwarded.group))?;
                let (node, id) = (self.running()?, forwarded.group);
                Some(node.proposer(id)?.answer_forwarded(self.group(id)?, forwarded).await)
            }
            Service::Status => rejoin::answer(self.groups.get()?, &self.running()?, peer, &request).await,
            Service::Snapshot | Service::Pull | Service::ReadIndex => None,
        }
    }

    async fn stream(&self, peer: &Peer, service: Service, mut stream: Box<dyn FrameStream>) {
        match service {
            Service::Snapshot => {
                let Ok(Some(first)) = stream.receive().await else { return };
                let id = consensus::group_of(&first).filter(|id| self.may(peer, *id) && self.passes(*id, &first));
                if let Some(group) = id.and_then(|id| self.group(id)) {
                    group.handle_stream(peer, first, stream).await;
                }
            }
            Service::Pull => {
                if let Some(node) = self.running().filter(|node| node.region.id != peer.region) {
                    serve::serve(node, peer.clone(), stream).await;
                }
            }
            Service::Raft | Service::Propose | Service::ReadIndex | Service::Status => {}
        }
    }
}
