//! `sim`: runs seeds, proves that runs repeat, and shows that planted bugs are caught.

use clap::{Parser, Subcommand};
use sim::{Options, Plant, Report, run};
use std::collections::{BTreeSet, VecDeque};
use std::io::Read as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// Seeds of the gate.
const GATE_SEEDS: u64 = 30;
/// Of them, run in a second process, to hold the traces against each other.
const GATE_TWICE: u64 = 3;
/// No run takes so long, on whatever machine: usual is a second or two.
const REAL_TIME_MAX: Duration = Duration::from_secs(120);
/// Nodes that fall in one run of a hunt.
const KILLS_PER_RUN: u64 = 50;
/// Lines of a failed run that are printed.
const TAIL: usize = 60;

/// The whole cluster on one thread from one seed.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Runs this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Hunts those who have duties, so many times, instead of all other faults.
    #[arg(long)]
    hunt: Option<u64>,
    /// Plants this bug in the run.
    #[arg(long)]
    plant: Option<String>,
    /// Prints what happens as it happens.
    #[arg(long)]
    verbose: bool,
    /// Prints every event of the trace, for finding where two runs part.
    #[arg(long)]
    dump: bool,
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Runs many seeds, each in a process of its own.
    Seeds {
        /// The first.
        from: u64,
        /// How many.
        count: u64,
    },
    /// Kills the nodes that detect, file and tell, until so many have fallen: the alerts are those of an
    /// undisturbed run.
    Takeovers {
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        kills: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
    },
    /// Shows that a planted bug is caught.
    Plant {
        /// Its name; `all` for each of them.
        name: String,
        /// Seeds to try; without it as many as it is allowed to take.
        #[arg(long)]
        seeds: Option<u64>,
    },
    /// What must be green: seeds, traces that repeat, planted bugs.
    Gate {
        /// How many seeds.
        #[arg(long, default_value_t = GATE_SEEDS)]
        seeds: u64,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let is_good = match (arguments.command, arguments.seed) {
        (Some(Task::Seeds { from, count }), _) => seeds(from, count)?.is_some(),
        (Some(Task::Takeovers { kills, from }), _) => takeovers(from, kills)?,
        (Some(Task::Plant { name, seeds }), _) => plants(&name, seeds)?,
        (Some(Task::Gate { seeds }), _) => gate(seeds)?,
        (None, Some(seed)) => {
            let plant = arguments.plant.as_deref().map(named).transpose()?;
            one(Options { seed, plant, hunt: arguments.hunt, verbose: arguments.verbose, dump: arguments.dump })
        }
        (None, None) => anyhow::bail!("say --seed N, or `seeds`, `plant` or `gate` (see --help)"),
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn named(name: &str) -> anyhow::Result<Plant> {
    let known = || Plant::ALL.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ");
    Plant::parse(name).ok_or_else(|| anyhow::anyhow!("no such planted bug; there are {}", known()))
}

/// Virtual time that stands still is a finding too: something in the node goes round without waiting.
#[expect(clippy::disallowed_methods, reason = "only real time can tell that virtual time stands still")]
fn watch_over(seed: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(REAL_TIME_MAX);
        println!("VIOLATION seed {seed} is not done after {} s: virtual time stands still", REAL_TIME_MAX.as_secs());
        std::process::exit(1);
    });
}

fn one(options: Options) -> bool {
    watch_over(options.seed);
    let report = run(options);
    let is_good = report.findings.is_empty();
    if !is_good && !options.verbose {
        let skipped = report.lines.len().saturating_sub(TAIL);
        report.lines[skipped..].iter().for_each(|line| println!("{line}"));
    }
    for finding in &report.findings {
        println!("VIOLATION {finding}");
    }
    println!("{}", summary(&report));
    if !is_good {
        let plant = options.plant.map(|plant| format!(" --plant {}", plant.name())).unwrap_or_default();
        let hunt = options.hunt.map(|kills| format!(" --hunt {kills}")).unwrap_or_default();
        println!("repeat with: ./dev sim --seed {}{plant}{hunt} --verbose", report.seed);
    }
    is_good
}

fn summary(report: &Report) -> String {
    format!(
        "seed {} {} trace {} events {} operations {} acknowledged {} kills {} alerts {} rules {} virtual_ms {}",
        report.seed,
        if report.findings.is_empty() { "ok" } else { "FAILED" },
        report.trace,
        report.events,
        report.operations,
        report.acknowledged,
        report.kills,
        report.alerts,
        report.rules.iter().map(String::as_str).collect::<Vec<_>>().join(","),
        report.virtual_ms
    )
}

/// A run in a process of its own.
struct Running {
    child: Child,
}

/// What such a process said.
struct Said {
    is_good: bool,
    text: String,
}

impl Said {
    fn number(&self, name: &str) -> u64 {
        self.word(name).and_then(|word| word.parse().ok()).unwrap_or(0)
    }
    fn word(&self, name: &str) -> Option<&str> {
        let line = self.text.lines().find(|line| line.starts_with("seed "))?;
        let mut words = line.split(' ').skip_while(|word| *word != name);
        words.nth(1)
    }
}

impl Running {
    fn start(seed: u64, plant: Option<Plant>, hunt: Option<u64>) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--seed", &seed.to_string()]);
        if let Some(kills) = hunt {
            command.args(["--hunt", &kills.to_string()]);
        }
        if let Some(plant) = plant {
            command.args(["--plant", plant.name()]);
        }
        Ok(Self { child: command.stdout(Stdio::piped()).spawn()? })
    }
    fn finish(mut self) -> anyhow::Result<Said> {
        let mut text = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            output.read_to_string(&mut text)?;
        }
        Ok(Said { is_good: self.child.wait()?.success(), text })
    }
}

/// Runs all of them, as many at once as there are processors, and hands over what they said in order.
fn each(
    runs: impl Iterator<Item = (u64, Option<Plant>)>,
    hunt: Option<u64>,
    mut hear: impl FnMut(u64, Said) -> bool,
) -> anyhow::Result<()> {
    let width = std::thread::available_parallelism().map_or(1, usize::from);
    let mut waiting: VecDeque<(u64, Running)> = VecDeque::new();
    let mut runs = runs.peekable();
    let mut goes_on = true;
    while (goes_on && runs.peek().is_some()) || !waiting.is_empty() {
        if goes_on
            && waiting.len() < width
            && let Some((seed, plant)) = runs.next()
        {
            waiting.push_back((seed, Running::start(seed, plant, hunt)?));
            continue;
        }
        let Some((seed, running)) = waiting.pop_front() else { break };
        let said = running.finish()?;
        goes_on = goes_on && hear(seed, said);
    }
    Ok(())
}

/// Runs seeds; the traces of all if all are good.
fn seeds(from: u64, count: u64) -> anyhow::Result<Option<Vec<String>>> {
    let (mut traces, mut failed, mut virtual_ms, mut operations) = (Vec::new(), Vec::new(), 0, 0);
    each((from..from + count).map(|seed| (seed, None)), None, |seed, said| {
        print!(
            "{}",
            if said.is_good {
                said.text.lines().last().map(|line| format!("{line}\n")).unwrap_or_default()
            } else {
                said.text.clone()
            }
        );
        virtual_ms += said.number("virtual_ms");
        operations += said.number("operations");
        traces.push(said.word("trace").unwrap_or_default().to_owned());
        if !said.is_good {
            failed.push(seed);
        }
        true
    })?;
    println!(
        "{count} seeds, {operations} operations, {:.2} virtual hours, failed: {failed:?}",
        virtual_ms as f64 / 3_600_000.0
    );
    Ok(failed.is_empty().then_some(traces))
}

/// Hunts until so many nodes have fallen.
fn takeovers(from: u64, kills: u64) -> anyhow::Result<bool> {
    let (mut fallen, mut alerts, mut failed, mut rules) = (0, 0, Vec::new(), BTreeSet::new());
    let runs = kills.div_ceil(KILLS_PER_RUN) * 2;
    each((from..from + runs).map(|seed| (seed, None)), Some(KILLS_PER_RUN), |seed, said| {
        fallen += said.number("kills");
        alerts += said.number("alerts");
        rules.extend(said.word("rules").unwrap_or_default().split(',').map(str::to_owned));
        if !said.is_good {
            print!("{}", said.text);
            failed.push(seed);
        }
        fallen < kills
    })?;
    let silent: Vec<&str> = sim::plot::ALERTING.into_iter().filter(|rule| !rules.contains(*rule)).collect();
    println!(
        "{fallen} nodes fell at their duties, {alerts} alerts, failed: {failed:?}, rules that never alerted: {silent:?}"
    );
    Ok(failed.is_empty() && fallen >= kills && silent.is_empty())
}

fn plants(name: &str, seeds: Option<u64>) -> anyhow::Result<bool> {
    let chosen = if name == "all" { None } else { Some(named(name)?) };
    let mut is_good = true;
    for (name, plant, bound) in Plant::ALL.iter().filter(|(_, plant, _)| chosen.is_none_or(|chosen| chosen == *plant)) {
        let bound = seeds.unwrap_or(*bound);
        if bound == 0 {
            continue;
        }
        let mut caught = None;
        each((1..=bound).map(|seed| (seed, Some(*plant))), plant.hunt(), |seed, said| {
            if !said.is_good && caught.is_none() {
                let what =
                    said.text.lines().find(|line| line.starts_with("VIOLATION")).unwrap_or("it crashed").to_owned();
                caught = Some((seed, what));
            }
            caught.is_none()
        })?;
        match caught {
            Some((seed, what)) => println!("planted {name}: caught by seed {seed} of at most {bound}: {what}"),
            None => {
                println!("planted {name}: NOT caught by {bound} seeds");
                is_good = false;
            }
        }
    }
    Ok(is_good)
}

fn gate(count: u64) -> anyhow::Result<bool> {
    let Some(traces) = seeds(1, count)? else { return Ok(false) };
    let mut is_good = true;
    each((1..=GATE_TWICE.min(count)).map(|seed| (seed, None)), None, |seed, said| {
        let first = traces.get(usize::try_from(seed - 1).unwrap_or(0)).map(String::as_str);
        let is_same = said.word("trace") == first;
        println!("seed {seed} in two processes: {}", if is_same { "the same trace" } else { "DIFFERENT TRACES" });
        is_good &= is_same;
        true
    })?;
    Ok(plants("all", None)? && is_good)
}
