//! Takeovers: the nodes that detect, file and tell are killed again and again while events come in.
//!
//! Each door is forced five times, so each must raise one alert, and each alert must be under one incident: whoever
//! counts an event twice, or forgets one, raises too many or too few.

use crate::client::{Call, CallError};
use crate::cluster::{Lab, READY_WITHIN};
use crate::place;
use crate::tenancy::Site;
use anyhow::{Context as _, Result, bail};
use clap::Parser;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Events that raise an alert: the rule's threshold.
const FORCINGS: u64 = 5;
/// Between the events of a door.
const PACE: Duration = Duration::from_millis(40);
/// Doors that are being forced at the same time: their events share batches and takeovers.
const AT_ONCE: u64 = 4;
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

/// What became of a door's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Door {
    acknowledged: u64,
    unknown: u64,
}

impl Door {
    /// How many alerts there may be.
    fn expected(self) -> std::ops::RangeInclusive<u64> {
        let least = u64::from(self.acknowledged >= FORCINGS);
        let most = u64::from(self.acknowledged + self.unknown >= FORCINGS);
        least..=most
    }
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
    alerts: usize,
    incidents: usize,
    takeover_ms_max: u128,
    findings: Vec<String>,
}

/// Carries the drill out; whether all was well.
pub async fn run(binary: &Path, options: &Takeovers) -> Result<bool> {
    let directory = std::env::temp_dir().join(format!("holdfast-takeovers-{}", std::process::id()));
    let mut lab = Lab::create_with(binary, &directory, "takeovers", "eu", &place::data("chaos/rules")?)?;
    let outcome = perform(&mut lab, options).await;
    let is_good = outcome.as_ref().is_ok_and(|outcome| outcome.findings.is_empty());
    if options.keep || !is_good {
        lab.keep_files();
        println!("  the nodes' files and logs are kept in {}", directory.display());
    }
    let outcome = outcome?;
    println!(
        "  {} kills in {:.0} s, {} doors, {} events ({} unknown), {} alerts in {} incidents, longest takeover {} ms",
        outcome.kills,
        outcome.seconds,
        outcome.doors,
        outcome.events,
        outcome.unknown,
        outcome.alerts,
        outcome.incidents,
        outcome.takeover_ms_max
    );
    outcome.findings.iter().for_each(|finding| println!("  VIOLATION {finding}"));
    if let Some(path) = &options.report {
        let json = serde_json::to_vec_pretty(&outcome).context("the report has no JSON form")?;
        std::fs::write(path, json).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(is_good)
}

async fn perform(lab: &mut Lab, options: &Takeovers) -> Result<Outcome> {
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
        doors.extend(forced?);
    }
    outcome.doors = doors.len();
    outcome.events = doors.values().map(|door: &Door| door.acknowledged).sum();
    outcome.unknown = doors.values().map(|door| door.unknown).sum();
    settle(&site, &doors, &mut outcome).await?;
    outcome.seconds = began.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Forces one door after the other, at whichever node answers.
async fn force_doors(site: Arc<Site>, stop: Arc<AtomicBool>, next: Arc<AtomicU64>) -> BTreeMap<String, Door> {
    let mut doors = BTreeMap::new();
    let mut turn = 0usize;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("door-{}", next.fetch_add(1, Ordering::Relaxed));
        let mut door = Door::default();
        while door.acknowledged + door.unknown < FORCINGS {
            let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
            let event = json!({"product": "doors", "activity": "forced", "door": name, "time": now_ms as u64});
            let call = Call {
                body: Some(("application/x-ndjson", event.to_string().into_bytes())),
                ..Call::new(Method::POST, "/v1/events?source=doors", &site.admin.token)
            };
            turn += 1;
            match site.client.send(&site.doors[turn % site.doors.len()], &call.within(Duration::from_secs(6))).await {
                Ok(answer) if answer.is_success() => door.acknowledged += 1,
                // The leader was lost inside: it may have been written.
                Ok(answer) if answer.status >= 500 => door.unknown += 1,
                Ok(_) | Err(CallError::NotSent(_)) => {}
                Err(CallError::Lost(_)) => door.unknown += 1,
            }
            tokio::time::sleep(PACE).await;
        }
        doors.insert(name, door);
    }
    doors
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
async fn settle(site: &Site, doors: &BTreeMap<String, Door>, outcome: &mut Outcome) -> Result<()> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let (alerts, incidents) = (all(site, "alerts").await?, all(site, "incidents").await?);
        outcome.findings = judge(doors, &alerts);
        (outcome.alerts, outcome.incidents) = (alerts.len(), incidents.len());
        if outcome.findings.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn judge(doors: &BTreeMap<String, Door>, alerts: &[Value]) -> Vec<String> {
    let mut raised: BTreeMap<&str, u64> = BTreeMap::new();
    let mut findings = Vec::new();
    for alert in alerts.iter().filter(|alert| alert["rule"] == "doors_forced") {
        *raised.entry(alert["group"]["door"].as_str().unwrap_or_default()).or_default() += 1;
        if alert["incident"].as_str().is_none() {
            findings.push(format!("alert {} is under no incident", alert["id"]));
        }
    }
    for (name, door) in doors {
        let count = raised.get(name.as_str()).copied().unwrap_or(0);
        if !door.expected().contains(&count) {
            let Door { acknowledged, unknown } = door;
            findings.push(format!("{name}: {count} alerts of {acknowledged} events and {unknown} unknown"));
        }
    }
    for name in raised.keys().filter(|name| !doors.contains_key(**name)) {
        findings.push(format!("{name}: an alert of a door that nobody forced"));
    }
    findings
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_and_too_few_alerts_are_found_and_unknown_events_leave_room() {
        let doors = |acknowledged, unknown| BTreeMap::from([("a".to_owned(), Door { acknowledged, unknown })]);
        let alert = |door: &str| json!({"rule": "doors_forced", "id": "1", "incident": "i", "group": {"door": door}});
        assert_eq!(judge(&doors(5, 0), &[alert("a")]), Vec::<String>::new());
        assert_eq!(judge(&doors(5, 0), &[]).len(), 1);
        assert_eq!(judge(&doors(5, 0), &[alert("a"), alert("a")]).len(), 1);
        assert_eq!(judge(&doors(4, 1), &[]).len() + judge(&doors(4, 1), &[alert("a")]).len(), 0);
        assert_eq!(judge(&doors(4, 0), &[alert("a")]).len(), 1);
        assert_eq!(judge(&BTreeMap::new(), &[alert("b")]).len(), 1);
        let unfiled = json!({"rule": "doors_forced", "id": "1", "group": {"door": "a"}});
        assert_eq!(judge(&doors(5, 0), &[unfiled]).len(), 1);
    }
}
