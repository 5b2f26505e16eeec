//! The command line.

use crate::demo::{self, Options};
use crate::lock::MachineLock;
use crate::report::Report;
use crate::scenario::{self, Scenario};
use crate::takeover::{self, Takeovers};
use crate::verdict::Verdict;
use crate::{drill, place};
use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Faults injected into real processes under load, and what came of it.
///
/// A drill starts its own cluster on this machine (three regions of three nodes), loads it from every region,
/// injects one fault, heals it, and compares measured recovery with cluster/bia.toml. It exits with 0 when every
/// target was met, with 1 when one was missed or not proven, with 3 when this machine cannot inject the fault.
#[derive(Parser, Debug)]
#[command(name = "chaos", version, override_usage = USAGE, after_help = EXAMPLES)]
pub struct Line {
    /// The program under test; the one beside this program when not given.
    #[arg(long, global = true, value_name = "PATH")]
    binary: Option<PathBuf>,
    #[command(subcommand)]
    command: Order,
}

const USAGE: &str =
    "chaos [--binary PATH] SCENARIO [--short] [--runs N] [--rate N] [--keep] [--reports DIR] [--cluster DIR]
       chaos [--binary PATH] takeovers [--kills N] [--keep] [--report FILE]
       chaos [--binary PATH] demo [--keep] [--log FILE] [--report FILE]
       chaos list";

const EXAMPLES: &str = "Examples:
  chaos list                        what there is
  chaos leader-kill --short         a drill of less than 40 seconds, as in continuous integration
  chaos leader-kill --runs 29       29 clean runs show 90 %, 59 show 95 %, 299 show 99 % at 95 % confidence
  chaos my-own.toml                 a scenario of your own; the shipped ones are in chaos/scenarios
  chaos demo --log /var/log/auth.log

How to read a report: RTO is the time from the fault until the service met its level again (at most 0.1 % errors,
p99 at most twice the baseline's or half a second) and kept it; RPO counts acknowledged writes that are gone. A run whose fault did
not bite is void: it neither passes nor fails.";

#[derive(Subcommand, Debug)]
enum Order {
    /// List the scenarios
    List,
    /// Show what the platform does, in six steps
    Demo(Options),
    /// Kill the nodes that detect, file and tell, while events come in: each alert is raised once
    Takeovers(Takeovers),
    /// A scenario's name, or a file that ends with .toml
    #[command(external_subcommand)]
    Scenario(Vec<String>),
}

/// Options of a drill.
#[derive(Parser, Debug)]
#[command(name = "chaos", no_binary_name = true)]
struct Drill {
    /// The scenario.
    scenario: String,
    /// Phases for continuous integration: at most 40 seconds in all.
    #[arg(long)]
    short: bool,
    /// How often; each run in a new cluster.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Operations a second over all regions, instead of the scenario's.
    #[arg(long)]
    rate: Option<u32>,
    /// Keep the nodes' files, their logs and the history, also when every target was met.
    #[arg(long)]
    keep: bool,
    /// Where the reports go.
    #[arg(long, value_name = "DIR", default_value = "chaos/reports")]
    reports: PathBuf,
    /// A folder that `holdfast init` made, whose nodes do not run and never ran, instead of a new one.
    #[arg(long, value_name = "DIR")]
    cluster: Option<PathBuf>,
    /// The program under test.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Carries the command line out.
pub async fn run(line: Line) -> Result<ExitCode> {
    match line.command {
        Order::List => {
            for scenario in scenario::all()? {
                println!("{:<12} {} ({})", scenario.name, scenario.title, scenario.disruption.as_str());
            }
            Ok(ExitCode::SUCCESS)
        }
        Order::Demo(options) => {
            let binary = place::binary(line.binary.as_deref())?;
            let _lock = MachineLock::take()?;
            demo::run(&binary, &options).await.map(|()| ExitCode::SUCCESS)
        }
        Order::Takeovers(options) => {
            let binary = place::binary(line.binary.as_deref())?;
            let _lock = MachineLock::take()?;
            let is_good = takeover::run(&binary, &options).await?;
            Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Order::Scenario(words) => {
            let options = Drill::try_parse_from(words).unwrap_or_else(|error| error.exit());
            let binary = place::binary(options.binary.as_deref().or(line.binary.as_deref()))?;
            let _lock = MachineLock::take()?;
            drills(&binary, &options).await
        }
    }
}

async fn drills(binary: &Path, options: &Drill) -> Result<ExitCode> {
    let mut scenario = scenario::find(&options.scenario)?;
    if let Some(rate) = options.rate {
        (scenario.phases.rate, scenario.short.rate) = (rate, rate);
    }
    if let Some(reason) = scenario.fault.impossible() {
        println!("{}: skipped, this machine cannot do it: {reason}", scenario.name);
        return Ok(ExitCode::from(3));
    }
    if options.cluster.is_some() && options.runs > 1 {
        bail!("--cluster holds one run: a cluster is founded once");
    }
    let bia = place::analysis()?;
    let owner = bia.asset(&scenario.asset).context("the scenario's asset is not in cluster/bia.toml")?.owner.clone();
    let mut runs = Vec::new();
    for number in 1..=options.runs {
        println!("{}, run {number} of {}: {}", scenario.name, options.runs, scenario.title);
        let directory = match &options.cluster {
            Some(directory) => directory.clone(),
            None => place::scratch("drill")?,
        };
        let run = drill::run(binary, &directory, &scenario, options.short, options.keep, &bia).await?;
        tell(&run);
        runs.push(run);
    }
    conclude(scenario, options, owner, build(binary), runs)
}

fn tell(run: &drill::Run) {
    let ms = |value: Option<u64>| value.map_or("none".to_owned(), |value| format!("{value} ms"));
    let target = run.promise.target;
    let recovery = &run.recovery;
    println!("  RTO {} (target {} ms): {}", ms(recovery.rto_slo_ms), target.rto_ms, run.rto);
    println!(
        "  first write {} after the fault; longest stop of writes {} ms",
        ms(recovery.rto_first_ms),
        recovery.write_stop_ms
    );
    let healing = &run.healing;
    println!(
        "  after the healing: level met {}, longest stop of writes {} ms",
        ms(healing.rto_slo_ms),
        healing.write_stop_ms
    );
    println!("  RPO {} writes, {} ms (target {} ms): {}", run.loss.writes, run.loss.window_ms, target.rpo_ms, run.rpo);
    let (tally, other) = (recovery.tally, run.elsewhere.tally);
    println!(
        "  struck region until healed: {} asked, {} failed, {} unknown, {} slow",
        tally.operations, tally.failed, tally.unknown, recovery.slow
    );
    println!(
        "  other regions: {} asked, {} failed, {} unknown, {} slow",
        other.operations, other.failed, other.unknown, run.elsewhere.slow
    );
    for finding in &run.findings {
        let state = if finding.holds() { "holds" } else { "VIOLATED" };
        println!("  {state:<9} {} ({} examined)", finding.property, finding.examined);
        finding.violations.iter().take(3).for_each(|violation| println!("            {violation}"));
    }
    println!("  {}", run.verdict);
}

fn conclude(
    scenario: Scenario,
    options: &Drill,
    owner: String,
    build: String,
    runs: Vec<drill::Run>,
) -> Result<ExitCode> {
    let mut report = Report::new(scenario, options.short, owner, build, runs);
    let path = report.write(&options.reports)?;
    println!("verdict: {}; report: {}", report.verdict, path.display());
    Ok(if report.verdict == Verdict::Met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the program under test says it is.
fn build(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output();
    output.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_may_be_named_before_and_after_the_scenario() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let before = Line::try_parse_from(words("chaos --binary /b leader-kill --short")).unwrap();
        assert_eq!(before.binary.as_deref(), Some(Path::new("/b")));
        let Order::Scenario(rest) = before.command else { panic!("a scenario") };
        assert!(Drill::try_parse_from(rest).unwrap().short);
        let after = Line::try_parse_from(words("chaos leader-kill --runs 2 --binary /b")).unwrap();
        let Order::Scenario(rest) = after.command else { panic!("a scenario") };
        let drill = Drill::try_parse_from(rest).unwrap();
        assert_eq!((drill.binary.as_deref(), drill.runs), (Some(Path::new("/b")), 2));
        let demo = Line::try_parse_from(words("chaos demo --binary /b --keep")).unwrap();
        assert_eq!(demo.binary.as_deref(), Some(Path::new("/b")));
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Line::command().debug_assert();
        Drill::command().debug_assert();
    }
}
