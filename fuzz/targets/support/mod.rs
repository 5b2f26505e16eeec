//! An archive with a few events in it.

use archive::{Archive, Entry};
use detection::normalise::normalise;
use detection::{Position, RawEvent, SourceKind};

/// The evening of 2026-11-23.
pub const NOW_MS: u64 = 1_795_467_600_000;
/// Events of each tenant.
const EVENTS: u64 = 20;

/// Of each tenant some events that say its word; they are in no file yet.
pub fn archive(tenants: &[(&str, &str)]) -> Archive {
    // It stays until the process ends, which does not end by itself.
    let folder = tempfile::tempdir().expect("a disk").keep();
    let archive = Archive::open(&folder).expect("an empty folder");
    for ((tenant, word), of_all) in tenants.iter().zip(0_u64..) {
        for sequence in of_all * EVENTS..(of_all + 1) * EVENTS {
            archive.take("events/eu", sequence, Some(event(tenant, word, sequence)), NOW_MS);
        }
    }
    archive
}

fn event(tenant: &str, word: &str, sequence: u64) -> Entry {
    let time_ms = NOW_MS + sequence * 1_000;
    let line = serde_json::json!({
        "time": time_ms, "class_uid": 3002, "activity_id": 1, "severity_id": sequence % 5,
        "user": {"name": format!("U{}", sequence % 10)}, "src_endpoint": {"ip": format!("10.0.0.{}", sequence % 10)},
        "message": word, "unmapped": {"n": sequence},
    });
    let position = Some(Position { stream: "events/eu".into(), sequence });
    let bytes = line.to_string().into();
    let raw = RawEvent { source: SourceKind::Ndjson, received_ms: time_ms, position, bytes };
    Entry { tenant: tenant.into(), source: raw.source, event: normalise(&raw).expect("a sound event") }
}
