//! Events and alerts: each event once, and the alerts those of a run that nothing disturbed.

use super::{Evidence, Findings, RegionState, rows};
use crate::history::{Kind, Outcome};
use crate::setup;
use crate::sink::Outside;
use audit::AuditEvent;
use detection::engine::{Detector, Effect, Input, Options};
use detection::{Alert, Event, Position, RawEvent};
use model::codec::decode;
use model::{Record, TenantId, Value};
use node::core::ingest::Taken;
use node::driver::detect::{ONLY, SUPERSEDED_BY};
use node::machine::control::platform;
use node::machine::keys;
use pipeline::sink::Topic;
use std::collections::{BTreeMap, BTreeSet};

/// The alerts that stand when a detector has read a region's events in the order in which they happened, each once,
/// and knows that nothing more will come.
pub fn undisturbed(node: &node::Node) -> BTreeSet<String> {
    let mut events = once(node);
    events.sort_by_key(|event| (event.time_ms, event.id));
    // Nothing is late to who has all the time in the world.
    let options = Options { allowed_lateness_ms: u64::MAX, ..Options::default() };
    let (mut detector, mut effects) = (Detector::new(setup::rules(), options), Vec::new());
    let mut now_ms = 0;
    for event in events {
        now_ms = event.time_ms;
        detector.step(now_ms, Input::Event(event), &mut effects);
    }
    detector.finish(now_ms, &mut effects);
    let mut standing = BTreeSet::new();
    for effect in effects {
        match effect {
            Effect::Alert(alert) => {
                standing.insert(alert.id.to_string());
            }
            Effect::Superseded { old, .. } => {
                standing.remove(&old.to_string());
            }
            Effect::Extended { .. } => {}
        }
    }
    standing
}

/// A region's events; of those that their source tells twice, the first.
fn once(node: &node::Node) -> Vec<Event> {
    let stream = format!("events/{}", node.region.name);
    let mut known = BTreeSet::new();
    let event = |(sequence, bytes): (u64, Vec<u8>)| {
        let position = Some(Position { stream: stream.as_str().into(), sequence });
        let raw = RawEvent { position, ..Taken::read(&bytes).ok()?.raw };
        let event = detection::normalise::normalise(&raw).ok()?;
        let is_new = event.text("metadata.uid").is_none_or(|uid| known.insert(uid.to_owned()));
        is_new.then_some(event)
    };
    node.home().machine.events(0, usize::MAX).unwrap_or_default().into_iter().filter_map(event).collect()
}

/// The alerts a node holds: the rule of each, and whether it stands.
pub fn stored(node: &node::Node) -> BTreeMap<String, (String, bool)> {
    let space = node.data_of(TenantId::PLATFORM).machine.read_space();
    let prefix = keys::record(TenantId::PLATFORM, platform::ALERTS, "");
    let of_alerts = rows(&*space, keys::DATA).into_iter().filter(|(key, _)| key.starts_with(&prefix));
    let alert = |(key, value): (Vec<u8>, Vec<u8>)| {
        let record: Record = decode(&value).ok()?;
        let field = |id| record.visible().find(|(field, _)| *field == id).map(|(_, state)| state.value());
        let Some(Value::Text(json)) = field(ONLY) else { return None };
        let alert: Alert = serde_json::from_str(&json).ok()?;
        let stands = !matches!(field(SUPERSEDED_BY), Some(Value::Text(_)));
        Some((keys::record_key(&key).to_owned(), (alert.rule.title.to_string(), stands)))
    };
    of_alerts.filter_map(alert).collect()
}

/// Of the alerts a node holds, those that stand.
pub fn standing(node: &node::Node) -> BTreeSet<String> {
    stored(node).into_iter().filter(|(_, (_, stands))| *stands).map(|(id, _)| id).collect()
}

/// How alerts that stand differ from those of an undisturbed run.
pub fn difference(expected: &BTreeSet<String>, node: &node::Node) -> Option<String> {
    let (stored, standing) = (stored(node), standing(node));
    let named = |id: &String| format!("{id} ({})", stored.get(id).map_or("unknown", |(title, _)| title.as_str()));
    let missing: Vec<String> = expected.difference(&standing).map(named).collect();
    let excess: Vec<String> = standing.difference(expected).map(named).collect();
    (missing.len() + excess.len() > 0).then(|| format!("alerts: missing {missing:?}, too many {excess:?}"))
}

/// What the outside was told too little of, or in two ways.
pub fn untold(node: &node::Node, outside: &Outside) -> Option<String> {
    let told = outside.told();
    let alerts = stored(node);
    let missing = alerts.keys().find(|id| !told.contains_key(&format!("alert/{id}")));
    let invented = told.iter().find(|(key, told)| {
        // A notice of an incident has it as it stands when it is told: told again, it may say more.
        told.topic == Topic::Alert
            && (told.differs || key.strip_prefix("alert/").is_none_or(|id| !alerts.contains_key(id)))
    });
    missing
        .map(|id| format!("sinks: alert {id} was told to nobody"))
        .or_else(|| invented.map(|(key, _)| format!("sinks: {key} is not what was stored, or was told in two ways")))
}

/// An alert that stands and is under no incident: one that was superseded may have left it to the one that covers it.
pub fn unfiled(node: &node::Node) -> Option<String> {
    let incidents = node::driver::book::incidents(node).unwrap_or_default();
    let filed: BTreeSet<String> =
        incidents.iter().flat_map(|incident| incident.alerts.keys()).map(ToString::to_string).collect();
    standing(node).into_iter().find(|alert| !filed.contains(alert))
}

/// Each alert that stands is under one incident, none under two, and every incident's alerts were raised.
pub fn each_alert_is_filed_once(evidence: &Evidence, findings: &mut Findings) {
    let node = &evidence.regions[0].node;
    let (stored, mut filed) = (stored(node), BTreeMap::<String, u32>::new());
    for incident in node::driver::book::incidents(node).unwrap_or_default() {
        for alert in incident.alerts.keys() {
            *filed.entry(alert.to_string()).or_default() += 1;
        }
    }
    for (alert, (_, stands)) in &stored {
        let count = filed.get(alert).copied().unwrap_or(0);
        if count > 1 || *stands && count == 0 {
            findings.push(format!("incidents: {alert} is under {count} of them"));
        }
    }
    for alert in filed.keys().filter(|alert| !stored.contains_key(*alert)) {
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
    findings.extend(difference(&expected, &evidence.regions[0].node));
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
    for id in stored(&evidence.regions[0].node).keys() {
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
    for op in evidence.history.iter().filter(|op| op.region == region.region && matches!(op.kind, Kind::Ingest(_))) {
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
