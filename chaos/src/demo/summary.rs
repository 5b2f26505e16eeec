//! Step 6: measured beside promised, and where everything is.

use super::Tour;
use crate::report::{date, machine};
use crate::verdict::Verdict;
use ::audit::bia::format_duration_ms;
use anyhow::{Context as _, Result};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, SystemTime};

pub(super) fn step(tour: &mut Tour, elapsed: Duration) {
    let head =
        ["outage", "class", "RTO measured", "RTO target", "", "RPO measured", "RPO target", ""].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for outage in &tour.outages {
        let target = outage.promise.target;
        rows.push(vec![
            outage.what.to_owned(),
            outage.promise.class.to_string(),
            outage.recovery.rto_slo_ms.map_or("none".into(), |rto| format!("{rto} ms")),
            format_duration_ms(target.rto_ms),
            outage.rto.to_string(),
            format!("{} ms ({} writes)", outage.loss.window_ms, outage.loss.writes),
            format_duration_ms(target.rpo_ms),
            outage.rpo.to_string(),
        ]);
    }
    for row in aligned(&rows) {
        tour.say(row);
    }
    let breached: Vec<&str> = tour
        .outages
        .iter()
        .filter(|one| one.rto != Verdict::Met || one.rpo != Verdict::Met)
        .map(|one| one.what)
        .collect();
    for what in breached {
        tour.fall_short(format!("{what}: a target of cluster/bia.toml was not met"));
    }
    let description = tour.lab.description().clone();
    for region in &description.regions {
        let apis: Vec<String> = region.nodes.iter().map(|node| format!("https://{}", node.api)).collect();
        let metrics: Vec<String> = region.nodes.iter().map(|node| format!("http://{}/metrics", node.metrics)).collect();
        tour.say(format!("{}  API      {}", region.name, apis.join("  ")));
        tour.say(format!("    metrics  {}", metrics.join("  ")));
    }
    let directory = tour.lab.directory().to_owned();
    tour.say(format!("logs {}; authority {}", directory.join("logs").display(), directory.join("ca.pem").display()));
    tour.say(format!("first administrator: {}", directory.join("bootstrap.toml").display()));
    tour.say(format!("all six steps took {:.0} s", elapsed.as_secs_f64()));
}

/// Columns of equal width.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column))).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Writes everything that was measured as JSON.
pub(super) fn write(tour: &Tour, path: &Path, elapsed: Duration) -> Result<()> {
    let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let report = json!({
        "date": date(now_s),
        "machine": machine(),
        "seconds": elapsed.as_secs_f64(),
        "steps": tour.steps,
        "outages": tour.outages,
        "shortfalls": tour.shortfalls,
        "cluster": tour.lab.description(),
        "directory": tour.lab.directory(),
    });
    let text = serde_json::to_vec_pretty(&report).context("the report has no JSON form")?;
    std::fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["a".to_owned(), "bcd".to_owned()], vec!["ef".to_owned(), "g".to_owned()]];
        assert_eq!(aligned(&rows), ["a   bcd", "ef  g"]);
    }
}
