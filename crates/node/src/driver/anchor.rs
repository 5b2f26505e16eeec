//! Anchors the region's audit logs in each other: group 0's log records the roots of the others.
//!
//! Whoever holds a checkpoint of group 0 can show later what every log of the region was.

use crate::machine::command::Command;
use crate::machine::note::Note;
use crate::node::Node;
use model::GroupId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often roots that have changed are anchored.
const ANCHOR_EVERY: Duration = Duration::from_secs(10);

/// Runs until the node stops; acts while this node leads group 0.
pub async fn run(node: Arc<Node>) {
    let first = GroupId::new(0);
    let mut anchored: BTreeMap<GroupId, u64> = BTreeMap::new();
    loop {
        tokio::time::sleep(ANCHOR_EVERY).await;
        if !node.data[&first].group.is_leader() {
            continue;
        }
        for (group, data) in node.data.iter().filter(|(group, _)| **group != first) {
            let (size, root) = data.machine.audit_head();
            if anchored.get(group) == Some(&size) {
                continue;
            }
            let values = serde_json::json!({"size": size, "root": hex::encode(root)}).to_string();
            let note = Note {
                action: "audit.anchor".into(),
                resource: Some(format!("audit/{}-{}", node.region.name, group.get())),
                values: Some((None, Some(values))),
                node: node.place.id,
                ..Note::default()
            };
            if node.propose(first, &Command::Note(note)).await.is_ok() {
                anchored.insert(*group, size);
            }
        }
    }
}
