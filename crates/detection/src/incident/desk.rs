//! The state machine of incidents: what joins what, and what may be done when.

use super::{
    ALERTS_MAX, Act, AlertLine, Change, Deed, EVENTS_MAX, Effect, HISTORY_MAX, Incident, Input, Refusal, Status,
    TEXT_SIZE_BYTES_MAX,
};
use crate::alert::{Alert, Entity, EntityKind};
use crate::id::{AlertId, Digest, IncidentId};
use std::collections::{BTreeMap, BTreeSet};

/// How alerts join incidents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How far, in event time, an alert may be from an incident that it joins.
    pub join_window_ms: u64,
    /// Entities that join nothing, such as a monitor's address.
    pub stop_list: BTreeSet<Entity>,
    /// Closed incidents kept in memory for late acts and repeated alerts; older ones are only in the store.
    pub closed_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { join_window_ms: 60 * 60 * 1_000, stop_list: BTreeSet::new(), closed_max: 4_096 }
    }
}

/// All incidents that still matter.
#[derive(Debug)]
pub struct Desk {
    options: Options,
    incidents: BTreeMap<IncidentId, Incident>,
    by_alert: BTreeMap<AlertId, IncidentId>,
    by_entity: BTreeMap<Entity, BTreeSet<IncidentId>>,
}

/// Entities that nearly every event has: they join alerts only where an alert has nothing better.
fn is_broad(kind: EntityKind) -> bool {
    matches!(kind, EntityKind::Host | EntityKind::Tenant | EntityKind::Node | EntityKind::Region)
}

impl Desk {
    /// An empty desk.
    pub fn new(options: Options) -> Self {
        Self { options, incidents: BTreeMap::new(), by_alert: BTreeMap::new(), by_entity: BTreeMap::new() }
    }

    /// Takes up stored incidents, after a restart or a change of leader.
    pub fn restore(&mut self, incidents: impl IntoIterator<Item = Incident>) {
        for incident in incidents {
            self.index(&incident);
            self.incidents.insert(incident.id, incident);
        }
    }

    /// An incident as it stands.
    pub fn get(&self, id: IncidentId) -> Option<&Incident> {
        self.incidents.get(&id)
    }

    /// All incidents in memory, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// One step: deterministic in its inputs' order and `now_ms`.
    pub fn step(&mut self, now_ms: u64, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Alert(alert) => self.alert(now_ms, &alert, effects),
            Input::Superseded { old, by } => self.superseded(now_ms, old, by, effects),
            Input::Extended { alert, count, last_ms } => self.extended(now_ms, alert, count, last_ms, effects),
            Input::Act { incident, by, why, act } => {
                if let Err(reason) = self.act(now_ms, incident, by, why, act, effects) {
                    effects.push(Effect::Refused { incident, reason });
                }
            }
        }
        self.forget_closed();
    }

    fn alert(&mut self, now_ms: u64, alert: &Alert, effects: &mut Vec<Effect>) {
        if self.by_alert.contains_key(&alert.id) {
            return;
        }
        let (id, deed) = match self.joinable(alert) {
            Some((id, shared)) => (id, Deed::AlertJoined { alert: alert.id, shared }),
            None => (self.open(now_ms, alert), Deed::Opened { alert: alert.id }),
        };
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        take_in(incident, alert);
        let incident = incident.clone();
        self.index(&incident);
        self.change(now_ms, id, "detector".to_owned(), None, deed, effects);
    }

    /// The open incident an alert belongs to: of those that share an entity, the one with the latest event.
    fn joinable(&self, alert: &Alert) -> Option<(IncidentId, Entity)> {
        let precise = alert.entities.iter().any(|entity| !is_broad(entity.kind));
        alert
            .entities
            .iter()
            .filter(|entity| (!precise || !is_broad(entity.kind)) && !self.options.stop_list.contains(entity))
            .flat_map(|entity| self.by_entity.get(entity).into_iter().flatten().map(move |id| (id, entity)))
            .filter_map(|(id, entity)| Some((self.incidents.get(id)?, entity)))
            .filter(|(incident, _)| {
                incident.status != Status::Closed
                    && incident.tenant == alert.tenant
                    && incident.alerts.len() < ALERTS_MAX
                    && alert.first_ms <= incident.last_ms.saturating_add(self.options.join_window_ms)
                    && incident.first_ms <= alert.last_ms.saturating_add(self.options.join_window_ms)
            })
            .max_by_key(|(incident, _)| (incident.last_ms, incident.id))
            .map(|(incident, entity)| (incident.id, entity.clone()))
    }

    fn open(&mut self, now_ms: u64, alert: &Alert) -> IncidentId {
        let mut hash = Digest::new("holdfast incident 1");
        hash.part(alert.id.as_bytes());
        let id = IncidentId::of(hash);
        self.incidents.entry(id).or_insert_with(|| Incident {
            id,
            tenant: alert.tenant.clone(),
            title: alert.rule.title.clone(),
            status: Status::Open,
            severity: alert.severity,
            assignee: None,
            entities: BTreeSet::new(),
            alerts: BTreeMap::new(),
            events: Vec::new(),
            first_ms: alert.first_ms,
            last_ms: alert.last_ms,
            opened_ms: now_ms,
            history: Vec::new(),
        });
        id
    }

    fn superseded(&mut self, now_ms: u64, old: AlertId, by: AlertId, effects: &mut Vec<Effect>) {
        let Some(id) = self.by_alert.get(&old).copied() else { return };
        let Some(incident) = self.incidents.get_mut(&id).filter(|incident| incident.status != Status::Closed) else {
            return;
        };
        // The last line stays until the alert that replaces it has come: an incident is never without alerts.
        if incident.alerts.len() > 1 && incident.alerts.contains_key(&by) {
            incident.alerts.remove(&old);
            self.by_alert.remove(&old);
        }
        let deed = Deed::AlertSuperseded { old, by };
        self.change(now_ms, id, "detector".to_owned(), None, deed, effects);
    }

    fn extended(&mut self, now_ms: u64, alert: AlertId, count: u64, last_ms: u64, effects: &mut Vec<Effect>) {
        let Some(id) = self.by_alert.get(&alert).copied() else { return };
        let Some(incident) = self.incidents.get_mut(&id).filter(|incident| incident.status != Status::Closed) else {
            return;
        };
        let Some(line) = incident.alerts.get_mut(&alert).filter(|line| count > line.count) else { return };
        line.count = count;
        line.last_ms = line.last_ms.max(last_ms);
        incident.last_ms = incident.last_ms.max(last_ms);
        let deed = Deed::AlertExtended { alert, count, last_ms };
        self.change(now_ms, id, "detector".to_owned(), None, deed, effects);
    }

    fn act(
        &mut self,
        now_ms: u64,
        id: IncidentId,
        by: String,
        why: Option<String>,
        act: Act,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let incident = self.incidents.get_mut(&id).ok_or(Refusal::Unknown)?;
        if incident.history.len() >= HISTORY_MAX {
            return Err(Refusal::HistoryFull);
        }
        if incident.status == Status::Closed && !matches!(act, Act::Comment { .. }) {
            return Err(Refusal::Closed);
        }
        check_text(why.as_deref().unwrap_or("none"))?;
        let deed = match act {
            Act::Acknowledge if incident.status == Status::Acknowledged => return Err(Refusal::AlreadyAcknowledged),
            Act::Acknowledge => {
                incident.status = Status::Acknowledged;
                Deed::Acknowledged
            }
            Act::Assign { to } => {
                check_text(&to)?;
                incident.assignee = Some(to.clone());
                Deed::Assigned { to }
            }
            Act::Comment { text } => {
                check_text(&text)?;
                Deed::Commented { text }
            }
            Act::Close { post_mortem } => {
                check_text(&post_mortem)?;
                incident.status = Status::Closed;
                Deed::Closed { post_mortem }
            }
        };
        self.change(now_ms, id, by, why, deed, effects);
        Ok(())
    }

    fn change(
        &mut self,
        now_ms: u64,
        id: IncidentId,
        by: String,
        why: Option<String>,
        deed: Deed,
        effects: &mut Vec<Effect>,
    ) {
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        let revision = incident.history.last().map_or(1, |last| last.revision + 1);
        let change = Change { revision, at_ms: now_ms, by, deed, why };
        incident.history.push(change.clone());
        effects.push(Effect::Changed { incident: Box::new(incident.clone()), change });
    }

    fn index(&mut self, incident: &Incident) {
        for alert in incident.alerts.keys() {
            self.by_alert.insert(*alert, incident.id);
        }
        if incident.status == Status::Closed {
            return;
        }
        for entity in &incident.entities {
            self.by_entity.entry(entity.clone()).or_default().insert(incident.id);
        }
    }

    /// Closed incidents join nothing; the oldest beyond the bound leave memory.
    fn forget_closed(&mut self) {
        if self.incidents.len() <= self.options.closed_max {
            return;
        }
        let mut closed: Vec<(u64, IncidentId)> = self
            .incidents
            .values()
            .filter(|incident| incident.status == Status::Closed)
            .map(|incident| (incident.last_ms, incident.id))
            .collect();
        closed.sort_unstable();
        closed.truncate(closed.len().saturating_sub(self.options.closed_max / 2));
        for (_, id) in closed {
            let Some(incident) = self.incidents.remove(&id) else { continue };
            for alert in incident.alerts.keys() {
                self.by_alert.remove(alert);
            }
            for entity in &incident.entities {
                if let Some(ids) = self.by_entity.get_mut(entity) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.by_entity.remove(entity);
                    }
                }
            }
        }
    }
}

fn check_text(text: &str) -> Result<(), Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::TextRequired);
    }
    if text.len() > TEXT_SIZE_BYTES_MAX {
        return Err(Refusal::TextTooLong);
    }
    Ok(())
}

fn take_in(incident: &mut Incident, alert: &Alert) {
    if alert.severity > incident.severity || incident.alerts.is_empty() {
        incident.severity = alert.severity;
        incident.title = alert.rule.title.clone();
    }
    incident.entities.extend(alert.entities.iter().cloned());
    incident.first_ms = incident.first_ms.min(alert.first_ms);
    incident.last_ms = incident.last_ms.max(alert.last_ms);
    incident.alerts.insert(
        alert.id,
        AlertLine {
            rule: alert.rule.id.clone(),
            title: alert.rule.title.clone(),
            severity: alert.severity,
            count: alert.events.len() as u64,
            last_ms: alert.last_ms,
        },
    );
    for event in &alert.events {
        let place = incident.events.binary_search_by_key(&(event.time_ms, event.id), |known| (known.time_ms, known.id));
        if let (Err(place), true) = (place, incident.events.len() < EVENTS_MAX) {
            incident.events.insert(place, event.clone());
        }
    }
}
