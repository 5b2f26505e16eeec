//! What detection reads: the audit logs of a region and the events of others, each a stream with positions.

use crate::core::ingest::Taken;
use crate::machine::keys;
use crate::node::Node;
use bytes::Bytes;
use detection::{Position, RawEvent, SourceKind};
use model::GroupId;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use storage::{Keyspace, Space};

/// Events taken from one stream before the next has its turn.
pub const TURN: usize = 512;

/// The streams of this region: the audit log of each group, the control plane's, and events of others.
pub fn names(node: &Node) -> Vec<String> {
    let region = &node.region.name;
    let groups = node.data.keys().map(|group| format!("audit/{region}-{}", group.get()));
    groups.chain(["audit/control".to_owned(), format!("events/{region}")]).collect()
}

/// A turn of one stream, from a place on; `None` where a row cannot be read. Nothing where the disk fails.
pub fn turn(node: &Node, stream: &str, from: u64) -> Vec<(u64, Option<Taken>)> {
    try_turn(node, stream, from).unwrap_or_else(|error| {
        tracing::error!(%error, stream, "a stream cannot be read");
        Vec::new()
    })
}

/// The same, for whoever must not take a disk that fails for a stream without events.
pub fn try_turn(node: &Node, stream: &str, from: u64) -> io::Result<Vec<(u64, Option<Taken>)>> {
    read(node, stream, Bound::Included(from), false)
}

/// A turn of one stream, backwards from what comes before a place.
pub fn turn_back(node: &Node, stream: &str, before: u64) -> io::Result<Vec<(u64, Option<Taken>)>> {
    read(node, stream, Bound::Excluded(before), true)
}

fn read(node: &Node, stream: &str, at: Bound<u64>, backwards: bool) -> io::Result<Vec<(u64, Option<Taken>)>> {
    let Some((space, keyspace)) = place_of(node, stream) else { return Ok(Vec::new()) };
    let rows = rows(&*space, keyspace, at, backwards)?;
    let received_ms = node.world.clock.wall_ms();
    let event = |(key, value): (Vec<u8>, Vec<u8>)| {
        let sequence = key.try_into().map(u64::from_be_bytes).ok()?;
        let position = Some(Position { stream: stream.into(), sequence });
        let taken = if keyspace == keys::EVENT {
            Taken::read(&value)
                .inspect_err(|error| tracing::error!(%error, stream, sequence, "an event cannot be read"))
                .ok()
                .map(|taken| Taken { raw: RawEvent { position, ..taken.raw }, ..taken })
        } else {
            // A leaf is received when it happens, and says itself whose it is.
            let received_ms = audit_time_ms(&value).unwrap_or(received_ms);
            let raw = RawEvent { source: SourceKind::Audit, received_ms, position, bytes: Bytes::from(value) };
            Some(Taken { raw, tenant: None })
        };
        Some((sequence, taken))
    };
    Ok(rows.into_iter().filter_map(event).collect())
}

/// When a leaf happened.
fn audit_time_ms(leaf: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Leaf {
        time_ms: u64,
    }
    serde_json::from_slice::<Leaf>(leaf).ok().map(|leaf| leaf.time_ms)
}

fn place_of(node: &Node, stream: &str) -> Option<(Arc<dyn Space>, Keyspace)> {
    if stream.starts_with("events/") {
        return Some((node.home().machine.read_space(), keys::EVENT));
    }
    if stream == "audit/control" {
        return Some((node.control.machine.read_space(), keys::AUDIT_LEAF));
    }
    let group = stream.rsplit_once('-').and_then(|(_, group)| group.parse().ok()).map(GroupId::new)?;
    Some((node.data.get(&group)?.machine.read_space(), keys::AUDIT_LEAF))
}

fn rows(space: &dyn Space, keyspace: Keyspace, at: Bound<u64>, backwards: bool) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let key = at.map(keys::number);
    let at = key.as_ref().map(<[u8; 8]>::as_slice);
    let (from, to) = if backwards { (Bound::Unbounded, at) } else { (at, Bound::Unbounded) };
    space.scan(keyspace, from, to, backwards, TURN)
}
