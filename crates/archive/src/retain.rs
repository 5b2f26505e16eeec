//! What leaves the archive: retention, and the bound on the disk.
//!
//! Only whole partitions leave; what is under legal hold never does. Nothing leaves silently: the caller gets a list.

use crate::archive::Archive;
use crate::layout::{Partition, Span, day_text};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3_600_000;

/// A span of a tenant's events that must be kept, whatever else is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Whose.
    pub tenant: Arc<str>,
    /// Which events.
    pub span: Span,
}

/// How long what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Days, for tenants that are not named.
    pub days: u32,
    /// Days of some tenants.
    pub tenants: BTreeMap<Arc<str>, u32>,
    /// Legal holds.
    pub holds: Vec<Hold>,
    /// Bytes of all files; beyond it the oldest leave.
    pub size_bytes_max: u64,
}

/// Why something left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its time was over.
    Expired,
    /// The disk's bound was reached: it left before its time.
    Full,
}

/// A day of a tenant that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Whose.
    pub tenant: Arc<str>,
    /// `YYYY-MM-DD`.
    pub day: String,
    /// Why.
    pub why: Why,
    /// How many events.
    pub rows: u64,
    /// How many bytes.
    pub size_bytes: u64,
}

impl Policy {
    fn is_held(&self, partition: &Partition) -> bool {
        let held = |hold: &Hold| hold.tenant == partition.tenant && hold.span.overlaps(partition.span());
        self.holds.iter().any(held)
    }
    fn is_expired(&self, partition: &Partition, now_ms: u64) -> bool {
        let days = self.tenants.get(&partition.tenant).copied().unwrap_or(self.days);
        // A day leaves as a whole, when its last moment is old enough.
        let day_end_ms = (partition.hour / 24 + 1).saturating_mul(DAY_MS);
        day_end_ms.saturating_add(u64::from(days) * DAY_MS) <= now_ms
    }
}

/// What is to leave, by day; the archive is not changed.
fn plan(archive: &Archive, policy: &Policy, now_ms: u64) -> BTreeMap<(u64, Arc<str>), (Why, Vec<Partition>)> {
    let mut leaving: BTreeMap<(u64, Arc<str>), (Why, Vec<Partition>)> = BTreeMap::new();
    let mut days: BTreeMap<(u64, Arc<str>), (u64, Vec<Partition>)> = BTreeMap::new();
    let mut size_bytes = 0;
    for (partition, files) in &archive.state.read().files {
        let partition_bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
        let day = (partition.hour / 24, Arc::clone(&partition.tenant));
        if policy.is_expired(partition, now_ms) && !policy.is_held(partition) {
            leaving.entry(day).or_insert((Why::Expired, Vec::new())).1.push(partition.clone());
            continue;
        }
        size_bytes += partition_bytes;
        if !policy.is_held(partition) {
            let (bytes, partitions) = days.entry(day).or_default();
            *bytes += partition_bytes;
            partitions.push(partition.clone());
        }
    }
    for (day, (bytes, partitions)) in days {
        if size_bytes <= policy.size_bytes_max {
            break;
        }
        size_bytes -= bytes;
        leaving.insert(day, (Why::Full, partitions));
    }
    leaving
}

impl Archive {
    /// What the policy would have leave now.
    pub fn leaving(&self, policy: &Policy, now_ms: u64) -> Vec<Removed> {
        let plan = plan(self, policy, now_ms);
        let state = self.state.read();
        let removed = |((day, tenant), (why, partitions)): ((u64, Arc<str>), (Why, Vec<Partition>))| {
            let files = || partitions.iter().filter_map(|partition| state.files.get(partition)).flatten();
            let rows = files().map(|file| file.name.rows).sum();
            Removed { tenant, day: day_text(day), why, rows, size_bytes: files().map(|file| file.size_bytes).sum() }
        };
        plan.into_iter().map(removed).collect()
    }

    /// Has what [`Archive::leaving`] lists leave: call it once that is on record.
    pub fn retain(&self, policy: &Policy, now_ms: u64) {
        for (_, (_, partitions)) in plan(self, policy, now_ms) {
            self.remove(&partitions);
        }
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.state.read().files.values().flatten().map(|file| file.size_bytes).sum()
    }

    /// Whether files take more than they may, and nothing can leave because of legal holds.
    pub fn is_stuck(&self, policy: &Policy, now_ms: u64) -> bool {
        let leaving: u64 = self.leaving(policy, now_ms).iter().map(|removed| removed.size_bytes).sum();
        self.size_bytes().saturating_sub(leaving) > policy.size_bytes_max
    }
}
