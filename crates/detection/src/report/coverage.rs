//! Which tactics and techniques of ATT&CK rules are tagged with, under the names of today.

use crate::incident::attack::Mapping;
use crate::rules::RuleSet;
use crate::sigma::{Header, LogSourceFilter};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What rules cover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CoverageReport {
    /// Rules and correlations looked at.
    pub rules: usize,
    /// Of them, with no technique.
    pub without_technique: usize,
    /// By tactic, such as `credential-access`.
    pub tactics: BTreeMap<String, Covered>,
    /// By technique, such as `T1110.003`.
    pub techniques: BTreeMap<String, Covered>,
    /// Rules by log source, as `product/category/service`.
    pub sources: BTreeMap<String, usize>,
    /// Tags under an old name, and the name of today they were counted under.
    pub renamed: BTreeMap<String, String>,
}

/// The rules that cover something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// How many rules.
    pub rules: usize,
    /// How many of them raise alerts of their own.
    pub alerting: usize,
    /// How many by level.
    pub levels: BTreeMap<&'static str, usize>,
    /// The log sources they need, of which one is enough for some of them.
    pub sources: BTreeSet<String>,
}

/// Counts what rules and correlations are tagged with.
pub fn coverage(rules: &RuleSet) -> CoverageReport {
    let mut report = CoverageReport::default();
    for (place, rule) in rules.rules().iter().enumerate() {
        let source = name_of(&rule.source);
        *report.sources.entry(source.clone()).or_default() += 1;
        count(&mut report, &rule.header, Some(source), rules.raises_alerts(place));
    }
    for correlation in rules.correlations() {
        count(&mut report, &correlation.header, None, correlation.alerts);
    }
    report
}

fn name_of(source: &LogSourceFilter) -> String {
    [&source.product, &source.category, &source.service].map(|part| part.as_deref().unwrap_or("*")).join("/")
}

fn count(report: &mut CoverageReport, header: &Header, source: Option<String>, alerts: bool) {
    report.rules += 1;
    let mapping = Mapping::of(header.reference.tags.iter().map(AsRef::as_ref));
    report.without_technique += usize::from(mapping.techniques.is_empty());
    for (old, new) in &mapping.renamed {
        report.renamed.insert(old.to_string().to_ascii_lowercase(), new.to_string());
    }
    let cover = |covered: &mut Covered| {
        covered.rules += 1;
        covered.alerting += usize::from(alerts);
        *covered.levels.entry(header.severity.name()).or_default() += 1;
        covered.sources.extend(source.clone());
    };
    for tactic in &mapping.tactics {
        cover(report.tactics.entry(tactic.name().to_owned()).or_default());
    }
    for technique in &mapping.techniques {
        cover(report.techniques.entry(technique.to_string()).or_default());
    }
}
