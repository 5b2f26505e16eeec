//! What the detector takes in: events a second on one core, from raw bytes to alerts.
//!
//! One thread does for each event what a node does: parse and normalise it, match all rules, correlate. Reading from
//! disk and storing alerts are not in it.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use detection::engine::{Detector, Effect, Input, Options};
use detection::normalise::normalise;
use detection::{Position, RawEvent, SourceKind};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// When the first event happened: any moment will do.
const BEGIN_MS: u64 = 1_795_467_600_000;
/// Milliseconds between events: two thousand a second.
const EVENTS_PER_MS: u64 = 2;
/// Ticks of the detector, in events.
const TICK_EVERY: u64 = 1_000 * EVENTS_PER_MS;

/// What one kind of event came to.
#[derive(Clone, Debug, Serialize)]
pub struct Detection {
    /// What kind.
    pub kind: &'static str,
    /// How many.
    pub events: u64,
    /// Mean size of an event.
    pub event_bytes: u64,
    /// Events for each second of processor time of the one thread.
    pub per_cpu_second: f64,
    /// Alerts that were raised.
    pub alerts: u64,
    /// Rules on single events that were loaded.
    pub rules: usize,
    /// Correlations that were loaded.
    pub correlations: usize,
}

/// Measures audit events, syslog lines, and both in turn.
pub fn run(rules: &Path, count: u64) -> Result<Vec<Detection>> {
    let audit = |number| (SourceKind::Audit, audit_event(number));
    let syslog = |number| (SourceKind::Syslog, syslog_line(number));
    let mixed = |number: u64| if number.is_multiple_of(2) { audit(number) } else { syslog(number) };
    Ok(vec![
        one("audit events", rules, count, &audit)?,
        one("syslog lines", rules, count, &syslog)?,
        one("both in turn", rules, count, &mixed)?,
    ])
}

fn one(kind: &'static str, rules: &Path, count: u64, event: &dyn Fn(u64) -> (SourceKind, String)) -> Result<Detection> {
    let (rules, errors) = detection::rules::load_dir(rules);
    if let Some(error) = errors.first() {
        bail!("{error}");
    }
    let (rule_count, correlations) = (rules.rules().len(), rules.correlations().len());
    let stream: Arc<str> = "bench".into();
    let raw = |sequence: u64| {
        let (source, text) = event(sequence);
        let position = Some(Position { stream: Arc::clone(&stream), sequence });
        RawEvent { source, received_ms: BEGIN_MS + sequence / EVENTS_PER_MS, position, bytes: Bytes::from(text) }
    };
    let raws: Vec<RawEvent> = (0..count).map(raw).collect();
    let size: usize = raws.iter().map(|raw| raw.bytes.len()).sum();
    let mut detector = Detector::new(rules, Options::default());
    let (mut effects, mut alerts) = (Vec::new(), 0);
    let begun = thread_seconds()?;
    for (number, raw) in (0_u64..).zip(&raws) {
        let event = normalise(raw).map_err(|reject| anyhow::anyhow!("event {number}: {}", reject.reason))?;
        detector.step(raw.received_ms, Input::Event(event), &mut effects);
        if number.is_multiple_of(TICK_EVERY) {
            detector.step(raw.received_ms, Input::Tick, &mut effects);
        }
        alerts += effects.drain(..).filter(|effect| matches!(effect, Effect::Alert(_))).count() as u64;
    }
    let seconds = (thread_seconds()? - begun).max(1e-6);
    Ok(Detection {
        kind,
        events: count,
        event_bytes: size as u64 / count.max(1),
        per_cpu_second: count as f64 / seconds,
        alerts,
        rules: rule_count,
        correlations,
    })
}

/// Processor time of this thread; wall time where the kernel does not tell.
fn thread_seconds() -> Result<f64> {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let began = BEGAN.get_or_init(Instant::now);
    let Ok(text) = std::fs::read_to_string("/proc/thread-self/schedstat") else {
        return Ok(began.elapsed().as_secs_f64());
    };
    let nanoseconds: f64 = text.split(' ').next().and_then(|field| field.parse().ok()).context("schedstat")?;
    Ok(nanoseconds / 1e9)
}

/// One in twenty is a failed login, from few addresses; the rest is daily work of two hundred people.
fn audit_event(number: u64) -> String {
    let time_ms = BEGIN_MS + number / EVENTS_PER_MS;
    let user = number.wrapping_mul(2_654_435_761) % 200;
    let (action, outcome, reason) = match number % 20 {
        0 => ("login.failed", "failure", "\"credentials\""),
        1 => ("login", "success", "null"),
        2..=8 => ("record.put", "success", "null"),
        _ => ("record.view", "success", "null"),
    };
    let address = if number.is_multiple_of(20) { number / 20 % 10 } else { 10 + user };
    format!(
        "{{\"time_ms\":{time_ms},\"region\":\"eu\",\"node\":\"eu-1\",\"group\":1,\"action\":\"{action}\",\"outcome\":\"{outcome}\",\
         \"reason\":{reason},\"tenant\":\"customer{}\",\"user\":\"user{user}\",\"session\":\"{number:032x}\",\"address\":\"10.0.{}.{}\",\
         \"resource\":\"tenants/customer/tables/items/records/{number}\",\"fields\":[\"value\"],\"request_id\":\"{number:032x}\",\
         \"detail_digest\":\"{number:064x}\"}}",
        user % 20,
        address / 250,
        address % 250 + 1
    )
}

/// Half are refused passwords, from a hundred addresses; the rest sessions that open.
fn syslog_line(number: u64) -> String {
    let at = jiff::Timestamp::from_millisecond((BEGIN_MS + number / EVENTS_PER_MS).cast_signed()).unwrap_or_default();
    let (user, address) = (number.wrapping_mul(2_654_435_761) % 50, number % 100 + 1);
    let message = if number % 4 < 2 {
        format!(
            "Failed password for invalid user user{user} from 203.0.113.{address} port {} ssh2",
            1_024 + number % 60_000
        )
    } else {
        format!("Accepted password for user{user} from 198.51.100.{address} port {} ssh2", 1_024 + number % 60_000)
    };
    format!("<38>1 {at} host{} sshd {} - - {message}", number % 30, 1_000 + number % 30_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generated_event_is_understood() {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster/rules");
        for measured in run(&rules, 2_000).unwrap() {
            assert!(measured.alerts > 0, "{}: the load holds no attack", measured.kind);
            assert!(measured.event_bytes > 90, "{}", measured.kind);
        }
    }
}
