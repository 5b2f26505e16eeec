//! What other nodes ask of this one, and which of them may: the peer's region and zone decide.

use crate::driver::{proposer, serve};
use crate::node::Node;
use async_trait::async_trait;
use bytes::Bytes;
use consensus::Group;
use model::GroupId;
use std::sync::{Arc, Weak};
use transport::{FrameStream, Handler, Peer, Service};

/// Answers other nodes, once the node it belongs to has started.
#[derive(Default)]
pub struct Router {
    node: std::sync::OnceLock<Weak<Node>>,
    groups: std::sync::OnceLock<Vec<Group>>,
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
                let id = consensus::group_of(&request).filter(|id| self.may(peer, *id))?;
                self.group(id)?.handle_call(peer, request).await
            }
            Service::Propose => {
                let id = proposer::forwarded_group(&request).filter(|id| self.may(peer, *id))?;
                let node = self.running()?;
                proposer::answer_forwarded(self.group(id)?, &node.world, &request).await
            }
            Service::Snapshot | Service::Pull | Service::ReadIndex | Service::Status => None,
        }
    }

    async fn stream(&self, peer: &Peer, service: Service, mut stream: Box<dyn FrameStream>) {
        match service {
            Service::Snapshot => {
                let Ok(Some(first)) = stream.receive().await else { return };
                let id = consensus::group_of(&first).filter(|id| self.may(peer, *id));
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
