//! The late lane: spans of stored events that are read again, because something came after its correlation's state
//! had moved on. One at a time, while nothing new is waiting.

use crate::driver::duty::Post;
use crate::driver::streams;
use crate::machine::command::Row;
use crate::node::Node;
use detection::engine::{LateLane, Options, reconsider};
use detection::rules::RuleSet;
use detection::{Alert, Event};
use std::collections::{BTreeMap, BTreeSet};

/// What rows of spans begin with.
const LANE: &[u8] = b"l";
/// Most events of one span; of a longer one the newest are read, and that is told.
const EVENTS_MAX: usize = 100_000;
/// A clock may be so far ahead of the time of receipt: what was received earlier happened earlier.
const AHEAD_MS: u64 = 60_000;

/// Spans that wait, and what of them is not stored yet.
#[derive(Default)]
pub(super) struct Late {
    waiting: BTreeMap<Vec<u8>, LateLane>,
    changed: BTreeSet<Vec<u8>>,
}

impl Late {
    /// What an earlier holder left.
    pub(super) fn restore(post: &Post) -> Self {
        let rows = post.rows(LANE).unwrap_or_default();
        let lane = |(key, row): (Vec<u8>, Vec<u8>)| Some((key, serde_json::from_slice(&row).ok()?));
        Self { waiting: rows.into_iter().filter_map(lane).collect(), changed: BTreeSet::new() }
    }

    pub(super) fn add(&mut self, lanes: Vec<LateLane>) {
        for lane in lanes {
            let key = key_of(&lane);
            self.changed.insert(key.clone());
            let known = self.waiting.entry(key).or_insert_with(|| lane.clone());
            known.to_ms = known.to_ms.max(lane.to_ms);
            known.events.extend(lane.events);
        }
    }

    pub(super) fn next(&self) -> Option<LateLane> {
        self.waiting.first_key_value().map(|(_, lane)| lane.clone())
    }

    pub(super) fn done(&mut self, lane: &LateLane) {
        let key = key_of(lane);
        self.waiting.remove(&key);
        self.changed.insert(key);
    }

    pub(super) fn take_rows(&mut self) -> Vec<Row> {
        let changed = std::mem::take(&mut self.changed);
        let row = |key: Vec<u8>| {
            let value = self.waiting.get(&key).and_then(|lane| serde_json::to_vec(lane).ok());
            (key, value)
        };
        changed.into_iter().map(row).collect()
    }

    /// Reads a span again, and what the late events make of it.
    pub(super) async fn judge(&self, node: &Node, rules: &RuleSet, lane: &LateLane) -> Vec<Alert> {
        let mut events = Vec::new();
        for stream in streams::names(node) {
            let mut before = u64::MAX;
            loop {
                let turn = streams::turn_back(node, &stream, before);
                let Some((first, _)) = turn.last() else { break };
                before = *first;
                let raws = || turn.iter().filter_map(|(_, taken)| Some(&taken.as_ref()?.raw));
                let is_over = raws().any(|raw| raw.received_ms.saturating_add(AHEAD_MS) < lane.from_ms);
                let made: Vec<Event> = raws().filter_map(|raw| detection::normalise::normalise(raw).ok()).collect();
                // Leaves of an audit log are in the order of their times; those of others in that of their receipt.
                let is_past = stream.starts_with("audit/")
                    && made.iter().all(|event| event.time_ms.saturating_add(AHEAD_MS) < lane.from_ms);
                events.extend(made.into_iter().filter(|event| (lane.from_ms..=lane.to_ms).contains(&event.time_ms)));
                if is_over || is_past {
                    break;
                }
                if events.len() > EVENTS_MAX {
                    tracing::warn!(rule = %lane.rule, EVENTS_MAX, "a span has more events than are read again");
                    break;
                }
                // Others wait too.
                tokio::task::yield_now().await;
            }
        }
        events.sort_by(|one, other| (one.time_ms, one.id).cmp(&(other.time_ms, other.id)));
        reconsider(rules, &Options::default(), lane, &events)
    }
}

fn key_of(lane: &LateLane) -> Vec<u8> {
    let mut hash = blake3::Hasher::new();
    for part in lane.group.iter().flat_map(|(field, value)| [field, value]).map(String::as_bytes) {
        hash.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    [LANE, lane.rule.as_bytes(), b"\0", &lane.from_ms.to_be_bytes(), &hash.finalize().as_bytes()[..16]].concat()
}
