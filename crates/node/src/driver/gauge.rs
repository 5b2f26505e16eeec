//! What a shard shows of itself while this node has it: counts by their differences, so that a detector that begins
//! again takes nothing back, and gauges that go with the shard.

use crate::node::Node;
use detection::engine::Counts;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The words for where a rollout is.
const PHASES: [&str; 3] = ["steady", "shadow", "watched"];

pub(super) struct Gauges {
    node: Arc<Node>,
    shard: String,
    /// What was counted last.
    told: Counts,
    streams: BTreeSet<String>,
}

impl Gauges {
    pub(super) fn new(node: Arc<Node>, shard: u16) -> Self {
        Self { node, shard: shard.to_string(), told: Counts::default(), streams: BTreeSet::new() }
    }

    /// An event that detection did not take in.
    pub(super) fn rejected(&self, reason: &str) {
        self.node.metrics.detection.with_label_values(&[self.shard.as_str(), reason]).inc();
    }

    /// How long what comes next of a stream has waited.
    pub(super) fn lag(&mut self, stream: &str, behind_ms: u64) {
        if !self.streams.contains(stream) {
            self.streams.insert(stream.to_owned());
        }
        let gauge = self.node.metrics.detection_lag_seconds.with_label_values(&[self.shard.as_str(), stream]);
        gauge.set(behind_ms as f64 / 1000.0);
    }

    pub(super) fn count(&mut self, now: Counts, late_waiting: usize, phase: &str) {
        for ((name, now), (_, before)) in counted(now).into_iter().zip(counted(self.told)) {
            let counter = self.node.metrics.detection.with_label_values(&[self.shard.as_str(), name]);
            counter.inc_by(now.saturating_sub(before));
        }
        self.told = now;
        let state = [("keys", now.keys), ("remembered", now.remembered), ("late_spans", late_waiting as u64)];
        for (what, count) in state {
            let gauge = self.node.metrics.detection_state.with_label_values(&[self.shard.as_str(), what]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for word in PHASES {
            let gauge = self.node.metrics.rollout.with_label_values(&[self.shard.as_str(), word]);
            gauge.set(i64::from(word == phase));
        }
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        // Another node shows them from here on. What was never shown cannot be taken away.
        let metrics = &self.node.metrics;
        for stream in &self.streams {
            let _ = metrics.detection_lag_seconds.remove_label_values(&[self.shard.as_str(), stream]);
        }
        for what in ["keys", "remembered", "late_spans"] {
            let _ = metrics.detection_state.remove_label_values(&[self.shard.as_str(), what]);
        }
        for word in PHASES {
            let _ = metrics.rollout.remove_label_values(&[self.shard.as_str(), word]);
        }
    }
}

/// All that only grows, by what it is called; a count that is added to the detector must be named here.
pub(super) fn counted(counts: Counts) -> [(&'static str, u64); 18] {
    let Counts {
        events,
        duplicates,
        late,
        ahead,
        matches,
        alerts,
        held,
        shadowed,
        superseded,
        keys_evicted,
        entries_lost,
        early,
        forgotten_early,
        late_unseen,
        not_numbers,
        behind,
        standing,
        rows_lost,
        keys: _,
        remembered: _,
    } = counts;
    [
        ("events", events),
        ("duplicates", duplicates),
        ("late", late),
        ("ahead", ahead),
        ("matches", matches),
        ("alerts", alerts),
        ("held", held),
        ("shadowed", shadowed),
        ("superseded", superseded),
        ("keys_evicted", keys_evicted),
        ("entries_lost", entries_lost),
        ("early", early),
        ("forgotten_early", forgotten_early),
        ("late_unseen", late_unseen),
        ("not_numbers", not_numbers),
        ("behind", behind),
        ("standing", standing),
        ("rows_lost", rows_lost),
    ]
}
