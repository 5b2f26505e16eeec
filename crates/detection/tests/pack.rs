//! The rule pack is whole: what raises alerts has cases for and against it, a runbook, and tags of today.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use detection::incident::attack::Mapping;
use detection::report::{FindingKind, Known, check, test};
use detection::rules::{RuleSet, load_dir};
use detection::sigma::Header;
use std::collections::BTreeSet;
use std::path::Path;
use support::pack;

/// Parts of a runbook, in their order.
const PARTS: [&str; 5] = ["**Means.**", "**First look.**", "**Decide.**", "**Contain.**", "**False positives.**"];
/// What the pack is about, at least.
const SUBJECTS: [&str; 19] = [
    "api_brute_force",
    "api_password_spraying",
    "impossible_travel",
    "impossible_presence",
    "session_address_refused",
    "lockout_storm",
    "privilege_granted_outside_change",
    "bulk_export",
    "reads_outside_purpose",
    "cross_tenant_probe",
    "audit_gap",
    "audit_verification_failed",
    "replication_silence",
    "clock_quarantined",
    "key_destroyed",
    "backup_overdue",
    "restore_failed",
    "certificate_near_expiry",
    "control_disabled",
];

/// What raises alerts.
fn alerting(rules: &RuleSet) -> Vec<&Header> {
    let single = rules.rules().iter().enumerate().filter(|(place, _)| rules.raises_alerts(*place));
    let correlations = rules.correlations().iter().filter(|plan| plan.raises_alerts());
    single.map(|(_, rule)| &rule.header).chain(correlations.map(|plan| &plan.header)).collect()
}

fn cases(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder.join("tests"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// What a pack lacks.
fn omissions(folder: &Path) -> BTreeSet<String> {
    let (rules, errors) = load_dir(folder);
    let mut lacks: BTreeSet<String> = errors.iter().map(ToString::to_string).collect();
    let report = test(&rules, &cases(folder));
    let failed = report
        .cases
        .iter()
        .filter(|case| case.error.is_some() || !case.missing.is_empty() || !case.unexpected.is_empty());
    lacks.extend(failed.map(|case| format!("{}: {case:?}", case.name)));
    lacks.extend(report.untested.iter().map(|rule| format!("{rule}: no case raises it")));
    lacks.extend(report.unspared.iter().map(|rule| format!("{rule}: no case comes near it")));
    let mut runbooks: BTreeSet<String> = std::fs::read_dir(folder.join("runbooks"))
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    for header in alerting(&rules) {
        let id = &header.reference.id;
        let expect = format!("runbooks/{id}.md");
        runbooks.remove(&format!("{id}.md"));
        if header.runbook.as_deref() != Some(&*expect) {
            lacks.insert(format!("{id}: its references name no {expect}"));
        }
        let text = std::fs::read_to_string(folder.join(&expect)).unwrap_or_default();
        let lines = text.lines().count();
        let mut places = PARTS.iter().map(|part| text.find(part));
        if !(5..=15).contains(&lines) || places.any(|place| place.is_none()) {
            lacks.insert(format!("{id}: its runbook has {lines} lines or lacks a part"));
        }
        let mapping = Mapping::of(header.reference.tags.iter().map(AsRef::as_ref));
        if mapping.techniques.is_empty() || mapping.tactics.is_empty() {
            lacks.insert(format!("{id}: no tactic or no technique"));
        }
        if !mapping.renamed.is_empty() || header.reference.tags.iter().any(|tag| tag.contains("defense-evasion")) {
            lacks.insert(format!("{id}: tags of an earlier ATT&CK"));
        }
    }
    lacks.extend(runbooks.into_iter().map(|name| format!("{name}: a runbook of no rule")));
    lacks
}

#[test]
fn every_rule_has_cases_for_and_against_it_a_runbook_and_tags_of_today() {
    assert_eq!(omissions(&pack()), BTreeSet::new());
}

#[test]
fn an_omission_is_noticed() {
    let copy = |to: &Path| {
        for folder in ["", "tests", "runbooks"] {
            std::fs::create_dir_all(to.join(folder)).unwrap();
            for file in std::fs::read_dir(pack().join(folder)).unwrap() {
                let path = file.unwrap().path();
                if path.is_file() {
                    std::fs::copy(&path, to.join(folder).join(path.file_name().unwrap())).unwrap();
                }
            }
        }
    };
    let change = |file: &str, old: &str, new: &str, expect: &str| {
        let folder = tempfile::tempdir().unwrap();
        copy(folder.path());
        let path = folder.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{file}: {old}");
        std::fs::write(&path, text.replace(old, new)).unwrap();
        let lacks = omissions(folder.path());
        assert!(lacks.iter().any(|lack| lack.contains(expect)), "{expect}: {lacks:?}");
    };
    change("tests/platform.yml", "expect: [key_destroyed]", "expect: []", "key_destroyed: no case raises it");
    change("tests/platform.yml", "near: [key_destroyed]", "near: []", "key_destroyed: no case comes near it");
    change("runbooks/key_destroyed.md", "**Contain.**", "", "key_destroyed: its runbook");
    change("platform.yml", "references: [runbooks/key_destroyed.md]", "", "key_destroyed: its references");
    change("platform.yml", "attack.t1685", "attack.t1562.001", "tags of an earlier ATT&CK");
    change("platform.yml", "name: key_destroyed", "name: key_shredded", "key_destroyed.md: a runbook of no rule");
}

#[test]
fn the_pack_is_about_what_it_should_be_and_says_what_nothing_sends_yet() {
    let (rules, _) = load_dir(&pack());
    let alerting = alerting(&rules);
    for subject in SUBJECTS {
        assert!(alerting.iter().any(|header| &*header.reference.id == subject), "{subject}");
    }
    let waits: BTreeSet<&str> =
        alerting.iter().filter(|header| header.is_experimental).map(|header| &*header.reference.id).collect();
    let expect = ["backup_overdue", "key_destroyed", "reads_outside_purpose", "restore_failed"];
    assert_eq!(waits, expect.into(), "docs/known-limits.md lists them");
}

#[test]
fn no_rule_of_the_pack_can_never_fire() {
    let (rules, errors) = load_dir(&pack());
    let report = check(&rules, &errors, &Known::platform());
    let never: Vec<_> = report.findings.iter().filter(|f| f.kind != FindingKind::EvaluatedAlways).collect();
    assert!(report.errors.is_empty() && never.is_empty(), "{never:?}");
}
