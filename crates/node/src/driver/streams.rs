//! What detection reads: the audit logs of a region, the events of others, and what matched in all regions, each a
//! stream with positions.

use crate::core::ingest::Taken;
use crate::driver::record::ONLY;
use crate::machine::control::platform;
use crate::machine::keys;
use crate::node::Node;
use bytes::Bytes;
use detection::{Position, RawEvent, SourceKind};
use model::{GroupId, Origin, PartitionId, TenantId, Value};
use replication::{Change, Content, FieldWrite, OpKind};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use storage::{Keyspace, Space};

/// Events taken from one stream before the next has its turn.
pub const TURN: usize = 512;
/// The control plane's audit log.
const CONTROL: &str = "audit/control";
/// What the names of streams of tuples begin with; a region's name follows.
const TUPLES: &str = "tuples/";

/// What was read of a stream in one go.
#[derive(Default)]
pub struct Turn {
    /// With their places; `None` where a row cannot be read.
    pub events: Vec<(u64, Option<Taken>)>,
    /// The last place that was looked at, whether or not an event is there; none where there was nothing more.
    pub last: Option<u64>,
    /// When what is there was received, where no event need be.
    pub last_ms: Option<u64>,
    /// More of the stream may be there.
    pub is_full: bool,
}

/// The streams of what happened in this region: the audit log of each group, the control plane's, and events of others.
pub fn names(node: &Node) -> Vec<String> {
    let region = &node.region.name;
    let groups = node.data.keys().map(|group| format!("audit/{region}-{}", group.get()));
    groups.chain([CONTROL.to_owned(), format!("events/{region}")]).collect()
}

/// Whether a stream is an audit log, whose places follow each other from 0 without a hole.
pub fn is_audit(stream: &str) -> bool {
    stream.starts_with("audit/")
}

/// All that detection reads here: where correlations across regions are judged, the tuples of every region as well.
pub fn detected(node: &Node) -> Vec<String> {
    let regions = node.cluster.regions.iter().filter(|_| judges_across_regions(node));
    names(node).into_iter().chain(regions.map(|region| format!("{TUPLES}{}", region.name))).collect()
}

/// Whether correlations across regions are judged in this one: in the first of the description, if there are others.
fn judges_across_regions(node: &Node) -> bool {
    let regions = &node.cluster.regions;
    regions.len() > 1 && regions.first().is_some_and(|first| first.id == node.region.id)
}

/// The place that will be written next, as this node knows it.
pub fn head(node: &Node, stream: &str) -> u64 {
    if let Some(origin) = origin_of(node, stream) {
        let vectors = node.home().machine.vectors();
        return vectors.get(&partition(node)).map_or(0, |vector| vector.get(origin)) + 1;
    }
    if stream.starts_with("events/") {
        return node.home().machine.event_next();
    }
    if stream == CONTROL {
        return node.control.machine.audit_head().0;
    }
    group_of(stream).and_then(|group| node.data.get(&group)).map_or(0, |data| data.machine.audit_head().0)
}

/// A turn of one stream, from a place on. Nothing where the disk fails.
pub fn turn(node: &Node, stream: &str, from: u64) -> Turn {
    try_turn(node, stream, from).unwrap_or_else(|error| {
        tracing::error!(%error, stream, "a stream cannot be read");
        Turn::default()
    })
}

/// The same, for whoever must not take a disk that fails for a stream without events.
pub fn try_turn(node: &Node, stream: &str, from: u64) -> io::Result<Turn> {
    read(node, stream, Bound::Included(from), false)
}

/// A turn of one stream, backwards from what comes before a place.
pub fn turn_back(node: &Node, stream: &str, before: u64) -> io::Result<Turn> {
    read(node, stream, Bound::Excluded(before), true)
}

fn read(node: &Node, stream: &str, at: Bound<u64>, backwards: bool) -> io::Result<Turn> {
    if let Some(origin) = origin_of(node, stream) {
        return tuples(node, (stream, origin), at, backwards);
    }
    let Some((space, keyspace)) = place_of(node, stream) else { return Ok(Turn::default()) };
    let rows = rows(&*space, keyspace, at, backwards)?;
    let is_full = rows.len() >= TURN;
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
            let (happened_ms, bytes) = leaf(node, value);
            let received_ms = happened_ms.unwrap_or(received_ms);
            let raw = RawEvent { source: SourceKind::Audit, received_ms, position, bytes };
            Some(Taken { raw, tenant: None })
        };
        Some((sequence, taken))
    };
    let events: Vec<_> = rows.into_iter().filter_map(event).collect();
    let last = events.last().map(|(sequence, _)| *sequence);
    Ok(Turn { events, last, last_ms: None, is_full })
}

/// Tuples are records of the platform: those of one region are in its changes, in their order.
fn tuples(node: &Node, (stream, origin): (&str, Origin), at: Bound<u64>, backwards: bool) -> io::Result<Turn> {
    let changes = node.home().machine.changes_from(partition(node), origin, at, backwards, TURN)?;
    let tuple = |change: &Change| {
        let sequence = change.header.sequence;
        let bytes = Bytes::from(tuple_of(change)?.to_owned());
        let position = Some(Position { stream: stream.into(), sequence });
        let received_ms = change.header.hlc.wall_ms();
        let raw = RawEvent { source: SourceKind::Tuple, received_ms, position, bytes };
        Some((sequence, Some(Taken { raw, tenant: None })))
    };
    Ok(Turn {
        events: changes.iter().filter_map(tuple).collect(),
        last: changes.last().map(|change| change.header.sequence),
        last_ms: changes.last().map(|change| change.header.hlc.wall_ms()),
        is_full: changes.len() >= TURN,
    })
}

/// The region whose tuples a stream is.
fn origin_of(node: &Node, stream: &str) -> Option<Origin> {
    let name = stream.strip_prefix(TUPLES)?;
    node.cluster.regions.iter().find(|region| region.name == name).map(|region| region.origin())
}

fn partition(node: &Node) -> PartitionId {
    node.cluster.partition(TenantId::PLATFORM)
}

/// The tuple that a change wrote, if it wrote one.
fn tuple_of(change: &Change) -> Option<&str> {
    let Content::Body(body) = &change.content else { return None };
    let op = body.ops.iter().find(|op| op.table == platform::TUPLES)?;
    let OpKind::Upsert { fields } = &op.kind else { return None };
    fields.iter().find_map(|(field, write)| match write {
        FieldWrite::Set { value: Value::Text(text), .. } if *field == ONLY => Some(text.as_str()),
        _ => None,
    })
}

/// When a leaf happened, and what it says. Where somebody logged in, the country of the address is added at its end, if
/// a list says it.
fn leaf(node: &Node, mut leaf: Vec<u8>) -> (Option<u64>, Bytes) {
    #[derive(serde::Deserialize)]
    struct Leaf<'a> {
        time_ms: u64,
        #[serde(borrow)]
        action: Cow<'a, str>,
        #[serde(borrow, default)]
        address: Option<Cow<'a, str>>,
    }
    let Ok(read) = serde_json::from_slice::<Leaf<'_>>(&leaf) else { return (None, leaf.into()) };
    let time_ms = Some(read.time_ms);
    let address = read.address.filter(|_| read.action == "login" || read.action == "login.failed");
    let country = node.addresses.as_ref().zip(address).and_then(|(list, address)| list.country(&address));
    if let Some(country) = country
        && leaf.pop_if(|last| *last == b'}').is_some()
    {
        leaf.extend_from_slice(format!(",\"country\":{}}}", Json::from(country)).as_bytes());
    }
    (time_ms, leaf.into())
}

fn place_of(node: &Node, stream: &str) -> Option<(Arc<dyn Space>, Keyspace)> {
    if stream.starts_with("events/") {
        return Some((node.home().machine.read_space(), keys::EVENT));
    }
    if stream == CONTROL {
        return Some((node.control.machine.read_space(), keys::AUDIT_LEAF));
    }
    Some((node.data.get(&group_of(stream)?)?.machine.read_space(), keys::AUDIT_LEAF))
}

fn group_of(stream: &str) -> Option<GroupId> {
    stream.rsplit_once('-').and_then(|(_, group)| group.parse().ok()).map(GroupId::new)
}

fn rows(space: &dyn Space, keyspace: Keyspace, at: Bound<u64>, backwards: bool) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let key = at.map(keys::number);
    let at = key.as_ref().map(<[u8; 8]>::as_slice);
    let (from, to) = if backwards { (Bound::Unbounded, at) } else { (at, Bound::Unbounded) };
    space.scan(keyspace, from, to, backwards, TURN)
}
