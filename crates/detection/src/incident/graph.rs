//! The entity graph of an incident: whom it concerns, and which of them the same alerts concern.
//!
//! Pure. What there is no room for is counted; broad entities, which are in nearly every event, come last.

use super::state::Incident;
use crate::alert::Entity;
use std::collections::BTreeMap;

/// Most entities of one graph.
pub const ENTITIES_SHOWN_MAX: usize = 128;
/// Most edges of one graph.
pub const EDGES_SHOWN_MAX: usize = 512;

/// Whom an incident concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Entities and how many alerts concern each, the most first.
    pub entities: Vec<(Entity, u64)>,
    /// Pairs of them and how many alerts concern both, the most first; each pair once, in order.
    pub edges: Vec<(Entity, Entity, u64)>,
    /// How many entities and edges there was no room for.
    pub left_out: u64,
}

/// The graph of an incident.
pub fn graph(incident: &Incident) -> Graph {
    let mut counts: BTreeMap<&Entity, u64> = BTreeMap::new();
    for entity in incident.alerts.values().flat_map(|line| &line.entities) {
        *counts.entry(entity).or_default() += 1;
    }
    let mut entities: Vec<(Entity, u64)> = counts.into_iter().map(|(entity, count)| (entity.clone(), count)).collect();
    entities.sort_by_key(|(entity, count)| (super::entity::is_broad(entity.kind), std::cmp::Reverse(*count)));
    let mut left_out = entities.len().saturating_sub(ENTITIES_SHOWN_MAX);
    entities.truncate(ENTITIES_SHOWN_MAX);
    let shown: BTreeMap<&Entity, ()> = entities.iter().map(|(entity, _)| (entity, ())).collect();
    let mut pairs: BTreeMap<(&Entity, &Entity), u64> = BTreeMap::new();
    for line in incident.alerts.values() {
        let known: Vec<&Entity> = line.entities.iter().filter(|entity| shown.contains_key(entity)).collect();
        for (place, one) in known.iter().enumerate() {
            for other in &known[place + 1..] {
                *pairs.entry((one, other)).or_default() += 1;
            }
        }
    }
    let mut edges: Vec<(Entity, Entity, u64)> =
        pairs.into_iter().map(|((one, other), count)| (one.clone(), other.clone(), count)).collect();
    edges.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    left_out += edges.len().saturating_sub(EDGES_SHOWN_MAX);
    edges.truncate(EDGES_SHOWN_MAX);
    Graph { entities, edges, left_out: left_out as u64 }
}
