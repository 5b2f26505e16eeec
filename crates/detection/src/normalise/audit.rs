//! The platform's own audit events as OCSF.
//!
//! `api.operation` always holds the action, `actor.user.name` who did it; Authentication also has `user.name`.

use super::{Draft, OCSF_VERSION, UNKNOWN, class};
use crate::event::{LogSource, RejectReason};
use crate::source::audit::{self, AuditEvent};

/// OCSF's number for databases without relations.
pub(crate) const DATABASE_TYPE: u32 = 6;
/// What OCSF calls an activity it has no word for.
const OTHER: u32 = 99;

pub(super) fn draft(bytes: &[u8]) -> Result<Draft, RejectReason> {
    let event = audit::parse(bytes)?;
    let failed = audit::has_failed(&event.outcome).unwrap_or(true);
    let (class_uid, activity_id) = class_of(&event.action);
    let severity_id = severity_of(&event.action, failed);
    let mut draft = Draft {
        time_ms: event.time_ms,
        class_uid,
        activity_id,
        severity_id,
        logsource: LogSource {
            product: Some(super::OWN_PRODUCT.into()),
            category: None,
            services: vec!["audit".into()],
        },
        ..Draft::default()
    };
    fill(&mut draft, &event, failed);
    Ok(draft)
}

fn fill(draft: &mut Draft, event: &AuditEvent, failed: bool) {
    draft.set("status_id", if failed { 2 } else { 1 });
    draft.set("status", if failed { "Failure" } else { "Success" });
    draft.set("metadata.version", OCSF_VERSION);
    draft.set("metadata.product.name", "Holdfast");
    draft.set("metadata.log_name", "audit");
    draft.set("service.name", "Holdfast");
    draft.set("database.name", "Holdfast");
    draft.set("database.type_id", DATABASE_TYPE);
    draft.set("actor.app_name", "Holdfast");
    draft.set("cloud.provider", UNKNOWN);
    draft.set("unmapped.group", event.group);
    draft.text("api.operation", Some(&event.action));
    draft.text("status_detail", event.reason.as_deref());
    draft.text("metadata.tenant_uid", event.tenant.as_deref());
    draft.text("actor.user.name", event.user.as_deref());
    draft.text("actor.session.uid", event.session.as_deref());
    draft.text("src_endpoint.ip", event.address.as_deref());
    draft.text("src_endpoint.name", event.address.as_deref());
    draft.text("src_endpoint.location.country", event.country.as_deref());
    if !draft.fields.contains_key("src_endpoint.ip") {
        // Nobody asked for it: the platform did it itself.
        draft.set("src_endpoint.svc_name", "Holdfast");
    }
    draft.text("resources.name", event.resource.as_deref());
    draft.text("api.request.uid", event.request_id.as_deref());
    draft.text("cloud.region", Some(&event.region));
    draft.text("unmapped.node", Some(&event.node));
    draft.text("unmapped.detail_digest", event.detail_digest.as_deref());
    if let Some(count) = event.count {
        draft.set("count", count);
    }
    if !event.fields.is_empty() {
        draft.set("unmapped.fields", event.fields.clone());
    }
    if draft.class_uid == class::AUTHENTICATION {
        draft.text("user.name", event.user.as_deref());
        draft.text("session.uid", event.session.as_deref());
    }
    if draft.class_uid == class::USER_ACCESS {
        let named = if event.fields.is_empty() { vec!["unknown".to_owned()] } else { event.fields.clone() };
        draft.set("privileges", named);
    }
    if draft.class_uid == class::ACCOUNT_CHANGE || draft.class_uid == class::USER_ACCESS {
        // Whose account it is: the last segment of the resource.
        draft.text("user.name", event.resource.as_deref().and_then(|resource| resource.rsplit('/').next()));
    }
    if [class::AUTHENTICATION, class::ACCOUNT_CHANGE, class::USER_ACCESS].contains(&draft.class_uid)
        && !draft.fields.contains_key("user.name")
    {
        draft.set("user.uid", UNKNOWN);
    }
}

/// The OCSF severity of an action.
pub(crate) fn severity_of(action: &str, failed: bool) -> u32 {
    match (action, failed) {
        ("denied" | "session.refused", _) => 3,
        (_, true) => 2,
        (_, false) => 1,
    }
}

/// The OCSF class and activity of an action.
pub(crate) fn class_of(action: &str) -> (u32, u32) {
    let (thing, verb) = action.split_once('.').unwrap_or((action, ""));
    match (thing, verb) {
        ("login", _) => (class::AUTHENTICATION, 1),
        ("logout", _) => (class::AUTHENTICATION, 2),
        ("session", _) => (class::AUTHENTICATION, OTHER),
        ("user", "create") => (class::ACCOUNT_CHANGE, 1),
        ("user", "enable") => (class::ACCOUNT_CHANGE, 2),
        ("user", "password") => (class::ACCOUNT_CHANGE, 3),
        ("user", "disable") => (class::ACCOUNT_CHANGE, 5),
        ("user", "delete") => (class::ACCOUNT_CHANGE, 6),
        ("user", "lock") => (class::ACCOUNT_CHANGE, 9),
        ("user", "unlock") => (class::ACCOUNT_CHANGE, 12),
        ("user", _) => (class::ACCOUNT_CHANGE, OTHER),
        ("role", "grant") => (class::USER_ACCESS, 1),
        ("role", "revoke") => (class::USER_ACCESS, 2),
        ("role", _) => (class::USER_ACCESS, OTHER),
        ("record", "view" | "read") => (class::DATASTORE, 1),
        ("record", "put" | "patch") => (class::DATASTORE, 2),
        ("record", "query" | "list") => (class::DATASTORE, 4),
        ("record", "delete") => (class::DATASTORE, 7),
        ("record", _) => (class::DATASTORE, OTHER),
        ("transaction", _) => (class::DATASTORE, 5),
        (_, "create" | "put" | "open") => (class::API_ACTIVITY, 1),
        (_, "view" | "read" | "list" | "verify") => (class::API_ACTIVITY, 2),
        (_, "update" | "patch") => (class::API_ACTIVITY, 3),
        (_, "delete") => (class::API_ACTIVITY, 4),
        _ => (class::API_ACTIVITY, OTHER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_login_is_authentication_that_failed() {
        let event = json!({"time_ms": 5, "region": "eu", "node": "eu-1", "group": 0, "action": "login.failed",
            "outcome": "failure", "reason": "password", "tenant": "acme", "user": "ann", "session": null,
            "address": "203.0.113.9", "resource": null, "fields": [], "request_id": null, "detail_digest": null});
        let draft = draft(event.to_string().as_bytes()).unwrap();
        assert_eq!((draft.class_uid, draft.activity_id, draft.time_ms), (3002, 1, 5));
        assert_eq!(draft.fields["user.name"], "ann");
        assert_eq!(draft.fields["src_endpoint.ip"], "203.0.113.9");
        assert_eq!(draft.fields["status_id"], 2);
    }

    #[test]
    fn an_audit_event_without_its_action_says_so() {
        let reason = draft(br#"{"time_ms":1,"outcome":"success"}"#).unwrap_err();
        assert_eq!(reason, RejectReason::BadField { field: "action".to_owned() });
    }
}
