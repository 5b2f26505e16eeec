//! The desk: decides what joins what, turns what is asked for into changes, and refuses what may not be.
//!
//! The same inputs in the same order make the same changes. What it decided is in the changes: another desk
//! with other options folds them to the same incidents.

use super::act::{Act, Effect, Input, Refusal};
use super::board::Board;
use super::change::{Change, DETECTOR, Deed};
use super::link::{Presence, joining, score};
use super::state::{AlertLine, Incident, Status};
use super::{ALERTS_MAX, ALERTS_MERGED_MAX, ENTITIES_MAX, HISTORY_MAX, LOG_MAX, SPAN_MAX_MS};
use crate::alert::{Alert, Entity};
use crate::id::{AlertId, ChangeId, Digest, IncidentId};
use model::{Hlc, RegionId};
use std::collections::{BTreeMap, BTreeSet};

/// How alerts join incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where changes are made.
    pub region: RegionId,
    /// How far, in event time, an alert may be from an incident that it joins; what they share weighs half there.
    pub join_window_ms: u64,
    /// What shared entities must weigh together for an alert to join, in thousandths of a bit.
    pub join_score_min: u32,
    /// What an alert must share with a second incident for the two to be merged, where nobody works on that one.
    pub merge_score_min: u32,
    /// Entities that join nothing, such as a monitor's address.
    pub stop_list: BTreeSet<Entity>,
    /// Settled incidents kept in memory for late acts and repeated alerts; older ones are only in the store.
    pub closed_max: usize,
}

/// How far an alert may be from an incident that it joins, unless said otherwise.
pub const JOIN_WINDOW_MS: u64 = 60 * 60 * 1_000;

impl Default for Options {
    fn default() -> Self {
        Self {
            region: RegionId::default(),
            join_window_ms: JOIN_WINDOW_MS,
            join_score_min: 2_000,
            merge_score_min: 10_000,
            stop_list: BTreeSet::new(),
            closed_max: 4_096,
        }
    }
}

/// All incidents that still matter, and what links them.
#[derive(Debug)]
pub struct Desk {
    options: Options,
    board: Board,
    presence: Presence,
    clock: Hlc,
    by_entity: BTreeMap<Entity, BTreeSet<IncidentId>>,
    indexed: BTreeMap<IncidentId, BTreeSet<Entity>>,
}

/// An incident that an alert may join, and why.
struct Link {
    score: u32,
    incident: IncidentId,
    shared: Entity,
}

impl Desk {
    /// An empty desk.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            board: Board::new(),
            presence: Presence::default(),
            clock: Hlc::ZERO,
            by_entity: BTreeMap::new(),
            indexed: BTreeMap::new(),
        }
    }

    /// What joins alerts, from now on: what was decided before stays.
    pub fn join_by(&mut self, stop_list: BTreeSet<Entity>, join_window_ms: u64) {
        (self.options.stop_list, self.options.join_window_ms) = (stop_list, join_window_ms);
    }

    /// Takes up stored changes, after a restart or a change of leader, or as they come from elsewhere.
    /// Returns the incidents that are not as they were.
    pub fn restore(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeSet<IncidentId> {
        let mut last = self.clock;
        let changed = self.board.extend(changes.into_iter().inspect(|change| {
            last = last.max(change.counts_at());
            if let Deed::Opened { line, .. } | Deed::AlertJoined { line, .. } = &change.deed {
                line.entities.iter().for_each(|entity| self.presence.note(entity, line.last_ms));
            }
        }));
        self.clock = last;
        self.index(&changed);
        changed
    }

    /// An incident as it stands.
    pub fn get(&self, id: IncidentId) -> Option<&Incident> {
        self.board.get(id)
    }
    /// All incidents in memory, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Incident> {
        self.board.iter()
    }
    /// The time of the latest change: what is done here comes after it.
    pub const fn clock(&self) -> Hlc {
        self.clock
    }
    /// The incidents folded, for what needs all of them.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// One step: deterministic in its inputs' order and `now_ms`.
    pub fn step(&mut self, now_ms: u64, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Alert(alert) => self.alert(now_ms, &alert, effects),
            Input::Superseded { old, by } => {
                self.of_alert(now_ms, old, Deed::AlertSuperseded { old, by }, effects);
            }
            Input::Extended { alert, count, last_ms } => {
                self.of_alert(now_ms, alert, Deed::AlertExtended { alert, count, last_ms }, effects);
            }
            Input::Act { incident, by, why, seen, act } => {
                let is_as_seen =
                    seen.is_none_or(|seen| self.board.version(incident).is_some_and(|now| seen.contains(&now)));
                let done = match is_as_seen || self.board.get(incident).is_none() {
                    true => self.act(now_ms, incident, by, why, act, effects).map(|_| ()),
                    false => Err(Refusal::Changed),
                };
                if let Err(reason) = done {
                    effects.push(Effect::Refused { incident, reason });
                }
            }
            Input::Changes(changes) => {
                self.restore(changes);
            }
        }
        if self.board.len() > self.options.closed_max {
            // Half go at once, so that forgetting is rare.
            let forgotten = self.board.forget_settled(self.options.closed_max / 2);
            self.index(&forgotten);
        }
    }

    fn alert(&mut self, now_ms: u64, alert: &Alert, effects: &mut Vec<Effect>) {
        if self.board.home(alert.id).is_some() {
            return;
        }
        let line = Box::new(AlertLine::of(alert));
        line.entities.iter().for_each(|entity| self.presence.note(entity, line.last_ms));
        let mut links = self.links(alert, &line).into_iter();
        let best = links.next();
        let (id, deed) = match &best {
            Some(Link { score, incident, shared }) => {
                let (shared, score_millibits) = (shared.clone(), *score);
                (*incident, Deed::AlertJoined { alert: alert.id, shared, score_millibits, line })
            }
            None => {
                let id = first_of(alert.id);
                (id, Deed::Opened { alert: alert.id, tenant: alert.tenant.to_string(), line })
            }
        };
        match self.detected(now_ms, id, deed, effects) {
            Ok(_) => {}
            // It is in no incident, and nobody would hear of it.
            Err(reason @ Refusal::TextTooLong) => return effects.push(Effect::Refused { incident: id, reason }),
            Err(_) => return,
        }
        let other = links.find(|link| self.may_merge(id, link));
        if let Some(Link { incident: from, .. }) = other {
            let _ = self.detected(now_ms, id, Deed::Merged { from }, effects);
        }
    }

    /// The open incidents an alert may join, the heaviest first.
    fn links(&self, alert: &Alert, line: &AlertLine) -> Vec<Link> {
        let mut shared: BTreeMap<IncidentId, Vec<&Entity>> = BTreeMap::new();
        for entity in joining(&line.entities, &self.options.stop_list) {
            for id in self.by_entity.get(entity).into_iter().flatten() {
                shared.entry(*id).or_default().push(entity);
            }
        }
        let window_ms = self.options.join_window_ms;
        let mut links: Vec<(u32, u64, Link)> = Vec::new();
        for (id, entities) in shared {
            let Some(incident) = self.board.get(id) else { continue };
            let gap_ms = alert.first_ms.saturating_sub(incident.last_ms);
            let gap_ms = gap_ms.max(incident.first_ms.saturating_sub(alert.last_ms));
            let (from_ms, to_ms) = (incident.first_ms.min(alert.first_ms), incident.last_ms.max(alert.last_ms));
            let fits = incident.tenant == alert.tenant
                && gap_ms <= window_ms
                && to_ms - from_ms <= SPAN_MAX_MS
                && incident.alerts.len() < ALERTS_MAX
                && incident.entities.union(&line.entities).count() <= ENTITIES_MAX
                && incident.history.len() < HISTORY_MAX;
            let (score, heaviest) = score(&self.presence, entities, gap_ms, window_ms);
            if let (true, Some(shared)) = (fits && score >= self.options.join_score_min, heaviest) {
                links.push((score, incident.last_ms, Link { score, incident: id, shared: shared.clone() }));
            }
        }
        links.sort_by_key(|(score, last_ms, link)| std::cmp::Reverse((*score, *last_ms, link.incident)));
        links.into_iter().map(|(_, _, link)| link).collect()
    }

    /// Whether an alert that joined one incident makes another the same: only one nobody has touched, never two
    /// that somebody parted, never past the ceiling.
    fn may_merge(&self, id: IncidentId, link: &Link) -> bool {
        let (Some(one), Some(other)) = (self.board.get(id), self.board.get(link.incident)) else { return false };
        link.score >= self.options.merge_score_min
            && other.status == Status::New
            && other.assignee.is_none()
            && one.alerts.len() + other.alerts.len() <= ALERTS_MAX.min(ALERTS_MERGED_MAX)
            && one.entities.union(&other.entities).count() <= ENTITIES_MAX
            && !one.was_parted_from(other.id)
            && !other.was_parted_from(one.id)
    }

    fn of_alert(&mut self, now_ms: u64, alert: AlertId, deed: Deed, effects: &mut Vec<Effect>) {
        // A burst that goes on for ever must not take the room that people need.
        if let Some(id) = self.board.home(alert).filter(|id| self.board.log_len(*id) < LOG_MAX / 2) {
            let _ = self.detected(now_ms, id, deed, effects);
        }
    }

    fn detected(
        &mut self,
        now_ms: u64,
        id: IncidentId,
        deed: Deed,
        effects: &mut Vec<Effect>,
    ) -> Result<ChangeId, Refusal> {
        self.change(now_ms, id, DETECTOR.to_owned(), None, deed, effects)
    }

    fn act(
        &mut self,
        now_ms: u64,
        id: IncidentId,
        by: String,
        why: Option<String>,
        act: Act,
        effects: &mut Vec<Effect>,
    ) -> Result<ChangeId, Refusal> {
        let own = self.board.get(id).ok_or(Refusal::Unknown)?;
        let status = self.board.survivor(id).ok_or(Refusal::Unknown)?.status;
        // Whatever happened before, what calls people can be answered and what is over can be closed.
        let is_always = matches!(act, Act::Acknowledge | Act::Close { .. });
        let is_machines = matches!(act, Act::Notified { .. } | Act::NotNotified { .. });
        if !is_always && !is_machines && own.acts() >= HISTORY_MAX {
            return Err(Refusal::HistoryFull);
        }
        if is_machines && self.board.log_len(id) >= LOG_MAX / 2 {
            return Err(Refusal::HistoryFull);
        }
        if let Act::Merge { from } = &act {
            self.board.get(*from).ok_or(Refusal::Unknown)?;
        }
        act.check(now_ms, status, why.as_deref())?;
        let deed = act.deed(id, self.clock.advance(Hlc::new(now_ms, 0)));
        self.change(now_ms, id, by, why, deed, effects)
    }

    fn change(
        &mut self,
        now_ms: u64,
        id: IncidentId,
        by: String,
        why: Option<String>,
        deed: Deed,
        effects: &mut Vec<Effect>,
    ) -> Result<ChangeId, Refusal> {
        let hlc = self.clock.advance(Hlc::new(now_ms, 0));
        let was = self.board.survivor(id).and_then(|incident| replaced(incident, &deed));
        let mut change = Change { incident: id, hlc, region: self.options.region, by, why, deed, was, counts: None };
        if change.texts().any(|(text, size_bytes_max)| text.len() > size_bytes_max) {
            return Err(Refusal::TextTooLong);
        }
        if change.encode().is_err() {
            // The alert keeps its events; its line can do without.
            if let Deed::Opened { line, .. } | Deed::AlertJoined { line, .. } = &mut change.deed {
                line.events.clear();
            }
            change.encode().map_err(|_| Refusal::TextTooLong)?;
        }
        let (entry, changed) = self.board.attempt(change)?;
        self.clock = hlc;
        self.index(&changed);
        let change = entry.id;
        if let Some(incident) = self.board.get(id) {
            effects.push(Effect::Changed { incident: Box::new(incident.clone()), change: entry });
        }
        Ok(change)
    }

    /// Files incidents under what may link alerts to them: those that are open.
    fn index(&mut self, changed: &BTreeSet<IncidentId>) {
        for id in changed {
            for entity in self.indexed.remove(id).unwrap_or_default() {
                if let Some(ids) = self.by_entity.get_mut(&entity) {
                    ids.remove(id);
                    if ids.is_empty() {
                        self.by_entity.remove(&entity);
                    }
                }
            }
            let Some(incident) = self.board.get(*id).filter(|incident| !incident.is_settled()) else { continue };
            for entity in &incident.entities {
                self.by_entity.entry(entity.clone()).or_default().insert(*id);
            }
            self.indexed.insert(*id, incident.entities.clone());
        }
    }
}

/// What a deed replaces, for whoever reads one change alone.
fn replaced(incident: &Incident, deed: &Deed) -> Option<String> {
    let word = |value: serde_json::Value| value.as_str().map(str::to_owned);
    match deed {
        Deed::StatusSet { .. } | Deed::Closed { .. } => word(serde_json::json!(incident.status)),
        Deed::SeveritySet { .. } => word(serde_json::json!(incident.severity)),
        Deed::PrioritySet { .. } => word(serde_json::json!(incident.priority_set)),
        Deed::Assigned { .. } | Deed::Unassigned => incident.assignee.clone(),
        _ => None,
    }
}

/// The incident that an alert opens.
fn first_of(alert: AlertId) -> IncidentId {
    let mut hash = Digest::new("holdfast incident 1");
    hash.part(alert.as_bytes());
    IncidentId::of(hash)
}
