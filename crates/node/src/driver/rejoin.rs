//! Bringing back a node that lost its disk: out of each group, then in again as a learner, then a voter.
//!
//! Such a node has forgotten what it acknowledged and whom it voted for. Until its groups have let
//! it go it hears nothing of Raft; until it has caught up it gives no vote.

use crate::driver::route::{Gate, Router};
use crate::node::Node;
use bytes::Bytes;
use consensus::{ChangeError, Group};
use model::codec::{decode, encode};
use model::{GroupId, NodeId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use transport::{Peer, Service};

/// How long one step of a group may take: catching up is one.
const STEP_WAIT: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(500);

/// What a node asks of a group's leader, about itself only.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ask {
    group: GroupId,
    step: Step,
}

/// In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// "Do not count on me."
    Leave,
    /// "Send me everything, then count on me."
    Return,
}

/// What the leader, or whoever was asked instead, answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    Done,
    NotLeader(Option<NodeId>),
    Failed(String),
}

/// Brings this node back into each of its groups, one after the other. Returns when all count on it again.
pub async fn rejoin(node: &Node, router: &Router) {
    let groups = node.data.values().map(|data| &data.group).chain([&node.control.group]);
    for group in groups {
        let id = group.id();
        router.gate(id, Gate::Closed);
        until_done(node, id, Step::Leave).await;
        router.gate(id, Gate::Learning);
        until_done(node, id, Step::Return).await;
        router.gate(id, Gate::Open);
        tracing::info!(group = %id, "this node is back in the group");
    }
}

async fn until_done(node: &Node, group: GroupId, step: Step) {
    let everyone = group == GroupId::CONTROL;
    let peers: Vec<NodeId> = node
        .cluster
        .nodes()
        .filter(|(region, peer)| peer.id != node.place.id && (everyone || region.id == node.region.id))
        .map(|(_, peer)| peer.id)
        .collect();
    let mut turn = 0;
    let mut hint = None;
    loop {
        let Some(to) = hint.take().or_else(|| peers.get(turn % peers.len().max(1)).copied()) else { return };
        turn += 1;
        let request = encode(&Ask { group, step });
        let answer = node.world.link.call(to, Service::Status, request.into(), STEP_WAIT).await;
        match answer.ok().and_then(|bytes| decode::<Answer>(&bytes).ok()) {
            Some(Answer::Done) => return,
            Some(Answer::NotLeader(leader)) => hint = leader.filter(|leader| *leader != node.place.id && *leader != to),
            Some(Answer::Failed(reason)) => tracing::warn!(%group, ?step, reason, "not yet"),
            None => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Answers a node that wants to come back; it can only ask for itself.
pub async fn answer(groups: &[Group], node: &Arc<Node>, peer: &Peer, request: &[u8]) -> Option<Bytes> {
    let ask: Ask = decode(request).ok()?;
    if ask.group != GroupId::CONTROL && peer.region != node.region.id {
        return None;
    }
    let group = groups.iter().find(|group| group.id() == ask.group)?;
    let answer =
        if group.is_leader() { change(group, peer.node, ask.step).await } else { Answer::NotLeader(group.leader()) };
    Some(encode(&answer).into())
}

async fn change(group: &Group, node: NodeId, step: Step) -> Answer {
    let status = group.status();
    let mut voters = status.voters;
    let changed = match step {
        Step::Leave if !voters.contains(&node) && !status.learners.contains(&node) => Ok(()),
        Step::Leave => {
            voters.remove(&node);
            group.change_members(&voters).await
        }
        Step::Return if voters.contains(&node) => Ok(()),
        Step::Return => match group.add_learner(node).await {
            Ok(()) => {
                voters.insert(node);
                group.change_members(&voters).await
            }
            Err(error) => Err(error),
        },
    };
    match changed {
        Ok(()) => Answer::Done,
        Err(ChangeError::NotLeader { leader }) => Answer::NotLeader(leader),
        Err(other) => Answer::Failed(other.to_string()),
    }
}
