//! What each deed does to the incidents, and when it may not.

use super::act::Refusal;
use super::breach::{Clock, ClockKind};
use super::change::{Change, Deed, Order};
use super::fold::Folded;
use super::state::{Acknowledgement, Alarm, AlertLine, Cause, Incident, Status, Suppression};
use super::{ALERTS_MERGED_MAX, CLOCKS_MAX, NOTIFIED_MAX, SUPPRESSION_MAX_MS};
use crate::alert::Severity;
use crate::id::{AlertId, IncidentId};
use std::collections::{BTreeMap, BTreeSet};

impl Folded {
    /// Does a change, or says why it is void.
    pub(super) fn apply(&mut self, order: &Order, change: &Change) -> Result<(), Refusal> {
        if let Deed::Opened { alert, tenant, line } = &change.deed {
            return self.open(order, change.incident, *alert, tenant, line);
        }
        let id = self.survivor(change.incident).ok_or(Refusal::Unknown)?;
        match &change.deed {
            Deed::AlertJoined { alert, line, .. } => {
                if self.home.contains_key(alert) {
                    return Err(Refusal::NoEffect);
                }
                self.home.insert(*alert, id);
                self.at(id)?.take_in(order, *alert, line);
                Ok(())
            }
            Deed::AlertSuperseded { old, by } => {
                let id = self.home.get(old).copied().ok_or(Refusal::Unknown)?;
                self.at(id)?.superseded.insert(*old, *by);
                Ok(())
            }
            Deed::AlertExtended { alert, count, last_ms } => {
                let id = self.home.get(alert).copied().ok_or(Refusal::Unknown)?;
                self.at(id)?.extend(order, *alert, *count, *last_ms)
            }
            Deed::Merged { from } => self.merge(order, id, *from),
            Deed::Split { alerts, into } => self.split(order, id, alerts, *into),
            _ => self.at(id)?.apply(order, change),
        }
    }

    fn at(&mut self, id: IncidentId) -> Result<&mut Incident, Refusal> {
        self.incidents.get_mut(&id).ok_or(Refusal::Unknown)
    }

    fn open(
        &mut self,
        order: &Order,
        id: IncidentId,
        alert: AlertId,
        tenant: &str,
        line: &AlertLine,
    ) -> Result<(), Refusal> {
        if self.incidents.contains_key(&id) {
            return Err(Refusal::NoEffect);
        }
        let mut incident = Incident::new(id, tenant, order, line);
        // Another region joined the alert to an incident of its own at the same time: what is done to this is done there.
        incident.merged_into = self.home.get(&alert).copied();
        if incident.merged_into.is_none() {
            self.home.insert(alert, id);
            incident.alerts.insert(alert, line.clone());
        }
        self.incidents.insert(id, incident);
        Ok(())
    }

    fn merge(&mut self, order: &Order, id: IncidentId, from: IncidentId) -> Result<(), Refusal> {
        let from = self.survivor(from).ok_or(Refusal::Unknown)?;
        if from == id {
            return Err(Refusal::NoEffect);
        }
        let (one, other) = (self.incidents.get(&id).ok_or(Refusal::Unknown)?, &self.incidents[&from]);
        if one.status == Status::Closed {
            return Err(Refusal::Closed);
        }
        if one.tenant != other.tenant {
            return Err(Refusal::OtherTenant);
        }
        let clocks = one.clocks.len() + other.clocks.len();
        if one.alerts.len() + other.alerts.len() > ALERTS_MERGED_MAX || clocks > CLOCKS_MAX {
            return Err(Refusal::TooLarge);
        }
        let gone = self.at(from)?;
        gone.merged_into = Some(id);
        let (alerts, superseded) = (std::mem::take(&mut gone.alerts), std::mem::take(&mut gone.superseded));
        let clocks = std::mem::take(&mut gone.clocks);
        for alert in alerts.keys() {
            self.home.insert(*alert, id);
        }
        // Superseded alerts have left their incident but are still known to be of it.
        for alert in superseded.keys() {
            self.home.insert(*alert, id);
        }
        let incident = self.at(id)?;
        incident.absorbed.insert(from);
        incident.superseded.extend(superseded);
        for clock in clocks {
            // There is room for all of them; one that runs here already takes the earlier times.
            let _ = incident.start(clock);
        }
        for (alert, line) in alerts {
            incident.take_in(order, alert, &line);
        }
        Ok(())
    }

    fn split(
        &mut self,
        order: &Order,
        id: IncidentId,
        alerts: &BTreeSet<AlertId>,
        into: IncidentId,
    ) -> Result<(), Refusal> {
        if self.incidents.contains_key(&into) {
            return Err(Refusal::NoEffect);
        }
        let incident = self.at(id)?;
        if incident.status == Status::Closed {
            return Err(Refusal::Closed);
        }
        let is_part = !alerts.is_empty() && alerts.iter().all(|alert| incident.alerts.contains_key(alert));
        if !is_part || alerts.len() == incident.alerts.len() {
            return Err(Refusal::NotAPart);
        }
        let (parted, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut incident.alerts).into_iter().partition(|(alert, _)| alerts.contains(alert));
        incident.alerts = kept;
        let (superseded, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut incident.superseded).into_iter().partition(|(alert, _)| alerts.contains(alert));
        incident.superseded = others;
        let gravest = parted.values().max_by_key(|line| line.severity).ok_or(Refusal::NotAPart)?;
        let mut made = Incident::new(into, &incident.tenant, order, gravest);
        // Whoever split it has seen it: nobody is called again for the part.
        made.alarm = incident.alarm.clone();
        (made.status, made.ended_ms) = (incident.status, incident.ended_ms);
        made.assignee.clone_from(&incident.assignee);
        made.alerts = parted;
        made.superseded = superseded;
        for alert in alerts {
            self.home.insert(*alert, into);
        }
        self.incidents.insert(into, made);
        Ok(())
    }
}

impl Incident {
    fn new(id: IncidentId, tenant: &str, order: &Order, line: &AlertLine) -> Self {
        let at_ms = order.hlc.wall_ms();
        Self {
            id,
            tenant: tenant.into(),
            title: line.title.clone(),
            status: Status::New,
            severity: line.severity,
            severity_set: None,
            priority_set: None,
            assignee: None,
            entities: BTreeSet::new(),
            alerts: BTreeMap::new(),
            events: Vec::new(),
            first_ms: line.first_ms,
            last_ms: line.last_ms,
            opened_ms: at_ms,
            closed_ms: None,
            ended_ms: None,
            post_mortem: None,
            merged_into: None,
            absorbed: BTreeSet::new(),
            clocks: Vec::new(),
            suppression: None,
            alarm: Alarm { cause: Cause::Opened, begun_ms: at_ms, severity: line.severity, acknowledged: None },
            notified: BTreeSet::new(),
            superseded: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// Takes an alert in; people are called where it went on after its end, or became graver.
    fn take_in(&mut self, order: &Order, alert: AlertId, line: &AlertLine) {
        self.alerts.insert(alert, line.clone());
        if matches!(self.status, Status::Resolved | Status::Closed) {
            self.reopen(order);
        } else if line.severity > self.alarm.severity {
            let cause = Cause::Graver { severity: line.severity };
            self.call(order, cause);
        }
    }

    fn reopen(&mut self, order: &Order) {
        self.status = Status::New;
        (self.closed_ms, self.ended_ms) = (None, None);
        self.call(order, Cause::Reopened { change: order.id });
    }

    fn call(&mut self, order: &Order, cause: Cause) {
        let severity = self.gravity();
        self.alarm = Alarm { cause, begun_ms: order.hlc.wall_ms(), severity, acknowledged: None };
    }

    /// The burst of an alert goes on; one that goes on after the incident's end opens it again.
    fn extend(&mut self, order: &Order, alert: AlertId, count: u64, last_ms: u64) -> Result<(), Refusal> {
        let line = self.alerts.get_mut(&alert).ok_or(Refusal::Unknown)?;
        if count <= line.count {
            return Err(Refusal::NoEffect);
        }
        line.count = count;
        line.last_ms = line.last_ms.max(last_ms);
        if self.ended_ms.is_some_and(|ended_ms| last_ms > ended_ms) {
            self.reopen(order);
        }
        Ok(())
    }

    fn apply(&mut self, order: &Order, change: &Change) -> Result<(), Refusal> {
        let at_ms = order.hlc.wall_ms();
        let is_closed = self.status == Status::Closed;
        match &change.deed {
            Deed::Commented { .. } | Deed::NotNotified { .. } => {}
            Deed::PostMortemWritten { text } => self.post_mortem = Some(text.clone()),
            Deed::Notified { notification, .. } if self.notified.len() < NOTIFIED_MAX => {
                let fresh = self.notified.insert(*notification);
                return fresh.then_some(()).ok_or(Refusal::NoEffect);
            }
            Deed::Notified { .. } => return Err(Refusal::TooLarge),
            Deed::ClockStarted { clock, subject, aware_ms, limit_ms } => {
                return self.start_clock(*clock, subject, *aware_ms, *limit_ms);
            }
            Deed::ClockMet { clock, subject, at_ms, reference } => {
                self.open_clock(*clock, subject)?.met = Some((*at_ms, reference.clone()));
            }
            Deed::ClockStopped { clock, subject } => self.open_clock(*clock, subject)?.stopped = true,
            Deed::StatusSet { to } => return self.set_status(*to, &change.by, at_ms),
            _ if is_closed => return Err(Refusal::Closed),
            Deed::Acknowledged if self.alarm.acknowledged.is_some() => return Err(Refusal::AlreadyAcknowledged),
            Deed::Acknowledged => self.see(&change.by, at_ms),
            Deed::Assigned { to } if self.assignee.as_ref() == Some(to) => return Err(Refusal::NoEffect),
            Deed::Assigned { to } => self.assignee = Some(to.clone()),
            Deed::Unassigned => {
                self.assignee.take().ok_or(Refusal::NoEffect)?;
            }
            Deed::SeveritySet { to } => self.set_severity(order, *to),
            Deed::PrioritySet { to } => self.priority_set = *to,
            Deed::Closed { post_mortem } => return self.close(post_mortem, &change.by, at_ms),
            Deed::Suppressed { until_ms } => {
                if *until_ms <= at_ms || *until_ms - at_ms > SUPPRESSION_MAX_MS {
                    return Err(Refusal::TimeOutOfRange);
                }
                let (severity, by) = (self.gravity(), change.by.clone());
                self.suppression = Some(Suppression { until_ms: *until_ms, severity, by });
            }
            Deed::Unsuppressed => {
                self.suppression.take().ok_or(Refusal::NoEffect)?;
            }
            Deed::Opened { .. }
            | Deed::AlertJoined { .. }
            | Deed::AlertSuperseded { .. }
            | Deed::AlertExtended { .. }
            | Deed::Merged { .. }
            | Deed::Split { .. }
            | Deed::Undone { .. } => unreachable!("these are done where all incidents are known"),
        }
        Ok(())
    }

    fn see(&mut self, by: &str, at_ms: u64) {
        self.alarm.acknowledged.get_or_insert_with(|| Acknowledgement { by: by.to_owned(), at_ms });
        if self.status == Status::New {
            self.status = Status::InProgress;
        }
    }

    fn set_status(&mut self, to: Status, by: &str, at_ms: u64) -> Result<(), Refusal> {
        if to == self.status {
            return Err(Refusal::NoEffect);
        }
        if !self.status.may_become(to) {
            return Err(if self.status == Status::Closed { Refusal::Closed } else { Refusal::Transition });
        }
        self.see(by, at_ms);
        self.status = to;
        (self.closed_ms, self.ended_ms) = (None, (to == Status::Resolved).then_some(at_ms));
        Ok(())
    }

    /// What a person calls graver than people were called for calls them again.
    fn set_severity(&mut self, order: &Order, to: Option<Severity>) {
        self.severity_set = to;
        if let Some(severity) = to.filter(|to| *to > self.alarm.severity) {
            self.call(order, Cause::Graver { severity });
        }
    }

    fn close(&mut self, post_mortem: &str, by: &str, at_ms: u64) -> Result<(), Refusal> {
        if post_mortem.trim().is_empty() && self.post_mortem.is_none() {
            return Err(Refusal::TextRequired);
        }
        if self.clocks.iter().any(Clock::is_open) {
            return Err(Refusal::ClockRunning);
        }
        if !post_mortem.trim().is_empty() {
            let before = self.post_mortem.take().map(|before| format!("{before}\n\n")).unwrap_or_default();
            self.post_mortem = Some(before + post_mortem);
        }
        self.see(by, at_ms);
        self.status = Status::Closed;
        (self.closed_ms, self.ended_ms) = (Some(at_ms), Some(at_ms));
        Ok(())
    }

    fn start_clock(&mut self, kind: ClockKind, subject: &str, aware_ms: u64, limit_ms: u64) -> Result<(), Refusal> {
        if !kind.admits(limit_ms) {
            return Err(Refusal::TimeOutOfRange);
        }
        let due_ms = aware_ms.checked_add(limit_ms).ok_or(Refusal::TimeOutOfRange)?;
        self.start(Clock { kind, subject: subject.to_owned(), aware_ms, due_ms, met: None, stopped: false })
    }

    /// Starts a clock; one that runs already keeps the earlier knowledge and the earlier end.
    fn start(&mut self, clock: Clock) -> Result<(), Refusal> {
        let is_same = |known: &&mut Clock| known.kind == clock.kind && known.subject == clock.subject;
        if let Some(known) = self.clocks.iter_mut().find(is_same) {
            let is_news = clock.aware_ms < known.aware_ms || clock.due_ms < known.due_ms || known.stopped;
            known.aware_ms = known.aware_ms.min(clock.aware_ms);
            known.due_ms = known.due_ms.min(clock.due_ms);
            known.stopped &= clock.stopped;
            known.met = known.met.take().or(clock.met);
            return is_news.then_some(()).ok_or(Refusal::NoEffect);
        }
        if self.clocks.len() >= CLOCKS_MAX {
            return Err(Refusal::TooLarge);
        }
        self.clocks.push(clock);
        Ok(())
    }

    fn open_clock(&mut self, kind: ClockKind, subject: &str) -> Result<&mut Clock, Refusal> {
        let is_it = |clock: &&mut Clock| clock.kind == kind && clock.subject == subject && clock.is_open();
        self.clocks.iter_mut().find(is_it).ok_or(Refusal::Unknown)
    }
}
