//! Which tactics and techniques of ATT&CK rules are tagged with, under the names of today.

use crate::rules::RuleSet;
use crate::sigma::{Header, LogSourceFilter};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Techniques that ATT&CK has renumbered: the number of old, and what replaced it.
const RENUMBERED: [(&str, &str); 41] = [
    ("t1002", "t1560.001"),
    ("t1015", "t1546.008"),
    ("t1022", "t1560"),
    ("t1028", "t1021.006"),
    ("t1035", "t1569.002"),
    ("t1050", "t1543.003"),
    ("t1060", "t1547.001"),
    ("t1063", "t1518.001"),
    ("t1075", "t1550.002"),
    ("t1076", "t1021.001"),
    ("t1077", "t1021.002"),
    ("t1081", "t1552.001"),
    ("t1084", "t1546.003"),
    ("t1085", "t1218.011"),
    ("t1086", "t1059.001"),
    ("t1088", "t1548.002"),
    ("t1089", "t1562.001"),
    ("t1093", "t1055.012"),
    ("t1097", "t1550.003"),
    ("t1099", "t1070.006"),
    ("t1100", "t1505.003"),
    ("t1103", "t1546.010"),
    ("t1107", "t1070.004"),
    ("t1117", "t1218.010"),
    ("t1118", "t1218.004"),
    ("t1121", "t1218.009"),
    ("t1122", "t1546.015"),
    ("t1138", "t1546.011"),
    ("t1145", "t1552.004"),
    ("t1146", "t1070.003"),
    ("t1166", "t1548.001"),
    ("t1169", "t1548.003"),
    ("t1170", "t1218.005"),
    ("t1171", "t1557.001"),
    ("t1183", "t1546.012"),
    ("t1191", "t1218.003"),
    ("t1192", "t1566.002"),
    ("t1193", "t1566.001"),
    ("t1196", "t1218.002"),
    ("t1208", "t1558.003"),
    ("t1223", "t1218.001"),
];

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
    let tags: BTreeSet<String> = header
        .reference
        .tags
        .iter()
        .filter_map(|tag| tag.to_ascii_lowercase().strip_prefix("attack.").map(str::to_owned))
        .collect();
    let mut has_technique = false;
    for tag in tags {
        let (covered, name) = if is_technique(&tag) {
            has_technique = true;
            let today = RENUMBERED.iter().find(|(old, _)| *old == tag).map_or(tag.as_str(), |(_, new)| new);
            (&mut report.techniques, today.to_ascii_uppercase())
        } else if is_other(&tag) {
            continue;
        } else {
            (&mut report.tactics, tag.replace('_', "-"))
        };
        if !name.eq_ignore_ascii_case(&tag) {
            report.renamed.insert(tag, name.clone());
        }
        let covered = covered.entry(name).or_default();
        covered.rules += 1;
        covered.alerting += usize::from(alerts);
        *covered.levels.entry(header.severity.name()).or_default() += 1;
        covered.sources.extend(source.clone());
    }
    report.without_technique += usize::from(!has_technique);
}

fn is_technique(tag: &str) -> bool {
    tag.strip_prefix('t').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Groups and software: `g0007`, `s0002`.
fn is_other(tag: &str) -> bool {
    tag.strip_prefix(['g', 's', 'c', 'm']).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
