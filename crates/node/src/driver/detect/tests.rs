//! A shard on a node: what stops it, what it tells, and how its rules change.

use crate::driver::bed::{BEGIN_MS, Bed, Furniture, rules_of};
use crate::driver::known::Known;
use crate::driver::streams::TURN;
use crate::machine::keys;
use crate::machine::note::Note;
use api::types::{RuleFilter, ShardReport};
use detection::engine::COVERAGE_DEGRADED;
use detection::rollout::Care;
use model::TenantId;
use pipeline::transform::enrich::Addresses;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use storage::Batch;

fn rules(threshold: u32) -> String {
    format!(
        "title: Knock\nname: knock\nlogsource: {{product: doors}}\ndetection: {{s: {{door: '*'}}, condition: s}}\n\
         level: low\n---\ntitle: Knocks\nname: knocks\ncorrelation: {{type: event_count, rules: [knock], \
         group-by: [door], timespan: 5m, condition: {{gte: {threshold}}}}}\n"
    )
}

fn knock(door: &str, time_ms: u64) -> String {
    format!("{{\"product\":\"doors\",\"door\":\"{door}\",\"time\":{time_ms},\"device\":{{\"hostname\":\"h\"}}}}")
}

#[tokio::test(start_paused = true)]
async fn an_event_of_long_ago_stops_nothing_and_is_told() {
    let bed = Bed::start(&rules(2), Care::default()).await;
    bed.ingest([knock("a", BEGIN_MS), knock("old", 631_152_000_000), knock("old", 631_152_000_001)]).await;
    bed.until(|bed| bed.alerts_of(COVERAGE_DEGRADED) > 0).await;
    let now_ms = bed.now_ms();
    bed.ingest([knock("a", now_ms), knock("a", now_ms + 1)]).await;
    bed.until(|bed| bed.alerts_of("knocks") >= 1).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_came_too_late_is_judged_while_new_events_come() {
    let bed = Bed::start(&rules(3), Care::default()).await;
    let begin_ms = bed.now_ms();
    // Two knocks, then a burst elsewhere that moves the stream on, then the third of the first.
    bed.ingest([knock("a", begin_ms), knock("a", begin_ms + 1)]).await;
    bed.ingest([knock("b", begin_ms + 30_000)]).await;
    tokio::time::sleep(Duration::from_secs(700)).await;
    let now_ms = bed.now_ms();
    bed.ingest([knock("c", now_ms), knock("a", begin_ms + 2)]).await;
    bed.until(|bed| bed.alerts().iter().any(|alert| alert.late && alert.group_key["door"] == "a")).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_held_back_for_long_does_not_hide_what_was_stored_before_it() {
    let bed = Bed::start(&rules(3), Care::default()).await;
    let begin_ms = bed.now_ms();
    bed.ingest([knock("a", begin_ms), knock("a", begin_ms + 1)]).await;
    tokio::time::sleep(Duration::from_secs(700)).await;
    let now_ms = bed.now_ms();
    let other = |time_ms: u64| knock("-", time_ms).replace("doors", "other");
    bed.ingest_of(begin_ms - 3_600_000, [other(begin_ms - 3_600_000)]).await;
    bed.ingest((0..TURN as u64).map(|_| other(now_ms))).await;
    bed.ingest([knock("c", now_ms), knock("a", begin_ms + 2)]).await;
    bed.until(|bed| bed.alerts().iter().any(|alert| alert.late && alert.group_key["door"] == "a")).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_about_a_name_that_is_too_long_is_stored() {
    let bed = Bed::start(&rules(2), Care::default()).await;
    let (door, now_ms) = ("x".repeat(100_000), bed.now_ms());
    bed.ingest([knock(&door, now_ms), knock(&door, now_ms + 1)]).await;
    bed.until(|bed| bed.alerts_of("knocks") == 1).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rules_change_again_while_those_before_are_watched_and_the_shard_goes_on() {
    let bed = Bed::start(&rules(5), Care { shadow_ms: 10_000, ..Care::default() }).await;
    for threshold in [4, 3] {
        tokio::time::sleep(Duration::from_secs(10)).await;
        bed.change_rules(&rules(threshold));
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    let now_ms = bed.now_ms();
    bed.ingest((0..3).map(|n| knock("a", now_ms + n))).await;
    bed.until(|bed| bed.alerts_of("knocks") == 1).await;
    assert_eq!(bed.alerts_of(COVERAGE_DEGRADED), 0);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_words_comes_into_charge_at_once_and_counts_go_on() {
    let bed = Bed::start(&rules(3), Care::default()).await;
    let now_ms = bed.now_ms();
    bed.ingest((0..2).map(|n| knock("a", now_ms + n))).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    bed.change_rules(&rules(3).replace("name: knocks", "name: knocks\nlevel: critical"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    bed.ingest([knock("a", now_ms + 2)]).await;
    bed.until(|bed| bed.alerts_of("knocks") == 1).await;
    assert_eq!(bed.alerts()[0].severity, detection::Severity::Critical);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let events = bed.node.metrics.detection.with_label_values(&["0", "matches"]);
    assert_eq!(events.get(), 3, "a counter takes nothing back when rules change");
    let keys = bed.node.metrics.detection_state.with_label_values(&["0", "keys"]);
    assert_eq!(keys.get(), 1);
    bed.stop().await;
}

fn report(bed: &Bed) -> Option<ShardReport> {
    bed.node.detection_status().unwrap().shards.remove(0).report
}

#[tokio::test(start_paused = true)]
async fn how_a_shard_does_is_told_with_its_rules_on_trial_and_what_waits() {
    let bed = Bed::start(&rules(3), Care { shadow_ms: 60_000, alerts_free: 1, ..Care::default() }).await;
    bed.until(|bed| report(bed).is_some_and(|report| report.has_same_rules && report.phase == "steady")).await;
    let now_ms = bed.now_ms();
    bed.ingest((0..2).map(|n| knock("a", now_ms + n))).await;
    bed.until(|bed| report(bed).is_some_and(|report| report.counts["matches"] == 2 && report.keys == 1)).await;
    // Others, of which it is not known yet what is to be expected.
    bed.rules.send_replace(Known::of(rules_of(&rules(1))));
    let on_trial = |bed: &Bed| report(bed).and_then(|report| report.trial);
    bed.until(|bed| on_trial(bed).is_some_and(|trial| trial.new == 1)).await;
    bed.ingest((0..3).map(|n| knock(&format!("b{n}"), now_ms + 2 + n))).await;
    bed.until(|bed| on_trial(bed).is_some_and(|trial| trial.events > 0 && trial.rules[0].alerts > 1)).await;
    let (trial, told) = (on_trial(&bed).unwrap(), bed.node.detection_status().unwrap());
    assert_eq!((trial.is_foretold, trial.rules[0].rule.as_str(), trial.rules[0].allowed), (false, "knocks", None));
    let shard = &told.shards[0];
    assert_eq!((shard.node.as_deref(), shard.report.as_ref().unwrap().phase.as_str()), (Some("eu-1"), "shadow"));
    let events = shard.streams.iter().find(|stream| stream.stream == "events/eu").unwrap();
    assert_eq!((events.head, events.behind, events.behind_ms), (5, 0, None));
    // They raise more than is to be expected.
    bed.change_rules(&rules(1));
    bed.until(|bed| report(bed).is_some_and(|report| report.rejected.is_some())).await;
    let rejected = report(&bed).unwrap().rejected.unwrap();
    assert!(rejected.why.contains("knocks") && rejected.rules == ["knocks"], "{rejected:?}");
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rules_are_listed_with_how_each_stands() {
    let bed = Bed::start(&rules(3), Care { shadow_ms: 60_000, ..Care::default() }).await;
    let standing = |bed: &Bed| {
        let filter = RuleFilter { page: api::types::Page { limit: 10, after: None } };
        let list = bed.node.rules_listed(None, &filter).unwrap();
        list.rules.into_iter().map(|rule| (rule.id, rule.kind, rule.status)).collect::<Vec<_>>()
    };
    let are = |status: [&str; 2]| {
        let [knock, knocks] = status.map(str::to_owned);
        vec![("knock".to_owned(), "rule".to_owned(), knock), ("knocks".into(), "event_count".into(), knocks)]
    };
    assert_eq!(standing(&bed), are(["not known to all shards yet"; 2]));
    bed.until(|bed| standing(bed) == are(["in charge"; 2])).await;
    bed.change_rules(&rules(4));
    bed.until(|bed| standing(bed) == are(["in charge", "on trial in shadow"])).await;
    bed.until(|bed| standing(bed) == are(["in charge", "in charge, and watched"])).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_no_archive_is_kept_nothing_is_expected_and_new_rules_come_into_charge() {
    let bed = Bed::start(&rules(5), Care { shadow_ms: 10_000, ..Care::default() }).await;
    bed.until(|bed| report(bed).is_some()).await;
    let (tell, rules_now) = (bed.rules.clone(), bed.rules.subscribe());
    let telling = tokio::spawn(crate::host_rules::foretell(tell, rules_now, Arc::clone(&bed.node)));
    bed.rules.send_replace(Known::of(rules_of(&rules(2))));
    bed.until(|bed| report(bed).is_some_and(|report| report.phase == "watched")).await;
    telling.abort();
    bed.stop().await;
}

/// What the own audit log is to raise.
fn own(rule: &str, operation: &str) -> String {
    format!(
        "---\ntitle: Own\nname: {rule}\nlogsource: {{product: holdfast}}\n\
         detection: {{s: {{api.operation: {operation}}}, condition: s}}\n"
    )
}

/// Entries of the region's audit log with this in them.
fn entries(bed: &Bed, what: &str) -> Vec<(u64, Vec<u8>)> {
    let space = bed.node.home().machine.read_space();
    let leaves = space.scan(keys::AUDIT_LEAF, Bound::Unbounded, Bound::Unbounded, false, usize::MAX).unwrap();
    let leaves = leaves.into_iter().map(|(key, leaf)| (u64::from_be_bytes(key.try_into().unwrap()), leaf));
    leaves.filter(|(_, leaf)| String::from_utf8_lossy(leaf).contains(what)).collect()
}

#[tokio::test(start_paused = true)]
async fn entries_of_an_audit_log_that_are_missing_are_told_once() {
    let bed = Bed::start(&rules(2), Care::default()).await;
    bed.ingest([knock("a", bed.now_ms())]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(entries(&bed, "audit.gap"), []);
    // As if those between had been removed.
    let (last, leaf) = entries(&bed, "").pop().unwrap();
    let mut batch = Batch::default();
    batch.put(keys::AUDIT_LEAF, keys::number(last + 1_000), leaf);
    bed.node.home().machine.read_space().write(batch).unwrap();
    bed.until(|bed| !entries(bed, "audit.gap").is_empty()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(entries(&bed, "audit.gap").len(), 1);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn that_a_rule_detects_no_more_is_told() {
    let own = own("disabled", "rule.disable");
    let care = Care { shadow_ms: 1_000, ..Care::default() };
    let bed = Bed::start(&(rules(2) + &own), care).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    bed.change_rules(&(rules(3) + &own));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(bed.alerts_of("disabled"), 0, "a rule that changes is still there");
    bed.change_rules(&(rules(3).replace("name: knocks", "name: knocks\nshadow: true") + &own));
    bed.until(|bed| bed.alerts_of("disabled") == 1).await;
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_logs_in_from_two_countries_or_is_at_a_door_in_another_is_noticed() {
    let list = tempfile::NamedTempFile::with_suffix(".csv").unwrap();
    std::fs::write(&list, "network,country\n198.51.100.0/24,DE\n203.0.113.0/24,\"F\"\"R\"\n").unwrap();
    let furniture = Furniture {
        rules: rules_of(include_str!("../../../../../cluster/rules/presence.yml")),
        addresses: Some(Arc::new(Addresses::open(list.path()).unwrap())),
        ..Furniture::default()
    };
    let bed = Bed::furnished(furniture).await;
    for (user, address) in [
        ("ann", "198.51.100.7"),
        ("bob", "198.51.100.8"),
        ("bob", "198.51.100.9"),
        ("eve", "198.51.100.9"),
        ("eve", "192.0.2.1"),
        ("ann", "203.0.113.1"),
    ] {
        let (user, address) = (Some(user.to_owned()), Some(address.to_owned()));
        let tenant = Some("platform".to_owned());
        let note = Note { action: "login".into(), tenant, user, address, node: bed.node.place.id, ..Note::default() };
        bed.node.record(TenantId::PLATFORM, note).await.unwrap();
    }
    bed.ingest(["ann", "bob", "eve"].map(|user| {
        let now_ms = bed.now_ms();
        format!(
            "{{\"product\":\"badge\",\"service\":\"access\",\"time\":{now_ms},\"status_id\":1,\
             \"device\":{{\"location\":{{\"country\":\"DE\"}}}},\"user\":{{\"name\":\"{user}\"}}}}"
        )
    }))
    .await;
    bed.until(|bed| bed.alerts_of("own_impossible_presence") > 0).await;
    let concerned = |rule: &str| {
        let alerts = bed.alerts().into_iter().filter(|alert| &*alert.rule.id == rule);
        alerts.map(|alert| alert.group_key["user.name"].clone()).collect::<BTreeSet<_>>()
    };
    assert_eq!(concerned("impossible_travel"), BTreeSet::from(["ann".to_owned()]));
    assert_eq!(concerned("own_impossible_presence"), BTreeSet::from(["ann".to_owned()]));
    assert_eq!(concerned("impossible_presence"), BTreeSet::new());
    bed.stop().await;
}
