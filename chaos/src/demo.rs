//! The demonstration: one real path through the whole platform, in six steps, each with its time.

mod detect;
mod log;
mod outage;
mod proof;
mod store;
mod summary;

use crate::access::Pass;
use crate::check::audit::Expected;
use crate::cluster::Lab;
use crate::measure::{Loss, Recovery};
use crate::place;
use crate::tenancy::Site;
use crate::verdict::{Promise, Verdict};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Options of the demonstration.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Leave the cluster running afterwards.
    #[arg(long)]
    pub keep: bool,
    /// Replay this syslog file into the detector; a generated one when not given.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Write everything that was measured as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Operations a second of the writers and readers in steps 2 and 3, over all regions.
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(3..=5_000))]
    pub rate: u32,
}

/// A step as it is reported.
#[derive(Serialize)]
struct Step {
    number: usize,
    title: &'static str,
    seconds: f64,
    lines: Vec<String>,
    measured: Map<String, Value>,
}

/// An outage that was caused, and how it compares with what was promised.
#[derive(Serialize)]
struct Outage {
    what: &'static str,
    promise: Promise,
    recovery: Recovery,
    elsewhere: Recovery,
    loss: Loss,
    rto: Verdict,
    rpo: Verdict,
}

/// Everything the steps share.
struct Tour {
    lab: Lab,
    site: Site,
    bia: audit::bia::Bia,
    rate: u32,
    /// The data group of the tenant.
    group: String,
    /// Sessions of agents, one for each region.
    agents: Vec<Pass>,
    /// What must be in the audit log.
    kept: Vec<Expected>,
    outages: Vec<Outage>,
    steps: Vec<Step>,
    from_ms: u64,
    syslog: SocketAddr,
    log: Option<PathBuf>,
    /// What did not come out as it should.
    shortfalls: Vec<String>,
}

const TENANT: &str = "acme";
const TABLE: &str = "orders";

impl Tour {
    fn begin(&mut self, title: &'static str) -> Instant {
        let number = self.steps.len() + 1;
        println!("\n{number}. {title}");
        self.steps.push(Step { number, title, seconds: 0.0, lines: Vec::new(), measured: Map::new() });
        Instant::now()
    }

    fn end(&mut self, began: Instant) {
        let seconds = began.elapsed().as_secs_f64();
        println!("   {seconds:.1} s");
        if let Some(step) = self.steps.last_mut() {
            step.seconds = seconds;
        }
    }

    fn say(&mut self, line: impl Into<String>) {
        let line = line.into();
        println!("   {line}");
        if let Some(step) = self.steps.last_mut() {
            step.lines.push(line);
        }
    }

    fn measured(&mut self, name: &str, value: impl Serialize) {
        if let Some(step) = self.steps.last_mut() {
            step.measured.insert(name.to_owned(), json!(value));
        }
    }

    /// Says that something is not as it should be; the demonstration goes on and fails in the end.
    fn fall_short(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("   NOT AS IT SHOULD BE: {what}");
        self.shortfalls.push(what);
    }

    fn table(&self) -> String {
        format!("/v1/tenants/{TENANT}/tables/{TABLE}")
    }

    fn keep(
        &mut self,
        request: String,
        actions: &'static [&'static str],
        outcome: &'static str,
        resource: Option<String>,
    ) {
        self.kept.push(Expected { request, actions, outcome, resource });
    }
    fn keep_login(&mut self, request: String) {
        self.keep(request, &["login"], "success", None);
    }
    fn keep_change(&mut self, request: String, key: &str) {
        self.keep(request, &["record.put", "record.patch"], "success", Some(format!("/records/{key}")));
    }
    fn keep_view(&mut self, request: String, key: &str) {
        self.keep(request, &["record.view"], "success", Some(format!("/records/{key}")));
    }
}

/// Milliseconds, for people.
fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1_000.0)
}

/// Runs all six steps; fails if anything did not come out as it should.
pub async fn run(binary: &Path, options: &Options) -> Result<()> {
    if let Some(log) = &options.log
        && !log.is_file()
    {
        bail!("{}: no such log file", log.display());
    }
    let began = Instant::now();
    let directory = place::scratch("demo")?;
    let mut lab = Lab::create(binary, &directory, "demo")?;
    match tour(&mut lab, options).await {
        Ok((syslog, site, from_ms)) => {
            let tour = Tour {
                bia: place::analysis()?,
                rate: options.rate,
                group: String::new(),
                agents: Vec::new(),
                kept: Vec::new(),
                outages: Vec::new(),
                steps: Vec::new(),
                log: options.log.clone(),
                shortfalls: Vec::new(),
                lab,
                site,
                from_ms,
                syslog,
            };
            walk(tour, options, began).await
        }
        Err(error) => {
            lab.keep_files();
            Err(error.context(format!("the nodes' logs are in {}", directory.join("logs").display())))
        }
    }
}

/// Starts the cluster and logs the administrator in.
async fn tour(lab: &mut Lab, _options: &Options) -> Result<(SocketAddr, Site, u64)> {
    let syslog = listen_for_syslog(lab.directory())?;
    println!("Holdfast: three regions of three nodes, as processes on this machine");
    println!("   {}", lab.directory().display());
    let from_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let ready = lab.found().await?;
    println!("   nine nodes ready after {:.1} s", ready.as_secs_f64());
    let site = Site::enter(lab).await?;
    Ok((syslog, site, u64::try_from(from_ms).unwrap_or(0)))
}

/// Has the first node take syslog over TCP, as an operator would configure it.
fn listen_for_syslog(directory: &Path) -> Result<SocketAddr> {
    let path = directory.join("nodes/eu-1/node.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let mut config: toml::Table = toml::from_str(&text)?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let detection = config.entry("detection").or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let detection = detection.as_table_mut().context("[detection] is not a table")?;
    detection.insert("syslog_tcp".into(), address.to_string().into());
    std::fs::write(&path, toml::to_string_pretty(&config)?)
        .with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(address)
}

async fn walk(mut tour: Tour, options: &Options, began: Instant) -> Result<()> {
    let outcome = steps(&mut tour, began).await;
    if let Some(path) = &options.report {
        summary::write(&tour, path, began.elapsed())?;
        println!("   everything measured: {}", path.display());
    }
    let is_sound = outcome.is_ok() && tour.shortfalls.is_empty();
    if options.keep {
        let pids = tour.lab.release()?;
        println!("   the cluster runs on; stop it with: xargs kill < {}", pids.display());
    } else if !is_sound {
        tour.lab.keep_files();
        println!("   the nodes' logs are kept in {}", tour.lab.directory().join("logs").display());
    }
    outcome?;
    if is_sound { Ok(()) } else { bail!("not everything came out as it should:\n- {}", tour.shortfalls.join("\n- ")) }
}

async fn steps(tour: &mut Tour, began: Instant) -> Result<()> {
    let step = tour.begin("A tenant, a table, users; writes in each region, read in the others");
    store::step(tour).await?;
    tour.end(step);
    let step = tour.begin("A node that leads is killed while clients write");
    outage::leader(tour).await?;
    tour.end(step);
    let step = tour.begin("A whole region is killed, and returns");
    outage::region(tour).await?;
    tour.end(step);
    let step = tour.begin("Attacks: failed logins here, and a log of another machine");
    detect::step(tour).await?;
    tour.end(step);
    let step = tour.begin("The audit log: does it hold, and is everything in it");
    proof::step(tour).await?;
    tour.end(step);
    let step = tour.begin("What was measured, beside what is promised (cluster/bia.toml)");
    summary::step(tour, began.elapsed());
    tour.end(step);
    Ok(())
}
