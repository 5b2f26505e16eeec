//! Webhooks: an incident's change as JSON, signed by a function of the caller's.

use super::{Request, Sink};
use crate::alert::Severity;
use crate::id::{Digest, EventId};
use crate::incident::{Deed, Entry, Incident, Status};
use serde::Serialize;

/// Most events an incident's body lists; the number of all is beside them.
const EVENTS_LISTED_MAX: usize = 50;

/// Signs a body: `(time of the change in milliseconds, body)` to the signature's text.
pub type Sign = Box<dyn Fn(u64, &[u8]) -> String + Send + Sync>;

/// One receiver.
pub struct Webhook {
    /// Its name, unique among sinks.
    pub name: String,
    /// Where it listens.
    pub url: String,
    /// Incidents less grave are not told.
    pub severity_min: Severity,
    /// How bodies are signed.
    pub sign: Sign,
}

#[derive(Serialize)]
struct Body<'a> {
    version: u32,
    /// OCSF Incident Finding.
    class_uid: u32,
    id: String,
    tenant: &'a str,
    title: &'a str,
    status: Status,
    severity: Severity,
    assignee: Option<&'a str>,
    first_ms: u64,
    last_ms: u64,
    entities: Vec<&'a crate::alert::Entity>,
    alerts: &'a std::collections::BTreeMap<crate::id::AlertId, crate::incident::AlertLine>,
    event_count: usize,
    events: &'a [crate::alert::EventSummary],
    change: &'a Entry,
}

impl Sink for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn request(&self, incident: &Incident, change: &Entry) -> Option<Request> {
        if incident.severity < self.severity_min || matches!(change.change.deed, Deed::AlertSuperseded { .. }) {
            return None;
        }
        let listed = incident.events.len().min(EVENTS_LISTED_MAX);
        let body = serde_json::to_vec(&Body {
            version: 1,
            class_uid: 2005,
            id: incident.id.to_string(),
            tenant: &incident.tenant,
            title: &incident.title,
            status: incident.status,
            severity: incident.severity,
            assignee: incident.assignee.as_deref(),
            first_ms: incident.first_ms,
            last_ms: incident.last_ms,
            entities: incident.entities.iter().collect(),
            alerts: &incident.alerts,
            event_count: incident.events.len(),
            events: &incident.events[..listed],
            change,
        })
        .ok()?;
        let mut key = Digest::new("holdfast webhook 1");
        key.part(incident.id.as_bytes()).part(change.id.as_bytes()).part(self.name.as_bytes());
        let idempotency_key = EventId::of(key).to_string();
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("idempotency-key", idempotency_key.clone()),
            ("holdfast-time", change.change.at_ms().to_string()),
            ("holdfast-signature", (self.sign)(change.change.at_ms(), &body)),
        ];
        Some(Request { url: self.url.clone(), headers, body, idempotency_key })
    }
}
