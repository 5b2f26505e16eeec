//! Clients in every region, open loop, on few hot keys: what is asked does not wait for what was answered.

use crate::client::{Asked, Office, outcome_of};
use crate::history::{History, Kind, Op, Outcome};
use crate::plot::{self, Signal};
use crate::random::Random;
use crate::setup::{METER_KEYS, TENANTS};
use model::Stamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Calls that are never deleted, and calls that are.
pub const CALL_KEYS: [&str; 5] = ["c0", "c1", "c2", "d0", "d1"];
/// Of a hundred operations, those that begin a plot where doors are watched; each is several events.
const PLOTS: u64 = 20;
/// Of a hundred events, those that are told again although they were taken.
const TOLD_AGAIN: u64 = 20;
/// Attempts of one write under one idempotency key.
const ATTEMPTS: usize = 3;
/// Operations on their way in one region; an open loop must end somewhere.
const IN_FLIGHT_MAX: usize = 512;

/// The clients of a run.
pub struct Workload {
    office: Arc<Office>,
    history: History,
    next: AtomicU64,
    /// Mostly events, at ever new doors, so that many alerts follow.
    is_watched: bool,
}

impl Workload {
    /// Clients that write into `history`.
    pub fn new(office: Arc<Office>, history: History, is_watched: bool) -> Arc<Self> {
        Arc::new(Self { office, history, next: AtomicU64::new(1), is_watched })
    }

    /// Asks in one region until told to stop, then waits for what is on its way.
    pub async fn run(self: Arc<Self>, region: usize, mut random: Random, mut stop: watch::Receiver<bool>) {
        let pace_ms = random.between(15, 60);
        let mut on_the_way = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(random.millis(1, 2 * pace_ms)) => {}
            }
            while on_the_way.try_join_next().is_some() {}
            if on_the_way.len() < IN_FLIGHT_MAX {
                let (one, own) = (Arc::clone(&self), Random::new(random.draw(), region as u64));
                on_the_way.spawn(async move { one.some(region, own).await });
            }
        }
        while on_the_way.join_next().await.is_some() {}
    }

    fn op(&self, region: usize, tenant: usize, kind: Kind, key: &str) -> Op {
        Op {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            region,
            tenant,
            kind,
            key: key.to_owned(),
            invoked: self.office.trace.now_us(),
            returned: u64::MAX,
            outcome: Outcome::Unknown,
            request: None,
            seen: None,
        }
    }

    /// Something at random.
    async fn some(&self, region: usize, mut random: Random) {
        let tenant = usize::from(random.percent(35));
        let is_allowed = TENANTS[tenant].regions.contains(&region);
        let call = random.pick(&CALL_KEYS).copied().unwrap_or("c0");
        let meter = random.pick(&METER_KEYS).copied().unwrap_or("m0");
        let by = random.between(1, 9) as i64;
        let dice = random.below(100);
        if self.is_watched && dice < PLOTS {
            return self.plot(region, random).await;
        }
        if !is_allowed && dice < 80 {
            // Asking where the data may not be is refused, and must stay so.
            let op = self.op(region, tenant, Kind::Read, call);
            self.ask(op, None, &mut random).await;
            return;
        }
        let (kind, key) = match dice {
            0..=17 => (Kind::Put, call),
            18..=29 => (Kind::Patch, call),
            30..=33 if call.starts_with('d') => (Kind::Delete, call),
            34..=47 => (Kind::Increment(by), meter),
            48..=55 => (Kind::Transact(by), call),
            56..=75 => (Kind::Read, call),
            76..=79 => (Kind::LocalRead, call),
            80..=83 => (Kind::Login, ""),
            84 => (Kind::WrongLogin, ""),
            85 => (Kind::Probe, call),
            86..=91 => {
                let door = ["door-a", "door-b"][usize::from(random.percent(50))];
                (Kind::Ingest(self.forced(&mut random)), door)
            }
            92..=95 => return self.swap(region, tenant, call, random).await,
            _ => return self.follow(region, tenant, call, random).await,
        };
        let op = self.op(region, tenant, kind, key);
        self.ask(op, None, &mut random).await;
    }

    fn now_ms(&self) -> u64 {
        self.office.trace.now_us() / 1_000
    }

    fn forced(&self, random: &mut Random) -> Signal {
        let (at_ms, is_keyed) = (self.now_ms(), random.percent(50));
        Signal { kind: plot::FORCED, host: 0, at_ms, value: 0, uid: None, copy: 0, is_keyed }
    }

    /// Tells what happens at a door of its own.
    async fn plot(&self, region: usize, mut random: Random) {
        let door = format!("door-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let began = tokio::time::Instant::now();
        for (told_ms, signal) in plot::draw(&mut random, &door, self.now_ms()) {
            tokio::time::sleep_until(began + Duration::from_millis(told_ms)).await;
            self.ask(self.op(region, 0, Kind::Ingest(signal), &door), None, &mut random).await;
        }
    }

    /// Reads, then writes if nothing has changed.
    async fn swap(&self, region: usize, tenant: usize, key: &str, mut random: Random) {
        let read = self.ask(self.op(region, tenant, Kind::Read, key), None, &mut random).await;
        let Asked::Ok(done) = read else { return };
        if let Some(version) = done.seen.and_then(|seen| seen.version) {
            self.ask(self.op(region, tenant, Kind::Swap(version), key), None, &mut random).await;
        }
    }

    /// Writes here, then reads in another region what it has just written.
    async fn follow(&self, region: usize, tenant: usize, key: &str, mut random: Random) {
        let written = self.ask(self.op(region, tenant, Kind::Put, key), None, &mut random).await;
        let Asked::Ok(done) = written else { return };
        let others: Vec<usize> = TENANTS[tenant].regions.iter().copied().filter(|other| *other != region).collect();
        let (Some(other), Some(version)) = (random.pick(&others), done.version) else { return };
        tokio::time::sleep(random.millis(0, 300)).await;
        let version: Stamp = version;
        self.ask(self.op(*other, tenant, Kind::SessionRead(version), key), done.token, &mut random).await;
    }

    /// Asks, retries a write whose outcome is unknown, and writes down what is known in the end.
    async fn ask(&self, mut op: Op, token: Option<String>, random: &mut Random) -> Asked {
        let attempts = if op.is_repeatable() { ATTEMPTS } else { 1 };
        let mut last = Asked::Unknown;
        let mut is_certain = true;
        for attempt in 0..attempts {
            if attempt > 0 {
                tokio::time::sleep(random.millis(20, 600)).await;
            }
            last = self.office.ask(&op, token.clone(), random).await;
            match &last {
                Asked::Unknown => is_certain = false,
                _ => break,
            }
        }
        op.outcome = match outcome_of(&last) {
            Outcome::Failed if !is_certain => Outcome::Unknown,
            other => other,
        };
        if let Asked::Ok(done) = &last {
            op.request = Some((done.request, done.replayed));
            op.seen = done.seen.clone();
        }
        if matches!(op.kind, Kind::Ingest(_)) && op.outcome != Outcome::Failed && random.percent(TOLD_AGAIN) {
            tokio::time::sleep(random.millis(0, 20_000)).await;
            // Whoever was told may have forgotten, or never heard: it changes nothing that was certain.
            if matches!((self.office.ask(&op, None, random).await, op.outcome), (Asked::Ok(_), Outcome::Unknown)) {
                op.outcome = Outcome::Ok;
            }
        }
        op.returned = if op.outcome == Outcome::Unknown { u64::MAX } else { self.office.trace.now_us() };
        self.history.lock().push(op);
        last
    }

    /// Writes in every region where that is allowed until it is done: the cluster serves again.
    pub async fn prove_service(&self, mut random: Random, within: Duration) -> Result<(), String> {
        let until = tokio::time::Instant::now() + within;
        for (tenant, plan) in TENANTS.iter().enumerate() {
            for region in plan.regions {
                loop {
                    let op = self.op(*region, tenant, Kind::Put, CALL_KEYS[0]);
                    let asked = self.ask(op, None, &mut random).await;
                    if matches!(asked, Asked::Ok(_)) {
                        break;
                    }
                    if tokio::time::Instant::now() >= until {
                        return Err(format!("{} cannot write in region {region}: {asked:?}", plan.name));
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Ok(())
    }
}
