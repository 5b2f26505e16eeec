//! Recovery as clients saw it. Pure.
//!
//! Sessions that move between regions are left out: a read that may not be answered before the region has caught up
//! is no fault.

use crate::history::{Act, Operation, Tally};
use serde::Serialize;

const SECOND_US: u64 = 1_000_000;
/// A second is bad when more than this share of its operations failed.
const ERRORS_MAX: f64 = 0.001;
/// Or when its 99th percentile is more than this many times that of the baseline.
const SLOWER_MAX: u64 = 2;
/// Faster than this is not slow: it is before a SIP caller's first retransmission.
const SLOW_FLOOR_US: u64 = 500_000;

/// How the cluster answered before the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Baseline {
    /// The median.
    pub p50_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// What was asked.
    pub tally: Tally,
}

/// How it recovered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// From the fault to the first acknowledged write that was asked after it.
    pub rto_first_ms: Option<u64>,
    /// From the fault until the service met its level again and kept it; none: it did not.
    pub rto_slo_ms: Option<u64>,
    /// The longest time without an acknowledged write.
    pub write_stop_ms: u64,
    /// Operations asked after the fault.
    pub tally: Tally,
    /// Of those, answered more slowly than the level allows.
    pub slow: u64,
    /// What counts as slow.
    pub slow_us: u64,
}

/// Whether an operation counts for availability.
pub fn counts(operation: &Operation) -> bool {
    !matches!(operation.act, Act::RoamRead { .. } | Act::RoamWrite { .. })
}

fn quantile(sorted: &[u64], share: f64) -> u64 {
    let index = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(0)
}

/// Measures what was asked before the fault.
pub fn baseline(history: &[&Operation], from_us: u64, to_us: u64) -> Baseline {
    let asked: Vec<&&Operation> = history.iter().filter(|one| (from_us..to_us).contains(&one.invoked_us)).collect();
    let mut latencies: Vec<u64> = asked.iter().filter(|one| one.is_ok()).map(|one| one.latency_us()).collect();
    latencies.sort_unstable();
    let tally = Tally::of(asked.into_iter().copied());
    Baseline { p50_us: quantile(&latencies, 0.5), p99_us: quantile(&latencies, 0.99), tally }
}

/// Measures what was asked between the fault and `until_us`; the service must be clean for the last `clean_us` of it.
pub fn recovery(history: &[&Operation], fault_us: u64, until_us: u64, clean_us: u64, baseline: &Baseline) -> Recovery {
    let slow_us = SLOW_FLOOR_US.max(baseline.p99_us * SLOWER_MAX);
    let asked: Vec<&Operation> =
        history.iter().copied().filter(|one| (fault_us..until_us).contains(&one.invoked_us)).collect();
    let first = asked.iter().filter(|one| one.is_acknowledged_write()).map(|one| one.completed_us).min();
    let is_bad = |one: &Operation| !one.is_ok() || one.latency_us() > slow_us;
    let mut end_us = None;
    for second in asked.chunk_by(|one, other| bucket(one, fault_us) == bucket(other, fault_us)) {
        if is_bad_second(second, slow_us) {
            let noticed = second.iter().filter(|one| is_bad(one)).map(|one| noticed_us(one, fault_us)).max();
            end_us = noticed.max(end_us);
        }
    }
    // Until its first write after the fault the service is not back, however little that takes.
    let rto_us = end_us.max(first).map_or(0, |end_us| end_us - fault_us);
    let is_clean = fault_us + rto_us + clean_us <= until_us;
    Recovery {
        rto_first_ms: first.map(|first| (first - fault_us) / 1_000),
        rto_slo_ms: (is_clean && first.is_some()).then_some(rto_us / 1_000),
        write_stop_ms: write_stop_us(history, fault_us, until_us) / 1_000,
        tally: Tally::of(asked.iter().copied()),
        slow: asked.iter().filter(|one| one.is_ok() && one.latency_us() > slow_us).count() as u64,
        slow_us,
    }
}

fn bucket(operation: &Operation, fault_us: u64) -> u64 {
    (operation.invoked_us - fault_us) / SECOND_US
}

/// Until when an operation says that the outage lasted: its answer, but not beyond the second it was asked in. What
/// was asked later speaks for later, and one request that was lost on the way and waited is not an outage.
fn noticed_us(operation: &Operation, fault_us: u64) -> u64 {
    let second_end_us = fault_us + (bucket(operation, fault_us) + 1) * SECOND_US;
    operation.completed_us.min(second_end_us)
}

fn is_bad_second(second: &[&Operation], slow_us: u64) -> bool {
    let errors = second.iter().filter(|one| !one.is_ok()).count();
    let mut latencies: Vec<u64> = second.iter().filter(|one| one.is_ok()).map(|one| one.latency_us()).collect();
    latencies.sort_unstable();
    errors as f64 > second.len() as f64 * ERRORS_MAX || quantile(&latencies, 0.99) > slow_us
}

/// The longest time between two acknowledged writes around and after a fault.
fn write_stop_us(history: &[&Operation], fault_us: u64, until_us: u64) -> u64 {
    let mut acknowledged: Vec<u64> =
        history.iter().filter(|one| one.is_acknowledged_write()).map(|one| one.completed_us).collect();
    acknowledged.sort_unstable();
    let before = acknowledged.partition_point(|at_us| *at_us < fault_us).saturating_sub(1);
    let after = acknowledged[before.min(acknowledged.len())..].iter().copied().take_while(|at_us| *at_us < until_us);
    let moments: Vec<u64> = after.chain([until_us]).collect();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// Acknowledged writes that are gone: how many, and how long before the fault the first of them was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// How many.
    pub writes: u64,
    /// Milliseconds of acknowledged writes.
    pub window_ms: u64,
}

/// Measures a loss.
pub fn loss(missing: &[&Operation], fault_us: u64) -> Loss {
    let first = missing.iter().map(|one| one.completed_us).min();
    let window_us = first.map_or(0, |first| fault_us.saturating_sub(first));
    // Something lost is never a loss of nothing.
    Loss { writes: missing.len() as u64, window_ms: window_us.div_ceil(1_000).max(u64::from(first.is_some())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;
    use crate::history::made::{create, operation};

    const MS: u64 = 1_000;

    /// A write every 10 ms, each taking 5 ms; those asked in the outage are answered 5 ms after its end.
    fn load(outage_ms: std::ops::Range<u64>, total_ms: u64) -> Vec<Operation> {
        let one = |at_ms: u64| {
            let end_ms = if outage_ms.contains(&at_ms) { outage_ms.end } else { at_ms };
            operation(Act::Create { key: at_ms.to_string() }, at_ms * MS, (end_ms + 5) * MS, Outcome::Ok)
        };
        (0..total_ms).step_by(10).map(one).collect()
    }
    fn measured(history: &[Operation]) -> Recovery {
        let history: Vec<&Operation> = history.iter().collect();
        let baseline = baseline(&history, 0, 5_000 * MS);
        assert_eq!(baseline.p99_us, 5 * MS);
        recovery(&history, 5_000 * MS, 15_000 * MS, 5_000 * MS, &baseline)
    }

    #[test]
    fn an_outage_is_measured_to_its_last_slow_answer() {
        let recovery = measured(&load(5_000..6_200, 15_000));
        assert_eq!(recovery.rto_first_ms, Some(1_205));
        assert_eq!(recovery.rto_slo_ms, Some(1_205));
        assert_eq!(recovery.write_stop_ms, 1_205 + 5);
        assert_eq!(recovery.tally.failed, 0);
    }

    #[test]
    fn no_outage_takes_as_long_as_a_write() {
        let recovery = measured(&load(0..0, 15_000));
        assert_eq!((recovery.rto_slo_ms, recovery.rto_first_ms), (Some(5), Some(5)));
        assert_eq!(recovery.write_stop_ms, 10);
    }

    #[test]
    fn an_outage_that_does_not_end_in_time_is_unproven() {
        assert_eq!(measured(&load(5_000..11_000, 15_000)).rto_slo_ms, None);
        assert_eq!(measured(&load(5_000..99_000, 15_000)).rto_first_ms, Some(94_005));
    }

    #[test]
    fn a_failed_operation_makes_its_second_bad() {
        let mut history = load(0..0, 15_000);
        history[700].outcome = Outcome::Failed;
        let recovery = measured(&history);
        assert_eq!(recovery.rto_slo_ms, Some(2_005));
        assert_eq!(recovery.tally.failed, 1);
    }

    #[test]
    fn a_client_that_gives_up_late_does_not_make_the_outage_longer() {
        let mut history = load(0..0, 15_000);
        history[500].outcome = Outcome::Unknown;
        history[500].completed_us += 9_000 * MS;
        assert_eq!(measured(&history).rto_slo_ms, Some(1_000));
    }

    #[test]
    fn a_loss_is_counted_in_writes_and_time() {
        let (one, other) = (create("a", 2_000_000, Outcome::Ok), create("b", 3_000_000, Outcome::Ok));
        assert_eq!(loss(&[&one, &other], 3_500_000), Loss { writes: 2, window_ms: 1_500 });
        assert_eq!(loss(&[&one], 1_000), Loss { writes: 1, window_ms: 1 });
        assert_eq!(loss(&[], 3_500_000), Loss::default());
    }
}
