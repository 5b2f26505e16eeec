//! What one event costs the detector, by how many distinct values or events a window holds: it should not matter.
//!
//! Run with `--release` for figures; each argument is a size, such as `100 10000 100000`.
#![expect(clippy::disallowed_methods, reason = "an example measures in real time")]

use detection::engine::{Detector, Input, Options};
use detection::event::{Event, Fields, LogSource};
use detection::rules::{RuleSet, load_texts};
use detection::{EventId, Position};
use std::time::Instant;

const NOW_MS: u64 = 1_795_467_600_000;

fn rules(correlation: &str) -> RuleSet {
    let text = format!(
        "title: a\nname: a\nlogsource: {{}}\ndetection: {{s: {{kind: a}}, condition: s}}\n---\ntitle: x\nname: x\n\
         correlation: {{rules: a, group-by: user, timespan: 1d, {correlation}}}\n"
    );
    let (rules, errors) = load_texts(vec![("hot.yml".into(), text)]);
    for error in &errors {
        eprintln!("{error}");
    }
    rules
}

fn event(sequence: u64, time_ms: u64, value: u64) -> Event {
    let fields: Fields =
        [("kind", "a".into()), ("user", "u".into()), ("value", value.into())].map(|(k, v)| (k.to_owned(), v)).into();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&sequence.to_le_bytes());
    Event {
        id: EventId::from_bytes(id),
        position: Some(Position { stream: "s".into(), sequence }),
        time_ms,
        received_ms: time_ms,
        class_uid: 0,
        activity_id: 0,
        category_uid: 0,
        severity_id: 0,
        logsource: LogSource::default(),
        fields,
        raw: bytes::Bytes::new(),
    }
}

/// Nanoseconds per event of the second half of a run, once its window holds what it can.
fn measure(correlation: &str, distinct: u64, jitter_ms: u64) -> u128 {
    let mut detector = Detector::new(rules(correlation), Options::default());
    let (mut effects, count) = (Vec::new(), 2 * distinct.max(5_000));
    let mut spent = 0;
    for sequence in 0..count {
        // Spread without a generator: a multiplier that visits all residues.
        let late_ms = sequence.wrapping_mul(7_919) % jitter_ms.max(1);
        let event = event(sequence, NOW_MS + sequence * 10 - late_ms, sequence % distinct);
        let begun = Instant::now();
        detector.step(NOW_MS + sequence * 10, Input::Event(event), &mut effects);
        if sequence.is_multiple_of(500) {
            detector.step(NOW_MS + sequence * 10, Input::Tick, &mut effects);
        }
        if sequence >= count / 2 {
            spent += begun.elapsed().as_nanos();
        }
        effects.clear();
    }
    spent / u128::from(count / 2)
}

fn main() {
    let sizes: Vec<u64> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    for distinct in sizes {
        for correlation in [
            format!("type: value_count, condition: {{field: value, gte: {distinct}}}"),
            "type: value_count, condition: {field: value, gte: 50}".to_owned(),
            format!("type: event_count, condition: {{gte: {distinct}}}"),
            format!("type: value_sum, condition: {{field: value, gte: {}}}", distinct * 50),
            "type: value_count, condition: {field: value, lt: 50}".to_owned(),
        ] {
            let (in_order, jittered) = (measure(&correlation, distinct, 0), measure(&correlation, distinct, 1_000));
            println!(
                "{distinct:>7} values, {in_order:>7} ns in order, {jittered:>7} ns within a second: {correlation}"
            );
        }
    }
}
