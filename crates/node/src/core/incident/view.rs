//! Incidents and alerts as the API shows them, and which of them are wanted in which order.

use api::core::Answer;
use api::problem::Problem;
use api::types::{
    AlertView, AttackView, ClockKind, ClockView, EntityEdge, EntityGraph, EntityView, Etag, IncidentFilter,
    IncidentNote, IncidentSort, IncidentStatus, IncidentSummary, IncidentView, Moment, MomentKind, Priority,
    RenamedTechnique, RiskView, Severity, Timeline,
};
use detection::incident::attack::Mapping;
use detection::incident::breach::{self, Clock, ClockState};
use detection::incident::mute::{Mute, quiet_until_ms};
use detection::incident::risk::{self, Risk, Weights};
use detection::incident::timeline::{self as line, What};
use detection::incident::{Board, Deed, EVENTS_MAX, Entry, Incident, Status, entity, graph};
use detection::{Alert, Entity, VersionId};
use serde::Serialize;
use std::collections::BTreeSet;

/// Entities whose risk over all incidents is reckoned for one view: the rest shows none.
const ENTITIES_WITH_RISK_MAX: usize = 32;

/// What a view depends on beside the incident.
pub(super) struct Now {
    pub(super) ms: u64,
    pub(super) mutes: Vec<Mute>,
    pub(super) weights: Weights,
}

/// A filter, its texts made comparable once.
pub(super) struct Wanted<'a> {
    filter: &'a IncidentFilter,
    entity: Option<Entity>,
    text: Option<String>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(filter: &'a IncidentFilter) -> Answer<Self> {
        let entity = match &filter.entity {
            Some((kind, name)) => {
                let entity = entity::parse(kind, name);
                Some(entity.ok_or_else(|| Problem::invalid("entity", "kind and name, such as user:ann"))?)
            }
            None => None,
        };
        Ok(Self { filter, entity, text: filter.text.as_ref().map(|text| text.to_lowercase()) })
    }

    /// All but the priority, which needs the risk.
    pub(super) fn is_of(&self, incident: &Incident) -> bool {
        let filter = self.filter;
        let of_assignee = |wanted: &String| incident.assignee.as_deref().unwrap_or_default() == wanted;
        (filter.statuses.is_empty() || filter.statuses.contains(&status(incident.status)))
            && filter.severity.is_none_or(|least| severity(incident.severity) >= least)
            && filter.assignee.as_ref().is_none_or(of_assignee)
            && filter.tenant.as_ref().is_none_or(|tenant| *tenant == *incident.tenant)
            && self.entity.as_ref().is_none_or(|entity| incident.entities.contains(entity))
            && self.text.as_ref().is_none_or(|text| mentions(incident, text))
    }

    pub(super) fn is_as_urgent(&self, summary: &IncidentSummary) -> bool {
        self.filter.priority.is_none_or(|least| summary.priority >= least)
    }
}

/// Whether a text in lower case is anywhere in an incident.
fn mentions(incident: &Incident, text: &str) -> bool {
    let has = |hay: &str| hay.to_lowercase().contains(text);
    let said = |entry: &Entry| matches!(&entry.change.deed, Deed::Commented { text } if has(text));
    has(&incident.title)
        || incident.id.to_string().starts_with(text)
        || incident.entities.iter().any(|entity| has(&entity.name))
        || incident.alerts.values().any(|line| has(&line.rule) || has(&line.title))
        || incident.history.iter().any(said)
}

/// Puts summaries in order; the newest first where they are alike.
pub(super) fn sort(incidents: &mut [IncidentSummary], by: IncidentSort) {
    incidents.sort_by(|one, other| (other.opened_ms, &other.id).cmp(&(one.opened_ms, &one.id)));
    match by {
        IncidentSort::Newest => {}
        IncidentSort::Updated => incidents.sort_by_key(|one| std::cmp::Reverse(one.updated_ms)),
        IncidentSort::Risk => incidents.sort_by_key(|one| std::cmp::Reverse(one.risk)),
        IncidentSort::Priority => incidents.sort_by_key(|one| std::cmp::Reverse((one.priority, one.risk))),
        IncidentSort::Severity => incidents.sort_by_key(|one| std::cmp::Reverse((one.severity, one.risk))),
        IncidentSort::Due => incidents.sort_by_key(|one| one.due_ms.unwrap_or(u64::MAX)),
    }
}

pub(in crate::core) fn alert(alert: &Alert, incident: Option<String>) -> AlertView {
    AlertView {
        id: alert.id.to_string(),
        rule: alert.rule.id.to_string(),
        title: alert.rule.title.to_string(),
        severity: severity(alert.severity),
        time_ms: alert.last_ms,
        tenant: Some(alert.tenant.to_string()),
        group: serde_json::to_value(&alert.group_key).unwrap_or_default(),
        incident,
        count: None,
        superseded_by: None,
    }
}

pub(super) fn summary(incident: &Incident, now: &Now) -> IncidentSummary {
    let risk = risk::of_incident(incident, &now.weights, now.ms);
    summary_with(incident, &risk, now)
}

fn summary_with(incident: &Incident, risk: &Risk, now: &Now) -> IncidentSummary {
    let done_ms = incident.history.iter().map(|entry| entry.change.at_ms()).max();
    IncidentSummary {
        id: incident.id.to_string(),
        title: incident.title.to_string(),
        severity: severity(incident.severity),
        priority: priority(risk::priority(incident, risk)),
        risk: risk.score,
        status: status(incident.status),
        tenant: Some(incident.tenant.to_string()),
        assignee: incident.assignee.clone(),
        acknowledged_by: incident.alarm.acknowledged.as_ref().map(|seen| seen.by.clone()),
        first_ms: incident.first_ms,
        last_ms: incident.last_ms,
        opened_ms: incident.opened_ms,
        updated_ms: done_ms.unwrap_or(incident.opened_ms),
        closed_ms: incident.closed_ms,
        alert_count: incident.alerts.len() as u64,
        due_ms: incident.clocks.iter().filter(|clock| clock.is_open()).map(|clock| clock.due_ms).min(),
        quiet_until_ms: quiet_until_ms(incident, &now.mutes, now.ms),
        merged_into: incident.merged_into.map(|id| id.to_string()),
    }
}

pub(super) fn incident(
    board: &Board,
    incident: &Incident,
    alerts: &[Alert],
    version: VersionId,
    now: &Now,
) -> Answer<IncidentView> {
    let risk = risk::of_incident(incident, &now.weights, now.ms);
    let json = |event| serde_json::to_value(event).unwrap_or_default();
    // Alerts keep all of their events; the incident lists the first and last of each.
    let mut events: Vec<_> = alerts.iter().flat_map(|alert| &alert.events).collect();
    events.sort_by_key(|event| (event.time_ms, event.id));
    events.dedup_by_key(|event| event.id);
    let of = |one: &Alert| alert(one, Some(incident.id.to_string()));
    Ok(IncidentView {
        summary: summary_with(incident, &risk, now),
        severity_set: incident.severity_set.map(severity),
        priority_set: incident.priority_set.map(priority),
        attack: attack(incident),
        graph: graph_view(board, incident, now),
        clocks: incident.clocks.iter().map(|clock| clock_view(clock, now.ms)).collect(),
        post_mortem: incident.post_mortem.clone(),
        absorbed: incident.absorbed.iter().map(ToString::to_string).collect(),
        alerts: alerts.iter().map(of).collect(),
        events: events.into_iter().take(EVENTS_MAX).map(json).collect(),
        history: incident.history.iter().map(note).collect(),
        etag: Etag::new(version.to_string()).ok_or(Problem::Internal)?,
        risk_parts: risk_view(risk),
    })
}

fn risk_view(risk: Risk) -> RiskView {
    RiskView {
        score: risk.score,
        level: word(&risk.level),
        rules: risk.rules.into_iter().map(|(rule, points)| (rule.to_string(), points)).collect(),
        criticality: word(&risk.criticality),
        tactics: risk.tactics.into_iter().map(|tactic| tactic.name().to_owned()).collect(),
    }
}

fn attack(incident: &Incident) -> AttackView {
    let tags: BTreeSet<&str> = incident.alerts.values().flat_map(|line| &line.tags).map(|tag| tag.as_ref()).collect();
    let mapping = Mapping::of(tags);
    AttackView {
        version: mapping.version,
        tactics: mapping.tactics.iter().map(|tactic| tactic.name().to_owned()).collect(),
        techniques: mapping.techniques.iter().map(ToString::to_string).collect(),
        renamed: mapping
            .renamed
            .iter()
            .map(|(written, now)| RenamedTechnique {
                written: written.to_string(),
                now: now.to_string(),
                since: written.renamed_in().unwrap_or_default(),
            })
            .collect(),
        others: mapping.others.into_iter().collect(),
    }
}

fn graph_view(board: &Board, incident: &Incident, now: &Now) -> EntityGraph {
    let found = graph::graph(incident);
    let mut entities: Vec<EntityView> = Vec::with_capacity(found.entities.len());
    for (place, (entity, alerts)) in found.entities.iter().enumerate() {
        let risk = match place < ENTITIES_WITH_RISK_MAX {
            true => {
                let concerned = board.iter().filter(|one| one.entities.contains(entity));
                risk::of_entity(concerned, entity, &now.weights, now.ms).score
            }
            false => 0,
        };
        let kind = entity::kind_name(entity.kind).to_owned();
        entities.push(EntityView { kind, name: entity.name.to_string(), alerts: *alerts, risk });
    }
    let edge = |(one, other, alerts): &(Entity, Entity, u64)| EntityEdge {
        one: entity::text(one),
        other: entity::text(other),
        alerts: *alerts,
    };
    EntityGraph { entities, edges: found.edges.iter().map(edge).collect(), left_out: found.left_out }
}

fn clock_view(clock: &Clock, now_ms: u64) -> ClockView {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let (state, left_ms) = match clock.state(now_ms) {
        ClockState::Running { left_ms } => ("running", Some(signed(left_ms))),
        ClockState::Overdue { over_ms } => ("overdue", Some(-signed(over_ms))),
        ClockState::Met => ("met", None),
        ClockState::MetLate { over_ms } => ("met_late", Some(-signed(over_ms))),
        ClockState::Stopped => ("stopped", None),
    };
    ClockView {
        clock: clock_kind(clock.kind),
        subject: clock.subject.clone(),
        aware_ms: clock.aware_ms,
        due_ms: clock.due_ms,
        state: state.to_owned(),
        left_ms,
        met_ms: clock.met.as_ref().map(|(at_ms, _)| *at_ms),
        reference: clock.met.as_ref().map(|(_, reference)| reference.clone()),
    }
}

pub(super) fn timeline(timeline: line::Timeline) -> Timeline {
    let moment = |moment: line::Moment| {
        let what = match moment.what {
            What::Event { event, alerts } => MomentKind::Event {
                text: event.text.clone(),
                entities: event.entities.iter().map(entity::text).collect(),
                alerts: alerts.iter().map(ToString::to_string).collect(),
            },
            What::Alert { alert, line } => MomentKind::Alert {
                alert: alert.to_string(),
                rule: line.rule.to_string(),
                title: line.title.to_string(),
                severity: severity(line.severity),
            },
            What::Act { entry } => MomentKind::Act { incident: entry.change.incident.to_string(), note: note(&entry) },
        };
        Moment { time_ms: moment.time_ms, what }
    };
    Timeline { moments: timeline.moments.into_iter().map(moment).collect(), left_out: timeline.left_out }
}

fn note(entry: &Entry) -> IncidentNote {
    let about = |kind: &breach::ClockKind, rest: &str| format!("{}: {rest}", clock_kind(*kind).name());
    let (act, text) = match &entry.change.deed {
        Deed::Opened { alert, line, .. } => ("opened", format!("{} ({alert})", line.title)),
        Deed::AlertJoined { alert, shared, line, .. } => {
            ("alert_joined", format!("{} by {} ({alert})", line.title, entity::text(shared)))
        }
        Deed::AlertSuperseded { old, by } => ("alert_superseded", format!("{old} by {by}")),
        Deed::AlertExtended { alert, count, .. } => ("alert_extended", format!("{alert}: {count} events")),
        Deed::Acknowledged => ("acknowledged", String::new()),
        Deed::Assigned { to } => ("assigned", to.clone()),
        Deed::Unassigned => ("unassigned", String::new()),
        Deed::Commented { text } => ("commented", text.clone()),
        Deed::StatusSet { to } => ("status_set", status(*to).name().to_owned()),
        Deed::SeveritySet { to } => ("severity_set", to.map_or("", detection::Severity::name).to_owned()),
        Deed::PrioritySet { to } => ("priority_set", to.map_or(String::new(), |to| word(&to))),
        Deed::PostMortemWritten { text } => ("post_mortem_written", text.clone()),
        Deed::Closed { post_mortem } => ("closed", post_mortem.clone()),
        Deed::Merged { from } => ("merged", from.to_string()),
        Deed::Split { into, alerts } => ("split", format!("{} alerts into {into}", alerts.len())),
        Deed::Undone { change } => ("undone", change.to_string()),
        Deed::Suppressed { until_ms } => ("suppressed", until_ms.to_string()),
        Deed::Unsuppressed => ("unsuppressed", String::new()),
        Deed::ClockStarted { clock, subject, .. } => ("clock_started", about(clock, subject)),
        Deed::ClockMet { clock, subject, reference, .. } => {
            ("clock_met", about(clock, &format!("{subject} ({reference})")))
        }
        Deed::ClockStopped { clock, subject } => ("clock_stopped", about(clock, subject)),
        Deed::Notified { target, .. } => ("notified", target.clone()),
        Deed::NotNotified { target, reason } => ("not_notified", format!("{target}: {reason}")),
    };
    IncidentNote {
        id: entry.id.to_string(),
        time_ms: entry.change.at_ms(),
        actor: entry.change.by.clone(),
        act: act.into(),
        text,
        why: entry.change.why.clone(),
        void: entry.void.map(|why| why.to_string()),
    }
}

/// The name of a plain enum's variant, as it is stored.
fn word(variant: &impl Serialize) -> String {
    let json = serde_json::to_value(variant).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

pub(super) const fn status(status: Status) -> IncidentStatus {
    match status {
        Status::New => IncidentStatus::New,
        Status::InProgress => IncidentStatus::InProgress,
        Status::OnHold => IncidentStatus::OnHold,
        Status::Resolved => IncidentStatus::Resolved,
        Status::Closed => IncidentStatus::Closed,
    }
}

const fn clock_kind(kind: breach::ClockKind) -> ClockKind {
    match kind {
        breach::ClockKind::GdprAuthority => ClockKind::GdprAuthority,
        breach::ClockKind::Nis2EarlyWarning => ClockKind::Nis2EarlyWarning,
        breach::ClockKind::Nis2Notification => ClockKind::Nis2Notification,
        breach::ClockKind::ProcessorNotice => ClockKind::ProcessorNotice,
    }
}

const fn priority(priority: detection::incident::Priority) -> Priority {
    match priority {
        detection::incident::Priority::Low => Priority::Low,
        detection::incident::Priority::Medium => Priority::Medium,
        detection::incident::Priority::High => Priority::High,
        detection::incident::Priority::Critical => Priority::Critical,
    }
}

pub(in crate::core) const fn severity(severity: detection::Severity) -> Severity {
    match severity {
        detection::Severity::Informational => Severity::Informational,
        detection::Severity::Low => Severity::Low,
        detection::Severity::Medium => Severity::Medium,
        detection::Severity::High => Severity::High,
        detection::Severity::Critical => Severity::Critical,
    }
}
