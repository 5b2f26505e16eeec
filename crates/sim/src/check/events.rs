//! Events and alerts: each event once, and the alerts those of a run that nothing disturbed.

use super::{Evidence, Findings, RegionState, rows};
use crate::history::{Kind, Outcome};
use crate::setup;
use audit::AuditEvent;
use detection::engine::{Detector, Effect, Input, Options};
use detection::{Position, RawEvent};
use model::TenantId;
use node::core::ingest::Taken;
use node::machine::control::platform;
use node::machine::keys;
use std::collections::{BTreeMap, BTreeSet};

/// What a detector finds that reads a region's events once, from the first to the last.
pub fn undisturbed(node: &node::Node) -> BTreeSet<String> {
    let home = node.home();
    let mut detector = Detector::new(setup::rules(), Options::default());
    let mut effects = Vec::new();
    let stream = format!("events/{}", node.region.name);
    for (sequence, bytes) in home.machine.events(0, usize::MAX).unwrap_or_default() {
        let Ok(Taken { raw, .. }) = Taken::read(&bytes) else { continue };
        let position = Some(Position { stream: stream.as_str().into(), sequence });
        let received_ms = raw.received_ms;
        if let Ok(event) = detection::normalise::normalise(&RawEvent { position, ..raw }) {
            detector.step(received_ms.max(event.time_ms), Input::Event(event), &mut effects);
        }
    }
    let alerts = effects.into_iter().filter_map(|effect| match effect {
        Effect::Alert(alert) => Some(alert.id.to_string()),
        _ => None,
    });
    alerts.collect()
}

/// The ids of the alerts a node holds.
pub fn stored(node: &node::Node) -> BTreeSet<String> {
    let space = node.data_of(TenantId::PLATFORM).machine.read_space();
    let prefix = keys::record(TenantId::PLATFORM, platform::ALERTS, "");
    let of_alerts = rows(&*space, keys::DATA).into_iter().filter(|(key, _)| key.starts_with(&prefix));
    of_alerts.map(|(key, _)| keys::record_key(&key).to_owned()).collect()
}

/// An alert that is under no incident.
pub fn unfiled(node: &node::Node) -> Option<String> {
    let incidents = node::driver::book::incidents(node).unwrap_or_default();
    let filed: BTreeSet<String> =
        incidents.iter().flat_map(|incident| incident.alerts.keys()).map(ToString::to_string).collect();
    stored(node).into_iter().find(|alert| !filed.contains(alert))
}

/// Each alert is under one incident, and every incident's alerts were raised.
pub fn each_alert_is_filed_once(evidence: &Evidence, findings: &mut Findings) {
    let node = &evidence.regions[0].node;
    let (stored, mut filed) = (stored(node), BTreeMap::<String, u32>::new());
    for incident in node::driver::book::incidents(node).unwrap_or_default() {
        for alert in incident.alerts.keys() {
            *filed.entry(alert.to_string()).or_default() += 1;
        }
    }
    for alert in stored.iter().filter(|alert| filed.get(*alert) != Some(&1)) {
        findings.push(format!("incidents: {alert} is under {} of them", filed.get(alert).copied().unwrap_or(0)));
    }
    for alert in filed.keys().filter(|alert| !stored.contains(*alert)) {
        findings.push(format!("incidents: {alert} was never raised"));
    }
}

/// What was acknowledged is there once; alerts are those of an undisturbed run, each raised once.
pub fn each_event_counts_once(evidence: &Evidence, findings: &mut Findings) {
    let mut expected = BTreeSet::new();
    for region in &evidence.regions {
        expected.extend(undisturbed(&region.node));
        events_are_there_once(evidence, region, findings);
    }
    let stored = stored(&evidence.regions[0].node);
    if stored != expected {
        let missing: Vec<&String> = expected.difference(&stored).collect();
        let excess: Vec<&String> = stored.difference(&expected).collect();
        findings.push(format!("alerts: missing {missing:?}, too many {excess:?}"));
    }
    let mut raised: BTreeMap<String, u32> = BTreeMap::new();
    for region in &evidence.regions {
        let space = region.node.data_of(TenantId::PLATFORM).machine.read_space();
        for (_, leaf) in rows(&*space, keys::AUDIT_LEAF) {
            let Ok(event) = AuditEvent::decode(&leaf) else { continue };
            if event.action.as_str() == "alert.raised" && event.outcome == audit::Outcome::Success {
                *raised.entry(event.resource.unwrap_or_default()).or_default() += 1;
            }
        }
    }
    for id in &expected {
        let count = raised.get(&format!("alerts/{id}")).copied().unwrap_or(0);
        if count != 1 {
            findings.push(format!("alerts: {id} was raised {count} times"));
        }
    }
}

fn events_are_there_once(evidence: &Evidence, region: &RegionState, findings: &mut Findings) {
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    let home = region.node.home();
    for (_, bytes) in home.machine.events(0, usize::MAX).unwrap_or_default() {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let id = text.split("ev~").nth(1).and_then(|rest| rest.split('~').next()?.parse().ok());
        *counts.entry(id.unwrap_or(0)).or_default() += 1;
    }
    for op in evidence.history.iter().filter(|op| op.region == region.region && op.kind == Kind::Ingest) {
        let count = counts.get(&op.id).copied().unwrap_or(0);
        let is_right = match op.outcome {
            Outcome::Ok => count == 1,
            Outcome::Failed => count == 0,
            Outcome::Unknown => count <= 1,
        };
        if !is_right {
            findings.push(format!(
                "events: op {} ({:?}) is there {count} times in region {}",
                op.id, op.outcome, op.region
            ));
        }
    }
}
