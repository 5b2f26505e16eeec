//! What was measured, as JSON for programs and as a table for people.

mod tables;

use crate::detection::Detection;
use crate::holdfast;
use crate::idle::Idle;
use crate::load::{self, Operation, Plan, Reading};
use crate::remote::Remote;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The table in the README stands between these two lines.
const BEGIN: &str = "<!-- results: written by `./dev bench --write-readme` -->";
const END: &str = "<!-- end of results -->";

/// Everything that was measured in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// When, UTC.
    pub taken: String,
    /// With which command line.
    pub command: String,
    /// How long and how often the load ran.
    pub plan: Plan,
    /// Whether every core was kept awake.
    pub spinners: bool,
    /// Tenants that the load was spread over.
    pub tenants: usize,
    /// Raft groups that hold them.
    pub groups: usize,
    /// Whether the nodes watched their own audit log with the rule pack.
    pub rules: bool,
    /// Writes and reads.
    pub load: Vec<Row>,
    /// Between regions.
    pub remote: Vec<Remote>,
    /// The detector.
    pub detection: Option<Detection>,
    /// Nodes without clients.
    pub idle: Option<Idle>,
}

/// A machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores.
    pub cores: usize,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// The kernel's release.
    pub kernel: String,
    /// Processes that ran or waited in the minute before the run began.
    pub load_before: f64,
}

/// One operation at one number of clients.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub operation: Operation,
    /// By how many.
    pub clients: usize,
    /// Medians, ours first.
    pub products: Vec<Compared>,
    /// Every reading behind the medians.
    pub readings: Vec<(&'static str, Reading)>,
}

/// What a product did, and how many times as much Holdfast did.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The product.
    pub product: &'static str,
    /// Medians.
    pub reading: Reading,
    /// Operations a second, Holdfast's over this product's.
    pub ratio: Option<f64>,
    /// Operations per processor second, Holdfast's over this product's.
    pub ratio_per_cpu: Option<f64>,
}

impl Row {
    /// A row with its medians and ratios.
    pub fn new(operation: Operation, clients: usize, readings: Vec<(&'static str, Reading)>) -> Self {
        let mut names: Vec<&'static str> = Vec::new();
        for (name, _) in &readings {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let middle = |wanted: &'static str| {
            let of_one: Vec<Reading> =
                readings.iter().filter(|(name, _)| *name == wanted).map(|(_, one)| *one).collect();
            load::median(&of_one)
        };
        let ours = names.contains(&holdfast::NAME).then(|| middle(holdfast::NAME));
        let products = names.into_iter().map(|product| {
            let reading = middle(product);
            let ours = ours.filter(|_| product != holdfast::NAME);
            Compared {
                product,
                reading,
                ratio: ours.map(|ours| ours.per_second / reading.per_second),
                ratio_per_cpu: ours.map(|ours| ours.per_cpu_second / reading.per_cpu_second),
            }
        });
        Self { operation, clients, products: products.collect(), readings }
    }
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| -> Option<String> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kibibytes = after(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kibibytes: f64 = kibibytes.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
        let load = read("/proc/loadavg");
        Self {
            processor: after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_gib: kibibytes / 1024.0 / 1024.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl Report {
    /// The tables for people.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_to(&mut text).expect("a string takes all that is written to it");
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        let machine = &self.machine;
        writeln!(
            out,
            "Measured {} on {} cores ({}), {:.0} GiB of memory, Linux {}; load average before the run {:.1}.",
            self.taken, machine.cores, machine.processor, machine.memory_gib, machine.kernel, machine.load_before
        )?;
        writeln!(out, "Command: `{}`.", self.command)?;
        for operation in [Operation::Write, Operation::Read] {
            self.write_load(out, operation)?;
        }
        self.write_remote(out)?;
        if let Some(detection) = &self.detection {
            tables::write(out, detection)?;
        }
        if let Some(idle) = &self.idle {
            writeln!(out, "\n### Idle nodes\n")?;
            writeln!(
                out,
                "| nodes | memory mean / largest | share of a core mean / busiest | target |\n|--:|--:|--:|--:|"
            )?;
            let (memory, share) =
                ((idle.resident_mb_mean, idle.resident_mb_max), (idle.core_percent_mean, idle.core_percent_max));
            writeln!(
                out,
                "| {} | {:.0} / {:.0} MB | {:.1} / {:.1} % | 150 MB, 2 % |",
                idle.nodes, memory.0, memory.1, share.0, share.1
            )?;
        }
        Ok(())
    }

    fn write_load(&self, out: &mut String, operation: Operation) -> std::fmt::Result {
        let rows: Vec<&Row> = self.load.iter().filter(|row| row.operation == operation).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let title = match operation {
            Operation::Write => "Durable writes (100-byte values, new keys)",
            Operation::Read => "Linearizable reads (100-byte values)",
        };
        let plan = &self.plan;
        writeln!(out, "\n### {title}\n")?;
        let connections = if plan.sharing == 1 {
            "a connection for each client".into()
        } else {
            format!("{} clients to a connection", plan.sharing)
        };
        let (spinners, rules) = (if self.spinners { "on" } else { "off" }, if self.rules { "on" } else { "off" });
        writeln!(
            out,
            "Medians of {} rounds of {} s after {} s of warm-up, products in turn; {connections} for both; \
             SCHED_IDLE spinners {spinners}; Holdfast with {} tenants in {} Raft groups, its detection {rules}.\n",
            plan.rounds, plan.seconds, plan.warm_up_s, self.tenants, self.groups
        )?;
        writeln!(
            out,
            "| clients | product | per second | Holdfast ÷ this | p50 ms | p99 ms | per server CPU-second | Holdfast ÷ this | server cores | client cores | per sync | failed |"
        )?;
        writeln!(out, "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for row in rows {
            let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("**{ratio:.2}**"));
            for Compared { product, reading, ratio: wall, ratio_per_cpu } in &row.products {
                let (wall, cpu) = (ratio(*wall), ratio(*ratio_per_cpu));
                writeln!(
                    out,
                    "| {} | {product} | {:.0} | {wall} | {:.2} | {:.2} | {:.0} | {cpu} | {:.2} | {:.2} | {} | {} |",
                    row.clients,
                    reading.per_second,
                    reading.p50_ms,
                    reading.p99_ms,
                    reading.per_cpu_second,
                    reading.server_cores,
                    reading.client_cores,
                    reading.per_sync.map_or("–".into(), |figure| format!("{figure:.1}")),
                    reading.failures
                )?;
            }
        }
        Ok(())
    }

    fn write_remote(&self, out: &mut String) -> std::fmt::Result {
        if self.remote.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n### Between two regions\n")?;
        writeln!(
            out,
            "| round trip ms | commit to remote-durable p50 ms | target | mean ms | seen by a client there p50 ms | `remote:1` p50 ms | p99 ms | `remote:1` writes/s, 8 clients |"
        )?;
        writeln!(out, "|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for one in &self.remote {
            writeln!(
                out,
                "| {} | {:.1} | < {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} |",
                one.round_trip_ms,
                one.durable_p50_ms,
                one.target_p50_ms,
                one.durable_mean_ms,
                one.seen_p50_ms,
                one.remote_1_p50_ms,
                one.remote_1_p99_ms,
                one.remote_1_per_second
            )?;
        }
        Ok(())
    }
}

/// Replaces the table in the README by this one.
pub fn write_readme(tables: &str) -> Result<PathBuf> {
    let path = PathBuf::from("benches/README.md");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    std::fs::write(
        &path,
        replaced(&text, tables).with_context(|| format!("{}: no place for results", path.display()))?,
    )?;
    Ok(path)
}

fn replaced(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", tables.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("one\n{BEGIN}\nold\n{END}\ntwo\n");
        assert_eq!(replaced(&text, "new\n").unwrap(), format!("one\n{BEGIN}\nnew\n{END}\ntwo\n"));
        assert_eq!(replaced("no marks", "new"), None);
    }
}
