//! `benches`: what is claimed to be fast, measured, with etcd beside it in the same run.
//!
//! Starts and stops everything it measures, below a folder of its own. Writes down what came out, whatever it is.

mod cluster;
mod detection;
mod etcd;
mod holdfast;
mod idle;
mod load;
mod process;
mod proxy;
mod remote;
mod report;
mod spin;
mod tenancy;
mod wire;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use etcd::{Etcd, Wire};
use holdfast::Holdfast;
use load::{Operation, Plan, Product, Reading};
use report::{Machine, Report, Row};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measure Holdfast, with etcd 3.4 (Debian: etcd-server) beside it in the same run.
///
/// Everything runs on this machine's loopback, in temporary folders, and is stopped at the end. Progress goes to
/// stderr, tables to stdout. Close everything else first: two products and their clients share these cores.
#[derive(Parser)]
#[command(
    name = "benches",
    after_help = "Examples:\n  benches --quick                        a first impression, about two minutes\n  \
        benches --only writes,reads            the comparison with etcd alone\n  \
        benches --report bench.json --write-readme\n  \
        benches --only detection --rsigma --rsigma-agree --sigma-rules DIR --sigma-events FILE\n  \
        benches --only writes --products holdfast --clients 64 --seconds 60    something to attach perf to"
)]
struct Arguments {
    /// The program to measure; beside this one by default.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// etcd's program.
    #[arg(long, default_value = "/usr/bin/etcd")]
    etcd: PathBuf,
    /// What to measure; everything by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Which products take the writes and reads.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Which::Holdfast, Which::Etcd, Which::EtcdPlain])]
    products: Vec<Which>,
    /// A short run: one round of two seconds, fewer samples.
    #[arg(long)]
    quick: bool,
    /// Clients at once, one row for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    clients: Vec<usize>,
    /// Clients that share a connection (HTTP/2 for both products); 1 gives each its own.
    #[arg(long, default_value_t = 1)]
    sharing: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds, of which the median counts; the products take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Tenants that Holdfast's clients are spread over; etcd has one space of keys.
    #[arg(long, default_value_t = 4)]
    tenants: usize,
    /// The rules that nodes watch their audit log with.
    #[arg(long, default_value = "cluster/rules")]
    rules: PathBuf,
    /// A folder of Sigma rules, with folders in it, to measure matching with; needs `--sigma-events`.
    #[arg(long, requires = "sigma_events")]
    sigma_rules: Option<PathBuf>,
    /// Events to match them with: JSON, one a line, `.gz` if compressed.
    #[arg(long, requires = "sigma_rules")]
    sigma_events: Option<PathBuf>,
    /// Measure rsigma 0.23 beside Holdfast with the same rules and events; it is built from crates.io, outside of this
    /// workspace.
    #[arg(long, requires = "sigma_rules")]
    rsigma: bool,
    /// Also compare, event by event, which rules both match.
    #[arg(long, requires = "sigma_rules")]
    rsigma_agree: bool,
    /// Start nodes without rules: nothing is detected.
    #[arg(long)]
    no_rules: bool,
    /// Keep every core awake with idle-priority work: worth it where a sleeping virtual machine wakes slowly, but under
    /// load it takes time from all products.
    #[arg(long)]
    spinners: bool,
    /// Where to put temporary folders: a real disk, or syncs cost nothing.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Write everything that was measured as JSON.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Replace the tables in benches/README.md.
    #[arg(long)]
    write_readme: bool,
    /// Only for this program itself: keep one core awake.
    #[arg(value_name = "spin", hide = true)]
    spin: Option<Spin>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Durable writes a second.
    Writes,
    /// Linearizable reads a second.
    Reads,
    /// From a commit here to a commit in another region.
    Remote,
    /// Events a second through the detector.
    Detection,
    /// Memory and processor of nodes with nothing to do.
    Idle,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Holdfast,
    /// With TLS, as Holdfast has it.
    Etcd,
    /// Without any encryption.
    EtcdPlain,
}

#[derive(Clone, Copy, ValueEnum)]
enum Spin {
    Spin,
}

/// Round trips between regions that are measured.
const ROUND_TRIPS_MS: [u64; 2] = [0, 80];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.spin.is_some() {
        spin::spin();
        return ExitCode::SUCCESS;
    }
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    installed.expect("nothing was installed before");
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<()> {
    if arguments.clients.contains(&0) || arguments.sharing == 0 || arguments.rounds == 0 || arguments.tenants == 0 {
        bail!("--clients, --sharing, --rounds and --tenants count from 1");
    }
    if arguments.seconds.is_nan() || arguments.seconds < 0.5 {
        bail!("--seconds {}: at least half a second", arguments.seconds);
    }
    if arguments.quick {
        (arguments.seconds, arguments.rounds) = (2.0, 1);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => { interrupted?; bail!("interrupted; everything is stopped") }
            done = bench(&arguments) => done,
        }
    })
}

async fn bench(arguments: &Arguments) -> Result<()> {
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("holdfast"),
    };
    anyhow::ensure!(
        binary.is_file() || arguments.only == [Part::Detection],
        "{}: no such program; build it with ./dev build, or say --binary PATH",
        binary.display()
    );
    let rules = find_rules(&arguments.rules)?;
    let home = match &arguments.folder {
        Some(folder) => tempfile::Builder::new().prefix("bench-").tempdir_in(folder),
        None => tempfile::Builder::new().prefix("holdfast-bench-").tempdir(),
    };
    let home = home.context("a folder to work in")?;
    let mut report = empty(arguments);
    if wanted(Part::Detection) {
        say("detection: on one thread");
        let packs = arguments.sigma_rules.clone().zip(arguments.sigma_events.clone());
        let beside = arguments.rsigma || arguments.rsigma_agree;
        let asked = detection::Asked {
            rules: rules.clone(),
            events: if arguments.quick { 50_000 } else { 200_000 },
            quick: arguments.quick,
            packs: packs.map(|(rules, events)| detection::Packs { rules, events }),
            beside: if beside { Some(cache()?) } else { None },
            agree: arguments.rsigma_agree,
        };
        report.detection = Some(tokio::task::spawn_blocking(move || detection::run(&asked)).await??);
    }
    if wanted(Part::Idle) {
        say("idle: three regions of three nodes");
        let seconds = if arguments.quick { 10.0 } else { 20.0 };
        let watched = (!arguments.no_rules).then_some(rules.as_path());
        report.idle = Some(idle::run(&binary, &home.path().join("idle"), watched, seconds).await?);
    }
    let _spinners = if arguments.spinners { Some(spin::Spinners::start()?) } else { None };
    if wanted(Part::Remote) {
        let (seconds, samples) = if arguments.quick { (3.0, 20) } else { (10.0, 100) };
        for round_trip_ms in ROUND_TRIPS_MS {
            say(&format!("remote: two regions, {round_trip_ms} ms apart and back"));
            let folder = home.path().join(format!("remote-{round_trip_ms}"));
            let measured = remote::run(&binary, &folder, round_trip_ms, seconds, samples).await?;
            remote::check(&measured)?;
            report.remote.push(measured);
        }
    }
    let operations: Vec<Operation> = [(Part::Writes, Operation::Write), (Part::Reads, Operation::Read)]
        .into_iter()
        .filter_map(|(part, operation)| wanted(part).then_some(operation))
        .collect();
    if !operations.is_empty() {
        let watched = (!arguments.no_rules).then_some(rules.as_path());
        compare(arguments, &binary, home.path(), watched, &operations, &mut report).await?;
    }
    publish(arguments, &report)
}

/// Writes and reads, the products in turn.
async fn compare(
    arguments: &Arguments,
    binary: &Path,
    home: &Path,
    rules: Option<&Path>,
    operations: &[Operation],
    report: &mut Report,
) -> Result<()> {
    let ours = if arguments.products.contains(&Which::Holdfast) {
        say("starting one region of three nodes");
        Some(Holdfast::start(binary, &home.join("holdfast"), arguments.tenants, rules).await?)
    } else {
        None
    };
    let mut theirs = Vec::new();
    for (which, wire) in [(Which::Etcd, Wire::Tls), (Which::EtcdPlain, Wire::Plain)] {
        if arguments.products.contains(&which) {
            say(&format!("starting three members of etcd, {wire:?}"));
            theirs.push(Etcd::start(&arguments.etcd, &home.join(format!("etcd-{wire:?}")), wire).await?);
        }
    }
    report.groups = ours.as_ref().map_or(0, Holdfast::groups_used);
    if operations.contains(&Operation::Read) {
        say("writing the records that will be read");
        if let Some(ours) = &ours {
            load::prepare(ours).await?;
        }
        for theirs in &theirs {
            load::prepare(theirs).await?;
        }
    }
    for &operation in operations {
        for &clients in &report.plan.clients {
            let mut readings = Vec::new();
            for round in 1..=report.plan.rounds {
                let label = format!("w{clients}r{round}");
                if let Some(ours) = &ours {
                    readings.push(measured(ours, operation, clients, &report.plan, &label).await?);
                }
                for theirs in &theirs {
                    readings.push(measured(theirs, operation, clients, &report.plan, &label).await?);
                }
            }
            report.load.push(Row::new(operation, clients, readings));
        }
    }
    Ok(())
}

async fn measured<P: Product>(
    product: &P,
    operation: Operation,
    clients: usize,
    plan: &Plan,
    label: &str,
) -> Result<(&'static str, Reading)> {
    let reading = load::run(product, operation, clients, plan, label).await.with_context(|| product.name())?;
    eprintln!(
        "    {:?} {clients:>4} clients  {:<12}  {:>8.0}/s  p50 {:>7.2} ms  p99 {:>7.2} ms  {:>7.0} per CPU-second  servers {:.2} cores, clients {:.2}",
        operation,
        product.name(),
        reading.per_second,
        reading.p50_ms,
        reading.p99_ms,
        reading.per_cpu_second,
        reading.server_cores,
        reading.client_cores
    );
    Ok((product.name(), reading))
}

fn empty(arguments: &Arguments) -> Report {
    let mut command = vec!["./dev bench".to_owned()];
    // Where the program is says nothing about the measurement.
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--binary" | "--report" | "--folder" => drop(given.next()),
            _ => command.push(argument),
        }
    }
    Report {
        machine: Machine::here(),
        taken: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        command: command.join(" "),
        plan: Plan {
            warm_up_s: if arguments.quick { 0.5 } else { 1.0 },
            seconds: arguments.seconds,
            rounds: arguments.rounds,
            clients: arguments.clients.clone(),
            sharing: arguments.sharing,
        },
        spinners: arguments.spinners,
        tenants: arguments.tenants,
        groups: 0,
        rules: !arguments.no_rules,
        load: Vec::new(),
        remote: Vec::new(),
        detection: None,
        idle: None,
    }
}

fn publish(arguments: &Arguments, report: &Report) -> Result<()> {
    let tables = report.markdown();
    println!("{tables}");
    if let Some(path) = &arguments.report {
        std::fs::write(path, serde_json::to_string_pretty(report)?).with_context(|| path.display().to_string())?;
        say(&format!("written: {}", path.display()));
    }
    if arguments.write_readme {
        say(&format!("written: {}", report::write_readme(&tables)?.display()));
    }
    Ok(())
}

/// Where what is built once for this machine is kept, as `./dev` has it.
fn cache() -> Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = of("HOLDFAST_CACHE");
    let users = || of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
    own.or_else(|| users().map(|folder| folder.join("holdfast"))).context("neither HOLDFAST_CACHE nor HOME is set")
}

/// The rules below the current folder, or beside it.
fn find_rules(given: &Path) -> Result<PathBuf> {
    let found = [given.to_owned(), Path::new("..").join(given)].into_iter().find(|path| path.is_dir());
    found.with_context(|| format!("{}: no such folder of rules; run this from the repository", given.display()))
}

fn say(what: &str) {
    eprintln!("==> {what}");
}
