//! Retro-hunts find what live detection found.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use archive::forecast::Bounds;
use archive::hunt::{ALERTS_MAX, Found, Hunt, run};
use archive::search::{Limits, Progress};
use archive::{Archive, ArchiveError, Entry, Span, Tenants};
use common::{NOW_MS, leaf};
use detection::engine::{Detector, Effect, Input, Options};
use detection::normalise::normalise_for;
use detection::rules::{RuleSet, load_texts};
use detection::{AlertId, Event, Owner, Position, RawEvent, SourceKind};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const RULES: &str = "
title: failed login
name: failed
logsource: {product: app}
detection: {selection: {action: login, outcome: failure}, condition: selection}
level: low
---
title: successful login
name: succeeded
logsource: {product: app}
detection: {selection: {action: login, outcome: success}, condition: selection}
level: low
---
title: export
name: export
logsource: {product: app}
detection: {selection: {action: export}, condition: selection}
level: high
---
title: many failures
name: many
correlation: {type: event_count, rules: [failed], group-by: [user.name], timespan: 1m, condition: {gte: 3}}
level: medium
---
title: one address, many users
name: spray
correlation: {type: value_count, rules: [failed], group-by: [src_endpoint.ip], timespan: 2m, condition: {gte: 3, field: user.name}}
level: high
---
title: guessed
name: guessed
correlation: {type: temporal_ordered, rules: [failed, succeeded], group-by: [user.name], timespan: 1m}
level: high
---
title: two failures and no more
name: two
correlation: {type: event_count, rules: [failed], group-by: [user.name], timespan: 1m, condition: {eq: 2}}
level: low
---
title: export of a tenant
name: owned
logsource: {product: app}
detection: {selection: {action: export, metadata.tenant_uid: acme}, condition: selection}
level: low
";

fn rules() -> RuleSet {
    let (rules, errors) = load_texts(vec![("rules.yml".into(), RULES.into())]);
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

/// What happened: seconds after the last, user, address, action, and how much later it arrives.
type Act = (u64, u8, u8, u8, u64);

fn events(acts: &[Act]) -> Vec<(u64, RawEvent)> {
    let mut time_ms = NOW_MS;
    let mut arriving: Vec<(u64, String)> = acts
        .iter()
        .map(|(wait, user, address, action, delay)| {
            time_ms += wait * 1000;
            let (action, outcome) = [("login", "failure"), ("login", "success"), ("export", "")][usize::from(*action)];
            let line = serde_json::json!({"time": time_ms, "product": "app", "action": action, "outcome": outcome,
                "user": {"name": format!("u{user}")}, "src_endpoint": {"ip": format!("10.0.0.{address}")}});
            (time_ms + delay * 1000, line.to_string())
        })
        .collect();
    arriving.sort_by_key(|(received_ms, _)| *received_ms);
    let numbered = arriving.into_iter().zip(0..).map(|((received_ms, line), sequence)| {
        let position = Some(Position { stream: format!("events/{}", sequence % 2).into(), sequence: sequence / 2 });
        (received_ms, RawEvent { source: SourceKind::Ndjson, received_ms, position, bytes: line.into() })
    });
    numbered.collect()
}

/// Whose the events are, and the rules.
const OWNER: &str = "acme";

fn owned(raw: &RawEvent) -> Event {
    normalise_for(raw, Owner::Tenant(OWNER)).unwrap()
}

fn options() -> Options {
    Options { tenant: OWNER.into(), ..Options::default() }
}

/// The alerts that stand after the events came one after the other, and when their last events happened.
fn live(arrived: &[(u64, RawEvent)]) -> BTreeMap<AlertId, u64> {
    let mut detector = Detector::new(rules(), options());
    let (mut effects, mut standing) = (Vec::new(), BTreeMap::new());
    let mut step = |now_ms, input, standing: &mut BTreeMap<AlertId, u64>| {
        detector.step(now_ms, input, &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Alert(alert) => drop(standing.insert(alert.id, alert.last_ms)),
                Effect::Superseded { old, .. } => drop(standing.remove(&old)),
                Effect::Extended { .. } => {}
            }
        }
    };
    let mut end_ms = 0;
    for (received_ms, raw) in arrived {
        end_ms = *received_ms;
        step(end_ms, Input::Event(owned(raw)), &mut standing);
        step(end_ms, Input::Tick, &mut standing);
    }
    step(end_ms + 3_600_000, Input::Tick, &mut standing);
    standing
}

fn archive(folder: &std::path::Path, arrived: &[(u64, RawEvent)], roll_every: usize) -> Archive {
    let archive = Archive::open(folder).unwrap();
    for (count, (now_ms, raw)) in arrived.iter().enumerate() {
        let position = raw.position.clone().unwrap();
        let entry = Entry { tenant: OWNER.into(), source: raw.source, event: owned(raw) };
        archive.take(&position.stream, position.sequence, Some(entry), *now_ms);
        if count % roll_every == roll_every - 1 {
            archive.roll(*now_ms).unwrap();
        }
    }
    archive
}

fn hunt_for(span: Span, only: &[&str]) -> Hunt {
    let only = only.iter().map(|name| (*name).to_owned()).collect();
    let tenants = Tenants::one(OWNER);
    Hunt { tenants, audit: Tenants::All, span, rules: rules(), only, options: options(), known_ms: u64::MAX / 2 }
}

fn found(archive: &Archive, hunt: Hunt) -> Found {
    run(archive, hunt, Limits::default(), &Progress::default()).unwrap()
}

fn hunted(archive: &Archive, span: Span, only: &[&str]) -> Vec<(AlertId, String)> {
    let found = found(archive, hunt_for(span, only));
    found.alerts.into_iter().map(|alert| (alert.id, alert.rule.id.to_string())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_hunt_finds_the_alerts_of_live_detection(
        acts in proptest::collection::vec((0..40_u64, 0..3_u8, 0..2_u8, 0..3_u8, 0..20_u64), 1..120),
        roll_every in 1..40_usize,
        end_s in 0..2_000_u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let arrived = events(&acts);
        let archive = archive(folder.path(), &arrived, roll_every);
        let found: BTreeSet<AlertId> = hunted(&archive, Span::ALL, &[]).into_iter().map(|(id, _)| id).collect();
        let live = live(&arrived);
        prop_assert_eq!(&found, &live.keys().copied().collect());
        // Until a moment before the end too: what follows it decides only about what began before.
        let until = Span { to_ms: NOW_MS + end_s * 1_000, ..Span::ALL };
        let before = live.into_iter().filter(|(_, last_ms)| until.contains(*last_ms)).map(|(id, _)| id).collect();
        let found_before: BTreeSet<AlertId> = hunted(&archive, until, &[]).into_iter().map(|(id, _)| id).collect();
        prop_assert_eq!(found_before, before);
        // Put together and read again after a restart, it finds the same.
        archive.roll(NOW_MS).unwrap();
        archive.compact(NOW_MS * 2, || true).unwrap();
        drop(archive);
        let archive = Archive::open(folder.path()).unwrap();
        let again: BTreeSet<AlertId> = hunted(&archive, Span::ALL, &[]).into_iter().map(|(id, _)| id).collect();
        prop_assert_eq!(found, again);
    }
}

#[test]
fn a_hunt_is_bounded_by_its_span_and_rules_but_sees_what_began_before() {
    let folder = tempfile::tempdir().unwrap();
    // Three failures, ten seconds apart, then an export.
    let acts = [(0, 1, 1, 0, 0), (10, 1, 1, 0, 0), (10, 1, 1, 0, 0), (10, 1, 1, 2, 0)];
    let archive = archive(folder.path(), &events(&acts), 2);
    let names = |span, only: &[&str]| -> Vec<String> {
        hunted(&archive, span, only).into_iter().map(|(_, name)| name).collect()
    };
    assert_eq!(names(Span::ALL, &["many", "export"]), ["many", "export"]);
    assert_eq!(names(Span::ALL, &["many"]), ["many"]);
    assert_eq!(names(Span { from_ms: NOW_MS + 15_000, to_ms: NOW_MS + 25_000 }, &[]), ["many"]);
    let before = Span { from_ms: NOW_MS, to_ms: NOW_MS + 15_000 };
    assert_eq!(names(before, &[]), [] as [&str; 0]);
}

#[test]
fn alerts_that_were_not_asked_for_take_no_room() {
    let folder = tempfile::tempdir().unwrap();
    // More exports than a hunt keeps, and then three failures.
    let mut acts = vec![(0, 1, 1, 2, 0); ALERTS_MAX + 1];
    acts.extend([(10, 2, 1, 0, 0); 3]);
    let archive = archive(folder.path(), &events(&acts), usize::MAX);
    let many = found(&archive, hunt_for(Span::ALL, &["many"]));
    assert_eq!((many.alerts.len(), many.truncated), (1, false));
    let late = Span { from_ms: NOW_MS + 1, to_ms: u64::MAX / 2 };
    let late = found(&archive, hunt_for(late, &[]));
    assert_eq!((late.alerts.len(), late.truncated), (1, false), "what was before the span takes none either");
    let all = found(&archive, hunt_for(Span::ALL, &["export"]));
    assert_eq!((all.alerts.len(), all.truncated), (ALERTS_MAX, true));
}

#[test]
fn a_hunt_looks_back_as_far_as_its_rules_do() {
    let folder = tempfile::tempdir().unwrap();
    // Three failures of a user, five hours apart.
    let acts = [(0, 1, 1, 0, 0), (18_000, 1, 1, 0, 0), (18_000, 1, 1, 0, 0)];
    let archive = archive(folder.path(), &events(&acts), 2);
    let last = Span { from_ms: NOW_MS + 35_000_000, to_ms: NOW_MS + 37_000_000 };
    let hunt = |timespan: &str| {
        let (rules, errors) = load_texts(vec![("rules.yml".into(), RULES.replace("timespan: 1m", timespan))]);
        assert!(errors.is_empty(), "{errors:?}");
        found(&archive, Hunt { rules, ..hunt_for(last, &["many"]) }).alerts.len()
    };
    assert_eq!((hunt("timespan: 12h"), hunt("timespan: 9h")), (1, 0));
}

#[test]
fn a_hunt_meets_the_audit_log_only_where_that_may_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::open(folder.path()).unwrap();
    archive.take("audit/eu-0", 0, Some(leaf("acme", 0)), NOW_MS);
    archive.take("audit/eu-0", 1, Some(leaf("globex", 1)), NOW_MS);
    let rule = "title: v\nname: v\nlogsource: {product: holdfast}\ndetection: {s: {api.operation: record.view}, condition: s}\n";
    for _ in ["open", "in files"] {
        let alerts = |audit: Tenants| {
            let (rules, _) = load_texts(vec![("rules.yml".into(), rule.into())]);
            let hunt = Hunt { tenants: Tenants::All, audit, rules, ..hunt_for(Span::ALL, &[]) };
            found(&archive, hunt).alerts.len()
        };
        assert_eq!(alerts(Tenants::Only([].into())), 0);
        assert_eq!(alerts(Tenants::one("globex")), 1);
        assert_eq!(alerts(Tenants::All), 2);
        archive.roll(NOW_MS).unwrap();
    }
}

#[test]
fn a_hunt_ends_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(folder.path(), &events(&[(0, 1, 1, 2, 0)]), 1);
    let short = Limits { time: std::time::Duration::ZERO, ..Limits::default() };
    let ended = run(&archive, hunt_for(Span::ALL, &[]), short, &Progress::default());
    assert!(matches!(ended, Err(ArchiveError::Timeout)), "{ended:?}");
}

#[test]
fn a_forecast_counts_what_rules_would_have_raised_and_keeps_to_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    // An export an hour, for a day.
    let acts = vec![(3_600, 1, 1, 2, 0); 24];
    let archive = archive(folder.path(), &events(&acts), 7);
    let forecast = |events_max: usize, seconds: u64| {
        let bounds = Bounds { events_max, time: std::time::Duration::from_secs(seconds) };
        let report = archive::forecast::run(&archive, &rules(), Span::ALL, bounds);
        report.forecast().get("export").map(|forecast| (forecast.alerts, forecast.per_day.round() as u64))
    };
    assert_eq!(forecast(usize::MAX, 60), Some((24, 25)));
    assert_eq!(forecast(12, 60), Some((12, 26)), "half a day is enough to go by");
    assert_eq!(forecast(usize::MAX, 0), None);
}

#[test]
fn a_forecast_knows_whose_events_are_and_believes_no_clock_that_is_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let mut arrived = events(&vec![(3_600, 1, 1, 2, 0); 24]);
    // One event more, which says that it happened in 2099.
    let (received_ms, mut ahead) = arrived[23].clone();
    ahead.bytes = String::from_utf8_lossy(&ahead.bytes).replace(&received_ms.to_string(), "4070908800000").into();
    ahead.position = Some(Position { stream: "events/0".into(), sequence: 12 });
    arrived.push((received_ms, ahead));
    let archive = archive(folder.path(), &arrived, 7);
    let report = archive::forecast::run(&archive, &rules(), Span::ALL, Bounds::default());
    let per_day = report.forecast().get("owned").map(|forecast| forecast.per_day.round() as u64);
    assert_eq!(per_day, Some(26));
}
