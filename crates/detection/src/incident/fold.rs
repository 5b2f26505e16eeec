//! From changes to incidents: total order, undoing, and what each deed does.
//!
//! A function of the set of changes alone. What concurrency made impossible is void, never an error.

use super::act::Refusal;
use super::change::{Change, Deed, Order};
use super::state::{Entry, Incident};
use crate::id::{AlertId, ChangeId, IncidentId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a set of changes says.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) incidents: BTreeMap<IncidentId, Incident>,
    /// For each alert, the incident it is in.
    pub(super) home: BTreeMap<AlertId, IncidentId>,
    /// Incidents that a void split would have made, and the one they are still part of: another region went on with
    /// them before it knew.
    pub(super) unmade: BTreeMap<IncidentId, IncidentId>,
}

/// Folds changes, sorted and without repetitions.
pub(super) fn fold(sorted: &[(Order, Arc<Change>)]) -> Folded {
    let undone = undone(sorted);
    let mut folded = Folded::default();
    let mut undoings: BTreeSet<ChangeId> = BTreeSet::new();
    for (order, change) in sorted {
        let outcome = match &change.deed {
            _ if undone.contains(&order.id) => Err(Refusal::Undone),
            Deed::Undone { change: target } if !undone.contains(target) => Err(Refusal::NotUndoable),
            Deed::Undone { change: target } if !undoings.insert(*target) => Err(Refusal::NoEffect),
            Deed::Undone { .. } => Ok(()),
            _ => folded.apply(order, change),
        };
        if let (Deed::Split { into, .. }, Err(_)) = (&change.deed, &outcome) {
            folded.leave_whole(change.incident, *into);
        }
        folded.note(order, change, outcome.err());
    }
    for incident in folded.incidents.values_mut() {
        incident.refresh();
    }
    folded
}

/// The changes that others undid: from the last to the first, for an undoing may itself be undone.
fn undone(sorted: &[(Order, Arc<Change>)]) -> BTreeSet<ChangeId> {
    let mut undone = BTreeSet::new();
    let wants = sorted.iter().filter(|(_, change)| matches!(change.deed, Deed::Undone { .. }));
    if wants.count() == 0 {
        return undone;
    }
    let places: BTreeMap<ChangeId, usize> = sorted.iter().enumerate().map(|(at, (order, _))| (order.id, at)).collect();
    for (at, (order, change)) in sorted.iter().enumerate().rev() {
        let Deed::Undone { change: target } = &change.deed else { continue };
        let Some((place, (_, before))) = places.get(target).map(|place| (*place, &sorted[*place])) else { continue };
        let fits = matches!(before.deed, Deed::Merged { .. } | Deed::Split { .. } | Deed::Undone { .. });
        if place < at && fits && before.incident == change.incident && !undone.contains(&order.id) {
            undone.insert(*target);
        }
    }
    undone
}

impl Folded {
    /// The incident that one now is: itself, the one it went up in, or the one it was never split from.
    pub(super) fn survivor(&self, mut id: IncidentId) -> Option<IncidentId> {
        // Only an incident that is not merged takes others in, and only an incident that is there stands for one that
        // was not made: the way never leads in a circle.
        loop {
            id = match self.incidents.get(&id) {
                Some(incident) => match incident.merged_into {
                    Some(into) => into,
                    None => return Some(id),
                },
                None => *self.unmade.get(&id)?,
            };
        }
    }

    /// What was to be parted is one: what is done to the part is done to the whole.
    fn leave_whole(&mut self, whole: IncidentId, part: IncidentId) {
        if let Some(whole) = self.survivor(whole)
            && !self.incidents.contains_key(&part)
        {
            self.unmade.entry(part).or_insert(whole);
        }
    }

    /// Appends to the history of the incident that was meant, and of the one that a split made.
    fn note(&mut self, order: &Order, change: &Arc<Change>, void: Option<Refusal>) {
        let made = match &change.deed {
            Deed::Split { into, .. } if void.is_none() => Some(*into),
            _ => None,
        };
        for id in [Some(change.incident), made].into_iter().flatten() {
            if let Some(incident) = self.incidents.get_mut(&id) {
                let revision = incident.revision() + 1;
                incident.history.push(Entry { id: order.id, revision, change: Arc::clone(change), void });
            }
        }
    }
}
