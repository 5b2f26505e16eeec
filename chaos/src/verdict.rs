//! Measured recovery beside what was promised.

use crate::measure::Loss;
use anyhow::{Context as _, Result};
use audit::bia::{Bia, Disruption, Target};
use serde::{Deserialize, Serialize};

/// What a measurement says about a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Kept.
    Met,
    /// Broken.
    Breached,
    /// The run ended before the service was clean for long enough.
    Unproven,
    /// The fault did not bite: the run says nothing.
    Void,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Breached => "breached",
            Self::Unproven => "unproven",
            Self::Void => "void",
        })
    }
}

/// A promise of the business impact analysis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// The asset.
    pub asset: String,
    /// Its class.
    pub class: u8,
    /// What happens.
    pub disruption: &'static str,
    /// How soon, and with how much lost at most.
    pub target: Target,
}

/// The promise for an asset and a disruption.
pub fn promise(bia: &Bia, asset: &str, disruption: Disruption) -> Result<Promise> {
    let found = bia.asset(asset).with_context(|| format!("cluster/bia.toml has no asset '{asset}'"))?;
    Ok(Promise {
        asset: asset.to_owned(),
        class: found.class.number(),
        disruption: disruption.as_str(),
        target: bia.asset_target(found, disruption),
    })
}

/// Judges recovery time.
pub fn recovery_time(target: Target, rto_slo_ms: Option<u64>) -> Verdict {
    match rto_slo_ms {
        None => Verdict::Unproven,
        Some(rto_ms) if rto_ms <= target.rto_ms => Verdict::Met,
        Some(_) => Verdict::Breached,
    }
}

/// The worst of two verdicts.
pub fn worst(verdicts: [Verdict; 2]) -> Verdict {
    let order = [Verdict::Breached, Verdict::Unproven, Verdict::Void];
    order.into_iter().find(|verdict| verdicts.contains(verdict)).unwrap_or(Verdict::Met)
}

/// Judges loss: where none is promised, one lost write is too many.
pub fn recovery_point(target: Target, loss: Loss) -> Verdict {
    let is_met = if target.rpo_ms == 0 { loss.writes == 0 } else { loss.window_ms <= target.rpo_ms };
    if is_met { Verdict::Met } else { Verdict::Breached }
}

/// How sure `runs` clean runs make one that the next is clean too: the lower bound at 95 % confidence, in percent.
pub fn confidence(runs: u32) -> f64 {
    if runs == 0 { 0.0 } else { 0.05_f64.powf(1.0 / f64::from(runs)) * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target { rto_ms: 2_000, rpo_ms: 0, rpo_remote_ms: 0 };

    #[test]
    fn the_bound_counts_as_kept() {
        assert_eq!(recovery_time(TARGET, Some(2_000)), Verdict::Met);
        assert_eq!(recovery_time(TARGET, Some(2_001)), Verdict::Breached);
        assert_eq!(recovery_time(TARGET, None), Verdict::Unproven);
    }

    #[test]
    fn the_worst_verdict_counts() {
        assert_eq!(worst([Verdict::Met, Verdict::Met]), Verdict::Met);
        assert_eq!(worst([Verdict::Unproven, Verdict::Breached]), Verdict::Breached);
        assert_eq!(worst([Verdict::Met, Verdict::Unproven]), Verdict::Unproven);
    }

    #[test]
    fn one_lost_write_breaks_a_promise_of_none() {
        assert_eq!(recovery_point(TARGET, Loss { writes: 1, window_ms: 0 }), Verdict::Breached);
        let some = Target { rpo_ms: 5_000, ..TARGET };
        assert_eq!(recovery_point(some, Loss { writes: 9, window_ms: 5_000 }), Verdict::Met);
        assert_eq!(recovery_point(some, Loss { writes: 1, window_ms: 5_001 }), Verdict::Breached);
    }

    #[test]
    fn confidence_is_that_of_the_tables() {
        assert!((confidence(29) - 90.2).abs() < 0.1 && (confidence(59) - 95.0).abs() < 0.1);
        assert!((confidence(299) - 99.0).abs() < 0.1);
    }

    #[test]
    fn the_shipped_analysis_has_the_promises_of_the_drills() {
        let bia = crate::place::analysis().unwrap();
        for scenario in crate::scenario::all().unwrap() {
            promise(&bia, &scenario.asset, scenario.disruption).unwrap();
        }
    }
}
