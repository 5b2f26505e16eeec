//! Takeovers: the nodes that detect, file and tell are killed again and again while events come in.
//!
//! Doors are forced five times and must raise one alert each, or four times and must raise none; events are told again
//! until it is certain that they were taken, and some once more. Each alert must be about its door's events, under one
//! incident, and told outside under one key: whoever counts an event twice, or forgets one, is found.

mod judge;
mod receiver;

use crate::client::{Call, CallError};
use crate::cluster::{Lab, READY_WITHIN};
use crate::place;
use crate::tenancy::Site;
use anyhow::{Context as _, Result, bail};
use clap::Parser;
use judge::{Door, FORCINGS, judge};
use receiver::Receiver;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Between the events of a door.
const PACE: Duration = Duration::from_millis(40);
/// Doors that are being forced at the same time: their events share batches and takeovers.
const AT_ONCE: u64 = 4;
/// How often an event is told until it is certain that it was taken.
const TELLINGS_MAX: u64 = 20;
/// One of so many events is told once more although it was taken.
const TOLD_AGAIN_EACH: u64 = 3;
/// How long alerts and incidents may take after the last event.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);

/// Options of the drill.
#[derive(Parser, Debug)]
pub struct Takeovers {
    /// How often a node at its duty is killed (SIGKILL).
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// Keep the nodes' files and logs also when all is well.
    #[arg(long)]
    keep: bool,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// What came out.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    kills: u32,
    kills_by_duty: BTreeMap<String, u32>,
    seconds: f64,
    doors: usize,
    events: u64,
    unknown: u64,
    repeated: u64,
    alerts: usize,
    incidents: usize,
    notices: u64,
    takeover_ms_max: u128,
    findings: Vec<String>,
}

/// Carries the drill out; whether all was well.
pub async fn run(binary: &Path, options: &Takeovers) -> Result<bool> {
    let directory = std::env::temp_dir().join(format!("holdfast-takeovers-{}", std::process::id()));
    let mut lab = Lab::create_with(binary, &directory, "takeovers", "eu", &place::data("chaos/rules")?)?;
    let receiver = Receiver::start().await?;
    have_told(&lab, &receiver)?;
    let outcome = perform(&mut lab, options, &receiver).await;
    let is_good = outcome.as_ref().is_ok_and(|outcome| outcome.findings.is_empty());
    if options.keep || !is_good {
        lab.keep_files();
        println!("  the nodes' files and logs are kept in {}", directory.display());
    }
    let outcome = outcome?;
    println!(
        "  {} kills in {:.0} s, {} doors, {} events ({} unknown, {} told again), {} alerts in {} incidents, {} notices, longest takeover {} ms",
        outcome.kills,
        outcome.seconds,
        outcome.doors,
        outcome.events,
        outcome.unknown,
        outcome.repeated,
        outcome.alerts,
        outcome.incidents,
        outcome.notices,
        outcome.takeover_ms_max
    );
    outcome.findings.iter().for_each(|finding| println!("  VIOLATION {finding}"));
    if let Some(path) = &options.report {
        let json = serde_json::to_vec_pretty(&outcome).context("the report has no JSON form")?;
        std::fs::write(path, json).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(is_good)
}

/// Has every node tell alerts outside.
fn have_told(lab: &Lab, receiver: &Receiver) -> Result<()> {
    let (secret, topology) = (lab.directory().join("outside.secret"), lab.directory().join("outside.toml"));
    std::fs::write(&secret, "a secret of a drill")?;
    std::fs::write(&topology, receiver.topology(&secret))?;
    for (_, node) in lab.description().nodes() {
        let path = lab.directory().join("nodes").join(&node.name).join("node.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let line = format!("[detection]\npipeline = \"{}\"", topology.display());
        anyhow::ensure!(text.contains("[detection]"), "{}: says nothing of detection", path.display());
        std::fs::write(&path, text.replacen("[detection]", &line, 1))?;
    }
    Ok(())
}

async fn perform(lab: &mut Lab, options: &Takeovers, receiver: &Receiver) -> Result<Outcome> {
    lab.found().await?;
    let site = Arc::new(Site::enter(lab).await?);
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut forcing = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        forcing.spawn(force_doors(Arc::clone(&site), Arc::clone(&stop), Arc::clone(&next)));
    }
    let began = Instant::now();
    let mut outcome = Outcome::default();
    for kill in 0..options.kills {
        let (duty, node, epoch) = holder(&site, kill).await?;
        lab.kill(std::slice::from_ref(&node))?;
        let struck = Instant::now();
        taken_over(&site, &node, &duty, epoch).await?;
        outcome.takeover_ms_max = outcome.takeover_ms_max.max(struck.elapsed().as_millis());
        lab.restart(&[node])?;
        lab.ready(READY_WITHIN).await?;
        outcome.kills += 1;
        *outcome.kills_by_duty.entry(duty).or_default() += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let mut doors = BTreeMap::new();
    while let Some(forced) = forcing.join_next().await {
        let (forced, repeated) = forced?;
        doors.extend(forced);
        outcome.repeated += repeated;
    }
    outcome.doors = doors.len();
    outcome.events = doors.values().map(|door: &Door| door.taken.len() as u64).sum();
    outcome.unknown = doors.values().map(|door| door.unknown.len() as u64).sum();
    settle(&site, &doors, receiver, &mut outcome).await?;
    outcome.seconds = began.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Forces one door after the other, every second one once too seldom; how many events were told again.
async fn force_doors(site: Arc<Site>, stop: Arc<AtomicBool>, next: Arc<AtomicU64>) -> (BTreeMap<String, Door>, u64) {
    let (mut doors, mut repeated) = (BTreeMap::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let (name, mut door) = (format!("door-{number}"), Door::default());
        for place in 0..FORCINGS - number as usize % 2 {
            let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
            let time_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
            let (is_taken, tellings) = tell(&site, &name, place as u64, time_ms).await;
            repeated += tellings.saturating_sub(1);
            if is_taken { &mut door.taken } else { &mut door.unknown }.insert(time_ms);
            tokio::time::sleep(PACE).await;
        }
        doors.insert(name, door);
    }
    (doors, repeated)
}

/// Tells an event until it is certain that it was taken, at one node after the other, and maybe once more: whether it
/// was taken, and how often it was told. It is known again by its key, or without one by what it says.
async fn tell(site: &Site, door: &str, place: u64, time_ms: u64) -> (bool, u64) {
    let event = json!({"product": "doors", "activity": "forced", "door": door, "time": time_ms});
    let call = Call {
        body: Some(("application/x-ndjson", event.to_string().into_bytes())),
        ..Call::new(Method::POST, "/v1/events?source=doors", &site.admin.token)
    };
    let call = if place.is_multiple_of(2) { call } else { call.header("idempotency-key", format!("{door}-{place}")) };
    let call = call.within(Duration::from_secs(6));
    let more = u64::from(time_ms.is_multiple_of(TOLD_AGAIN_EACH));
    let (mut taken, mut tellings) = (0, 0);
    while tellings < TELLINGS_MAX && taken < 1 + more {
        let at = &site.doors[((time_ms + tellings) % site.doors.len() as u64) as usize];
        match site.client.send(at, &call).await {
            Ok(answer) if answer.is_success() => (taken, tellings) = (taken + 1, tellings + 1),
            // It may have been written, or not have been sent: it is told again either way.
            Ok(_) | Err(CallError::Lost(_) | CallError::NotSent(_)) => tellings += 1,
        }
        tokio::time::sleep(PACE).await;
    }
    (taken > 0, tellings)
}

/// The duties as some node that answers sees them.
async fn duties(site: &Site) -> Result<Vec<(String, String, u64)>> {
    let began = Instant::now();
    loop {
        for door in &site.doors {
            let call = Call::new(Method::GET, "/v1/cluster/status", &site.admin.token).within(Duration::from_secs(2));
            let Ok(answer) = site.client.send(door, &call).await else { continue };
            let list = answer.body["duties"].as_array().cloned().unwrap_or_default();
            let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
            if !list.is_empty() {
                let duty = |one: &Value| (text(one, "duty"), text(one, "node"), one["epoch"].as_u64().unwrap_or(0));
                return Ok(list.iter().map(duty).collect());
            }
        }
        if began.elapsed() > SETTLED_WITHIN {
            bail!("no node tells who has which duty");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A duty and who has it: each in turn.
async fn holder(site: &Site, turn: u32) -> Result<(String, String, u64)> {
    let duties = duties(site).await?;
    Ok(duties[turn as usize % duties.len()].clone())
}

/// Waits until another node has the duty.
async fn taken_over(site: &Site, from: &str, duty: &str, epoch: u64) -> Result<()> {
    let began = Instant::now();
    loop {
        let now = duties(site).await?;
        if now.iter().any(|(name, node, at)| name == duty && node != from && *at > epoch) {
            return Ok(());
        }
        if began.elapsed() > SETTLED_WITHIN {
            bail!("{duty} of {from} is not taken over");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the alerts and judges.
async fn settle(site: &Site, doors: &BTreeMap<String, Door>, receiver: &Receiver, outcome: &mut Outcome) -> Result<()> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let (alerts, incidents) = (all(site, "alerts").await?, all(site, "incidents").await?);
        let told = receiver.told();
        outcome.findings = judge(doors, &alerts, &told);
        outcome.notices = told.values().map(|told| told.times).sum();
        (outcome.alerts, outcome.incidents) = (alerts.len(), incidents.len());
        if outcome.findings.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Every item of a list.
async fn all(site: &Site, what: &str) -> Result<Vec<Value>> {
    let (mut items, mut token) = (Vec::new(), None::<String>);
    loop {
        let page = token.as_ref().map(|token| format!("&page_token={token}")).unwrap_or_default();
        let call = Call::new(Method::GET, format!("/v1/{what}?limit=500{page}"), &site.admin.token);
        let answer = site.client.must(site.front(), &call).await?;
        items.extend(answer.body[what].as_array().cloned().unwrap_or_default());
        token = answer.body["next_page_token"].as_str().map(str::to_owned);
        if token.is_none() {
            return Ok(items);
        }
    }
}
