//! From a commit in one region to its commit in another, over a link with a known round trip.
//!
//! Two regions of one node each. Three figures: the receiving node's own measurement (from its metrics), the answer to
//! a write that waits for the other region (`Holdfast-Durability: remote:1`), and when a client there first sees it.

use crate::cluster::Lab;
use crate::holdfast::Holdfast;
use crate::load::Client as _;
use crate::process::{metrics, sample};
use crate::proxy::Proxy;
use crate::wire::Protocol;
use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use http::HeaderValue;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const METRIC: &str = "holdfast_replication_remote_durable_seconds";
const WRITERS: usize = 8;
const SEEN_WITHIN: Duration = Duration::from_secs(10);
const LATENCY_US_MAX: u64 = 60_000_000;

/// What one round trip came to.
#[derive(Clone, Debug, Serialize)]
pub struct Remote {
    /// Of the link, both directions.
    pub round_trip_ms: u64,
    /// Changes that the receiving node measured.
    pub changes: f64,
    /// Their mean, exact.
    pub durable_mean_ms: f64,
    /// Their median, interpolated within the histogram's bucket.
    pub durable_p50_ms: f64,
    /// Writes with `remote:1` in a second, by [`WRITERS`] clients.
    pub remote_1_per_second: f64,
    /// Median time of a write with `remote:1`.
    pub remote_1_p50_ms: f64,
    /// Its 99th percentile.
    pub remote_1_p99_ms: f64,
    /// From the answer of a write here until a client there has read it: an upper bound.
    pub seen_p50_ms: f64,
    /// What the median of commit to remote-durable should be below: RTT/2 + 20 ms.
    pub target_p50_ms: f64,
}

/// Measures one round trip.
pub async fn run(binary: &Path, folder: &Path, round_trip_ms: u64, seconds: f64, samples: usize) -> Result<Remote> {
    let mut lab = Lab::init(binary, folder, "eu,us", 1, None)?;
    let _proxies = delay(&lab, Duration::from_millis(round_trip_ms) / 2).await?;
    lab.start().await?;
    let store = Holdfast::over(lab, 1).await?;
    let mut here = store.client(0, 0, Protocol::Http1).await?;
    let mut there = store.client(1, 0, Protocol::Http1).await?;
    there.level = "?level=local";
    // The link and the tenant must be known on both sides before anything is timed.
    settle(&mut here, &mut there).await?;
    let peer = store.lab().nodes()[1].metrics.to_string();
    let before = metrics(&peer).await?;
    let latency_us = write_remote(&store, seconds).await?;
    let after = metrics(&peer).await?;
    let seen_us = see(&mut here, &mut there, samples).await?;
    let change = |suffix: &str| {
        sample(&after, &format!("{METRIC}{suffix}"), "") - sample(&before, &format!("{METRIC}{suffix}"), "")
    };
    let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Remote {
        round_trip_ms,
        changes: change("_count"),
        durable_mean_ms: 1_000.0 * change("_sum") / change("_count").max(1.0),
        durable_p50_ms: 1_000.0 * middle(&buckets(&before), &buckets(&after)),
        remote_1_per_second: latency_us.len() as f64 / seconds,
        remote_1_p50_ms: ms(&latency_us, 0.5),
        remote_1_p99_ms: ms(&latency_us, 0.99),
        seen_p50_ms: ms(&seen_us, 0.5),
        target_p50_ms: round_trip_ms as f64 / 2.0 + 20.0,
    })
}

/// Puts each node behind a proxy, as far as nodes of other regions are concerned. Nothing to do without a delay.
async fn delay(lab: &Lab, one_way: Duration) -> Result<Vec<Proxy>> {
    let mut proxies = Vec::new();
    if one_way.is_zero() {
        return Ok(proxies);
    }
    for (region, node) in lab.description.nodes() {
        let mut seen = lab.description.clone();
        for other in seen.regions.iter_mut().filter(|other| other.id != region.id) {
            for peer in &mut other.nodes {
                let proxy = Proxy::start(peer.link, one_way).await?;
                peer.link = proxy.address;
                proxies.push(proxy);
            }
        }
        lab.describe_for(&node.name, &seen)?;
    }
    Ok(proxies)
}

type Client = crate::holdfast::HoldfastClient;

async fn settle(here: &mut Client, there: &mut Client) -> Result<()> {
    here.write("settle", "settled").await?;
    let deadline = Instant::now() + SEEN_WITHIN * 3;
    while !there.sees("settle").await.unwrap_or(false) {
        if Instant::now() > deadline {
            bail!("nothing arrives in the other region");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn write_remote(store: &Holdfast, seconds: f64) -> Result<Histogram<u64>> {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let mut client = store.client(0, 0, Protocol::Http1).await?;
        client.durability = Some(HeaderValue::from_static("remote:1"));
        writers.spawn(async move {
            let mut latencies = Vec::new();
            for count in 0.. {
                let sent = Instant::now();
                if sent >= end {
                    break;
                }
                client.write(&format!("remote-{number}-{count}"), "a value that goes far").await?;
                latencies.push(sent.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all: Histogram<u64> = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?;
    while let Some(done) = writers.join_next().await {
        for latency in done?? {
            all.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }
    Ok(all)
}

/// Writes here and asks there, one record after the other, until it is seen.
async fn see(here: &mut Client, there: &mut Client, samples: usize) -> Result<Histogram<u64>> {
    let mut seen_us: Histogram<u64> = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?;
    for count in 0..samples {
        let key = format!("seen-{count}");
        here.write(&key, "a value that is looked for").await?;
        let written = Instant::now();
        while !there.sees(&key).await? {
            if written.elapsed() > SEEN_WITHIN {
                bail!("{key} was not seen within {SEEN_WITHIN:?}");
            }
        }
        seen_us.saturating_record(u64::try_from(written.elapsed().as_micros()).unwrap_or(u64::MAX).max(1));
    }
    Ok(seen_us)
}

/// The cumulative counts of a histogram by upper bound, in order.
fn buckets(text: &str) -> Vec<(f64, f64)> {
    let name = format!("{METRIC}_bucket");
    let mut bounds: Vec<(f64, f64)> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with(&name)) {
        let bound = line.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"'));
        let Some(bound) = bound.and_then(|(bound, _)| bound.parse::<f64>().ok()) else { continue };
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok()).unwrap_or(0.0);
        match bounds.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, sum)) => *sum += count,
            None => bounds.push((bound, count)),
        }
    }
    bounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    bounds
}

/// The median of what was counted between two scrapes, by linear interpolation as Prometheus does it.
fn middle(before: &[(f64, f64)], after: &[(f64, f64)]) -> f64 {
    let earlier = |bound: f64| before.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count);
    let counts: Vec<(f64, f64)> = after.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
    let half = counts.last().map_or(0.0, |(_, count)| *count) / 2.0;
    let (mut below, mut from) = (0.0, 0.0);
    for (bound, count) in counts {
        if count >= half && count > below {
            return if bound.is_finite() { from + (bound - from) * (half - below) / (count - below) } else { from };
        }
        (below, from) = (count, bound);
    }
    0.0
}

/// Fails early where the metric is not what this bench thinks it is.
pub fn check(remote: &Remote) -> Result<()> {
    (remote.changes > 0.0).then_some(()).with_context(|| format!("{METRIC}: nothing was counted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_lies_within_its_bucket() {
        let text = |a, b, c| {
            format!(
                "{METRIC}_bucket{{from=\"eu\",le=\"0.05\"}} {a}\n{METRIC}_bucket{{from=\"eu\",le=\"0.1\"}} {b}\n{METRIC}_bucket{{from=\"eu\",le=\"+Inf\"}} {c}\n"
            )
        };
        let (before, after) = (buckets(&text(5, 5, 5)), buckets(&text(5, 15, 15)));
        assert!((middle(&before, &after) - 0.075).abs() < 1e-9);
        assert_eq!(middle(&after, &after), 0.0);
    }
}
