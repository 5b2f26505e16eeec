//! The report of a drill, as JSON and as Markdown: what ISO 22301 (8.5) and DORA (articles 11, 12, 24) ask to keep.
//!
//! Failures and void runs stay in it.

use crate::drill::Run;
use crate::scenario::Scenario;
use crate::verdict::{Verdict, confidence};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Days after a breach by which it is due to be repaired and tested again.
const RETEST_DAYS: u64 = 30;
const DAY_SECONDS: u64 = 86_400;

/// Where the drill ran.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors that may be used.
    pub processors: usize,
    /// Kernel and release.
    pub kernel: String,
    /// Memory in KiB.
    pub memory_kib: u64,
}

/// The smallest, the middle and the largest of a measurement over several runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// How many runs.
    pub n: usize,
    /// The median.
    pub p50_ms: u64,
    /// The 95th percentile.
    pub p95_ms: u64,
    /// The largest.
    pub max_ms: u64,
}

/// A drill's report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its number: scenario and time.
    pub id: String,
    /// When it ended: seconds since 1970.
    pub time_s: u64,
    /// The date, UTC.
    pub date: String,
    /// The program under test.
    pub build: String,
    /// The machine.
    pub machine: Machine,
    /// Whether the phases were those for continuous integration.
    pub is_short: bool,
    /// What was done.
    pub scenario: Scenario,
    /// Stop when.
    pub abort_rules: &'static str,
    /// Recovery times of the runs whose fault bit.
    pub rto_slo: Spread,
    /// First successes of the runs whose fault bit.
    pub rto_first: Spread,
    /// The bound that so many clean runs show, at 95 % confidence, in percent.
    pub confidence_percent: f64,
    /// The verdict of all runs together.
    pub verdict: Verdict,
    /// Who answers for what was found.
    pub owner: String,
    /// By when what was found is to be repaired and tested again; none: nothing was found.
    pub retest_by: Option<String>,
    /// The drill before, if its report was kept.
    pub before: Option<Before>,
    /// The runs, void ones too.
    pub runs: Vec<Run>,
}

/// The drill of the same scenario before this one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Before {
    /// Its number.
    pub id: String,
    /// Its recovery times.
    pub rto_slo: Spread,
    /// Its verdict.
    pub verdict: Verdict,
}

impl Report {
    /// Makes a report of runs.
    pub fn new(scenario: Scenario, is_short: bool, owner: String, build: String, runs: Vec<Run>) -> Self {
        let time_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let counted: Vec<&Run> = runs.iter().filter(|run| run.verdict != Verdict::Void).collect();
        let clean = counted.iter().filter(|run| run.verdict == Verdict::Met).count();
        let verdict = together(&runs);
        let is_all_clean = clean == counted.len() && clean > 0;
        Self {
            id: format!("{}-{time_s}", scenario.name),
            time_s,
            date: date(time_s),
            build,
            machine: machine(),
            is_short,
            abort_rules: "a node ends by itself; a node is not ready in time; the run is interrupted",
            rto_slo: spread(counted.iter().filter_map(|run| run.recovery.rto_slo_ms).collect()),
            rto_first: spread(counted.iter().filter_map(|run| run.recovery.rto_first_ms).collect()),
            confidence_percent: if is_all_clean { confidence(u32::try_from(clean).unwrap_or(u32::MAX)) } else { 0.0 },
            verdict,
            owner,
            retest_by: (verdict != Verdict::Met).then(|| date(time_s + RETEST_DAYS * DAY_SECONDS)),
            before: None,
            runs,
            scenario,
        }
    }

    /// Writes `NAME.json` and `NAME.md` into a folder, beside the report before, with which it is compared.
    pub fn write(&mut self, folder: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be created", folder.display()))?;
        let path = folder.join(format!("{}.json", self.scenario.name));
        self.before = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let json = serde_json::to_vec_pretty(self).context("the report has no JSON form")?;
        std::fs::write(&path, json).with_context(|| format!("{}: cannot be written", path.display()))?;
        let markdown = path.with_extension("md");
        std::fs::write(&markdown, self.markdown())
            .with_context(|| format!("{}: cannot be written", markdown.display()))?;
        Ok(markdown)
    }

    /// The report for people.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let s = &self.scenario;
        let _ = writeln!(text, "# Drill {}: {}\n\nVerdict: **{}**\n", self.id, s.title, self.verdict);
        let _ = writeln!(text, "| | |\n|---|---|\n| date | {} |\n| build | {} |", self.date, self.build);
        let machine = &self.machine;
        let memory_gib = machine.memory_kib / 1024 / 1024;
        let _ = writeln!(text, "| machine | {} processors, {memory_gib} GiB, {} |", machine.processors, machine.kernel);
        let _ = writeln!(
            text,
            "| asset, disruption | {}, {} |\n| owner | {} |",
            s.asset,
            s.disruption.as_str(),
            self.owner
        );
        let _ = writeln!(
            text,
            "| hypothesis | {} |\n| blast radius | {} |\n| stop when | {} |",
            s.hypothesis, s.blast_radius, self.abort_rules
        );
        if let Some(retest) = &self.retest_by {
            let _ = writeln!(text, "| retest by | {retest} |");
        }
        if let Some(before) = &self.before {
            let _ =
                writeln!(text, "| before | {}: {}, RTO p95 {} ms |", before.id, before.verdict, before.rto_slo.p95_ms);
        }
        let slo = self.rto_slo;
        let _ = writeln!(
            text,
            "\nRTO over {} runs: p50 {} ms, p95 {} ms, max {} ms.",
            slo.n, slo.p50_ms, slo.p95_ms, slo.max_ms
        );
        let bound = self.confidence_percent;
        let _ = writeln!(
            text,
            "Clean runs show that the next is clean too with at least {bound:.1} % (at 95 % confidence)."
        );
        for (index, run) in self.runs.iter().enumerate() {
            describe(&mut text, index + 1, run);
        }
        text
    }
}

fn describe(text: &mut String, number: usize, run: &Run) {
    let ms = |value: Option<u64>| value.map_or("none".to_owned(), |value| format!("{value} ms"));
    let target = run.promise.target;
    let _ = writeln!(text, "\n## Run {number}: {}\n", run.verdict);
    for moment in &run.timeline {
        let _ = writeln!(text, "- {:.3} s: {}", moment.at_ms as f64 / 1_000.0, moment.what);
    }
    let _ = writeln!(text, "\n| | measured | target | verdict |\n|---|---|---|---|");
    let _ = writeln!(
        text,
        "| RTO (level met again) | {} | {} ms | {} |",
        ms(run.recovery.rto_slo_ms),
        target.rto_ms,
        run.rto
    );
    let _ = writeln!(text, "| RTO (first write) | {} | | |", ms(run.recovery.rto_first_ms));
    let _ = writeln!(text, "| longest stop of writes | {} ms | | |", run.recovery.write_stop_ms);
    let healing = &run.healing;
    let _ = writeln!(text, "| the same after the healing | {} | {} ms | |", ms(healing.rto_slo_ms), target.rto_ms);
    let _ = writeln!(
        text,
        "| RPO | {} writes, {} ms | {} ms | {} |",
        run.loss.writes, run.loss.window_ms, target.rpo_ms, run.rpo
    );
    if let Some(loss) = run.loss_during {
        let _ = writeln!(
            text,
            "| RPO while the region was gone | {} writes, {} ms | {} ms | |",
            loss.writes, loss.window_ms, target.rpo_ms
        );
    }
    let _ = writeln!(text, "\n| operations | asked | ok | failed | unknown | slow |\n|---|---|---|---|---|---|");
    for (name, part) in [
        ("struck region, after the fault", &run.recovery),
        ("struck region, after the healing", &run.healing),
        ("other regions, after the fault", &run.elsewhere),
    ] {
        let tally = part.tally;
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} |",
            tally.operations, tally.ok, tally.failed, tally.unknown, part.slow
        );
    }
    let _ = writeln!(
        text,
        "\nBaseline: p50 {:.1} ms, p99 {:.1} ms.",
        run.baseline.p50_us as f64 / 1e3,
        run.baseline.p99_us as f64 / 1e3
    );
    let _ = writeln!(text, "\n| property | examined | violated |\n|---|---|---|");
    for finding in &run.findings {
        let _ = writeln!(text, "| {} | {} | {} |", finding.property, finding.examined, finding.violated);
    }
    for finding in run.findings.iter().filter(|finding| !finding.holds()) {
        let _ = writeln!(text, "\n{}:\n", finding.property);
        for violation in &finding.violations {
            let _ = writeln!(text, "- {violation}");
        }
    }
    if !run.errors.is_empty() {
        let _ = writeln!(text, "\nWhat errors said:\n");
        for (error, count) in &run.errors {
            let _ = writeln!(text, "- {count} × {error}");
        }
    }
}

/// A breach is a breach; without one, what is not proven is not met; nothing but void runs is void.
fn together(runs: &[Run]) -> Verdict {
    let has = |verdict| runs.iter().any(|run| run.verdict == verdict);
    match () {
        () if has(Verdict::Breached) => Verdict::Breached,
        () if has(Verdict::Unproven) => Verdict::Unproven,
        () if has(Verdict::Met) => Verdict::Met,
        () => Verdict::Void,
    }
}

fn spread(mut values: Vec<u64>) -> Spread {
    values.sort_unstable();
    let at = |share: f64| {
        values.get(((values.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied().unwrap_or(0)
    };
    Spread { n: values.len(), p50_ms: at(0.5), p95_ms: at(0.95), max_ms: at(1.0) }
}

/// This machine.
pub fn machine() -> Machine {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().split(' ').next()?.parse().ok());
    Machine {
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        memory_kib: total.unwrap_or(0),
    }
}

/// A day, UTC (Howard Hinnant, chrono-compatible low-level date algorithms).
pub fn date(time_s: u64) -> String {
    let days = time_s / DAY_SECONDS + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_478_399), "2026-11-23");
    }

    #[test]
    fn a_spread_is_of_its_values() {
        assert_eq!(spread(vec![3, 1, 2]), Spread { n: 3, p50_ms: 2, p95_ms: 3, max_ms: 3 });
        assert_eq!(spread(vec![]), Spread::default());
    }
}
