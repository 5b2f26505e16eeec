//! An archive with events in it.

// Each test uses some of it.
#![allow(dead_code)]

use archive::{Archive, Entry};
use detection::normalise::normalise;
use detection::{Position, RawEvent, SourceKind};
use std::path::Path;

/// The evening of 2026-11-23.
pub const NOW_MS: u64 = 1_795_467_600_000;

/// An event: ten users, a hundred addresses, five severities, one a second.
pub fn event(tenant: &str, sequence: u64) -> Entry {
    let time_ms = NOW_MS + sequence * 1000;
    let line = serde_json::json!({
        "time": time_ms, "class_uid": 3002, "activity_id": 1, "severity_id": sequence % 5,
        "user": {"name": format!("U{}", sequence % 10)}, "src_endpoint": {"ip": format!("10.0.0.{}", sequence % 10)},
        "device": {"hostname": "Web-1"}, "message": format!("event number {sequence} of {tenant}"),
        "unmapped": {"n": sequence},
    });
    let position = Some(Position { stream: "events/eu".into(), sequence });
    let bytes = line.to_string().into();
    let raw = RawEvent { source: SourceKind::Ndjson, received_ms: time_ms + 10, position, bytes };
    Entry { tenant: tenant.into(), source: raw.source, event: normalise(&raw).unwrap() }
}

/// An entry of the audit log.
pub fn leaf(tenant: &str, sequence: u64) -> Entry {
    let time_ms = NOW_MS + sequence * 1000;
    let line = serde_json::json!({
        "time_ms": time_ms, "region": "eu", "node": "eu-1", "group": 0, "tenant": tenant, "user": "ann",
        "action": "record.view", "outcome": "success", "resource": format!("records/{sequence}"),
    });
    let position = Some(Position { stream: "audit/eu-0".into(), sequence });
    let raw = RawEvent { source: SourceKind::Audit, received_ms: time_ms, position, bytes: line.to_string().into() };
    Entry { tenant: tenant.into(), source: raw.source, event: normalise(&raw).unwrap() }
}

/// An archive with so many events of acme, in files.
pub fn filled(root: &Path, count: u64) -> Archive {
    let archive = Archive::open(root).unwrap();
    for sequence in 0..count {
        archive.take("events/eu", sequence, Some(event("acme", sequence)), NOW_MS);
    }
    archive.roll(NOW_MS).unwrap();
    archive
}
