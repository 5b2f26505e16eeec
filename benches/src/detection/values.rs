//! What it costs to count distinct values: an event into a window that holds a hundred of them, and a hundred thousand.

use super::events::BEGIN_MS;
use super::{RawEvent, SourceKind, raw, thread_seconds};
use anyhow::{Result, bail, ensure};
use detection::engine::{Detector, Input, Options};
use detection::rules::load_texts;
use serde::Serialize;

/// Distinct values in the window.
const SIZES: [u64; 4] = [100, 1_000, 10_000, 100_000];
/// The window.
const SPAN_MS: u64 = 3_600_000;
/// Ticks of the detector, in events.
const TICK_EVERY: u64 = 1_000;
/// Where events come in disorder, one in so many comes after its neighbour.
const SWAP_EVERY: u64 = 10;
/// How many times fewer events are measured there.
const DISORDER_FEWER: u64 = 10;
/// How far apart events are, in hundredths of what fills the window up to the threshold.
const BELOW: u64 = 102;
const ABOVE: u64 = 98;

/// One size of window: nanoseconds of processor time for each event.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Values {
    /// Distinct values in the window, about; and the threshold.
    pub distinct: u64,
    /// Where the threshold is above them: nothing is raised.
    pub below_ns: f64,
    /// Where every event satisfies the threshold: one burst.
    pub above_ns: f64,
    /// Where nothing is raised and one event in ten comes after the one that follows it.
    pub disorder_ns: f64,
}

/// Measures each size over so many events, once the window is full.
pub(super) fn run(events: u64) -> Result<Vec<Values>> {
    SIZES
        .iter()
        .map(|&distinct| {
            Ok(Values {
                distinct,
                below_ns: cost(distinct, BELOW, false, events)?,
                above_ns: cost(distinct, ABOVE, false, events)?,
                disorder_ns: cost(distinct, BELOW, true, events / DISORDER_FEWER)?,
            })
        })
        .collect()
}

fn cost(distinct: u64, spread: u64, disorder: bool, events: u64) -> Result<f64> {
    let rules = format!(
        "title: value\nname: value\nlogsource: {{product: bench}}\ndetection: {{value: {{kind: value}}, condition: \
         value}}\n---\ntitle: values\ncorrelation:\n  type: value_count\n  rules: [value]\n  group-by: [user]\n  timespan: \
         1h\n  condition: {{field: item, gte: {distinct}}}\n"
    );
    let (set, errors) = load_texts(vec![("values.yml".to_owned(), rules)]);
    if let Some(error) = errors.first() {
        bail!("{error}");
    }
    let full = distinct.next_multiple_of(SWAP_EVERY) + distinct / 10 + TICK_EVERY;
    let raws: Vec<RawEvent> = (0..full + events)
        .map(|place| {
            let number = match place % SWAP_EVERY {
                0 if disorder && place >= full => place + 1,
                1 if disorder && place > full => place - 1,
                _ => place,
            };
            let time_ms = BEGIN_MS + number * SPAN_MS * spread / (distinct * 100);
            let text = format!(
                "{{\"time\":{time_ms},\"kind\":\"value\",\"user\":\"user\",\"item\":\"item {number}\",\"product\":\"bench\"}}"
            );
            RawEvent { received_ms: time_ms, ..raw(place, SourceKind::Ndjson, text) }
        })
        .collect();
    let mut detector = Detector::new(set, Options::default());
    let mut effects = Vec::new();
    let mut begun = 0.0;
    for (place, raw) in (0..).zip(&raws) {
        if place == full {
            begun = thread_seconds();
        }
        let taken = detector.raw(raw.received_ms, raw, &mut effects);
        taken.map_err(|reject| anyhow::anyhow!("event {place}: {}", reject.reason))?;
        if place % TICK_EVERY == 0 {
            detector.step(raw.received_ms, Input::Tick, &mut effects);
        }
        effects.clear();
    }
    let seconds = thread_seconds() - begun;
    let counts = detector.counts();
    ensure!(counts.matches == raws.len() as u64, "{} of {} events matched", counts.matches, raws.len());
    ensure!(
        counts.late + counts.entries_lost + counts.keys_evicted + counts.early == 0,
        "{distinct} values: the detector forgot some: {counts:?}"
    );
    Ok(seconds * 1e9 / events as f64)
}
