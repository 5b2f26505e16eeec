//! A shard on a node: what stops it, what it tells, and how its rules change.

use crate::driver::bed::{BEGIN_MS, Bed, rules_of};
use crate::machine::keys;
use detection::engine::COVERAGE_DEGRADED;
use detection::rollout::Care;
use std::ops::Bound;
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
        bed.rules.send_replace(rules_of(&rules(threshold)));
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
    bed.rules.send_replace(rules_of(&rules(3).replace("name: knocks", "name: knocks\nlevel: critical")));
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

/// What the own audit log is to raise.
fn own(rule: &str, operation: &str) -> String {
    format!(
        "---\ntitle: Own\nname: {rule}\nlogsource: {{product: holdfast}}\n\
         detection: {{s: {{api.operation: {operation}}}, condition: s}}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn entries_of_an_audit_log_that_are_missing_are_told_once() {
    let bed = Bed::start(&(rules(2) + &own("gap", "audit.gap")), Care::default()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bed.alerts_of("gap"), 0);
    let space = bed.node.home().machine.read_space();
    let leaves = space.scan(keys::AUDIT_LEAF, Bound::Unbounded, Bound::Unbounded, true, 1).unwrap();
    let (last, leaf) = leaves.into_iter().next().unwrap();
    let last = u64::from_be_bytes(last.try_into().unwrap());
    // As if those between had been removed.
    let mut batch = Batch::default();
    batch.put(keys::AUDIT_LEAF, keys::number(last + 1_000), leaf);
    space.write(batch).unwrap();
    let now_ms = bed.now_ms();
    bed.ingest([knock("a", now_ms)]).await;
    bed.until(|bed| bed.alerts_of("gap") == 1).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bed.alerts_of("gap"), 1);
    bed.stop().await;
}

#[tokio::test(start_paused = true)]
async fn that_a_rule_detects_no_more_is_told() {
    let own = own("disabled", "rule.disable");
    let care = Care { shadow_ms: 1_000, ..Care::default() };
    let bed = Bed::start(&(rules(2) + &own), care).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    bed.rules.send_replace(rules_of(&(rules(3) + &own)));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(bed.alerts_of("disabled"), 0, "a rule that changes is still there");
    bed.rules.send_replace(rules_of(&(rules(3).replace("name: knocks", "name: knocks\nshadow: true") + &own)));
    bed.until(|bed| bed.alerts_of("disabled") == 1).await;
    bed.stop().await;
}
