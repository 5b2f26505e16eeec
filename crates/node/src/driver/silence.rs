//! Records that another region is not heard any more: what follows from it is for the rules.

use crate::machine::command::Command;
use crate::machine::note::Note;
use crate::node::Node;
use model::{GroupId, RegionId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the links are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A link without a stream for so long is silent: longer than the restart of a node or of a region takes.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// A link that has no stream.
#[derive(Clone, Copy)]
struct Silence {
    since: Instant,
    is_recorded: bool,
}

/// Runs until the node stops; acts while this node leads group 0, whose links stand for all.
pub async fn run(node: Arc<Node>) {
    let first = GroupId::new(0);
    let mut silences: BTreeMap<RegionId, Silence> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if !node.data[&first].group.is_leader() {
            silences.clear();
            continue;
        }
        let connected: Vec<RegionId> =
            node.links.lock().iter().filter(|(_, link)| link.connected).map(|((_, peer), _)| *peer).collect();
        for peer in node.cluster.regions.iter().map(|region| region.id).filter(|id| *id != node.region.id) {
            if connected.contains(&peer) {
                silences.remove(&peer);
                continue;
            }
            let silence = silences.entry(peer).or_insert(Silence { since: Instant::now(), is_recorded: false });
            if !silence.is_recorded && silence.since.elapsed() >= SILENT_AFTER {
                // What could not be recorded is tried again with the next look.
                silence.is_recorded = record(&node, first, peer, silence.since.elapsed()).await;
            }
        }
    }
}

async fn record(node: &Node, group: GroupId, peer: RegionId, silent: Duration) -> bool {
    let note = Note {
        action: "replication.silence".into(),
        refused: Some(format!("nothing heard for {} s", silent.as_secs())),
        resource: Some(format!("regions/{}", node.region_name(peer))),
        node: node.place.id,
        ..Note::default()
    };
    node.propose(group, &Command::Note(note)).await.is_ok()
}
