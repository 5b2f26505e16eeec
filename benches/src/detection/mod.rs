//! What the detector takes in: events a second on one core, from raw bytes to alerts, as a live node judges them.
//!
//! One thread does for each event what a shard's owner does: read it, match all rules, correlate, raise alerts. Reading
//! from disk and storing state and alerts are not in it. With rules and events by path, others' are measured too, and
//! rsigma beside us in turn.

mod agreement;
mod beside;
mod events;
mod latency;
mod reload;
mod values;

pub use agreement::{Agreement, Disagreement};
pub use latency::Latency;
pub use reload::Reload;
pub use values::Values;

use anyhow::{Context as _, Result, bail, ensure};
use beside::Beside;
use bytes::Bytes;
use detection::engine::{Detector, Effect, Input, Options};
use detection::rules::{RuleSet, load_dir, load_texts, load_tree};
use detection::sigma::{Pipeline, RuleError};
use detection::{Position, RawEvent, SourceKind};
use events::{BEGIN_MS, EVENTS_PER_MS};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ticks of the detector, in events.
const TICK_EVERY: usize = 1_000 * EVENTS_PER_MS as usize;
/// Rounds over others' events, of which the median counts.
const ROUNDS: usize = 9;
/// The same in a short run.
const ROUNDS_QUICK: usize = 3;

/// What is measured.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Our own rules.
    pub rules: PathBuf,
    /// How many events of each kind are made.
    pub events: u64,
    /// Whether a first impression is enough.
    pub quick: bool,
    /// Rules and events that others wrote.
    pub packs: Option<Packs>,
    /// Where rsigma is built, to be measured beside us.
    pub beside: Option<PathBuf>,
    /// Whether both are asked which rules match each event.
    pub agree: bool,
}

/// Rules and events that others wrote, by path.
#[derive(Clone, Debug, Default)]
pub struct Packs {
    /// A folder of Sigma rules, with folders in it.
    pub rules: PathBuf,
    /// Events as JSON, one a line; `.gz` if compressed.
    pub events: PathBuf,
}

/// All that was measured of detection.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Detection {
    /// Events a second.
    pub rates: Vec<Rate>,
    /// How long an event waits.
    pub latency: Vec<Latency>,
    /// What counting distinct values costs.
    pub values: Vec<Values>,
    /// What new rules cost.
    pub reload: Vec<Reload>,
    /// Whether rsigma matched the same.
    pub agreement: Option<Agreement>,
}

/// How fast one product judged one kind of event.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Which product, and how it was asked.
    pub product: String,
    /// What kind of event.
    pub kind: &'static str,
    /// Events in one round.
    pub events: usize,
    /// Mean size of an event.
    pub event_bytes: usize,
    /// Events for each second of processor time of the one thread, in each round.
    pub per_cpu_second: Vec<f64>,
    /// Alerts of one round.
    pub alerts: u64,
    /// Rules on single events that were loaded.
    pub rules: usize,
    /// Correlations that were loaded.
    pub correlations: usize,
    /// Processor time to read and compile the rules.
    pub load_ms: f64,
    /// Memory that the compiled rules hold, where it was measured.
    pub rules_bytes: Option<u64>,
    /// What Holdfast did over what this product did, where it is another.
    pub ratio: Option<f64>,
}

impl Rate {
    /// The middle of all rounds.
    pub fn median(&self) -> f64 {
        median(&self.per_cpu_second)
    }
}

/// The middle of some figures; of two the lower.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Measures others' events and rules, then our own.
pub fn run(asked: &Asked) -> Result<Detection> {
    let mut measured = Detection::default();
    // First, while the memory that rules take is not hidden in what others gave back.
    if let Some(packs) = &asked.packs {
        others(asked, packs, &mut measured)?;
    }
    let seconds = if asked.quick { 1.0 } else { 5.0 };
    let own = Rules::load(|| Ok(load_dir(&asked.rules)))?;
    let customer = Rules::load(|| Ok(load_texts(vec![("audit.yml".to_owned(), events::audit_rules())])))?;
    let audit = events::audit(asked.events);
    for (kind, rules, raws) in [
        ("audit events, own rules", &own, &audit),
        ("syslog lines, own rules", &own, &events::syslog(asked.events)),
        ("both in turn, own rules", &own, &events::mixed(asked.events)),
        ("audit events, customer's rules", &customer, &audit),
    ] {
        let mut rate = rules.rate(kind, raws);
        for _ in 0..if asked.quick { 1 } else { 3 } {
            rules.round(raws, &mut rate)?;
        }
        if kind.starts_with("audit") {
            measured.latency.push(latency::run(&rate, rules, raws, seconds)?);
        }
        measured.rates.push(rate);
    }
    measured.reload.push(reload::run("audit events, own rules", &audit, || Ok(load_dir(&asked.rules)))?);
    measured.values = values::run(if asked.quick { 10_000 } else { 50_000 })?;
    Ok(measured)
}

/// Others' rules on others' events.
fn others(asked: &Asked, packs: &Packs, measured: &mut Detection) -> Result<()> {
    let text = read_lines(&packs.events)?;
    let raws: Vec<RawEvent> =
        (0..).zip(text.lines()).map(|(number, line)| raw(number, SourceKind::Ndjson, line.to_owned())).collect();
    let load = || Ok(load_tree(&packs.rules, &Pipeline::default()));
    let rules = Rules::load(load)?;
    let mut rates = vec![rules.rate("Windows events, SigmaHQ", &raws)];
    let mut beside = match &asked.beside {
        Some(cache) => Some(Beside::start(&Beside::build(cache)?, &packs.rules, &text)?),
        None => None,
    };
    if let Some(beside) = &beside {
        let (here, there) = (rules.set.rules().len(), beside.hello.rules);
        ensure!(here == there, "Holdfast loaded {here} rules, rsigma {there}");
        let hello = &beside.hello;
        let like = Rate { load_ms: hello.load_ms, rules_bytes: hello.rules_bytes, ..rates[0].clone() };
        rates.extend(hello.ways.iter().map(|way| Rate { product: format!("rsigma 0.23, {way}"), ..like.clone() }));
    }
    for _ in 0..if asked.quick { ROUNDS_QUICK } else { ROUNDS } {
        rules.round(&raws, &mut rates[0])?;
        let Some(beside) = &mut beside else { continue };
        for (rate, way) in rates[1..].iter_mut().zip(beside.hello.ways.clone()) {
            let round = beside.round(&way)?;
            ensure!(round.events == raws.len(), "rsigma read {} of {} events", round.events, raws.len());
            rate.alerts = round.hits;
            rate.per_cpu_second.push(round.events as f64 / round.seconds.max(1e-6));
        }
    }
    let ours = rates[0].median();
    rates[1..].iter_mut().for_each(|rate| rate.ratio = Some(ours / rate.median()));
    measured.latency.push(latency::run(&rates[0], &rules, &raws, if asked.quick { 1.0 } else { 10.0 })?);
    measured.reload.push(reload::run("Windows events, SigmaHQ", &raws, load)?);
    if let Some(beside) = beside.as_mut().filter(|_| asked.agree) {
        measured.agreement = Some(Agreement::of(&agreement::matches(&rules.set, &raws)?, &beside.matches()?)?);
    }
    measured.rates.append(&mut rates);
    Ok(())
}

/// Rules, and what it took to load them.
struct Rules {
    set: RuleSet,
    load_ms: f64,
    bytes: Option<u64>,
}

impl Rules {
    fn load(load: impl FnOnce() -> Result<(RuleSet, Vec<RuleError>)>) -> Result<Self> {
        let before = memory_bytes();
        let begun = thread_seconds();
        let (set, errors) = load()?;
        let load_ms = (thread_seconds() - begun) * 1e3;
        let bytes = before.zip(memory_bytes()).map(|(before, after)| after.saturating_sub(before));
        if let Some(error) = errors.first() {
            bail!("{error}");
        }
        Ok(Self { set, load_ms, bytes })
    }

    fn detector(&self) -> Detector {
        Detector::new(self.set.clone(), Options::default())
    }

    /// Nothing measured yet.
    fn rate(&self, kind: &'static str, raws: &[RawEvent]) -> Rate {
        Rate {
            product: "Holdfast".to_owned(),
            kind,
            events: raws.len(),
            event_bytes: raws.iter().map(|raw| raw.bytes.len()).sum::<usize>() / raws.len().max(1),
            per_cpu_second: Vec::new(),
            alerts: 0,
            rules: self.set.rules().len(),
            correlations: self.set.correlations().len(),
            load_ms: self.load_ms,
            rules_bytes: self.bytes,
            ratio: None,
        }
    }

    /// All events once, through a detector without state.
    fn round(&self, raws: &[RawEvent], rate: &mut Rate) -> Result<()> {
        let mut detector = self.detector();
        let begun = thread_seconds();
        rate.alerts = feed(&mut detector, raws, &mut |_| {})?;
        rate.per_cpu_second.push(raws.len() as f64 / (thread_seconds() - begun).max(1e-6));
        Ok(())
    }
}

/// Feeds a detector as a node does; how many alerts it raised.
fn feed(detector: &mut Detector, raws: &[RawEvent], told: &mut dyn FnMut(&Effect)) -> Result<u64> {
    let (mut effects, mut alerts) = (Vec::new(), 0);
    for (number, raw) in raws.iter().enumerate() {
        let taken = detector.raw(raw.received_ms, raw, &mut effects);
        taken.map_err(|reject| anyhow::anyhow!("event {number}: {}", reject.reason))?;
        if number.is_multiple_of(TICK_EVERY) {
            detector.step(raw.received_ms, Input::Tick, &mut effects);
        }
        for effect in effects.drain(..) {
            alerts += u64::from(matches!(effect, Effect::Alert(_)));
            told(&effect);
        }
    }
    Ok(alerts)
}

fn raw(sequence: u64, source: SourceKind, text: String) -> RawEvent {
    let position = Some(Position { stream: "bench".into(), sequence });
    RawEvent { source, received_ms: BEGIN_MS + sequence / EVENTS_PER_MS, position, bytes: Bytes::from(text) }
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

/// Processor time of this thread.
fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generated_event_is_understood() {
        let rules = PathBuf::from("../cluster/rules");
        let asked = Asked { rules, events: 2_000, quick: true, ..Asked::default() };
        let measured = run(&asked).unwrap();
        for rate in measured.rates {
            let expects_alerts = rate.correlations > 0;
            assert!(!expects_alerts || rate.alerts > 0, "{}: the load holds no attack", rate.kind);
            assert!(rate.event_bytes > 90, "{}", rate.kind);
        }
        assert!(measured.reload.iter().all(|reload| reload.lost == 0 && reload.keys > 0));
    }

    #[test]
    fn the_median_is_the_middle_and_of_two_the_lower() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.0);
        assert!(median(&[]).is_nan());
    }
}
