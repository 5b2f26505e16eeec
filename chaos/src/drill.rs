//! One run of one scenario: prepare, baseline, inject, look, heal, settle, judge.

use crate::check::{self, Finding, audit::Expected};
use crate::client::Door;
use crate::cluster::{Lab, READY_WITHIN};
use crate::fault::{Bite, Fault, Injected, Scene};
use crate::history::{Act, Operation, Tally};
use crate::measure::{self, Baseline, Loss, Recovery};
use crate::scenario::{Phases, Scenario};
use crate::tenancy::{AGENT, MANAGER, Site};
use crate::verdict::{self, Promise, Verdict};
use crate::workload::{Load, Prefixes, Settings, fields, prefixes, prepare};
use crate::{access::Pass, probe};
use anyhow::{Context as _, Result};
use audit::bia::Bia;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// How long replicas may take to become equal after everything was healed.
const CONVERGE_WITHIN: Duration = Duration::from_secs(60);
/// The number of a drill's only load.
const RUN: u64 = 1;
const TENANT: &str = "drill";
const TABLE: &str = "orders";

/// Something that happened, in milliseconds since the load began.
#[derive(Clone, Debug, Serialize)]
pub struct Moment {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

/// What one run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The promise tested.
    pub promise: Promise,
    /// What happened when.
    pub timeline: Vec<Moment>,
    /// Whether the fault bit.
    pub bite: Bite,
    /// The struck region before the fault, as its clients saw it.
    pub baseline: Baseline,
    /// The struck region after it.
    pub recovery: Recovery,
    /// The struck region after the healing: what returns may disturb too.
    pub healing: Recovery,
    /// The other regions after it.
    pub elsewhere: Recovery,
    /// Acknowledged writes that survivors did not have while the fault lasted; only when a region is gone.
    pub loss_during: Option<Loss>,
    /// Acknowledged writes that are gone in the end.
    pub loss: Loss,
    /// From the healing until all replicas were equal.
    pub catch_up_ms: u64,
    /// All operations.
    pub tally: Tally,
    /// What errors said, and how often.
    pub errors: BTreeMap<String, u64>,
    /// What the checkers found.
    pub findings: Vec<Finding>,
    /// A hash for each partition, equal in all regions.
    pub digests: BTreeMap<u64, String>,
    /// Recovery time against its target.
    pub rto: Verdict,
    /// Loss against its target.
    pub rpo: Verdict,
    /// The run as a whole.
    pub verdict: Verdict,
}

/// A cluster with a tenant, ready for a load.
struct Stage {
    lab: Lab,
    site: Site,
    agent: Pass,
    group: String,
    settings: Settings,
    from_ms: u64,
}

impl Stage {
    async fn set(binary: &Path, directory: &Path, rate: u32) -> Result<Self> {
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or("drill").to_owned();
        let mut lab = if directory.join("cluster.toml").exists() {
            Lab::open(binary, directory, false)?
        } else {
            Lab::create(binary, directory, &name)?
        };
        let from_ms = now_ms();
        match Self::furnish(&mut lab, rate).await {
            Ok((site, agent, group, settings)) => Ok(Self { lab, site, agent, group, settings, from_ms }),
            Err(error) => {
                lab.keep_files();
                Err(error.context(format!("the logs are in {}", directory.join("logs").display())))
            }
        }
    }

    async fn furnish(lab: &mut Lab, rate: u32) -> Result<(Site, Pass, String, Settings)> {
        lab.found().await?;
        let site = Site::enter(lab).await?;
        let (tenant, _) = site.create_tenant(TENANT, 1).await?;
        let manager = site.enrol(&site.admin, MANAGER, TENANT).await?;
        site.create_table(&manager.pass, TENANT, TABLE, &fields()).await?;
        let agent = site.enrol(&manager.pass, AGENT, TENANT).await?.pass;
        site.everywhere(&agent, TENANT, TABLE).await?;
        let settings = Settings {
            table: format!("/v1/tenants/{TENANT}/tables/{TABLE}"),
            token: agent.token.clone(),
            rate,
            regions: site.regions.clone(),
        };
        prepare(&site, &settings, RUN).await?;
        let group = lab.description().group(tenant).get().to_string();
        Ok((site, agent, group, settings))
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The story of a run while it happens.
struct Story {
    origin: Instant,
    moments: Vec<Moment>,
}

impl Story {
    fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX)
    }
    fn tell(&mut self, at: Instant, what: String) {
        let at_ms = self.us(at) / 1_000;
        println!("  {:>8.3} s  {what}", at_ms as f64 / 1_000.0);
        self.moments.push(Moment { at_ms, what });
    }
}

/// What was recorded between the start and the end of a load.
struct Record {
    story: Story,
    history: Vec<Operation>,
    fault_us: u64,
    healed_us: u64,
    end_us: u64,
    bite: Bite,
    loss_during: Option<Vec<String>>,
    catch_up: Duration,
    replicas: BTreeMap<String, check::convergence::Replica>,
}

/// Carries a scenario out once, in a new cluster.
pub async fn run(
    binary: &Path,
    directory: &Path,
    scenario: &Scenario,
    is_short: bool,
    is_kept: bool,
    bia: &Bia,
) -> Result<Run> {
    let phases = if is_short { scenario.short } else { scenario.phases };
    let promise = verdict::promise(bia, &scenario.asset, scenario.disruption)?;
    let began = Instant::now();
    let mut stage = Stage::set(binary, directory, phases.rate).await?;
    println!(
        "  cluster and tenant ready after {:.1} s; {} operations a second",
        began.elapsed().as_secs_f64(),
        phases.rate
    );
    let outcome = perform(&mut stage, &scenario.fault, phases).await;
    let run = match outcome {
        Ok(record) => {
            // For whoever looks for a fault: it goes with the folder when the run was met.
            write_history(stage.lab.directory(), &record.history)?;
            judge(&stage, scenario, phases, promise, record).await
        }
        Err(error) => Err(error),
    };
    if is_kept || !run.as_ref().is_ok_and(|run| run.verdict == Verdict::Met) {
        stage.lab.keep_files();
        println!("  the nodes' files and logs are kept in {}", stage.lab.directory().display());
    }
    run
}

fn write_history(directory: &Path, history: &[Operation]) -> Result<()> {
    let path = directory.join("history.json");
    let json = serde_json::to_vec(history).context("the history has no JSON form")?;
    std::fs::write(&path, json).with_context(|| format!("{}: cannot be written", path.display()))
}

async fn perform(stage: &mut Stage, fault: &Fault, phases: Phases) -> Result<Record> {
    let seconds = |count: u32| Duration::from_secs(u64::from(count));
    let load = Load::start(&stage.site, stage.settings.clone(), RUN);
    let mut story = Story { origin: load.origin(), moments: Vec::new() };
    tokio::time::sleep(seconds(phases.baseline_s)).await;
    let (site, group) = (&stage.site, stage.group.clone());
    let mut scene = Scene { lab: &mut stage.lab, site, group };
    let mut injected: Injected = fault.inject(&mut scene).await?;
    story.tell(injected.at, injected.what.clone());
    let heal_at = injected.at + seconds(phases.fault_s);
    // What survivors hold is looked at while the region is gone: at once, before anything can return.
    let region = site.regions.iter().position(|name| name == fault.region()).context("no such region")?;
    let loss_during = match fault {
        Fault::KillRegion { .. } => Some(held_elsewhere(site, &stage.settings, region).await?),
        _ => None,
    };
    tokio::time::sleep_until((heal_at - seconds(1)).into()).await;
    let bite = injected.bite(fault, &scene).await?;
    story.tell(
        Instant::now(),
        format!("{}: {}", if bite.did_bite { "it bit" } else { "it did not bite" }, bite.evidence),
    );
    tokio::time::sleep_until(heal_at.into()).await;
    let healed = injected.heal(&mut scene)?;
    story.tell(healed, "healed".into());
    scene.lab.ready(READY_WITHIN).await?;
    story.tell(Instant::now(), "all nodes ready".into());
    tokio::time::sleep_until((healed + seconds(phases.settle_s)).into()).await;
    scene.lab.check()?;
    let end_us = story.us(Instant::now());
    let history = load.stop().await;
    let all: Vec<&Door> = site.doors.iter().collect();
    let (replicas, _) = probe::converge(site, &all, CONVERGE_WITHIN).await?;
    let catch_up = healed.elapsed().saturating_sub(seconds(phases.settle_s));
    story.tell(Instant::now(), "load ended, all replicas compared".into());
    let fault_us = story.us(injected.at);
    let healed_us = story.us(healed);
    Ok(Record { story, history, fault_us, healed_us, end_us, bite, loss_during, catch_up, replicas })
}

/// Keys that the regions other than one hold.
async fn held_elsewhere(site: &Site, settings: &Settings, gone: usize) -> Result<Vec<String>> {
    let survivor = (gone + 1) % site.regions.len();
    let prefix = format!("{}{}-", prefixes(RUN).created, site.regions[gone]);
    let found = probe::records(&site.client, site.door(survivor), &settings.token, &settings.table, &prefix).await?;
    Ok(found.into_keys().collect())
}

async fn judge(stage: &Stage, scenario: &Scenario, phases: Phases, promise: Promise, record: Record) -> Result<Run> {
    let Record { story, history, fault_us, healed_us, end_us, bite, loss_during, catch_up, replicas } = record;
    let region = stage.site.regions.iter().position(|name| name == scenario.fault.region()).unwrap_or(0);
    let counted = |is_struck: bool| -> Vec<&Operation> {
        history.iter().filter(|one| measure::counts(one) && (one.home == region) == is_struck).collect()
    };
    let (struck, others) = (counted(true), counted(false));
    let baseline = measure::baseline(&struck, fault_us.min(1_000_000), fault_us);
    let other_baseline = measure::baseline(&others, fault_us.min(1_000_000), fault_us);
    let clean_us = u64::from(phases.clean_s) * 1_000_000;
    let recovery = measure::recovery(&struck, fault_us, healed_us, (healed_us - fault_us) / 2, &baseline);
    let healing = measure::recovery(&struck, healed_us, end_us, clean_us, &baseline);
    let elsewhere = measure::recovery(&others, fault_us, end_us, clean_us, &other_baseline);
    let (findings, held) = examine(stage, &history, &replicas).await?;
    let missing: BTreeSet<&str> =
        held.values().flat_map(|keys| check::loss::missing(&history, keys)).map(|one| one.act.key()).collect();
    let gone: Vec<&Operation> = history.iter().filter(|one| missing.contains(one.act.key())).collect();
    let loss = measure::loss(&gone, fault_us);
    let loss_during = loss_during.map(|keys| {
        let keys: BTreeSet<String> = keys.into_iter().collect();
        let before = |one: &&Operation| one.home == region && one.completed_us <= fault_us;
        let missing: Vec<&Operation> = check::loss::missing(&history, &keys).into_iter().filter(before).collect();
        measure::loss(&missing, fault_us)
    });
    let times = [recovery.rto_slo_ms, healing.rto_slo_ms];
    let rto = verdict::worst(times.map(|rto_ms| verdict::recovery_time(promise.target, rto_ms)));
    let rpo = [
        Some(verdict::recovery_point(promise.target, loss)),
        loss_during.map(|loss| verdict::recovery_point(promise.target, loss)),
    ];
    let rpo = if rpo.contains(&Some(Verdict::Breached)) { Verdict::Breached } else { Verdict::Met };
    let is_sound = findings.iter().all(Finding::holds);
    let verdict = match (bite.did_bite, is_sound, rto, rpo) {
        (_, false, _, _) => Verdict::Breached,
        (false, ..) => Verdict::Void,
        (.., Verdict::Breached) | (_, _, Verdict::Breached, _) => Verdict::Breached,
        (_, _, Verdict::Unproven, _) => Verdict::Unproven,
        _ => Verdict::Met,
    };
    let digests = replicas.values().flatten().map(|(partition, digest)| (*partition, digest.hash.clone())).collect();
    Ok(Run {
        promise,
        timeline: story.moments,
        bite,
        baseline,
        recovery,
        healing,
        elsewhere,
        loss_during,
        loss,
        catch_up_ms: u64::try_from(catch_up.as_millis()).unwrap_or(u64::MAX),
        tally: Tally::of(&history),
        errors: errors(&history),
        findings,
        digests,
        rto,
        rpo,
        verdict,
    })
}

/// Runs every checker over the history and what the regions hold in the end.
async fn examine(
    stage: &Stage,
    history: &[Operation],
    replicas: &BTreeMap<String, check::convergence::Replica>,
) -> Result<(Vec<Finding>, BTreeMap<String, BTreeSet<String>>)> {
    let Stage { site, agent, settings, .. } = stage;
    let Prefixes { created, hot, counters } = prefixes(RUN);
    let (mut held, mut hots, mut counts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (index, region) in site.regions.iter().enumerate() {
        let door = site.door(index);
        let found = probe::records(&site.client, door, &agent.token, &settings.table, &created).await?;
        held.insert(region.clone(), found.into_keys().collect::<BTreeSet<String>>());
        let found = probe::records(&site.client, door, &agent.token, &settings.table, &hot).await?;
        hots.insert(region.clone(), found.into_iter().map(|(key, fields)| (key, fields["value"].as_u64())).collect());
        let found = probe::records(&site.client, door, &agent.token, &settings.table, &counters).await?;
        let count = |fields: serde_json::Value| fields["count"].as_i64().unwrap_or(0);
        counts.insert(region.clone(), found.into_iter().map(|(key, fields)| (key, count(fields))).collect());
    }
    let regions: Vec<usize> = (0..site.regions.len()).collect();
    let entries = probe::audit(site, &regions, stage.from_ms).await?;
    let mut verified = Finding::new("audit logs verify");
    for region in &regions {
        let (holds, size, logs) = probe::verify(site, *region).await?;
        verified.examined += size;
        if !holds {
            verified.violate(|| format!("{}: {logs}", site.regions[*region]));
        }
    }
    let findings = vec![
        check::loss::check(history, &held),
        check::register::check(history),
        check::session::check(history),
        check::loss::check_hot(history, &hots),
        check::counter::check(history, &counts),
        check::convergence::check(replicas),
        check::audit::check(&expected(history), &entries),
        verified,
    ];
    Ok((findings, held))
}

/// What must be in the audit log for a history: every acknowledged change and view.
///
/// A stored answer is another request's: the log has the one that was carried out, whose number the client never saw.
pub fn expected(history: &[Operation]) -> Vec<Expected> {
    let of = |one: &Operation| {
        let actions: &[&str] = match one.act {
            Act::Create { .. } => &["record.put"],
            Act::RegisterRead { .. } | Act::RoamRead { .. } => &["record.view"],
            _ => &["record.patch"],
        };
        let resource = Some(format!("/records/{}", one.act.key()));
        Some(Expected { request: one.request.clone()?, actions, outcome: "success", resource })
    };
    history.iter().filter(|one| one.is_ok() && !one.is_replayed).filter_map(of).collect()
}

/// What errors said, without what differs from one to the next, and how often.
fn errors(history: &[Operation]) -> BTreeMap<String, u64> {
    let mut errors = BTreeMap::new();
    for error in history.iter().filter_map(|one| one.error.as_ref()) {
        let text: String = error.chars().filter(|letter| !letter.is_ascii_digit()).take(120).collect();
        *errors.entry(text).or_default() += 1;
    }
    errors
}
