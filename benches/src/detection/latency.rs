//! How long an event waits until it is judged, at half of what the detector can take.
//!
//! Events are due by a clock of their own and their time counts from when they were due, so that one slow event shows
//! in all that it held up.

use super::events::BEGIN_MS;
use super::{Rate, Rules};
use anyhow::{Context as _, Result, ensure};
use detection::RawEvent;
use detection::engine::Input;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Milliseconds between ticks of the detector.
const TICK_MS: u64 = 1_000;

/// From when an event was due until all that follows from it was known.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// What kind of event.
    pub kind: &'static str,
    /// Rules and correlations.
    pub rules: usize,
    /// Events offered a second.
    pub per_second: f64,
    /// Events that were offered.
    pub events: u64,
    /// Half of the events waited at most so long, in microseconds.
    pub p50_us: f64,
    /// All but one in a hundred.
    pub p99_us: f64,
    /// All but one in a thousand.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Offers events for so many seconds at half the rate that was measured.
pub(super) fn run(rate: &Rate, rules: &Rules, raws: &[RawEvent], seconds: f64) -> Result<Latency> {
    let per_second = rate.median() / 2.0;
    ensure!(per_second.is_finite() && per_second >= 1.0, "{}: no rate was measured", rate.kind);
    let mut count = (per_second * seconds) as usize;
    if rate.correlations > 0 {
        // Events that come again would be late.
        count = count.min(raws.len());
    }
    let mut detector = rules.detector();
    let mut waited: Histogram<u64> = Histogram::new_with_bounds(1, 60_000_000_000, 3).context("a histogram")?;
    let mut effects = Vec::new();
    let mut next_tick_ms = BEGIN_MS;
    let begun = Instant::now();
    for (number, raw) in raws.iter().cycle().take(count).enumerate() {
        let due = begun + Duration::from_secs_f64(number as f64 / per_second);
        let mut now = Instant::now();
        while now < due {
            std::hint::spin_loop();
            now = Instant::now();
        }
        if raw.received_ms >= next_tick_ms {
            next_tick_ms = raw.received_ms + TICK_MS;
            detector.step(raw.received_ms, Input::Tick, &mut effects);
        }
        let taken = detector.raw(raw.received_ms, raw, &mut effects);
        taken.map_err(|reject| anyhow::anyhow!("event {number}: {}", reject.reason))?;
        waited.saturating_record((Instant::now() - due).as_nanos() as u64);
        effects.clear();
    }
    let at = |quantile: f64| waited.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Latency {
        kind: rate.kind,
        rules: rate.rules + rate.correlations,
        per_second,
        events: waited.len(),
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: waited.max() as f64 / 1e3,
    })
}
