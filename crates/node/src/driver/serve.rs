//! Serves another region's pull: sends what it lacks within its credit, and keeps what it acknowledges.

use crate::machine::command::Command;
use crate::node::Node;
use model::{GroupId, RegionId};
use replication::serve::{Next, Serve};
use replication::wire::{Answer, Ask, Vectors};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use transport::{FrameStream, Peer};

/// How often the receiver is told how far this source is, when it moves.
const HEADS_EVERY: Duration = Duration::from_millis(200);
/// Acknowledgements waiting to be made durable; later ones join the earlier.
const ACKS_MAX: usize = 64;

/// Serves one stream until it ends.
pub async fn serve(node: Arc<Node>, peer: Peer, stream: Box<dyn FrameStream>) {
    let (mut sink, mut source) = stream.split();
    let mut serving = Serve::new(node.region.id, peer.region);
    let Ok(Some(first)) = source.receive().await else { return };
    let Some(durable) = ask(&mut serving, &first) else { return };
    let Some(group) = serving.group().filter(|group| node.data.contains_key(group)) else { return };
    let (acks, acknowledged) = mpsc::channel(ACKS_MAX);
    let keeping = keep(Arc::clone(&node), group, peer.region, acknowledged);
    let sending = async {
        let machine = &node.data[&group].machine;
        let (mut applied, mut control) = (machine.changes(), node.control.machine.changes());
        let mut told: Option<Vectors> = None;
        let mut tell_at = tokio::time::Instant::now();
        if let Some(durable) = durable {
            let _ = acks.send(durable).await;
        }
        loop {
            let heads = machine.vectors();
            let next = next(&node, group, &mut serving, &heads);
            let answer = match next {
                Some(Next::Changes(changes)) => Some(Answer::Changes(changes)),
                Some(Next::Truncated { partition, origin }) => Some(Answer::Truncated { partition, origin }),
                Some(Next::Idle | Next::NoCredit) | None => None,
            };
            let waits = answer.is_none();
            if let Some(answer) = answer
                && sink.send(answer.encode().into()).await.is_err()
            {
                return;
            }
            let is_told = told.as_ref() == Some(&heads);
            if !is_told && tokio::time::Instant::now() >= tell_at {
                tell_at = tokio::time::Instant::now() + HEADS_EVERY;
                if sink.send(Answer::Heads(heads.clone()).encode().into()).await.is_err() {
                    return;
                }
                told = Some(heads);
                continue;
            }
            tokio::select! {
                biased;
                // Asks are heard while there is something to send too: acknowledgements must not wait for the end.
                frame = source.receive() => {
                    let Ok(Some(frame)) = frame else { return };
                    let Some(durable) = ask(&mut serving, &frame) else { return };
                    if let Some(durable) = durable
                        && acks.send(durable).await.is_err()
                    {
                        return;
                    }
                }
                changed = applied.changed() => if changed.is_err() { return },
                changed = control.changed() => if changed.is_err() { return },
                () = std::future::ready(()), if !waits => {}
                () = tokio::time::sleep_until(tell_at), if !is_told => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = sending => {}
        () = keeping => {}
    }
}

/// Takes a message; none when the stream breaks the protocol and must end.
fn ask(serving: &mut Serve, frame: &[u8]) -> Option<Option<Vectors>> {
    let ask =
        Ask::decode(frame).inspect_err(|error| tracing::warn!(%error, "a region asked something unreadable")).ok()?;
    serving.ask(ask).inspect_err(|error| tracing::warn!(%error, "a region broke the protocol")).ok()
}

/// What to send now; none while a tenant is not known here yet, because where its data may be is not either.
fn next(node: &Node, group: GroupId, serving: &mut Serve, heads: &Vectors) -> Option<Next> {
    let machine = &node.data[&group].machine;
    let control = node.control();
    let unknown = Cell::new(false);
    let mut attempt = serving.clone();
    let next = attempt.next(
        heads,
        |partition, origin, sequence| match machine.changes_after(partition, origin, sequence - 1, 1) {
            Ok(changes) => changes.into_iter().next().filter(|change| change.header.sequence == sequence),
            Err(error) => {
                tracing::error!(%error, "a change record cannot be read");
                None
            }
        },
        |tenant, region| match control.tenants.get(&tenant) {
            Some(tenant) => tenant.allows(region),
            None => {
                unknown.set(true);
                false
            }
        },
    );
    if unknown.get() {
        return None;
    }
    *serving = attempt;
    Some(next)
}

/// Makes acknowledgements known to the whole region, through its log: one proposal at a time.
async fn keep(node: Arc<Node>, group: GroupId, region: RegionId, mut acknowledged: mpsc::Receiver<Vectors>) {
    while let Some(mut vectors) = acknowledged.recv().await {
        while let Ok(more) = acknowledged.try_recv() {
            for (partition, vector) in more {
                vectors.entry(partition).or_default().join(&vector);
            }
        }
        let known = node.data[&group].machine.progress();
        if let Some(known) = known.get(&region) {
            vectors.retain(|partition, vector| !known.get(partition).is_some_and(|known| known.covers(vector)));
        }
        if vectors.is_empty() {
            continue;
        }
        if let Err(failed) = node.propose(group, &Command::Progress { region, vectors }).await {
            // The receiver says it again with its next acknowledgement, or when the stream starts over.
            tracing::debug!(%group, %failed, "progress of a region was not kept");
        }
    }
}
