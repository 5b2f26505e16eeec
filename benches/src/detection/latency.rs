//! How long an event waits until it is judged, at half of what the detector can take.
//!
//! Events are due by a clock of their own and their time counts from when they were due, so that one slow event shows
//! in all that it held up. A machine that stops or slows down for a moment holds up events too, whatever judges them:
//! arithmetic that takes as long as an event does is offered by the same clock, in turn with the events.

use super::events::BEGIN_MS;
use super::{Rate, Rules};
use anyhow::{Context as _, Result, ensure};
use detection::RawEvent;
use detection::engine::Input;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Milliseconds between ticks of the detector.
const TICK_MS: u64 = 1_000;
/// How long events come at least, before it is arithmetic's turn.
const TURN: Duration = Duration::from_millis(200);
/// Steps of arithmetic by which its pace is measured.
const PACE_STEPS: u64 = 200_000;
/// The quickest of so many is its pace.
const PACES: usize = 50;

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
    /// All but one in a hundred, of arithmetic instead of events: what the machine adds.
    pub machine_p99_us: f64,
    /// All but one in a thousand of these.
    pub machine_p999_us: f64,
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
    let steps = (pace() / rate.median()).max(1.0) as u64;
    let mut detector = rules.detector();
    let (mut waited, mut machine) = (Waited::new()?, Waited::new()?);
    let mut effects = Vec::new();
    let mut next_tick_ms = BEGIN_MS;
    let mut events = raws.iter().cycle().take(count).enumerate().peekable();
    while events.peek().is_some() {
        waited.offer(per_second, events.by_ref(), |(number, raw)| {
            if raw.received_ms >= next_tick_ms {
                next_tick_ms = raw.received_ms + TICK_MS;
                detector.step(raw.received_ms, Input::Tick, &mut effects);
            }
            let taken = detector.raw(raw.received_ms, raw, &mut effects);
            effects.clear();
            taken.map(drop).map_err(|reject| anyhow::anyhow!("event {number}: {}", reject.reason))
        })?;
        machine.offer(per_second, 0.., |_: u64| {
            arithmetic(steps);
            Ok(())
        })?;
    }
    Ok(Latency {
        kind: rate.kind,
        rules: rate.rules + rate.correlations,
        per_second,
        events: waited.0.len(),
        p50_us: waited.at(0.5),
        p99_us: waited.at(0.99),
        p999_us: waited.at(0.999),
        max_us: waited.at(1.0),
        machine_p99_us: machine.at(0.99),
        machine_p999_us: machine.at(0.999),
    })
}

/// How long what was offered waited, in nanoseconds.
struct Waited(Histogram<u64>);

impl Waited {
    fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 60_000_000_000, 3).context("a histogram")?))
    }

    /// Offers so many a second, for a turn: it ends once nothing waits, so that all that a stall holds up counts.
    fn offer<T>(
        &mut self,
        per_second: f64,
        all: impl Iterator<Item = T>,
        mut serve: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let begun = Instant::now();
        for (number, one) in all.enumerate() {
            let due = begun + Duration::from_secs_f64(number as f64 / per_second);
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            serve(one)?;
            let done = Instant::now();
            self.0.saturating_record((done - due).as_nanos() as u64);
            if done - begun >= TURN && (done - due).as_secs_f64() < 1.0 / per_second {
                break;
            }
        }
        Ok(())
    }

    /// In microseconds.
    fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Steps of which each needs the one before.
fn arithmetic(steps: u64) {
    let mut number = black_box(1_u64);
    for _ in 0..steps {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
    black_box(number);
}

/// Steps of arithmetic a second, while nothing slows them down.
fn pace() -> f64 {
    let once = || {
        let begun = Instant::now();
        arithmetic(PACE_STEPS);
        begun.elapsed()
    };
    let quickest = (0..PACES).map(|_| once()).min().unwrap_or_default();
    PACE_STEPS as f64 / quickest.as_secs_f64().max(1e-9)
}
