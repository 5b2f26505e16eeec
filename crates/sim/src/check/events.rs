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
use node::driver::record::{ONLY, SUPERSEDED_BY};
use node::machine::control::platform;
use node::machine::keys;
use pipeline::sink::Topic;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Alerts that a violation names.
const NAMED_MAX: usize = 5;

/// The alerts that stand when detectors have read the events of regions in the order in which they happened, each once,
/// and know that nothing more will come: a detector of each region, and one of all for what looks across them.
pub fn undisturbed(nodes: &[Arc<node::Node>]) -> BTreeSet<String> {
    let mut standing = BTreeSet::new();
    let mut all = Vec::new();
    for node in nodes {
        let events = once(node);
        standing.extend(found(events.clone()).filter(|(_, rule)| &**rule != setup::ACROSS).map(|(id, _)| id));
        all.extend(events);
    }
    standing.extend(found(all).filter(|(_, rule)| &**rule == setup::ACROSS).map(|(id, _)| id));
    standing
}

/// The alerts that stand in the end, and what each is of.
fn found(mut events: Vec<Event>) -> impl Iterator<Item = (String, Arc<str>)> {
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
    let mut standing = BTreeMap::new();
    for effect in effects {
        match effect {
            Effect::Alert(alert) => {
                standing.insert(alert.id.to_string(), alert.rule.id.clone());
            }
            Effect::Superseded { old, .. } => {
                standing.remove(&old.to_string());
            }
            Effect::Extended { .. } => {}
        }
    }
    standing.into_iter()
}

/// A region's events; of those that their source tells twice, the first.
fn once(node: &node::Node) -> Vec<Event> {
    let stream = format!("events/{}", node.region.name);
    let mut known = BTreeSet::new();
    let event = |(sequence, bytes): (u64, Vec<u8>)| {
        let position = Some(Position { stream: stream.as_str().into(), sequence });
        let taken = Taken::read(&bytes).ok()?;
        let raw = RawEvent { position, ..taken.raw.clone() };
        let event = detection::normalise::normalise_for(&raw, taken.owner()).ok()?;
        let is_new = event.text("metadata.uid").is_none_or(|uid| known.insert(uid.to_owned()));
        is_new.then_some(event)
    };
    node.home().machine.events(0, usize::MAX).unwrap_or_default().into_iter().filter_map(event).collect()
}

/// An alert that a node holds.
pub struct Raised {
    /// The rule's title.
    pub rule: String,
    /// The alert that covers its events, where it no longer stands; itself where none does.
    covered_by: Option<String>,
}

/// The alerts a node holds, by id.
pub fn stored(node: &node::Node) -> BTreeMap<String, Raised> {
    let space = node.data_of(TenantId::PLATFORM).machine.read_space();
    let prefix = keys::record(TenantId::PLATFORM, platform::ALERTS, "");
    let of_alerts = rows(&*space, keys::DATA).into_iter().filter(|(key, _)| key.starts_with(&prefix));
    let alert = |(key, value): (Vec<u8>, Vec<u8>)| {
        let record: Record = decode(&value).ok()?;
        let field = |id| record.visible().find(|(field, _)| *field == id).map(|(_, state)| state.value());
        let Some(Value::Text(json)) = field(ONLY) else { return None };
        let alert: Alert = serde_json::from_str(&json).ok()?;
        let covered_by = match field(SUPERSEDED_BY) {
            Some(Value::Text(by)) => Some(by),
            _ => None,
        };
        Some((keys::record_key(&key).to_owned(), Raised { rule: alert.rule.title.to_string(), covered_by }))
    };
    of_alerts.filter_map(alert).collect()
}

/// Of the alerts a node holds, those that stand.
pub fn standing(node: &node::Node) -> BTreeSet<String> {
    stored(node).into_iter().filter(|(_, alert)| alert.covered_by.is_none()).map(|(id, _)| id).collect()
}

/// How alerts that stand differ from those of an undisturbed run.
pub fn difference(expected: &BTreeSet<String>, node: &node::Node) -> Option<String> {
    let (stored, standing) = (stored(node), standing(node));
    let named = |id: &String| format!("{id} ({})", stored.get(id).map_or("unknown", |alert| alert.rule.as_str()));
    let missing: Vec<String> = expected.difference(&standing).map(named).collect();
    let excess: Vec<String> = standing.difference(expected).map(named).collect();
    (missing.len() + excess.len() > 0).then(|| format!("alerts: missing {}, too many {}", few(&missing), few(&excess)))
}

/// The first of those, and how many more there are.
fn few(named: &[String]) -> String {
    let first = named.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match named.len().saturating_sub(NAMED_MAX) {
        0 => format!("[{first}]"),
        more => format!("[{first} and {more} more]"),
    }
}

/// What the outside was told too little of, or in two ways.
pub fn untold(node: &node::Node, outside: &Outside) -> Option<String> {
    let told = outside.told();
    let alerts = stored(node);
    let missing = alerts.keys().find(|id| !told.contains_key(&format!("alert/{id}")));
    let invented = told.iter().find(|(key, told)| {
        // A notice of an incident has it as it stands when it is told: told again, it may say more.
        told.differs && told.topic != Topic::Incident
            || told.topic == Topic::Alert && key.strip_prefix("alert/").is_none_or(|id| !alerts.contains_key(id))
    });
    missing
        .map(|id| format!("sinks: alert {id} was told to nobody"))
        .or_else(|| invented.map(|(key, _)| format!("sinks: {key} is not what was stored, or was told in two ways")))
}

/// Alerts that are not under one incident, and incidents' alerts that were never raised. An alert that no longer stands
/// may have left its incident to the one that covers it, which must be under one itself.
pub fn misfiled(node: &node::Node) -> Vec<String> {
    let (stored, mut filed) = (stored(node), BTreeMap::<String, u32>::new());
    for incident in node::driver::book::incidents(node).unwrap_or_default() {
        for alert in incident.alerts.keys() {
            *filed.entry(alert.to_string()).or_default() += 1;
        }
    }
    let count = |alert: &String| filed.get(alert).copied().unwrap_or(0);
    let last = |alert: &Raised| left_to(&stored, alert.covered_by.as_ref()?).map(count);
    let is_wrong = |(id, alert): &(&String, &Raised)| count(id) > 1 || count(id) == 0 && last(alert) != Some(1);
    let wrong = stored.iter().filter(is_wrong).map(|(id, _)| format!("alert {id} is under {} incidents", count(id)));
    let invented = filed.keys().filter(|id| !stored.contains_key(*id)).map(|id| format!("alert {id} was never raised"));
    wrong.chain(invented).collect()
}

/// The alert that covers an alert in the end.
fn left_to<'a>(stored: &'a BTreeMap<String, Raised>, id: &'a String) -> Option<&'a String> {
    let next = |id: &&'a String| stored.get(*id)?.covered_by.as_ref();
    std::iter::successors(Some(id), next).take(stored.len()).last()
}

/// Each alert is under one incident, and every incident's alerts were raised.
pub fn each_alert_is_filed_once(evidence: &Evidence, findings: &mut Findings) {
    findings.extend(misfiled(&evidence.regions[0].node));
}

/// What was acknowledged is there once; alerts are those of an undisturbed run, each raised once.
pub fn each_event_counts_once(evidence: &Evidence, findings: &mut Findings) {
    let nodes: Vec<_> = evidence.regions.iter().map(|region| Arc::clone(&region.node)).collect();
    let expected = undisturbed(&nodes);
    for region in &evidence.regions {
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

#[cfg(test)]
mod tests {
    use super::few;

    #[test]
    fn a_violation_of_many_names_the_first_and_counts_the_rest() {
        let names: Vec<String> = (0..1_000).map(|number: u32| number.to_string()).collect();
        assert_eq!(few(&names), "[0, 1, 2, 3, 4 and 995 more]");
        assert_eq!((few(&names[..2]), few(&[])), ("[0, 1]".to_owned(), "[]".to_owned()));
    }
}
