//! What the detector takes in: events a second on one core, from raw bytes to alerts.
//!
//! One thread does for each event what a node does: parse and normalise it, match all rules, correlate. Reading from
//! disk and storing alerts are not in it. With packs of rules and events by path it also measures them: from raw bytes
//! to the rules that match, which is what a backtest and a retro-hunt do, and what live events cost that match nothing.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use detection::engine::{Detector, Effect, Input, Options};
use detection::normalise::normalise;
use detection::rules::{RuleSet, load_texts, load_tree};
use detection::sigma::Pipeline;
use detection::{Position, RawEvent, SourceKind};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;
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
    /// Processor time to read and compile the rules.
    pub load_ms: f64,
    /// Memory that the compiled rules hold, where it was measured.
    pub rules_bytes: Option<u64>,
}

/// Rules and events that others wrote, by path.
#[derive(Clone, Debug, Default)]
pub struct Packs {
    /// A folder of Sigma rules, with folders in it.
    pub rules: Option<PathBuf>,
    /// Events as JSON, one a line; `.gz` if compressed.
    pub events: Option<PathBuf>,
}

/// Rules over audit events in the measurement of matching alone.
const AUDIT_RULES: usize = 300;
/// Times the events of a pack are read.
const ROUNDS: u64 = 5;

/// Measures audit events, syslog lines, and both in turn; then matching alone, and the packs.
pub fn run(rules: &Path, count: u64, packs: &Packs) -> Result<Vec<Detection>> {
    let audit = |number| (SourceKind::Audit, audit_event(number));
    let syslog = |number| (SourceKind::Syslog, syslog_line(number));
    let mixed = |number: u64| if number.is_multiple_of(2) { audit(number) } else { syslog(number) };
    // First, while the memory that rules take is not hidden in what others gave back.
    let mut all = Vec::new();
    if let (Some(rules), Some(events)) = (&packs.rules, &packs.events) {
        let lines = read_lines(events)?;
        let raws: Vec<RawEvent> =
            (0..).zip(lines.lines()).map(|(number, line)| raw(number, SourceKind::Ndjson, line.to_owned())).collect();
        all.push(matching("events of a pack, matching", &raws, || Ok(load_tree(rules, &Pipeline::default())))?);
    }
    all.push(one("audit events", rules, count, &audit)?);
    all.push(one("syslog lines", rules, count, &syslog)?);
    all.push(one("both in turn", rules, count, &mixed)?);
    let raws: Vec<RawEvent> = (0..count).map(|number| raw(number, SourceKind::Audit, audit_event(number))).collect();
    let text = audit_rules();
    all.push(matching("audit events, matching", &raws, || Ok(load_texts(vec![("audit.yml".to_owned(), text)])))?);
    Ok(all)
}

fn raw(sequence: u64, source: SourceKind, text: String) -> RawEvent {
    let position = Some(Position { stream: "bench".into(), sequence });
    RawEvent { source, received_ms: BEGIN_MS + sequence / EVENTS_PER_MS, position, bytes: Bytes::from(text) }
}

/// From raw bytes to the rules that match.
fn matching(
    kind: &'static str,
    raws: &[RawEvent],
    load: impl FnOnce() -> Result<(RuleSet, Vec<detection::sigma::RuleError>)>,
) -> Result<Detection> {
    let before = memory_bytes();
    let begun = thread_seconds()?;
    let (rules, errors) = load()?;
    let load_ms = (thread_seconds()? - begun) * 1e3;
    let rules_bytes = before.zip(memory_bytes()).map(|(before, after)| after.saturating_sub(before));
    if let Some(error) = errors.first() {
        bail!("{error}");
    }
    let program = rules.program();
    let mut worker = program.worker();
    let (mut hits, mut size) = (0, 0);
    let begun = thread_seconds()?;
    for _ in 0..ROUNDS {
        for raw in raws {
            program.run_raw(&mut worker, raw).map_err(|reject| anyhow::anyhow!("an event: {}", reject.reason))?;
            hits += worker.hits().len() as u64;
            size += raw.bytes.len() as u64;
        }
    }
    let seconds = (thread_seconds()? - begun).max(1e-6);
    let events = ROUNDS * raws.len() as u64;
    ensure!(worker.read_slowly() * 20 < events, "{kind}: {} of {events} were read slowly", worker.read_slowly());
    Ok(Detection {
        kind,
        events,
        event_bytes: size / events.max(1),
        per_cpu_second: events as f64 / seconds,
        alerts: hits,
        rules: rules.rules().len(),
        correlations: rules.correlations().len(),
        load_ms,
        rules_bytes,
    })
}

/// Rules as a customer writes them over audit events: on operations, people, places, resources and reasons.
fn audit_rules() -> String {
    let rule = |number: usize| {
        let selection = match number % 6 {
            0 => format!("api.operation: [record.export{number}, record.purge{number}]\n    status_id: 1"),
            1 => format!("api.operation: record.view\n    actor.user.name|endswith: '@contractor{number}.example'"),
            2 => format!("api.operation|startswith: record.\n    resources.name|contains: /tables/secret{number}/"),
            3 => format!("src_endpoint.ip|cidr: 172.{}.{}.0/24\n    class_uid: 6005", 16 + number % 16, number % 250),
            4 => format!("status_detail|re: '^(quota|limit)_{number}[a-z]+$'\n    status: Failure"),
            _ => format!(
                "api.operation: login.failed\n    actor.user.name: [root{number}, admin{number}, oracle{number}]"
            ),
        };
        format!(
            "title: rule {number}\nlogsource: {{product: holdfast, service: audit}}\ndetection:\n  selection:\n    \
             {selection}\n  filter:\n    metadata.tenant_uid: test{number}\n  condition: selection and not filter\n"
        )
    };
    (0..AUDIT_RULES).map(rule).collect::<Vec<_>>().join("---\n")
}

fn read_lines(path: &Path) -> Result<String> {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return std::fs::read_to_string(path).with_context(|| path.display().to_string());
    }
    let output = Command::new("gzip").arg("-dc").arg(path).output().context("gzip")?;
    ensure!(output.status.success(), "{}: gzip cannot read it", path.display());
    Ok(String::from_utf8(output.stdout)?)
}

/// Memory of this process; nothing where the kernel does not tell.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find(|line| line.starts_with("Private_Dirty:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}

fn one(kind: &'static str, rules: &Path, count: u64, event: &dyn Fn(u64) -> (SourceKind, String)) -> Result<Detection> {
    let begun = thread_seconds()?;
    let (rules, errors) = detection::rules::load_dir(rules);
    let load_ms = (thread_seconds()? - begun) * 1e3;
    if let Some(error) = errors.first() {
        bail!("{error}");
    }
    let (rule_count, correlations) = (rules.rules().len(), rules.correlations().len());
    let raws: Vec<RawEvent> = (0..count)
        .map(|number| {
            let (source, text) = event(number);
            raw(number, source, text)
        })
        .collect();
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
        load_ms,
        rules_bytes: None,
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
        let rules = std::path::PathBuf::from("../cluster/rules");
        for measured in run(&rules, 2_000, &Packs::default()).unwrap() {
            let expects_alerts = measured.correlations > 0;
            assert!(!expects_alerts || measured.alerts > 0, "{}: the load holds no attack", measured.kind);
            assert!(measured.event_bytes > 90, "{}", measured.kind);
        }
    }
}
