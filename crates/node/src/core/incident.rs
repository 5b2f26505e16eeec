//! Alerts and incidents as the SOC sees them.

use crate::driver::book;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{
    AlertList, AlertView, Caller, IncidentAction, IncidentFilter, IncidentList, IncidentNote, IncidentStatus,
    IncidentSummary, IncidentView, Page, Severity,
};
use detection::Alert;
use detection::incident::{Act, Deed, EVENTS_MAX, Effect, Incident, Input, Refusal, Status};
use identity::{Action, Session};
use model::TenantId;
use std::collections::BTreeMap;

impl Node {
    async fn may_see(&self, caller: &Caller, session: &Session, what: &str) -> Answer<()> {
        // Incidents are the platform's: they may name several tenants.
        self.permit(caller, session, Action::IncidentRead, TenantId::PLATFORM, what).await?;
        self.viewed(caller, session, what).await
    }

    /// Alerts, newest first.
    pub(crate) async fn alerts(&self, caller: &Caller, session: &Session, page: &Page) -> Answer<AlertList> {
        self.may_see(caller, session, "alerts").await?;
        let of = incident_of(&book::incidents(self)?);
        let mut alerts: Vec<AlertView> = book::alerts(self)?.iter().map(|alert| alert_view(alert, &of)).collect();
        alerts.sort_by(|one, other| (other.time_ms, &other.id).cmp(&(one.time_ms, &one.id)));
        let (alerts, next) = paged(alerts, page)?;
        Ok(AlertList { alerts, next })
    }

    /// Incidents, newest first.
    pub(crate) async fn incidents(
        &self,
        caller: &Caller,
        session: &Session,
        filter: &IncidentFilter,
    ) -> Answer<IncidentList> {
        self.may_see(caller, session, "incidents").await?;
        let stored = book::incidents(self)?;
        let wanted = |summary: &IncidentSummary| {
            filter.status.is_none_or(|status| status == summary.status)
                && (filter.tenant.is_none() || filter.tenant == summary.tenant)
        };
        let mut incidents: Vec<_> = stored.iter().map(summary).filter(wanted).collect();
        incidents.sort_by(|one, other| (other.opened_ms, &other.id).cmp(&(one.opened_ms, &one.id)));
        let (incidents, next) = paged(incidents, &filter.page)?;
        Ok(IncidentList { incidents, next })
    }

    /// One incident.
    pub(crate) async fn incident(&self, caller: &Caller, session: &Session, id: &str) -> Answer<IncidentView> {
        self.may_see(caller, session, &format!("incidents/{}", id.chars().take(64).collect::<String>())).await?;
        self.incident_view(id)
    }

    fn incident_view(&self, id: &str) -> Answer<IncidentView> {
        let stored = book::incidents(self)?;
        let of = incident_of(&stored);
        let found = stored.iter().find(|incident| incident.id.to_string() == id);
        let incident = found.ok_or(Problem::not_found("incident"))?;
        let all = book::alerts(self)?;
        let mut alerts: Vec<&Alert> = all.iter().filter(|alert| incident.alerts.contains_key(&alert.id)).collect();
        alerts.sort_by_key(|alert| (alert.last_ms, alert.id));
        let json = |event| serde_json::to_value(event).unwrap_or_default();
        // Alerts keep all of their events; the incident lists the first and last of each.
        let mut events: Vec<_> = alerts.iter().flat_map(|alert| &alert.events).collect();
        events.sort_by_key(|event| (event.time_ms, event.id));
        events.dedup_by_key(|event| event.id);
        Ok(IncidentView {
            summary: summary(incident),
            alerts: alerts.into_iter().map(|alert| alert_view(alert, &of)).collect(),
            events: events.into_iter().take(EVENTS_MAX).map(json).collect(),
            history: incident.history.iter().map(history).collect(),
        })
    }

    /// Acts on an incident.
    pub(crate) async fn act_on_incident(
        &self,
        caller: &Caller,
        session: &Session,
        id: &str,
        action: IncidentAction,
    ) -> Answer<IncidentView> {
        let resource = format!("incidents/{}", id.chars().take(64).collect::<String>());
        self.permit(caller, session, Action::IncidentManage, TenantId::PLATFORM, &resource).await?;
        let incident = id.parse().map_err(|_| Problem::not_found("incident"))?;
        let act = match action {
            IncidentAction::Acknowledge => Act::Acknowledge,
            IncidentAction::Assign(assign) => Act::Assign { to: assign.assignee },
            IncidentAction::Comment(comment) => Act::Comment { text: comment.text },
            IncidentAction::Close(close) => {
                Act::Close { post_mortem: format!("Cause: {}\nActions: {}", close.cause, close.actions) }
            }
        };
        let by = session.account().login.as_str().to_owned();
        let input = Input::Act { incident, by, why: None, act };
        let effects = book::act(self, &input, &self.note(caller, session, "incident.update")).await?;
        for effect in effects {
            if let Effect::Refused { reason, .. } = effect {
                return Err(match reason {
                    Refusal::Unknown => Problem::not_found("incident"),
                    Refusal::TextRequired | Refusal::TextTooLong => Problem::invalid("text", reason.to_string()),
                    _ => Problem::conflict(reason.to_string()),
                });
            }
        }
        self.incident_view(id)
    }
}

/// The incident of each alert.
fn incident_of(stored: &[Incident]) -> BTreeMap<detection::AlertId, String> {
    let pairs =
        stored.iter().flat_map(|incident| incident.alerts.keys().map(move |alert| (*alert, incident.id.to_string())));
    pairs.collect()
}

fn alert_view(alert: &Alert, of: &BTreeMap<detection::AlertId, String>) -> AlertView {
    AlertView {
        id: alert.id.to_string(),
        rule: alert.rule.id.to_string(),
        title: alert.rule.title.to_string(),
        severity: severity(alert.severity),
        time_ms: alert.last_ms,
        tenant: Some(alert.tenant.to_string()),
        group: serde_json::to_value(&alert.group_key).unwrap_or_default(),
        incident: of.get(&alert.id).cloned(),
    }
}

fn summary(incident: &Incident) -> IncidentSummary {
    IncidentSummary {
        id: incident.id.to_string(),
        title: incident.title.to_string(),
        severity: severity(incident.severity),
        status: match incident.status {
            // What went up in another incident is done under its own id.
            _ if incident.merged_into.is_some() => IncidentStatus::Closed,
            Status::New => IncidentStatus::Open,
            Status::InProgress | Status::OnHold | Status::Resolved => IncidentStatus::Acknowledged,
            Status::Closed => IncidentStatus::Closed,
        },
        tenant: Some(incident.tenant.to_string()),
        assignee: incident.assignee.clone(),
        first_ms: incident.first_ms,
        last_ms: incident.last_ms,
        opened_ms: incident.opened_ms,
        alert_count: incident.alerts.len() as u64,
    }
}

fn history(entry: &detection::incident::Entry) -> IncidentNote {
    let (act, text) = match &entry.change.deed {
        Deed::Opened { alert, .. } => ("opened", alert.to_string()),
        Deed::AlertJoined { alert, .. } => ("alert_joined", alert.to_string()),
        Deed::AlertSuperseded { by, .. } => ("alert_superseded", by.to_string()),
        Deed::AlertExtended { alert, count, .. } => ("alert_extended", format!("{alert}: {count} events")),
        Deed::Acknowledged => ("acknowledged", String::new()),
        Deed::Assigned { to } => ("assigned", to.clone()),
        Deed::Unassigned => ("unassigned", String::new()),
        Deed::Commented { text } => ("commented", text.clone()),
        Deed::StatusSet { to } => ("status_set", format!("{to:?}").to_lowercase()),
        Deed::SeveritySet { to } => ("severity_set", to.map_or("", detection::Severity::name).to_owned()),
        Deed::PrioritySet { to } => ("priority_set", to.map_or(String::new(), |to| format!("{to:?}").to_lowercase())),
        Deed::PostMortemWritten { text } => ("post_mortem_written", text.clone()),
        Deed::Closed { post_mortem } => ("closed", post_mortem.clone()),
        Deed::Merged { from } => ("merged", from.to_string()),
        Deed::Split { into, .. } => ("split", into.to_string()),
        Deed::Undone { change } => ("undone", change.to_string()),
        Deed::Suppressed { until_ms } => ("suppressed", until_ms.to_string()),
        Deed::Unsuppressed => ("unsuppressed", String::new()),
        Deed::ClockStarted { subject, .. } => ("clock_started", subject.clone()),
        Deed::ClockMet { reference, .. } => ("clock_met", reference.clone()),
        Deed::ClockStopped { subject, .. } => ("clock_stopped", subject.clone()),
        Deed::Notified { target, .. } => ("notified", target.clone()),
    };
    let text = entry.void.map_or(text.clone(), |why| format!("{text} (void: {why})"));
    IncidentNote { time_ms: entry.change.at_ms(), actor: entry.change.by.clone(), act: act.into(), text }
}

const fn severity(severity: detection::Severity) -> Severity {
    match severity {
        detection::Severity::Informational => Severity::Informational,
        detection::Severity::Low => Severity::Low,
        detection::Severity::Medium => Severity::Medium,
        detection::Severity::High => Severity::High,
        detection::Severity::Critical => Severity::Critical,
    }
}

/// One page of a list that is in memory; `after` is how many came before.
fn paged<T>(items: Vec<T>, page: &Page) -> Answer<(Vec<T>, Option<String>)> {
    let skip = match &page.after {
        Some(after) => after.parse::<usize>().map_err(|_| Problem::invalid("page_token", "not one of ours"))?,
        None => 0,
    };
    let total = items.len();
    let items: Vec<T> = items.into_iter().skip(skip).take(page.limit).collect();
    let next = (skip + items.len() < total).then(|| (skip + items.len()).to_string());
    Ok((items, next))
}
