//! Risk: how likely it is that an incident, or an entity, is in trouble. And priority: what comes first.
//!
//! Each alert brings points by its severity and the length of its burst; they fade with time and saturate
//! per rule, so that one noisy rule never outweighs several quiet ones. What is critical counts more, and so
//! does an attack that goes on from tactic to tactic. Suppression plays no part: silence is not safety.

use super::attack::{Mapping, Tactic};
use super::breach::Clock;
use super::link::decayed;
use super::state::{AlertLine, Incident, Priority};
use crate::alert::{Entity, Severity};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most assets that are told apart.
pub const ASSETS_MAX: usize = 100_000;

/// How much depends on an entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criticality {
    /// Nothing that would be missed.
    Low,
    /// What most things are.
    #[default]
    Normal,
    /// The work of many.
    High,
    /// The business.
    Vital,
}

impl Criticality {
    /// The criticality of a name in lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [("low", Self::Low), ("normal", Self::Normal), ("high", Self::High), ("vital", Self::Vital)];
        all.into_iter().find(|(known, _)| *known == name).map(|(_, criticality)| criticality)
    }
    const fn percent(self) -> u64 {
        match self {
            Self::Low => 50,
            Self::Normal => 100,
            Self::High => 150,
            Self::Vital => 200,
        }
    }
}

/// How risk is reckoned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// After how long an alert counts half.
    pub half_life_ms: u64,
    /// How much more each further tactic makes of it, in hundredths.
    pub tactic_percent: u64,
    /// What is not [`Criticality::Normal`]; at most [`ASSETS_MAX`] are looked at.
    pub assets: BTreeMap<Entity, Criticality>,
}

impl Default for Weights {
    fn default() -> Self {
        Self { half_life_ms: 24 * 3_600_000, tactic_percent: 25, assets: BTreeMap::new() }
    }
}

/// OCSF's risk levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing yet.
    Info,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// As good as certain.
    Critical,
}

/// What the risk is and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Risk {
    /// In points.
    pub score: u64,
    /// The score in words.
    pub level: Level,
    /// What each rule brings, saturated, before the factors; in thousandths of a point.
    pub rules: BTreeMap<Arc<str>, u64>,
    /// The most critical of what is concerned.
    pub criticality: Criticality,
    /// The tactics in whose order the attack goes on; the longest such row.
    pub tactics: Vec<Tactic>,
}

/// The risk of an incident now.
pub fn of_incident(incident: &Incident, weights: &Weights, now_ms: u64) -> Risk {
    of(incident.alerts.values(), weights, now_ms)
}

/// The risk of an entity now, over all incidents that concern it, open or not, suppressed or not.
pub fn of_entity<'a>(
    incidents: impl IntoIterator<Item = &'a Incident>,
    entity: &Entity,
    weights: &Weights,
    now_ms: u64,
) -> Risk {
    let lines = incidents.into_iter().flat_map(|incident| incident.alerts.values());
    of(lines.filter(|line| line.entities.contains(entity)), weights, now_ms)
}

/// How urgent an incident is: as a person said, else by risk, and no less than high while a duty to report is open.
pub fn priority(incident: &Incident, risk: &Risk) -> Priority {
    let of_risk = match risk.level {
        Level::Info | Level::Low => Priority::Low,
        Level::Medium => Priority::Medium,
        Level::High => Priority::High,
        Level::Critical => Priority::Critical,
    };
    let must_report = incident.clocks.iter().any(Clock::is_open);
    incident.priority_set.unwrap_or(if must_report { of_risk.max(Priority::High) } else { of_risk })
}

fn of<'a>(lines: impl IntoIterator<Item = &'a AlertLine>, weights: &Weights, now_ms: u64) -> Risk {
    let mut by_rule: BTreeMap<Arc<str>, Vec<u64>> = BTreeMap::new();
    let mut criticality: Option<Criticality> = None;
    let mut lines: Vec<&AlertLine> = lines.into_iter().collect();
    lines.sort_by_key(|line| (line.first_ms, line.last_ms, line.rule.clone()));
    for line in &lines {
        let points = decayed(millipoints(line), now_ms.saturating_sub(line.last_ms), weights.half_life_ms);
        by_rule.entry(line.rule.clone()).or_default().push(points);
        for entity in &line.entities {
            criticality = criticality.max(weights.assets.get(entity).copied());
        }
    }
    let rules: BTreeMap<Arc<str>, u64> = by_rule.into_iter().map(|(rule, points)| (rule, saturated(points))).collect();
    let criticality = criticality.unwrap_or_default();
    let tactics = chain(&lines);
    let further = (tactics.len() as u64).saturating_sub(1);
    let sum: u64 = rules.values().sum();
    let score = sum * criticality.percent() * (100 + weights.tactic_percent * further) / 10_000 / 1_000;
    Risk { score, level: level(score), rules, criticality, tactics }
}

/// Points of an alert before it fades, in thousandths: by severity, up to twice that for long bursts.
fn millipoints(line: &AlertLine) -> u64 {
    let points = match line.severity {
        Severity::Informational => 1,
        Severity::Low => 10,
        Severity::Medium => 30,
        Severity::High => 70,
        Severity::Critical => 100,
    };
    points * 10 * (100 + 5 * u64::from(line.count.max(1).ilog2()).min(20))
}

/// Each further alert of a rule counts half of the one before it: never more than twice the gravest together.
fn saturated(mut points: Vec<u64>) -> u64 {
    points.sort_unstable_by(|one, other| other.cmp(one));
    points.iter().zip(0..u64::BITS).map(|(points, halves)| points >> halves).sum()
}

const fn level(score: u64) -> Level {
    match score {
        0..10 => Level::Info,
        10..30 => Level::Low,
        30..70 => Level::Medium,
        70..150 => Level::High,
        _ => Level::Critical,
    }
}

/// The longest row of tactics, each later in the order of an attack than the one before and seen no earlier.
fn chain(lines: &[&AlertLine]) -> Vec<Tactic> {
    let mut best: BTreeMap<Tactic, Vec<Tactic>> = BTreeMap::new();
    for line in lines {
        let before = best.clone();
        for tactic in Mapping::of(line.tags.iter().map(AsRef::as_ref)).tactics {
            let mut row =
                before.range(..tactic).map(|(_, row)| row).max_by_key(|row| row.len()).cloned().unwrap_or_default();
            row.push(tactic);
            if best.get(&tactic).is_none_or(|known| known.len() < row.len()) {
                best.insert(tactic, row);
            }
        }
    }
    best.into_values().max_by_key(Vec::len).unwrap_or_default()
}
