//! `holdfast rules`: what can be known about detection rules without a cluster.

mod explain;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use detection::normalise::normalise;
use detection::packs;
use detection::report::{self, CASES_FILE_BYTES_MAX, FindingKind, Known};
use detection::rules::{RuleSet, load_tree};
use detection::sigma::{Pipeline, RuleError};
use detection::{Position, RawEvent, SourceKind};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Bytes of events that are read.
const EVENTS_BYTES_MAX: u64 = 1 << 30;

/// Questions about a folder of rules.
#[derive(Subcommand)]
pub enum RulesCommand {
    /// Read the rules: what is refused and why, what can never fire, what they compile to. Fails when one is refused.
    #[command(after_help = "Examples:\n  \
        holdfast rules check cluster/rules\n  \
        holdfast rules check packs.toml --tenant acme\n  \
        holdfast rules check sigma/rules --nested --pipeline ocsf\n  \
        holdfast rules check sigma/rules --nested --events yesterday.ndjson   # also: which rules no such event can meet")]
    Check {
        /// The rules.
        #[command(flatten)]
        rules: Rules,
        /// Events of the past: rules for log sources and fields that none of them has are told. `-` is standard input.
        #[arg(long)]
        events: Option<PathBuf>,
        /// What a line of them is.
        #[arg(long, value_enum, default_value = "json")]
        format: Format,
    },
    /// Run the rules' own cases: events, and the alerts that must follow. Fails when one does not hold.
    #[command(after_help = "A file of cases, in `tests/` beside the rules:\n  \
        - name: five failures\n    \
          expect: [brute_force]      # these alerts and no others; a tenant's as tenant/rule\n    \
          near: [spraying]           # told, so that it can be told when a rule has no case against it\n    \
          events:\n      \
          - {count: 5, every_s: 30, audit: {action: login.failed, outcome: failure, user: ann, address: 203.0.113.9}}\n      \
          - {after_s: 60, syslog: \"<38>1 {time} h sshd 1 - - Accepted password for ann from 203.0.113.9 port 5 ssh2\"}")]
    Test {
        /// The rules.
        #[command(flatten)]
        rules: Rules,
        /// The folder of cases; `tests` inside the rules' folder by default.
        #[arg(long)]
        cases: Option<PathBuf>,
    },
    /// Say why a rule matches an event, or why not; and why a correlation fired among the events, or what was missing.
    #[command(after_help = "Examples:\n  \
        echo '{\"user\":\"ann\"}' | holdfast rules explain cluster/rules --rule ssh_failed\n  \
        holdfast rules explain cluster/rules --rule ssh_brute_force --format syslog --events auth.log")]
    Explain {
        /// The rules.
        #[command(flatten)]
        rules: Rules,
        /// The id or name of a rule or correlation; by default every rule that matches, and what is about it.
        #[arg(long)]
        rule: Option<String>,
        /// The events.
        #[command(flatten)]
        events: Events,
    },
    /// Which ATT&CK tactics and techniques the rules cover, and with which log sources.
    Coverage {
        /// The rules.
        #[command(flatten)]
        rules: Rules,
    },
    /// What the rules raise for events of the past, and how many alerts a day are to be expected of each.
    #[command(after_help = "Example:\n  holdfast rules backtest cluster/rules --events yesterday.ndjson")]
    Backtest {
        /// The rules.
        #[command(flatten)]
        rules: Rules,
        /// The events.
        #[command(flatten)]
        events: Events,
    },
}

/// The rules that are asked about.
#[derive(Args)]
pub struct Rules {
    /// A folder of Sigma rules, a folder with a `packs.toml`, or such a file.
    #[arg(value_name = "RULES")]
    folder: PathBuf,
    /// Read the folders inside it too, as public packs are laid out.
    #[arg(long)]
    nested: bool,
    /// Read the rules through a pipeline: a file, or `ocsf` for the one that comes with the program. One after the other.
    #[arg(long)]
    pipeline: Vec<String>,
    /// Only what this tenant's events meet, of the rules that `packs.toml` gives to tenants.
    #[arg(long)]
    tenant: Option<String>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Events, one a line.
#[derive(Args)]
pub struct Events {
    /// The file; standard input by default.
    #[arg(long)]
    events: Option<PathBuf>,
    /// What a line is.
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

/// What a line of events is.
#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    /// A JSON object.
    Json,
    /// A syslog message, RFC 5424 or RFC 3164.
    Syslog,
    /// An entry of the audit log.
    Audit,
}

/// Answers one question.
pub fn run(command: &RulesCommand) -> Result<()> {
    match command {
        RulesCommand::Check { rules, events, format } => check(rules, events.as_deref(), *format),
        RulesCommand::Test { rules, cases } => test(rules, cases.as_deref()),
        RulesCommand::Explain { rules, rule, events } => explain::explain(rules, rule.as_deref(), events),
        RulesCommand::Coverage { rules } => coverage(rules),
        RulesCommand::Backtest { rules, events } => backtest(rules, events),
    }
}

impl Rules {
    fn load(&self) -> Result<(RuleSet, Vec<RuleError>)> {
        let (rules, errors) = if self.nested || !self.pipeline.is_empty() {
            anyhow::ensure!(self.folder.is_dir(), "{}: packs say themselves how they are read", self.folder.display());
            load_tree(&self.folder, &self.pipeline()?)
        } else {
            packs::load(&self.folder)?
        };
        match &self.tenant {
            Some(tenant) => Ok((rules.for_tenant(tenant), errors)),
            None => Ok((rules, errors)),
        }
    }

    fn pipeline(&self) -> Result<Pipeline> {
        let mut pipeline = Pipeline::default();
        for name in &self.pipeline {
            let next = if name == "ocsf" {
                Pipeline::ocsf()
            } else {
                let text = std::fs::read_to_string(name).with_context(|| name.clone())?;
                Pipeline::read(&name.as_str().into(), &text)?
            };
            pipeline = pipeline.then(next);
        }
        Ok(pipeline)
    }

    /// The folder that holds the rules, or their `packs.toml`.
    fn home(&self) -> &Path {
        if self.folder.is_file() { self.folder.parent().unwrap_or(Path::new("")) } else { &self.folder }
    }

    /// The rules that were taken; what was refused is told.
    fn load_all(&self) -> Result<RuleSet> {
        self.load_and_count().map(|(rules, _)| rules)
    }

    /// The rules that were taken, and how many documents were refused and told.
    fn load_and_count(&self) -> Result<(RuleSet, usize)> {
        let (rules, errors) = self.load()?;
        for error in &errors {
            eprintln!("holdfast: {error}");
        }
        if rules.rules().is_empty() {
            bail!("{}: no rule was taken", self.folder.display())
        }
        Ok((rules, errors.len()))
    }

    /// Prints a report for programs, or says that it is for people.
    fn printed(&self, report: &impl Serialize) -> Result<bool> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(report)?);
        }
        Ok(self.json)
    }
}

impl Events {
    /// Every line as it would arrive, empty ones left out.
    fn read(&self) -> Result<Vec<RawEvent>> {
        let mut text = Vec::new();
        let name = self.events.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        let read = match &self.events {
            Some(path) => std::fs::File::open(path).and_then(|file| file.take(EVENTS_BYTES_MAX).read_to_end(&mut text)),
            None => std::io::stdin().lock().take(EVENTS_BYTES_MAX).read_to_end(&mut text),
        };
        read.with_context(|| name.clone())?;
        let source = match self.format {
            Format::Json => SourceKind::Ndjson,
            Format::Syslog => SourceKind::Syslog,
            Format::Audit => SourceKind::Audit,
        };
        let received_ms = jiff::Timestamp::now().as_millisecond().cast_unsigned();
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        // Lines that are alike are events of their own, as they are where they come in.
        let raw = |(sequence, line): (u64, &[u8])| {
            let position = Some(Position { stream: "events".into(), sequence });
            RawEvent { source, received_ms, position, bytes: line.to_vec().into() }
        };
        Ok((0..).zip(lines).map(raw).collect())
    }
}

fn check(rules: &Rules, events: Option<&Path>, format: Format) -> Result<()> {
    let (set, errors) = rules.load()?;
    let mut known = Known::platform();
    if let Some(path) = events {
        let path = (path != Path::new("-")).then(|| path.to_owned());
        let raws = Events { events: path, format }.read()?;
        let events: Vec<_> = raws.iter().filter_map(|raw| normalise(raw).ok()).collect();
        known = known.and_of(&events);
    }
    let report = report::check(&set, &errors, &known);
    if !rules.printed(&report)? {
        for error in &report.errors {
            println!("{}:{}: {}", error.file, error.line, error.reason);
        }
        for finding in &report.findings {
            let what = match &finding.kind {
                FindingKind::Contradiction => "never fires: its conditions contradict each other".to_owned(),
                FindingKind::UnmatchedSource { source } => {
                    format!("never fires here: nothing sends {}", serde_json::to_string(source)?)
                }
                FindingKind::UnknownField { field, never: true } => {
                    format!("never fires: its events have no field '{field}'")
                }
                FindingKind::UnknownField { field, never: false } => {
                    format!("a part of it never holds: its events have no field '{field}'")
                }
                FindingKind::NeverFed => "never fires: too few of its rules ever match".to_owned(),
                FindingKind::EmptyBounds => "never fires: no number is within its bounds".to_owned(),
                FindingKind::OddAlias { why } => why.clone(),
                FindingKind::NarrowsNothing => "narrows no rule".to_owned(),
                FindingKind::EvaluatedAlways => "slow: it is evaluated for every event of its log source".to_owned(),
            };
            println!("{}:{}: {}: {what}", finding.file, finding.line, finding.rule);
        }
        let never: BTreeSet<_> =
            report.findings.iter().filter(|f| f.kind.is_never()).map(|f| (&f.file, f.line)).collect();
        println!(
            "{} rules, {} correlations and {} filters; {} never fire, {} documents are refused",
            report.rules,
            report.correlations,
            report.filters,
            never.len(),
            report.errors.len()
        );
    }
    if report.errors.is_empty() { Ok(()) } else { bail!("{} documents are refused", report.errors.len()) }
}

fn test(rules: &Rules, cases: Option<&Path>) -> Result<()> {
    let (set, refused) = rules.load_and_count()?;
    let folder = cases.map_or_else(|| rules.home().join("tests"), Path::to_owned);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml") {
            let name = path.display().to_string();
            let size_bytes = std::fs::metadata(&path).with_context(|| name.clone())?.len();
            let is_small = size_bytes <= CASES_FILE_BYTES_MAX as u64;
            anyhow::ensure!(is_small, "{name}: {size_bytes} bytes, at most {CASES_FILE_BYTES_MAX}");
            files.push((name.clone(), std::fs::read_to_string(&path).with_context(|| name)?));
        }
    }
    files.sort();
    let report = report::test(&set, &files);
    if !rules.printed(&report)? {
        for case in &report.cases {
            let list = |what: &str, rules: &[String]| {
                if rules.is_empty() { String::new() } else { format!("; {what} {}", rules.join(", ")) }
            };
            let error = case.error.as_ref().map(|error| format!("; {error}")).unwrap_or_default();
            let wrong = format!("{}{}{error}", list("missing", &case.missing), list("unexpected", &case.unexpected));
            if !wrong.is_empty() {
                println!("FAILED {}: {}{wrong}", case.file, case.name);
            }
        }
        if !report.untested.is_empty() {
            println!("without a case: {}", report.untested.join(", "));
        }
        if !report.unspared.is_empty() {
            println!("without a case near them: {}", report.unspared.join(", "));
        }
        println!("{} passed, {} failed", report.passed, report.failed);
    }
    anyhow::ensure!(report.failed == 0, "{} cases do not hold", report.failed);
    anyhow::ensure!(refused == 0, "{refused} documents of rules are refused");
    anyhow::ensure!(!report.cases.is_empty(), "{}: there are no cases", folder.display());
    Ok(())
}

fn coverage(rules: &Rules) -> Result<()> {
    let report = report::coverage(&rules.load_all()?);
    if rules.printed(&report)? {
        return Ok(());
    }
    for (title, covered) in [("tactic", &report.tactics), ("technique", &report.techniques)] {
        let mut table = comfy_table::Table::new();
        table.set_header([title, "rules", "alerting", "log sources"]);
        for (name, covered) in covered {
            let sources: Vec<&str> = covered.sources.iter().map(String::as_str).collect();
            table.add_row([name.clone(), covered.rules.to_string(), covered.alerting.to_string(), sources.join(", ")]);
        }
        println!("{table}");
    }
    for (old, new) in &report.renamed {
        println!("renamed: {old} is {new} today");
    }
    println!("{} rules, {} without a technique", report.rules, report.without_technique);
    Ok(())
}

fn backtest(rules: &Rules, events: &Events) -> Result<()> {
    let set = rules.load_all()?;
    let report = report::backtest(&set, &events.read()?);
    if rules.printed(&report)? {
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.set_header(["rule", "hits", "each an alert", "title"]);
    for rule in &report.rules {
        let alerts = if rule.alerts { "yes" } else { "no" };
        table.add_row([rule.rule.clone(), rule.hits.to_string(), alerts.into(), rule.title.clone()]);
    }
    println!("{table}");
    let mut table = comfy_table::Table::new();
    table.set_header(["alerts of", "alerts", "a day", "at most a day (99 %)"]);
    for (rule, forecast) in &report.alerts {
        let [day, at_most] = [forecast.per_day, forecast.at_most_per_day].map(|number| format!("{number:.1}"));
        table.add_row([rule.clone(), forecast.alerts.to_string(), day, at_most]);
    }
    println!("{table}");
    for (reason, count) in &report.rejected {
        println!("rejected: {count} ({reason})");
    }
    println!("{} events in {:.1} hours", report.events, report.span_ms as f64 / 3_600_000.0);
    std::io::stdout().flush().map_err(Into::into)
}
