//! Notices of alerts and incidents, in the shapes of OCSF: Detection Finding (2004) and Incident Finding (2005).
//!
//! Pure: the same change makes the same notice, key and all.

use super::{Notice, Topic};
use detection::incident::{AlertLine, Entry, Incident, Status};
use detection::normalise::OCSF_VERSION;
use detection::{Alert, Entity, EntityKind, EventSummary, Severity};
use serde_json::{Value, json};
use std::sync::Arc;

/// Most events that a notice lists; how many there are is beside them.
pub const EVENTS_LISTED_MAX: usize = 50;

/// OCSF's number for a severity.
pub const fn severity_id(severity: Severity) -> u32 {
    match severity {
        Severity::Informational => 1,
        Severity::Low => 2,
        Severity::Medium => 3,
        Severity::High => 4,
        Severity::Critical => 5,
    }
}

impl Notice {
    /// The notice of an alert.
    pub fn of_alert(alert: &Alert) -> Self {
        let listed = &alert.events[..alert.events.len().min(EVENTS_LISTED_MAX)];
        let mut body = finding(2004, 1, alert.last_ms, alert.severity, &alert.tenant);
        body["finding_info"] = json!({
            "uid": alert.id.to_string(),
            "title": alert.rule.title,
            "analytic": { "uid": alert.rule.id, "name": alert.rule.title, "type_id": 1, "type": "Rule" },
            "first_seen_time": alert.first_ms,
            "last_seen_time": alert.last_ms,
            "types": alert.rule.tags,
        });
        body["count"] = alert.events.len().into();
        body["evidences"] = evidences(listed);
        body["observables"] = alert.entities.iter().map(observable).collect();
        body["unmapped"] = json!({ "group_key": alert.group_key, "late": alert.late });
        Self {
            key: format!("alert/{}", alert.id),
            topic: Topic::Alert,
            tenant: alert.tenant.to_string(),
            at_ms: alert.last_ms,
            severity: alert.severity,
            subject: alert.rule.title.to_string(),
            to: Vec::new(),
            body: body.to_string(),
        }
    }

    /// The notice of a change of an incident.
    pub fn of_incident(incident: &Incident, change: &Entry) -> Self {
        let at_ms = change.change.at_ms();
        let activity_id = match (change.revision, incident.status) {
            (1, _) => 1,
            (_, Status::Closed) => 3,
            _ => 2,
        };
        let listed = &incident.events[..incident.events.len().min(EVENTS_LISTED_MAX)];
        let mut body = finding(2005, activity_id, at_ms, incident.severity, &incident.tenant);
        body["finding_info_list"] =
            incident.alerts.iter().map(|(id, line)| alert_line(&id.to_string(), line)).collect();
        body["desc"] = json!(incident.title);
        body["status_id"] = incident.status.ocsf_id().into();
        body["status"] = json!(incident.status);
        body["start_time"] = incident.first_ms.into();
        body["end_time"] = incident.last_ms.into();
        body["observables"] = incident.entities.iter().map(observable).collect();
        // OCSF wants one of the two.
        match &incident.assignee {
            Some(assignee) => body["assignee"] = json!({ "name": assignee }),
            None => body["assignee_group"] = json!({ "name": "unassigned" }),
        }
        // What OCSF has no word for.
        body["unmapped"] = json!({
            "incident": incident.id.to_string(),
            "revision": change.revision,
            "merged_into": incident.merged_into.map(|id| id.to_string()),
            "event_count": incident.events.len(),
            "events": evidences(listed),
            "change": change,
        });
        Self {
            key: format!("incident/{}/{}", incident.id, change.id),
            topic: Topic::Incident,
            tenant: incident.tenant.to_string(),
            at_ms,
            severity: incident.severity,
            subject: incident.title.to_string(),
            to: Vec::new(),
            body: body.to_string(),
        }
    }
}

/// What all findings have.
fn finding(class_uid: u32, activity_id: u32, time_ms: u64, severity: Severity, tenant: &str) -> Value {
    json!({
        "class_uid": class_uid,
        "category_uid": 2,
        "activity_id": activity_id,
        "type_uid": class_uid * 100 + activity_id,
        "time": time_ms,
        "severity_id": severity_id(severity),
        "severity": severity,
        "metadata": {
            "version": OCSF_VERSION,
            "product": { "name": "Holdfast", "vendor_name": "Holdfast" },
            "tenant_uid": tenant,
        },
    })
}

fn alert_line(id: &str, line: &AlertLine) -> Value {
    json!({
        "uid": id,
        "title": line.title,
        "analytic": { "uid": line.rule, "name": line.title, "type_id": 1, "type": "Rule" },
        "first_seen_time": line.first_ms,
        "last_seen_time": line.last_ms,
        "types": line.tags,
    })
}

fn evidences(events: &[Arc<EventSummary>]) -> Value {
    let evidence = |event: &Arc<EventSummary>| {
        json!({
            "data": {
                "uid": event.id.to_string(),
                "time": event.time_ms,
                "class_uid": event.class_uid,
                "activity_id": event.activity_id,
                "text": event.text,
            },
        })
    };
    events.iter().map(evidence).collect()
}

/// An entity as an OCSF observable.
fn observable(entity: &Entity) -> Value {
    let (type_id, name) = match entity.kind {
        EntityKind::User => (4, "user.name"),
        EntityKind::Address => match entity.name.parse::<std::net::IpAddr>() {
            Ok(_) => (2, "src_endpoint.ip"),
            Err(_) => (1, "src_endpoint.name"),
        },
        EntityKind::Host => (1, "device.hostname"),
        EntityKind::Session => (99, "session.uid"),
        EntityKind::Tenant => (99, "metadata.tenant_uid"),
        EntityKind::Node => (99, "unmapped.node"),
        EntityKind::Region => (99, "cloud.region"),
        EntityKind::Badge => (99, "unmapped.badge"),
    };
    json!({ "name": name, "type_id": type_id, "value": entity.name })
}
