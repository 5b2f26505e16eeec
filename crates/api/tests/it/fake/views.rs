//! What the fake answers, where nothing hangs on what it holds.

use api::types::*;
use std::collections::BTreeMap;

/// The tag of a version.
pub fn etag(version: u64) -> Etag {
    Etag::new(format!("v{version}")).unwrap()
}

pub fn user(login: &str) -> UserView {
    UserView { login: login.into(), person: login.into(), tenant: None, grants: vec![], mfa: false }
}

pub fn alert() -> AlertView {
    AlertView {
        id: "a1".into(),
        rule: "r".into(),
        title: "t".into(),
        severity: Severity::High,
        time_ms: 1,
        tenant: None,
        group: serde_json::json!({"ip": "192.0.2.9"}),
        incident: None,
        count: None,
        superseded_by: None,
    }
}

pub fn summary(id: &str) -> IncidentSummary {
    IncidentSummary {
        id: id.into(),
        title: "t".into(),
        severity: Severity::Low,
        priority: Priority::Low,
        risk: 10,
        status: IncidentStatus::New,
        tenant: None,
        assignee: None,
        acknowledged_by: None,
        first_ms: 1,
        last_ms: 2,
        opened_ms: 3,
        updated_ms: 3,
        closed_ms: None,
        alert_count: 1,
        due_ms: None,
        quiet_until_ms: None,
        merged_into: None,
    }
}

pub fn incident(id: &str) -> IncidentView {
    IncidentView {
        summary: summary(id),
        severity_set: None,
        priority_set: None,
        risk_parts: RiskView {
            score: 10,
            level: "low".into(),
            rules: BTreeMap::new(),
            criticality: "normal".into(),
            tactics: vec![],
        },
        attack: AttackView { version: 19, tactics: vec![], techniques: vec![], renamed: vec![], others: vec![] },
        graph: EntityGraph { entities: vec![], edges: vec![], left_out: 0 },
        clocks: vec![],
        post_mortem: None,
        absorbed: vec![],
        alerts: vec![alert()],
        events: vec![],
        history: vec![],
        etag: etag(1),
    }
}

pub fn note(act: &str, text: String) -> IncidentNote {
    let id = String::from("c1");
    IncidentNote { id, time_ms: 4, actor: "alice".into(), act: act.into(), text, why: None, void: None }
}

pub fn policy(revision: u64, text: &str) -> PolicyView {
    let etag = etag(revision);
    PolicyView { revision, text: text.into(), by: "alice".into(), applied_ms: 1, why: None, warnings: vec![], etag }
}

pub fn ticket(id: &str) -> TicketView {
    TicketView {
        id: id.into(),
        incident: "i1".into(),
        queue: "jira".into(),
        title: "t".into(),
        description: String::new(),
        state: TicketState::Open,
        fields: BTreeMap::new(),
        comments: vec![],
        links: vec![],
        opened_ms: 1,
        updated_ms: 1,
        revision: 1,
        sync: TicketSync::Pending,
        sinks: vec![],
        etag: etag(1),
    }
}

pub fn table(name: &str) -> TableView {
    TableView { id: 1, name: name.into(), version: 1, fields: vec![] }
}

pub fn tenant(name: &str) -> TenantView {
    TenantView { id: 1, name: name.into(), allowed_regions: vec!["eu".into()], continuity_class: 1 }
}

pub fn health() -> Health {
    Health { status: "ok", node: "eu-1".into(), region: "eu".into() }
}

pub fn job(state: JobState, question: String) -> JobView {
    JobView {
        id: format!("{:032x}", 1),
        kind: "search".into(),
        state,
        tenant: "acme".into(),
        question,
        began_ms: 0,
        files_done: 1,
        files_total: 1,
        rows_read: 1,
        rows_matched: 1,
        problem: None,
        broken: BTreeMap::new(),
        columns: vec!["user_name".into()],
        rows: vec![serde_json::json!({"user_name": "ann"})],
        next: None,
        truncated: false,
    }
}

pub fn rule(number: usize) -> RuleView {
    RuleView {
        id: format!("r{number}"),
        title: "a rule".into(),
        level: Severity::High,
        kind: "rule".into(),
        tags: vec![],
        audience: "platform".into(),
        tenant: None,
        alerts: true,
        shadow: false,
        semantic_hash: "00".into(),
        status: "in charge".into(),
    }
}
