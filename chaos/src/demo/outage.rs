//! Steps 2 and 3: outages under load. A node that leads, and a whole region.

use super::{Outage, Tour, ms};
use crate::check;
use crate::client::Door;
use crate::cluster::READY_WITHIN;
use crate::drill::expected;
use crate::history::{Operation, Tally};
use crate::measure::{self, Loss};
use crate::probe;
use crate::verdict::{promise, recovery_point, recovery_time};
use crate::workload::{Load, Settings, prefixes, prepare};
use anyhow::{Context as _, Result};
use audit::bia::Disruption;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Before the fault, while it lasts, and after everything runs again.
const BASELINE: Duration = Duration::from_secs(4);
const OUTAGE: Duration = Duration::from_secs(6);
const SETTLE: Duration = Duration::from_secs(3);
/// The service must be clean for so long before what was killed returns.
const CLEAN_US: u64 = 3_000_000;
const CONVERGE_WITHIN: Duration = Duration::from_secs(30);

struct Watch {
    struck: usize,
    fault_us: u64,
    healed_us: u64,
    end_us: u64,
    history: Vec<Operation>,
    held: Vec<BTreeSet<String>>,
}

fn us(origin: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(origin).as_micros()).unwrap_or(u64::MAX)
}

async fn begin(tour: &Tour, run: u64) -> Result<Load> {
    let settings = Settings {
        table: tour.table(),
        token: tour.agents[0].token.clone(),
        rate: tour.rate,
        regions: tour.site.regions.clone(),
    };
    prepare(&tour.site, &settings, run).await?;
    let load = Load::start(&tour.site, settings, run);
    tokio::time::sleep(BASELINE).await;
    Ok(load)
}

async fn held(tour: &Tour, run: u64, region: usize, prefix: &str) -> Result<BTreeSet<String>> {
    let prefix = format!("{}{prefix}", prefixes(run).created);
    let (door, table) = (tour.site.door(region), tour.table());
    let found = probe::records(&tour.site.client, door, &tour.agents[0].token, &table, &prefix).await?;
    Ok(found.into_keys().collect())
}

/// Step 2.
pub(super) async fn leader(tour: &mut Tour) -> Result<()> {
    const RUN: u64 = 2;
    let load = begin(tour, RUN).await?;
    let led =
        probe::leader(&tour.site, 0, &tour.group, None).await.context("the tenant's group has no leader in eu")?;
    let struck = tour.lab.kill(std::slice::from_ref(&led.node))?;
    tokio::time::sleep(OUTAGE).await;
    let now = probe::leader(&tour.site, 0, &tour.group, Some(&led.node)).await;
    match &now {
        Some(now) if now.node != led.node => {
            tour.say(format!("killed {} (SIGKILL), which led group {}; {} leads now", led.node, tour.group, now.node));
        }
        _ => tour.fall_short(format!("{} was killed, and nobody else leads group {}", led.node, tour.group)),
    }
    let returned = Instant::now();
    tour.lab.restart(std::slice::from_ref(&led.node))?;
    tour.lab.ready(READY_WITHIN).await?;
    tokio::time::sleep(SETTLE).await;
    let (origin, end) = (load.origin(), Instant::now());
    let history = load.stop().await;
    let mut watch = Watch {
        struck: 0,
        fault_us: us(origin, struck),
        healed_us: us(origin, returned),
        end_us: us(origin, end),
        history,
        held: Vec::new(),
    };
    let doors: Vec<&Door> = tour.site.doors.iter().collect();
    let (replicas, _) = probe::converge(&tour.site, &doors, CONVERGE_WITHIN).await?;
    judge_replicas(tour, &check::convergence::check(&replicas));
    for region in 0..tour.site.regions.len() {
        watch.held.push(held(tour, RUN, region, "").await?);
    }
    let outage = judge(tour, "node that leads killed", Disruption::ProcessKill, &watch, None)?;
    tour.measured("write_stop_ms", outage.recovery.write_stop_ms);
    tour.say(format!(
        "writes in eu stopped for {} ms; the level was met again {}",
        outage.recovery.write_stop_ms,
        after(&outage)
    ));
    tell(tour, &outage, &watch);
    tour.outages.push(outage);
    Ok(())
}

/// Step 3.
pub(super) async fn region(tour: &mut Tour) -> Result<()> {
    const RUN: u64 = 3;
    let struck_region = tour.site.regions.len() - 1;
    let name = tour.site.regions[struck_region].clone();
    let nodes = tour.lab.nodes_of(&name);
    let load = begin(tour, RUN).await?;
    let struck = tour.lab.kill(&nodes)?;
    let survived = held(tour, RUN, 0, &format!("{name}-")).await?;
    tokio::time::sleep_until((struck + OUTAGE).into()).await;
    let returned = Instant::now();
    tour.lab.restart(&nodes)?;
    tour.lab.ready(READY_WITHIN).await?;
    let ready = returned.elapsed();
    tokio::time::sleep(SETTLE).await;
    let (origin, end) = (load.origin(), Instant::now());
    let history = load.stop().await;
    let doors: Vec<&Door> = tour.site.doors.iter().collect();
    let (replicas, took) = probe::converge(&tour.site, &doors, CONVERGE_WITHIN).await?;
    let mut watch = Watch {
        struck: struck_region,
        fault_us: us(origin, struck),
        healed_us: us(origin, returned),
        end_us: us(origin, end),
        history,
        held: Vec::new(),
    };
    for region in 0..tour.site.regions.len() {
        watch.held.push(held(tour, RUN, region, "").await?);
    }
    let outage = judge(tour, "region destroyed", Disruption::RegionDestroyed, &watch, Some(&survived))?;
    let elsewhere = outage.elsewhere.tally;
    tour.say(format!("killed {} (SIGKILL, all at once)", nodes.join(", ")));
    tour.say(format!(
        "elsewhere {} operations were asked, {} failed, {} unknown",
        elsewhere.operations, elsewhere.failed, elsewhere.unknown
    ));
    if elsewhere.failed + elsewhere.unknown > 0 {
        tour.fall_short("operations failed in regions that were not struck");
    }
    let first = outage.recovery.rto_first_ms.map_or("never".into(), |first| format!("after {first} ms"));
    tour.say(format!("clients of {name} were served by other regions, the first {first}"));
    tour.say(format!("{name} started again, ready after {}; caught up {} after the load ended", ms(ready), ms(took)));
    let finding = check::convergence::check(&replicas);
    let partitions = replicas.values().map(std::collections::BTreeMap::len).max().unwrap_or(0);
    if finding.holds() {
        tour.say(format!(
            "{} nodes hold the same: {partitions} partitions, equal vectors and equal hashes",
            replicas.len()
        ));
    }
    judge_replicas(tour, &finding);
    tour.measured("hashes", replicas.values().next());
    tell(tour, &outage, &watch);
    tour.outages.push(outage);
    Ok(())
}

fn judge_replicas(tour: &mut Tour, finding: &check::Finding) {
    for violation in &finding.violations {
        tour.fall_short(violation.clone());
    }
}

fn after(outage: &Outage) -> String {
    outage.recovery.rto_slo_ms.map_or("not in this run".into(), |rto| format!("after {rto} ms"))
}

fn judge(
    tour: &Tour,
    what: &'static str,
    disruption: Disruption,
    watch: &Watch,
    survived: Option<&BTreeSet<String>>,
) -> Result<Outage> {
    let counted = |is_struck: bool| -> Vec<&Operation> {
        watch.history.iter().filter(|one| measure::counts(one) && (one.home == watch.struck) == is_struck).collect()
    };
    let measured = |history: &[&Operation], until_us| {
        let baseline = measure::baseline(history, 500_000, watch.fault_us);
        measure::recovery(history, watch.fault_us, until_us, CLEAN_US, &baseline)
    };
    let (recovery, elsewhere) = (measured(&counted(true), watch.healed_us), measured(&counted(false), watch.end_us));
    // What a region held alone when it was struck is what its destruction would have cost.
    let missing: Vec<&Operation> = match survived {
        Some(survived) => {
            let of = check::loss::missing(&watch.history, survived).into_iter();
            of.filter(|one| one.home == watch.struck && one.completed_us <= watch.fault_us).collect()
        }
        None => watch.held.iter().flat_map(|held| check::loss::missing(&watch.history, held)).collect(),
    };
    let loss = measure::loss(&missing, watch.fault_us);
    let promise = promise(&tour.bia, "orders", disruption)?;
    let (rto, rpo) = (recovery_time(promise.target, recovery.rto_slo_ms), recovery_point(promise.target, loss));
    Ok(Outage { what, promise, recovery, elsewhere, loss, rto, rpo })
}

/// Says what became of the writes, and keeps what must be in the audit log.
fn tell(tour: &mut Tour, outage: &Outage, watch: &Watch) {
    let tally = Tally::of(&watch.history);
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    for held in &watch.held {
        gone.extend(check::loss::missing(&watch.history, held).iter().map(|one| one.act.key()));
    }
    tour.say(format!(
        "{} operations, {} writes acknowledged, {} failed, {} unknown; acknowledged and lost: {}",
        tally.operations,
        tally.writes,
        tally.failed,
        tally.unknown,
        gone.len()
    ));
    if !gone.is_empty() {
        tour.fall_short(format!("{} acknowledged writes are lost, such as {:?}", gone.len(), gone.first()));
    }
    if outage.loss != Loss::default() {
        tour.say(format!(
            "had the region not returned, {} writes of its last {} ms would be lost",
            outage.loss.writes, outage.loss.window_ms
        ));
    }
    for finding in [check::register::check(&watch.history), check::session::check(&watch.history)] {
        if finding.holds() {
            tour.say(format!("{}: {} reads and writes examined", finding.property, finding.examined));
        }
        judge_replicas(tour, &finding);
    }
    tour.measured("tally", tally);
    tour.kept.extend(expected(&watch.history));
}
