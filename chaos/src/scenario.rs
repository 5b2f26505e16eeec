//! Scenarios: what is broken, how long, under which load, and which promise it tests. Read from `scenarios/*.toml`.

use crate::fault::Fault;
use anyhow::{Context as _, Result, bail};
use audit::bia::Disruption;
use serde::{Deserialize, Serialize};

/// The scenarios that come with the program.
const SHIPPED: [&str; 7] = [
    include_str!("../scenarios/leader-kill.toml"),
    include_str!("../scenarios/node-kill.toml"),
    include_str!("../scenarios/region-kill.toml"),
    include_str!("../scenarios/region-cut.toml"),
    include_str!("../scenarios/region-deaf.toml"),
    include_str!("../scenarios/pause.toml"),
    include_str!("../scenarios/disk-lost.toml"),
];

/// Most operations a second that a drill may ask for.
const RATE_MAX: u32 = 10_000;

/// A drill, as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: String,
    /// What it does, in a line.
    pub title: String,
    /// What is expected.
    pub hypothesis: String,
    /// What may be affected at most.
    pub blast_radius: String,
    /// The disruption whose promise it tests.
    pub disruption: Disruption,
    /// The asset whose promise it tests.
    pub asset: String,
    /// What is broken.
    pub fault: Fault,
    /// How long everything takes.
    pub phases: Phases,
    /// The same for continuous integration.
    pub short: Phases,
}

/// Seconds of each phase, and the load.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    /// Operations a second, all regions together.
    pub rate: u32,
    /// Before the fault.
    pub baseline_s: u32,
    /// From the fault until it is healed.
    pub fault_s: u32,
    /// From then to the end of the load.
    pub settle_s: u32,
    /// The service must be clean for so long before the end.
    pub clean_s: u32,
}

impl Scenario {
    /// Reads and checks a scenario.
    pub fn parse(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text).context("the scenario cannot be read")?;
        for phases in [scenario.phases, scenario.short] {
            if phases.baseline_s == 0 || phases.fault_s == 0 || !(1..=RATE_MAX).contains(&phases.rate) {
                bail!("{}: a drill needs a baseline, a fault and a rate of 1 to {RATE_MAX}", scenario.name);
            }
            if phases.clean_s > phases.settle_s {
                bail!("{}: clean_s is longer than settle_s", scenario.name);
            }
        }
        Ok(scenario)
    }
}

/// The scenarios that come with the program, in order.
pub fn all() -> Result<Vec<Scenario>> {
    SHIPPED.iter().map(|text| Scenario::parse(text)).collect()
}

/// The scenario of a name, or the one in a file.
pub fn find(name: &str) -> Result<Scenario> {
    if name.ends_with(".toml") {
        let text = std::fs::read_to_string(name).with_context(|| format!("{name}: cannot be read"))?;
        return Scenario::parse(&text).with_context(|| name.to_owned());
    }
    let all = all()?;
    let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
    let missing = format!("no scenario is named '{name}'; there are {}", names.join(", "));
    all.into_iter().find(|scenario| scenario.name == name).context(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_scenario_is_read_and_short_enough_for_integration() {
        let all = all().unwrap();
        for scenario in &all {
            let Phases { baseline_s, fault_s, settle_s, .. } = scenario.short;
            assert!(baseline_s + fault_s + settle_s <= 25, "{}", scenario.name);
            assert_eq!(find(&scenario.name).unwrap().name, scenario.name);
        }
        assert_eq!(all.len(), SHIPPED.len());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        let text = SHIPPED[0];
        assert!(Scenario::parse(&text.replace("fault_s", "fault_h")).is_err());
        assert!(find("no-such").unwrap_err().to_string().contains("leader-kill"));
        let never = toml::to_string(&Scenario {
            short: Phases { rate: 0, ..find("pause").unwrap().short },
            ..find("pause").unwrap()
        });
        assert!(Scenario::parse(&never.unwrap()).is_err());
    }
}
