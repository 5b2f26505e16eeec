//! The business impact analysis: which assets there are, what their loss costs, and how soon they must be back.
//!
//! Read from `cluster/bia.toml` by `holdfast check-config`, the demonstration and the chaos drills alike: measured
//! recovery is judged against [`Bia::target`]. A [`Bia`] can only be had from [`Bia::parse`], so it breaks no rule.
//! Terms are those of ISO 22301 and ISO/TS 22317.

mod duration;
mod rules;

pub use duration::{NotADuration, format_duration_ms, parse_duration_ms};
pub use rules::{BiaError, Rule};

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Assets in one analysis.
pub const ASSETS_MAX: usize = 1_000;
/// Bytes of an analysis that is read.
pub const TEXT_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// How urgent an asset is: 0 real time, 1 mission critical, 2 business critical, 3 supporting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Class(u8);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disruption {
    /// One process is killed; its disk stays.
    ProcessKill,
    /// A node and its disk are gone.
    NodeAndDisk,
    /// A node is slow, paused, or heard in one direction only.
    Gray,
    /// A region runs and cannot be reached by the others.
    RegionIsolated,
    /// A region and all its disks are gone.
    RegionDestroyed,
    /// Wrong data was written and replicated.
    LogicalCorruption,
}

/// The cost of a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// 0: nobody is affected.
    None,
    /// 1: an inconvenience.
    Low,
    /// 2: a process is disturbed; money or trust is lost.
    Medium,
    /// 3: contracts or laws are broken, or persons are harmed.
    High,
    /// 4: lives or the existence of the business are in danger.
    Critical,
}

/// What each loss costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impacts {
    /// Someone reads it who may not.
    pub confidentiality: Impact,
    /// It is changed unnoticed.
    pub integrity: Impact,
    /// It is not from whom it says.
    pub authenticity: Impact,
    /// It cannot be used.
    pub availability: Impact,
}

/// How soon, and with how much lost at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Recovery time objective, in milliseconds.
    pub rto_ms: u64,
    /// Recovery point objective, in milliseconds of acknowledged writes. 0: none may be lost.
    pub rpo_ms: u64,
    /// The same for writes acknowledged with durability `remote:1` or more. Never above `rpo_ms`.
    pub rpo_remote_ms: u64,
}

/// The least service that must be kept up during a disruption (MBCO).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Minimum {
    /// Share of the normal load, 1 to 100.
    pub percent: u8,
    /// What must still work, in words.
    pub service: String,
}

/// Something the business needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asset {
    /// Unique, lower case.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// The role that answers for it.
    pub owner: String,
    /// How urgent it is.
    pub class: Class,
    /// What its loss costs.
    pub impacts: Impacts,
    /// Maximum tolerable period of disruption, in milliseconds.
    pub mtpd_ms: u64,
    /// The least service during a disruption.
    pub mbco: Minimum,
    /// The assets it needs, each at least as urgent.
    pub depends_on: Vec<String>,
    /// Targets stricter than its class's.
    targets: BTreeMap<Disruption, Target>,
}

/// A whole analysis that breaks none of its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bia {
    class_names: [String; Class::COUNT],
    targets: BTreeMap<(Class, Disruption), Target>,
    assets: Vec<Asset>,
}

impl Class {
    /// How many classes there are.
    pub const COUNT: usize = 4;
    /// Every class, the most urgent first.
    pub const ALL: [Self; Self::COUNT] = [Self(0), Self(1), Self(2), Self(3)];

    /// The class of a number from 0 to 3.
    pub fn new(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl Disruption {
    /// Every disruption, in the order of the tables.
    pub const ALL: [Self; 6] = [
        Self::ProcessKill,
        Self::NodeAndDisk,
        Self::Gray,
        Self::RegionIsolated,
        Self::RegionDestroyed,
        Self::LogicalCorruption,
    ];

    /// Its name in `bia.toml` and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProcessKill => "process_kill",
            Self::NodeAndDisk => "node_and_disk",
            Self::Gray => "gray",
            Self::RegionIsolated => "region_isolated",
            Self::RegionDestroyed => "region_destroyed",
            Self::LogicalCorruption => "logical_corruption",
        }
    }
}

impl Bia {
    /// Reads `bia.toml` and checks its rules; the error says line and reason.
    pub fn parse(text: &str) -> Result<Self, BiaError> {
        rules::parse(text)
    }

    /// What a class promises for a disruption.
    pub fn target(&self, class: Class, disruption: Disruption) -> Target {
        self.targets[&(class, disruption)]
    }

    /// What an asset promises for a disruption: its class's target unless its own is stricter.
    pub fn asset_target(&self, asset: &Asset, disruption: Disruption) -> Target {
        asset.targets.get(&disruption).copied().unwrap_or_else(|| self.target(asset.class, disruption))
    }

    /// The name of a class.
    pub fn class_name(&self, class: Class) -> &str {
        &self.class_names[usize::from(class.0)]
    }

    /// All assets, in the order of the file.
    pub fn assets(&self) -> &[Asset] {
        &self.assets
    }

    /// The asset of a name.
    pub fn asset(&self, name: &str) -> Option<&Asset> {
        self.assets.iter().find(|asset| asset.name == name)
    }
}

impl TryFrom<u8> for Class {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("a class is 0, 1, 2 or 3")
    }
}

impl From<Class> for u8 {
    fn from(class: Class) -> Self {
        class.0
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for Disruption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Impact {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrName;

        impl serde::de::Visitor<'_> for NumberOrName {
            type Value = Impact;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an impact: 0 to 4, or none, low, medium, high, critical")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Impact, E> {
                let all = [Impact::None, Impact::Low, Impact::Medium, Impact::High, Impact::Critical];
                let index = usize::try_from(number).ok().filter(|index| *index < all.len());
                index
                    .map(|index| all[index])
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Signed(number), &self))
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Impact, E> {
                match name {
                    "none" => Ok(Impact::None),
                    "low" => Ok(Impact::Low),
                    "medium" => Ok(Impact::Medium),
                    "high" => Ok(Impact::High),
                    "critical" => Ok(Impact::Critical),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(NumberOrName)
    }
}

#[cfg(test)]
mod tests;
