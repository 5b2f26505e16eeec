//! What memory has forgotten can be acted on, and what was tried in vain is in the log.

use super::bed::{Bed, until};
use crate::driver::book::{Book, Stored, stored_alerts};
use crate::machine::command::Must;
use crate::machine::control::platform;
use crate::machine::keys;
use crate::machine::note::Note;
use api::types::{Assign, Close, IncidentAction, IncidentStatus, SetStatus};
use audit::AuditEvent;
use detection::engine::COVERAGE_DEGRADED;
use detection::incident::CHANGE_SIZE_BYTES_MAX;
use detection::{Alert, EventSummary, RuleReference, SemanticHash, Severity};
use std::collections::BTreeMap;
use std::ops::Bound;

impl Bed {
    /// Refused acts in the audit log: what, and why.
    fn refusals(&self) -> Vec<(String, String)> {
        let space = self.node.home().machine.read_space();
        let leaves = space.scan(keys::AUDIT_LEAF, Bound::Unbounded, Bound::Unbounded, false, usize::MAX).unwrap();
        let leaves = leaves.iter().map(|(_, leaf)| AuditEvent::decode(leaf).unwrap());
        leaves.filter_map(|leaf| Some((leaf.action.as_str().to_owned(), leaf.reason?))).collect()
    }
}

fn close() -> IncidentAction {
    IncidentAction::Close(Close { cause: Some("a drill".into()), actions: Some("none".into()) })
}

#[tokio::test(start_paused = true)]
async fn an_incident_that_memory_has_forgotten_can_be_opened_again() {
    let bed = Bed::start(Vec::new()).await;
    *bed.node.incidents.lock().await = Book::forgetful(1);
    let old = bed.happens(1, "mallory", Severity::High).await;
    bed.act(old, close()).await;
    bed.happens(2, "trudy", Severity::High).await;
    let is_known = crate::driver::book::look(&bed.node, |desk| desk.get(old).is_some()).await.unwrap();
    assert!(!is_known, "it is not in memory");
    let again = SetStatus { status: IncidentStatus::InProgress, why: Some("it was not over".into()) };
    let view = bed.act(old, IncidentAction::SetStatus(again)).await;
    assert_eq!((view.summary.status, view.history.len()), (IncidentStatus::InProgress, 3));
    let is_known = crate::driver::book::look(&bed.node, |desk| desk.get(old).is_some()).await.unwrap();
    assert!(is_known, "and everybody sees it again");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_tried_in_vain_is_in_the_audit_log() {
    let bed = Bed::start(Vec::new()).await;
    let id = bed.happens(1, "mallory", Severity::High).await;
    bed.act(id, IncidentAction::Assign(Assign { assignee: "ann".into() })).await;
    assert!(bed.try_act(id, IncidentAction::Assign(Assign { assignee: "ann".into() })).await.is_err());
    let none = IncidentAction::Close(Close::default());
    assert!(bed.try_act(id, none).await.is_err());
    let refusals = bed.refusals();
    let of_acts: Vec<&str> =
        refusals.iter().filter(|(action, _)| action == "incident.update").map(|(_, why)| why.as_str()).collect();
    assert_eq!(of_acts.len(), 2, "{refusals:?}");
    assert_eq!(of_acts[0], "nothing would change");
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_no_incident_can_hold_is_told_and_keeps_no_other_from_its_own() {
    let bed = Bed::start(Vec::new()).await;
    let rule = RuleReference {
        id: "huge".into(),
        title: "Huge".into(),
        semantic_hash: SemanticHash::from_bytes([1; 32]),
        tags: Vec::new(),
    };
    let tenant = "x".repeat(CHANGE_SIZE_BYTES_MAX).into();
    let huge = Alert::new(tenant, rule, Severity::High, BTreeMap::new(), Vec::<EventSummary>::new());
    let note = Note { action: "alert.raised".into(), ..Note::default() };
    bed.node.keep_json(platform::ALERTS, huge.id.to_string(), Must::BeAbsent, &huge, note).await.unwrap();
    bed.happens(1, "mallory", Severity::High).await;
    let told = |stored: &Stored| &*stored.alert.rule.id == COVERAGE_DEGRADED;
    until("it is told", async || (stored_alerts(&bed.node, told).unwrap().len() == 1).then_some(())).await;
}
