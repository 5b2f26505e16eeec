//! Rules' own tests: cases of events, with the alerts they must raise and no others.
//!
//! The form of the files is told in the rule pack's `README.md`.

use crate::engine::{Detector, Effect, Input, Options};
use crate::event::{Position, RawEvent, SourceKind};
use crate::normalise::normalise;
use crate::rules::RuleSet;
use crate::sigma::yaml::weigh;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most bytes of one file of cases.
pub const CASES_FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most that aliases may make of it.
const CASES_WEIGHT_MAX: usize = 16 * CASES_FILE_BYTES_MAX;
/// Most cases of one run.
pub const CASES_MAX: usize = 10_000;
/// Most events of one case.
const EVENTS_MAX: u64 = 100_000;
/// Most bytes of them: one that is long may be asked for many times.
const EVENTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// 2026-11-23 10:00:00 UTC: when the first event of each case happens.
const BEGIN_MS: u64 = 1_795_428_000_000;
/// When the last of them has been received: any moment after will do.
const NOW_MS: u64 = BEGIN_MS + 366 * 86_400_000;

/// What the tests said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// Cases that gave what they should.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
    /// Each case.
    pub cases: Vec<CaseResult>,
    /// Rules and correlations that raise alerts, and that no case expects to.
    pub untested: Vec<String>,
    /// Those that no case comes near without raising them: whether they are too wide is not tested.
    pub unspared: Vec<String>,
}

/// What one case gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    /// The file.
    pub file: String,
    /// The case; the file itself where it cannot be read.
    pub name: String,
    /// Alerts that were expected and not raised.
    pub missing: Vec<String>,
    /// Alerts that were raised and not expected.
    pub unexpected: Vec<String>,
    /// What is wrong with the case itself.
    pub error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    expect: Vec<String>,
    /// Rules that it comes near and that must not be raised; said so that it can be told when a rule has no such case.
    #[serde(default)]
    near: Vec<String>,
    events: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    after_s: u64,
    every_s: Option<u64>,
    count: Option<u64>,
    audit: Option<Value>,
    syslog: Option<String>,
    json: Option<Value>,
}

/// Runs the cases of files, given as name and text.
pub fn test(rules: &RuleSet, files: &[(String, String)]) -> TestReport {
    let mut report = TestReport::default();
    let alerting = alerting(rules);
    let (mut tested, mut spared) = (BTreeSet::new(), BTreeSet::new());
    for (file, text) in files {
        let cases: Vec<Case> = match read(text) {
            Ok(cases) => cases,
            Err(error) => {
                let error = Some(error);
                report.cases.push(CaseResult {
                    file: file.clone(),
                    name: file.clone(),
                    error,
                    ..CaseResult::default()
                });
                continue;
            }
        };
        for case in cases {
            if report.cases.len() >= CASES_MAX {
                let error = Some(format!("more than {CASES_MAX} cases"));
                report.cases.push(CaseResult { file: file.clone(), name: case.name, error, ..CaseResult::default() });
                break;
            }
            let mut result = run(rules, file, &case);
            if let Some(rule) = case.near.iter().find(|rule| !alerting.contains(rule) || case.expect.contains(rule)) {
                result.error = Some(format!("near {rule}, which raises no alerts or is expected"));
            }
            report.cases.push(result);
            // A tenant's alert is expected as `tenant/rule`.
            tested.extend(case.expect.iter().filter_map(|name| Some(name.split_once('/')?.1.to_owned())));
            tested.extend(case.expect);
            spared.extend(case.near);
        }
    }
    let is_good = |case: &&CaseResult| case.error.is_none() && case.missing.is_empty() && case.unexpected.is_empty();
    report.passed = report.cases.iter().filter(is_good).count();
    report.failed = report.cases.len() - report.passed;
    let without = |named: &BTreeSet<String>| alerting.iter().filter(|rule| !named.contains(*rule)).cloned().collect();
    (report.untested, report.unspared) = (without(&tested), without(&spared));
    report
}

fn read(text: &str) -> Result<Vec<Case>, String> {
    if text.len() > CASES_FILE_BYTES_MAX {
        return Err(format!("larger than {CASES_FILE_BYTES_MAX} bytes"));
    }
    weigh(text, CASES_WEIGHT_MAX).map_err(|reason| reason.to_string())?;
    serde_yaml_ng::from_str(text).map_err(|error| error.to_string())
}

fn alerting(rules: &RuleSet) -> Vec<String> {
    let single = rules.rules().iter().enumerate().filter(|(place, _)| rules.raises_alerts(*place));
    let correlations = rules.correlations().iter().filter(|correlation| correlation.alerts);
    let single = single.map(|(_, rule)| &rule.header);
    single.chain(correlations.map(|plan| &plan.header)).map(|header| header.reference.id.to_string()).collect()
}

fn run(rules: &RuleSet, file: &str, case: &Case) -> CaseResult {
    let mut result = CaseResult { file: file.to_owned(), name: case.name.clone(), ..CaseResult::default() };
    let mut raised: BTreeSet<(String, crate::AlertId)> = BTreeSet::new();
    let mut detector = Detector::new(rules.clone(), Options::default());
    let mut effects = Vec::new();
    match events(case) {
        Ok(events) => {
            for raw in events {
                match normalise(&raw) {
                    Ok(event) => detector.step(NOW_MS, Input::Event(event), &mut effects),
                    Err(reject) => result.error = Some(format!("an event is rejected: {}", reject.reason)),
                }
            }
        }
        Err(error) => result.error = Some(error),
    }
    detector.finish(NOW_MS, &mut effects);
    for effect in effects {
        match effect {
            Effect::Alert(alert) => {
                let is_platforms = alert.tenant == Options::default().tenant;
                let rule = &alert.rule.id;
                let name = if is_platforms { rule.to_string() } else { format!("{}/{rule}", alert.tenant) };
                raised.insert((name, alert.id));
            }
            Effect::Superseded { old, .. } => raised.retain(|(_, id)| *id != old),
            Effect::Extended { .. } => {}
        }
    }
    let raised: BTreeSet<String> = raised.into_iter().map(|(rule, _)| rule).collect();
    let expected: BTreeSet<String> = case.expect.iter().cloned().collect();
    result.missing = expected.difference(&raised).cloned().collect();
    result.unexpected = raised.difference(&expected).cloned().collect();
    result
}

fn events(case: &Case) -> Result<Vec<RawEvent>, String> {
    let (mut events, mut size_bytes, mut at_ms) = (Vec::new(), 0, BEGIN_MS);
    for step in &case.events {
        at_ms = at_ms.saturating_add(step.after_s.saturating_mul(1_000));
        for number in 0..step.count.unwrap_or(1) {
            if events.len() as u64 >= EVENTS_MAX || size_bytes > EVENTS_BYTES_MAX {
                return Err("more events than a case may have".to_owned());
            }
            let (source, text) = body(step, at_ms, number)?;
            size_bytes += text.len();
            let position = Some(Position { stream: "test".into(), sequence: events.len() as u64 });
            events.push(RawEvent { source, received_ms: NOW_MS, position, bytes: text.into() });
            at_ms = at_ms.saturating_add(step.every_s.unwrap_or(1).saturating_mul(1_000));
        }
    }
    Ok(events)
}

fn body(step: &Step, at_ms: u64, number: u64) -> Result<(SourceKind, String), String> {
    let time =
        jiff::Timestamp::from_millisecond(i64::try_from(at_ms).unwrap_or(i64::MAX)).map_err(|e| e.to_string())?;
    let fill = |text: &str| text.replace("{n}", &number.to_string()).replace("{time}", &time.to_string());
    match (&step.audit, &step.syslog, &step.json) {
        (Some(body), None, None) => {
            let mut body = body.clone();
            let fields = body.as_object_mut().ok_or("audit must be a mapping")?;
            fields.insert("time_ms".to_owned(), at_ms.into());
            for (key, value) in [("region", "eu"), ("node", "eu-1")] {
                fields.entry(key).or_insert_with(|| value.into());
            }
            Ok((SourceKind::Audit, fill(&body.to_string())))
        }
        (None, Some(line), None) => Ok((SourceKind::Syslog, fill(line))),
        (None, None, Some(body)) => {
            let mut body = body.clone();
            body.as_object_mut().ok_or("json must be a mapping")?.entry("time").or_insert_with(|| at_ms.into());
            Ok((SourceKind::Ndjson, fill(&body.to_string())))
        }
        _ => Err("each event is one of audit, syslog and json".to_owned()),
    }
}
