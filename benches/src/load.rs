//! Closed-loop load: so many clients, each with one request at a time, for a fixed time after warming up.
//!
//! The same code drives every product. A closed loop hides the waiting of requests that were never sent while one hung
//! (coordinated omission): the percentiles are those of requests that were sent.

use crate::process::{cpu_seconds, cpu_seconds_of};
use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;
/// Records that reads choose from.
const RECORDS: usize = 1_000;
/// Clients of each store that write them; a multiple of the servers, so that every store has as many.
const LOADERS: usize = 12;
/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// A client that fails more often than this in one reading ends the reading.
const FAILURES_MAX: u64 = 100;
/// The pause after a failure, so that a refusing server is not hammered.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);

/// A connection to a product that can write and read.
pub trait Client: Send + 'static {
    /// Writes a new key durably.
    fn write(&mut self, key: &str, value: &str) -> impl Future<Output = Result<()>> + Send;
    /// Reads a key, linearizably.
    fn read(&mut self, key: &str) -> impl Future<Output = Result<()>> + Send;
}

/// A running store.
pub trait Product {
    /// Its clients.
    type Client: Client;
    /// What it is called in reports.
    fn name(&self) -> &'static str;
    /// Opens clients, so many of which share a connection, spread evenly over the servers.
    fn clients(&self, count: usize, sharing: usize) -> impl Future<Output = Result<Vec<Self::Client>>>;
    /// Separate sets of keys, such as tenants.
    fn stores(&self) -> usize {
        1
    }
    /// The set of keys of the client with this number.
    fn store_of(&self, _client: usize) -> usize {
        0
    }
    /// The servers' process ids.
    fn processes(&self) -> Vec<u32>;
    /// Syncs of the log so far, summed over the servers.
    fn syncs(&self) -> impl Future<Output = Result<f64>>;
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Durable writes of new keys.
    Write,
    /// Linearizable reads.
    Read,
}

/// How long and how often.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Before measuring.
    pub warm_up_s: f64,
    /// Measuring.
    pub seconds: f64,
    /// Times, of which the median counts.
    pub rounds: usize,
    /// Clients at once, one row each.
    pub clients: Vec<usize>,
    /// Clients that share a connection; 1: each has its own.
    pub sharing: usize,
}

/// What one measurement found, or the median of several.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Reading {
    /// Operations completed in a second.
    pub per_second: f64,
    /// Median latency.
    pub p50_ms: f64,
    /// 99th percentile of the latency.
    pub p99_ms: f64,
    /// Operations for each second of processor time that the servers used.
    pub per_cpu_second: f64,
    /// Cores the servers kept busy.
    pub server_cores: f64,
    /// Cores the clients kept busy.
    pub client_cores: f64,
    /// Operations for each sync of the log, per server.
    pub per_sync: Option<f64>,
    /// Requests that failed.
    pub failures: f64,
}

/// Writes the records that reads choose from, into each of the product's stores.
pub async fn prepare<P: Product>(product: &P) -> Result<()> {
    let mut tasks = JoinSet::new();
    let mut ranks = vec![0; product.stores()];
    for (number, mut client) in product.clients(product.stores() * LOADERS, 1).await?.into_iter().enumerate() {
        let rank = &mut ranks[product.store_of(number)];
        let records = (*rank..RECORDS).step_by(LOADERS);
        *rank += 1;
        tasks.spawn(async move {
            for record in records {
                client.write(&key_of(record), &value(record)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn key_of(record: usize) -> String {
    format!("record{record:06}")
}

/// Printable, and different for each seed.
fn value(seed: usize) -> String {
    let mut state = seed as u64 + 1;
    let letter = |state: &mut u64| {
        // Knuth's multiplier (MMIX): enough for values that do not compress to nothing.
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((*state >> 33) % 26) as u8)
    };
    (0..VALUE_BYTES).map(|_| letter(&mut state)).collect()
}

struct Tally {
    latency_us: Histogram<u64>,
    failures: u64,
    last_failure: Option<String>,
}

/// One measurement. `label` makes the keys of its writes new.
pub async fn run<P: Product>(
    product: &P,
    operation: Operation,
    clients: usize,
    plan: &Plan,
    label: &str,
) -> Result<Reading> {
    let opened = product.clients(clients, plan.sharing).await?;
    let begin = Instant::now() + Duration::from_secs_f64(plan.warm_up_s);
    let end = begin + Duration::from_secs_f64(plan.seconds);
    let mut tasks = JoinSet::new();
    for (number, client) in opened.into_iter().enumerate() {
        tasks.spawn(drive(client, operation, format!("{label}-{number}"), number, begin, end));
    }
    tokio::time::sleep_until(begin.into()).await;
    let before = (cpu_seconds_of(&product.processes())?, cpu_seconds("self")?, product.syncs().await?);
    tokio::time::sleep_until(end.into()).await;
    let after = (cpu_seconds_of(&product.processes())?, cpu_seconds("self")?, product.syncs().await?);
    let mut latency_us: Histogram<u64> = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?;
    let mut failures = 0;
    let mut last_failure = None;
    while let Some(done) = tasks.join_next().await {
        let tally = done??;
        latency_us.add(tally.latency_us)?;
        failures += tally.failures;
        last_failure = tally.last_failure.or(last_failure);
    }
    if let Some(why) = last_failure {
        eprintln!("      {} {operation:?} at {clients} clients: {failures} failed, the last: {why}", product.name());
    }
    let count = latency_us.len() as f64;
    let syncs = (after.2 - before.2) / product.processes().len() as f64;
    Ok(Reading {
        per_second: count / plan.seconds,
        p50_ms: latency_us.value_at_quantile(0.5) as f64 / 1_000.0,
        p99_ms: latency_us.value_at_quantile(0.99) as f64 / 1_000.0,
        per_cpu_second: count / (after.0 - before.0).max(0.01),
        server_cores: (after.0 - before.0) / plan.seconds,
        client_cores: (after.1 - before.1) / plan.seconds,
        per_sync: (syncs >= 1.0).then(|| count / syncs),
        failures: failures as f64,
    })
}

async fn drive<C: Client>(
    mut client: C,
    operation: Operation,
    label: String,
    number: usize,
    begin: Instant,
    end: Instant,
) -> Result<Tally> {
    let mut tally =
        Tally { latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?, failures: 0, last_failure: None };
    let mut value = value(number);
    for count in 0_usize.. {
        let sent = Instant::now();
        if sent >= end {
            break;
        }
        let done = match operation {
            Operation::Write => {
                value.replace_range(..10, &format!("{count:010}"));
                client.write(&format!("{label}-{count}"), &value).await
            }
            // Each client begins elsewhere and steps through all records (7919 is prime to their number).
            Operation::Read => client.read(&key_of((number * 31 + count * 7_919) % RECORDS)).await,
        };
        let now = Instant::now();
        if let Err(error) = done {
            tally.failures += 1;
            tally.last_failure = Some(format!("{error:#}"));
            if tally.failures > FAILURES_MAX {
                return Err(error);
            }
            tokio::time::sleep(FAILURE_PAUSE).await;
        } else if sent >= begin && now <= end {
            tally.latency_us.saturating_record(u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }
    Ok(tally)
}

/// The median of each figure on its own.
pub fn median(readings: &[Reading]) -> Reading {
    let middle = |figure: &dyn Fn(&Reading) -> f64| {
        let mut figures: Vec<f64> = readings.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        let half = figures.len() / 2;
        match figures.len() {
            0 => 0.0,
            even if even % 2 == 0 => f64::midpoint(figures[half - 1], figures[half]),
            _ => figures[half],
        }
    };
    let is_synced = readings.iter().all(|reading| reading.per_sync.is_some());
    Reading {
        per_second: middle(&|reading| reading.per_second),
        p50_ms: middle(&|reading| reading.p50_ms),
        p99_ms: middle(&|reading| reading.p99_ms),
        per_cpu_second: middle(&|reading| reading.per_cpu_second),
        server_cores: middle(&|reading| reading.server_cores),
        client_cores: middle(&|reading| reading.client_cores),
        per_sync: is_synced.then(|| middle(&|reading| reading.per_sync.unwrap_or_default())),
        failures: readings.iter().map(|reading| reading.failures).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_each_figure() {
        let reading = |per_second, p50_ms| Reading { per_second, p50_ms, per_sync: Some(1.0), ..Reading::default() };
        let median = median(&[reading(1.0, 9.0), reading(5.0, 3.0), reading(3.0, 4.0)]);
        assert_eq!((median.per_second, median.p50_ms, median.per_sync), (3.0, 4.0, Some(1.0)));
    }

    #[test]
    fn values_have_their_size_and_differ() {
        assert_eq!(value(7).len(), VALUE_BYTES);
        assert_ne!(value(7), value(8));
    }
}
