//! All incidents that still matter, folded from the changes known so far.
//!
//! Two boards that hold the same changes are equal, whatever order and batches the changes came in.
//! Incidents that touch each other (by a merge, a split or an alert of both) are folded together; a new
//! change folds only those again. It never refuses a change: what is impossible is void.

use super::LOG_MAX;
use super::act::Refusal;
use super::change::{Change, Deed, Order};
use super::fold::{Folded, fold};
use super::state::{Entry, Incident};
use crate::id::{AlertId, Digest, IncidentId, VersionId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All incidents that still matter.
#[derive(Debug, Default)]
pub struct Board {
    logs: BTreeMap<IncidentId, BTreeMap<Order, Arc<Change>>>,
    folded: Folded,
    kin: Kin,
}

/// Which incidents touch each other. It only grows: folding too many together is slower, never wrong.
#[derive(Debug, Default)]
struct Kin {
    /// For each incident, the one its kin is filed under.
    root: BTreeMap<IncidentId, IncidentId>,
    members: BTreeMap<IncidentId, BTreeSet<IncidentId>>,
    /// The incident that first named an alert.
    named: BTreeMap<AlertId, IncidentId>,
}

impl Board {
    /// No incidents.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes changes; those it has already change nothing. Returns the incidents that are not as they were.
    pub fn extend(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeSet<IncidentId> {
        let mut touched = BTreeSet::new();
        for change in changes {
            let (order, id) = (change.order(), change.incident);
            let log = self.logs.entry(id).or_default();
            if log.contains_key(&order) {
                continue;
            }
            self.kin.note(&change);
            log.insert(order, Arc::new(change));
            if log.len() > LOG_MAX {
                // The first in order stay, so that it does not matter which came first.
                log.pop_last();
            }
            touched.insert(id);
        }
        self.refold(&touched)
    }

    /// Takes a change only if it is not void: what a person asks for is refused before it is written.
    pub fn attempt(&mut self, change: Change) -> Result<(Entry, BTreeSet<IncidentId>), Refusal> {
        let (order, id) = (change.order(), change.incident);
        let changed = self.extend([change]);
        let entry = self.folded.incidents.get(&id).and_then(|incident| {
            let entry = incident.history.iter().rev().find(|entry| entry.id == order.id)?;
            Some(entry.clone())
        });
        let refusal = match entry {
            Some(entry) if entry.void.is_none() => return Ok((entry, changed)),
            Some(entry) => entry.void.unwrap_or(Refusal::Unknown),
            None => Refusal::Unknown,
        };
        if let Some(log) = self.logs.get_mut(&id) {
            log.remove(&order);
            if log.is_empty() {
                self.logs.remove(&id);
            }
        }
        self.refold(&BTreeSet::from([id]));
        Err(refusal)
    }

    /// An incident as it stands.
    pub fn get(&self, id: IncidentId) -> Option<&Incident> {
        self.folded.incidents.get(&id)
    }
    /// All incidents, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Incident> {
        self.folded.incidents.values()
    }
    /// The incident that one now is: itself, the one it went up in, or the one it was never split from.
    pub fn survivor(&self, id: IncidentId) -> Option<&Incident> {
        self.get(self.folded.survivor(id)?)
    }
    /// How an incident stands, whatever is done to it or to the one it went up in: for telling whether it has changed.
    /// That people were called, and that a burst goes on, make no difference.
    pub fn version(&self, id: IncidentId) -> Option<VersionId> {
        let mut hash = Digest::new("holdfast incident version 1");
        self.get(id)?.add_to(&mut hash);
        self.survivor(id)?.add_to(&mut hash);
        Some(VersionId::of(hash))
    }
    /// The incident an alert is in.
    pub fn home(&self, alert: AlertId) -> Option<IncidentId> {
        self.folded.home.get(&alert).copied()
    }
    /// How many incidents there are.
    pub fn len(&self) -> usize {
        self.folded.incidents.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.folded.incidents.is_empty()
    }
    /// The latest change of all.
    pub fn last(&self) -> Option<Order> {
        self.logs.values().filter_map(|log| log.keys().next_back()).max().copied()
    }
    /// How many changes of an incident are known, void ones and its own only.
    pub fn log_len(&self, id: IncidentId) -> usize {
        self.logs.get(&id).map_or(0, BTreeMap::len)
    }

    /// Forgets incidents that touch each other and are all settled, those first that ended first, until at most
    /// `keep` settled ones are left. Returns what was forgotten; the store still has it.
    pub fn forget_settled(&mut self, keep: usize) -> BTreeSet<IncidentId> {
        let mut settled: Vec<(u64, IncidentId)> = Vec::new();
        let mut count = 0;
        for (root, members) in &self.kin.members {
            let incidents = || members.iter().filter_map(|id| self.get(*id));
            if incidents().all(Incident::is_settled) {
                settled.push((incidents().map(|incident| incident.last_ms).max().unwrap_or(0), *root));
                count += members.len();
            }
        }
        settled.sort_unstable();
        let mut forgotten = BTreeSet::new();
        for (_, root) in settled {
            if count <= keep {
                break;
            }
            let Some(members) = self.kin.forget(root) else { continue };
            count -= members.len().min(count);
            for id in &members {
                self.logs.remove(id);
                self.folded.incidents.remove(id);
                self.folded.unmade.remove(id);
            }
            forgotten.extend(members);
        }
        self.folded.home.retain(|_, id| !forgotten.contains(id));
        forgotten
    }

    fn refold(&mut self, touched: &BTreeSet<IncidentId>) -> BTreeSet<IncidentId> {
        let roots: BTreeSet<IncidentId> = touched.iter().map(|id| self.kin.root_of(*id)).collect();
        let mut changed = BTreeSet::new();
        for root in roots {
            let members = self.kin.members.get(&root).cloned().unwrap_or_else(|| BTreeSet::from([root]));
            let logs = members.iter().filter_map(|id| self.logs.get(id)).flatten();
            let mut sorted: Vec<(Order, Arc<Change>)> = logs.map(|(at, change)| (*at, Arc::clone(change))).collect();
            sorted.sort_unstable_by_key(|(order, _)| *order);
            let folded = fold(&sorted);
            for id in &members {
                let before = self.folded.incidents.remove(id);
                self.folded.unmade.remove(id);
                for alert in before.iter().flat_map(|incident| incident.alerts.keys().chain(incident.superseded.keys()))
                {
                    self.folded.home.remove(alert);
                }
                if before.as_ref() != folded.incidents.get(id) {
                    changed.insert(*id);
                }
            }
            self.folded.incidents.extend(folded.incidents);
            self.folded.home.extend(folded.home);
            self.folded.unmade.extend(folded.unmade);
        }
        changed
    }
}

impl Kin {
    fn root_of(&self, id: IncidentId) -> IncidentId {
        self.root.get(&id).copied().unwrap_or(id)
    }

    /// Files an incident with those that a change of it names, itself or by an alert.
    fn note(&mut self, change: &Change) {
        let id = change.incident;
        self.root.entry(id).or_insert(id);
        self.members.entry(self.root_of(id)).or_default().insert(id);
        let (alerts, others) = match &change.deed {
            Deed::Opened { alert, .. } | Deed::AlertJoined { alert, .. } | Deed::AlertExtended { alert, .. } => {
                (vec![*alert], None)
            }
            Deed::AlertSuperseded { old, by } => (vec![*old, *by], None),
            Deed::Merged { from } => (Vec::new(), Some(*from)),
            Deed::Split { into, .. } => (Vec::new(), Some(*into)),
            _ => return,
        };
        for alert in alerts {
            let other = *self.named.entry(alert).or_insert(id);
            self.unite(id, other);
        }
        if let Some(other) = others {
            self.unite(id, other);
        }
    }

    fn unite(&mut self, one: IncidentId, other: IncidentId) {
        let (one, other) = (self.root_of(one), self.root_of(other));
        if one == other {
            return;
        }
        let mut joined = self.members.remove(&other).unwrap_or_default();
        joined.insert(other);
        for id in &joined {
            self.root.insert(*id, one);
        }
        self.members.entry(one).or_default().append(&mut joined);
    }

    fn forget(&mut self, root: IncidentId) -> Option<BTreeSet<IncidentId>> {
        let members = self.members.remove(&root)?;
        for id in &members {
            self.root.remove(id);
        }
        self.named.retain(|_, id| !members.contains(id));
        Some(members)
    }
}
