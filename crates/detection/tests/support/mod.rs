//! Test events, the rule pack's test files, and what an undisturbed reader makes of effects.
#![allow(dead_code, reason = "each test program uses some of it")]

use detection::engine::{Detector, Effect, Input};
use detection::event::Event;
use detection::normalise::normalise;
use detection::{Alert, AlertId, Position, RawEvent, SourceKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// 2026-11-23 21:00:00 UTC.
pub const NOW_MS: u64 = 1_795_467_600_000;

/// Data that no one on the project wrote, where it is at hand.
pub fn data(path: &str) -> Option<PathBuf> {
    let path = Path::new("../../../shared/data").join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not here", path.display());
    None
}

/// An archive of it, unpacked.
pub fn unpacked(path: &str) -> Option<tempfile::TempDir> {
    let path = data(path)?;
    let folder = tempfile::tempdir().unwrap();
    let unpacked = std::process::Command::new("tar").arg("xzf").arg(path).arg("-C").arg(folder.path()).status();
    if unpacked.is_ok_and(|status| status.success()) {
        return Some(folder);
    }
    eprintln!("skipped: tar is not here");
    None
}

pub fn pack() -> PathBuf {
    PathBuf::from("../../cluster/rules")
}

/// What stands after all effects.
#[derive(Debug, Default)]
pub struct Net {
    pub alerts: BTreeMap<AlertId, Arc<Alert>>,
    pub told: usize,
}

pub fn feed(detector: &mut Detector, events: impl IntoIterator<Item = Event>) -> Net {
    let (mut net, mut effects) = (Net::default(), Vec::new());
    for event in events {
        detector.step(NOW_MS, Input::Event(event), &mut effects);
    }
    detector.finish(NOW_MS, &mut effects);
    net.told = effects.len();
    for effect in effects {
        match effect {
            Effect::Alert(alert) => {
                net.alerts.insert(alert.id, alert);
            }
            Effect::Superseded { old, by } => {
                assert!(net.alerts.contains_key(&by), "superseded by an alert never raised");
                net.alerts.remove(&old);
            }
            Effect::Extended { .. } => {}
        }
    }
    net
}

/// An audit event that many milliseconds after a time well before now.
pub fn audit(sequence: u64, after_ms: u64, mut body: Value) -> Event {
    let defaults = json!({"time_ms": NOW_MS - 10_000_000 + after_ms, "region": "eu", "node": "eu-1", "group": 0});
    for (key, value) in defaults.as_object().unwrap() {
        if body.get(key).is_none() {
            body[key] = value.clone();
        }
    }
    from(SourceKind::Audit, sequence, body.to_string())
}

/// An event of nothing but its fields.
pub fn plain(sequence: u64, time_ms: u64, fields: Value) -> Event {
    let mut event = audit(sequence, 0, json!({"action": "x", "outcome": "success"}));
    event.time_ms = time_ms;
    event.fields = fields.as_object().unwrap().clone().into_iter().collect();
    event
}

fn from(source: SourceKind, sequence: u64, text: String) -> Event {
    let position = Some(Position { stream: "test".into(), sequence });
    normalise(&RawEvent { source, received_ms: NOW_MS, position, bytes: text.into() }).unwrap()
}

/// One case of a rule's test file.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub expect: Vec<String>,
    #[serde(default)]
    pub near: Vec<String>,
    events: Vec<Step>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    after_s: u64,
    #[serde(default)]
    every_s: Option<u64>,
    #[serde(default)]
    count: Option<u64>,
    audit: Option<Value>,
    syslog: Option<String>,
    json: Option<Value>,
}

impl Case {
    pub fn events(&self) -> Vec<Event> {
        let (mut events, mut at_ms) = (Vec::new(), 0);
        for step in &self.events {
            at_ms += step.after_s * 1_000;
            for n in 0..step.count.unwrap_or(1) {
                let sequence = events.len() as u64;
                let fill = |text: String| text.replace("{n}", &n.to_string());
                events.push(match (&step.audit, &step.syslog, &step.json) {
                    (Some(body), None, None) => {
                        audit(sequence, at_ms, serde_json::from_str(&fill(body.to_string())).unwrap())
                    }
                    (None, Some(line), None) => {
                        let second = at_ms / 1_000;
                        let time = format!("2026-11-23T10:{:02}:{:02}Z", second / 60, second % 60);
                        from(SourceKind::Syslog, sequence, fill(line.replace("{time}", &time)))
                    }
                    (None, None, Some(body)) => {
                        let mut body: Value = serde_json::from_str(&fill(body.to_string())).unwrap();
                        body["time"] = json!(NOW_MS - 10_000_000 + at_ms);
                        from(SourceKind::Ndjson, sequence, body.to_string())
                    }
                    _ => panic!("{}: each event is one of audit, syslog and json", self.name),
                });
                at_ms += step.every_s.unwrap_or(1) * 1_000;
            }
        }
        events
    }
}

/// A naive count of bursts in a log of sshd: five failures within five minutes from one place.
pub fn bursts(events: &[Event]) -> usize {
    let mut by_source: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for event in events {
        let is_sshd = event.logsource.services.iter().any(|service| &**service == "sshd");
        let failed = event.fields.get("status_id") == Some(&json!(2));
        if let (true, true, Some(source)) = (is_sshd, failed, event.text("src_endpoint.name")) {
            by_source.entry(source).or_default().push(event.time_ms);
        }
    }
    let mut bursts = 0;
    for times in by_source.values_mut() {
        times.sort_unstable();
        let mut last: Option<u64> = None;
        for window in times.windows(5).filter(|window| window[4] - window[0] <= 300_000) {
            bursts += usize::from(last.is_none_or(|last| window[4] - last > 300_000));
            last = Some(window[4]);
        }
    }
    bursts
}
