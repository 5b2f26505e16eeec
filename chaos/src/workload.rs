//! An open-loop load from every region: operations begin on time, whether or not earlier ones were answered.
//!
//! Each client prefers its own region's nodes, tries the next one when a node does not answer, repeats a write only
//! with the same `Idempotency-Key`, and turns to another region only when no node of its own takes connections and
//! nothing of the operation was sent.

mod attempt;
mod compass;

use crate::client::{Call, Client, Door};
use crate::history::{Act, Operation, Outcome};
use crate::tenancy::Site;
use anyhow::{Result, bail};
use attempt::Errand;
use compass::Compass;
use reqwest::Method;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Operations at once; beyond it, operations fail on the spot and count as failed.
const IN_FLIGHT_MAX: usize = 4_096;
/// Registers of each region, hot records, counters, roaming sessions.
const REGISTERS: u64 = 8;
const HOT: u64 = 3;
const COUNTERS: u64 = 4;
const ROAMERS: u64 = 8;
/// How long the records that the load needs may take to reach every region.
const PREPARED_WITHIN: Duration = Duration::from_secs(20);

/// What the load needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `/v1/tenants/{tenant}/tables/{table}`, with fields `label`, `value` and the counter `count`.
    pub table: String,
    /// The session that reads and writes.
    pub token: String,
    /// Operations a second, all regions together.
    pub rate: u32,
    /// Names of the regions that have clients.
    pub regions: Vec<String>,
}

/// A session that moves from region to region.
struct Roamer {
    key: String,
    last: u64,
    seen: Option<String>,
    region: usize,
}

struct Shared {
    settings: Settings,
    client: Client,
    compass: Compass,
    origin: Instant,
    number: AtomicU64,
    history: Mutex<Vec<Operation>>,
    roamers: Mutex<VecDeque<Roamer>>,
    is_stopping: AtomicBool,
    run: u64,
}

/// A load that runs.
pub struct Load {
    shared: Arc<Shared>,
    tickers: JoinSet<()>,
    _watcher: JoinSet<()>,
}

/// The fields of the table that the load writes.
pub fn fields() -> serde_json::Value {
    json!([
        {"name": "label", "kind": "text"},
        {"name": "value", "kind": "int"},
        {"name": "count", "kind": "int", "merge": "counter"},
    ])
}

/// Creates the records that the load changes, and waits until every region has them.
pub async fn prepare(site: &Site, settings: &Settings, run: u64) -> Result<()> {
    let keys = keys(settings, run);
    for key in &keys {
        let body = json!({"fields": {"label": "drill"}});
        let call = Call::new(Method::PUT, format!("{}/records/{key}", settings.table), &settings.token).json(&body);
        site.client.must(site.front(), &call).await?;
    }
    let began = Instant::now();
    for region in 0..settings.regions.len() {
        loop {
            let door = site.door(region);
            let found = crate::probe::records(&site.client, door, &settings.token, &settings.table, "").await?;
            if keys.iter().all(|key| found.contains_key(key)) {
                break;
            }
            if began.elapsed() >= PREPARED_WITHIN {
                bail!("{} has {} of {} records after {PREPARED_WITHIN:?}", door.node, found.len(), keys.len());
            }
            tokio::time::sleep(crate::cluster::POLL).await;
        }
    }
    Ok(())
}

/// Keys of the records that the load changes.
fn keys(settings: &Settings, run: u64) -> Vec<String> {
    let mut keys = Vec::new();
    for region in &settings.regions {
        keys.extend((0..REGISTERS).map(|n| register(run, region, n)));
    }
    keys.extend((0..HOT).map(|n| hot(run, n)));
    keys.extend((0..COUNTERS).map(|n| counter(run, n)));
    keys.extend((0..ROAMERS).map(|n| roamer(run, n)));
    keys
}

fn register(run: u64, region: &str, n: u64) -> String {
    format!("r{run}-{region}-{n}")
}
fn hot(run: u64, n: u64) -> String {
    format!("hot{run}-{n}")
}
fn counter(run: u64, n: u64) -> String {
    format!("n{run}-{n}")
}
fn roamer(run: u64, n: u64) -> String {
    format!("s{run}-{n}")
}

/// What the keys of a load's records begin with.
pub struct Prefixes {
    /// Records that were created by the load.
    pub created: String,
    /// Records that every region sets.
    pub hot: String,
    /// Counters.
    pub counters: String,
}

/// What the keys of the load of a run begin with.
pub fn prefixes(run: u64) -> Prefixes {
    Prefixes { created: format!("u{run}-"), hot: format!("hot{run}-"), counters: format!("n{run}-") }
}

impl Load {
    /// Starts the load; times in its history count from now. `run` tells the keys of several loads apart.
    pub fn start(site: &Site, settings: Settings, run: u64) -> Self {
        let roamer = |n| Roamer { key: roamer(run, n), last: 0, seen: None, region: 0 };
        let shared = Arc::new(Shared {
            client: site.client.clone(),
            compass: Compass::new(site.doors.clone()),
            origin: Instant::now(),
            number: AtomicU64::new(1),
            history: Mutex::default(),
            roamers: Mutex::new((0..ROAMERS).map(roamer).collect()),
            is_stopping: AtomicBool::new(false),
            settings,
            run,
        });
        let (mut tickers, mut watcher) = (JoinSet::new(), JoinSet::new());
        let watched = Arc::clone(&shared);
        watcher.spawn(async move { watched.compass.watch(&watched.client).await });
        for home in 0..shared.settings.regions.len() {
            tickers.spawn(Arc::clone(&shared).tick(home));
        }
        Self { shared, tickers, _watcher: watcher }
    }

    /// When the history's times begin.
    pub fn origin(&self) -> Instant {
        self.shared.origin
    }

    /// Stops asking, waits for what was asked, and gives the history.
    pub async fn stop(mut self) -> Vec<Operation> {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        while self.tickers.join_next().await.is_some() {}
        let mut history = std::mem::take(&mut *self.shared.history.lock().unwrap_or_else(PoisonError::into_inner));
        history.sort_by_key(|operation| operation.invoked_us);
        history
    }
}

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn door(&self, index: usize) -> &Door {
        self.compass.door(index)
    }

    async fn tick(self: Arc<Self>, home: usize) {
        let rate = f64::from(self.settings.rate.max(1)) / self.settings.regions.len().max(1) as f64;
        let mut interval = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        let mut running = JoinSet::new();
        while !self.is_stopping.load(Ordering::Relaxed) {
            interval.tick().await;
            while running.try_join_next().is_some() {}
            if running.len() >= IN_FLIGHT_MAX {
                self.shed(home);
                continue;
            }
            let shared = Arc::clone(&self);
            running.spawn(async move { shared.one(home).await });
        }
        while running.join_next().await.is_some() {}
    }

    fn keep(&self, operation: Operation) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    /// Too many operations wait: this one is not even tried.
    fn shed(&self, home: usize) {
        let now_us = self.now_us();
        let act = self.create(home, self.number.fetch_add(1, Ordering::Relaxed));
        let error = Some(format!("{IN_FLIGHT_MAX} operations are in flight"));
        self.keep(Operation {
            act,
            home,
            served: None,
            invoked_us: now_us,
            completed_us: now_us,
            outcome: Outcome::Failed,
            request: None,
            is_replayed: false,
            error,
        });
    }

    fn create(&self, home: usize, number: u64) -> Act {
        Act::Create { key: format!("u{}-{}-{number:07}", self.run, self.settings.regions[home]) }
    }

    async fn one(&self, home: usize) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        // Run and number make values unique over several loads on the same records.
        let value = self.run * 1_000_000_000 + number;
        let draw = mix(number ^ (self.run << 48));
        let region = &self.settings.regions[home];
        let register = register(self.run, region, (draw >> 16) % REGISTERS);
        let act = match draw % 100 {
            0..40 => self.create(home, number),
            40..60 => Act::RegisterWrite { key: register, value },
            60..82 => Act::RegisterRead { key: register, value: None },
            82..90 => Act::Add { key: counter(self.run, (draw >> 16) % COUNTERS) },
            90..95 => Act::HotWrite { key: hot(self.run, (draw >> 16) % HOT), value },
            _ => return self.roam(home, number).await,
        };
        let (operation, _) = self.carry_out(Errand { act, home, seen: None, number, may_leave: true }).await;
        self.keep(operation);
    }

    /// One step of a session that moves: it writes where it is, and reads in the next region.
    async fn roam(&self, home: usize, number: u64) {
        let roamer = self.roamers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(mut roamer) = roamer else {
            let errand = Errand { act: self.create(home, number), home, seen: None, number, may_leave: true };
            let (operation, _) = self.carry_out(errand).await;
            return self.keep(operation);
        };
        roamer.last += 1;
        let act = Act::RoamWrite { key: roamer.key.clone(), value: roamer.last };
        let errand = Errand { act, home: roamer.region, seen: roamer.seen.clone(), number, may_leave: false };
        let (written, seen) = self.carry_out(errand).await;
        self.keep(written);
        roamer.seen = seen.or(roamer.seen);
        roamer.region = (roamer.region + 1) % self.settings.regions.len();
        if roamer.seen.is_some() {
            let act = Act::RoamRead { key: roamer.key.clone(), value: None };
            let errand = Errand { act, home: roamer.region, seen: roamer.seen.clone(), number, may_leave: false };
            let (read, seen) = self.carry_out(errand).await;
            self.keep(read);
            roamer.seen = seen.or(roamer.seen);
        }
        self.roamers.lock().unwrap_or_else(PoisonError::into_inner).push_back(roamer);
    }
}

/// Spreads a number's bits (the finalizer of splitmix64).
pub(crate) const fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
