//! What a node costs that has nothing to do.

use crate::cluster::Lab;
use crate::process::{cpu_seconds, resident_bytes};
use anyhow::Result;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// A new cluster's elections and first replication are over by then.
const SETTLE: Duration = Duration::from_secs(10);

/// Three regions of three nodes without clients.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// How many nodes.
    pub nodes: usize,
    /// How long they were watched.
    pub seconds: f64,
    /// Memory of a node, mean.
    pub resident_mb_mean: f64,
    /// Memory of the largest.
    pub resident_mb_max: f64,
    /// Share of a core that a node uses, mean.
    pub core_percent_mean: f64,
    /// Share of a core of the busiest.
    pub core_percent_max: f64,
}

/// Starts a cluster, lets it settle, and watches it.
pub async fn run(binary: &Path, folder: &Path, rules: Option<&Path>, seconds: f64) -> Result<Idle> {
    let mut lab = Lab::init(binary, folder, "eu,us,ap", 3, rules)?;
    lab.start().await?;
    tokio::time::sleep(SETTLE).await;
    let used = |lab: &Lab| lab.processes().iter().map(|id| cpu_seconds(&id.to_string())).collect::<Result<Vec<f64>>>();
    let before = used(&lab)?;
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let after = used(&lab)?;
    let memory: Vec<f64> =
        lab.processes().iter().map(|id| Ok(resident_bytes(*id)? as f64 / 1e6)).collect::<Result<_>>()?;
    let shares: Vec<f64> =
        after.iter().zip(&before).map(|(after, before)| 100.0 * (after - before) / seconds).collect();
    let mean = |figures: &[f64]| figures.iter().sum::<f64>() / figures.len().max(1) as f64;
    let largest = |figures: &[f64]| figures.iter().copied().fold(0.0, f64::max);
    Ok(Idle {
        nodes: memory.len(),
        seconds,
        resident_mb_mean: mean(&memory),
        resident_mb_max: largest(&memory),
        core_percent_mean: mean(&shares),
        core_percent_max: largest(&shares),
    })
}
