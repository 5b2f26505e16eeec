//! What leaves the archive: retention, and the bound on the disk.
//!
//! Only whole partitions leave; what is under legal hold never does. Nothing leaves silently: the caller gets a list.

use crate::archive::{Archive, FileEntry};
use crate::layout::{NEAR_MS, Partition, Span, day_text};
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
    /// Bytes of all files; beyond it the oldest of whoever has most leave.
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
    fn is_held(&self, partition: &Partition, files: &[Arc<FileEntry>]) -> bool {
        let hour = partition.span();
        // The hour of strays is that of their receipt: they may have happened at any time that was long before it.
        let strays = files.iter().any(|file| file.name.stray);
        let strays = Span { from_ms: 0, to_ms: if strays { hour.to_ms.saturating_sub(NEAR_MS) } else { 0 } };
        let held = |hold: &Hold| hold.span.overlaps(hour) || hold.span.overlaps(strays);
        self.holds.iter().any(|hold| hold.tenant == partition.tenant && held(hold))
    }
    fn is_expired(&self, partition: &Partition, now_ms: u64) -> bool {
        let days = self.tenants.get(&partition.tenant).copied().unwrap_or(self.days);
        // A day leaves as a whole, when its last moment is old enough.
        let day_end_ms = (partition.hour / 24 + 1).saturating_mul(DAY_MS);
        day_end_ms.saturating_add(u64::from(days) * DAY_MS) <= now_ms
    }
}

/// What leaves, by day.
type Leaving = BTreeMap<(u64, Arc<str>), (Why, Vec<Partition>)>;

/// What a tenant has.
#[derive(Default)]
struct Share {
    size_bytes: u64,
    /// What of it may leave, by day.
    days: BTreeMap<u64, (u64, Vec<Partition>)>,
}

/// What is to leave; the archive is not changed.
fn plan(archive: &Archive, policy: &Policy, now_ms: u64) -> Leaving {
    let mut leaving = Leaving::new();
    let mut shares: BTreeMap<Arc<str>, Share> = BTreeMap::new();
    for (partition, files) in &archive.state.read().files {
        let partition_bytes: u64 = files.iter().map(|file| file.size_bytes).sum();
        let (day, tenant) = (partition.hour / 24, Arc::clone(&partition.tenant));
        let is_held = policy.is_held(partition, files);
        if policy.is_expired(partition, now_ms) && !is_held {
            leaving.entry((day, tenant)).or_insert((Why::Expired, Vec::new())).1.push(partition.clone());
            continue;
        }
        let share = shares.entry(tenant).or_default();
        share.size_bytes += partition_bytes;
        if !is_held {
            let (bytes, partitions) = share.days.entry(day).or_default();
            *bytes += partition_bytes;
            partitions.push(partition.clone());
        }
    }
    evict(shares, policy.size_bytes_max, &mut leaving);
    leaving
}

/// While all take more than they may, the oldest day of whoever takes most leaves: a flood costs nobody else's days.
fn evict(mut shares: BTreeMap<Arc<str>, Share>, size_bytes_max: u64, leaving: &mut Leaving) {
    let mut size_bytes: u64 = shares.values().map(|share| share.size_bytes).sum();
    while size_bytes > size_bytes_max {
        let with_days = shares.iter_mut().filter(|(_, share)| !share.days.is_empty());
        let Some((tenant, share)) = with_days.max_by_key(|(_, share)| share.size_bytes) else { return };
        let Some((day, (bytes, partitions))) = share.days.pop_first() else { return };
        share.size_bytes -= bytes;
        size_bytes -= bytes;
        leaving.insert((day, Arc::clone(tenant)), (Why::Full, partitions));
    }
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
