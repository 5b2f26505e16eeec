//! Planted bugs: each breaks one promise at a door of the node, so that a checker can show that it would notice.
//!
//! A planted bug is never reachable outside the simulator, but for those that a start takes for tests (`node::machine::Defect`).

use node::machine::Defect;

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A restarted leader goes on without an election: openraft's default `enable_leader_restore`.
    LeaderRestore,
    /// Disks acknowledge syncs that they did not do.
    LyingFsync,
    /// The log is acknowledged before it is durable.
    EarlyAck,
    /// A vote is not durable: a restarted node votes again in the same term.
    VoteForgotten,
    /// Now and then a leaf of the audit log is not written.
    AuditLeafDropped,
    /// Now and then a record is written under another tenant's key.
    TenantMixed,
    /// A read that must be linearizable is answered from what the node happens to have.
    StaleRead,
    /// Results by idempotency key are not found again: a retry is carried out twice.
    DuplicateApply,
    /// Reports and alerts that were stored are not found again: what is reported once more is done once more.
    AlertTwice,
    /// Whoever takes a shard over does not find what its correlations had seen.
    StateForgotten,
    /// A restarted node forgets its hybrid logical clock and trusts the wall clock.
    ClockOrdered,
    /// Reports count under leases that have ended too: two nodes do one duty.
    Unfenced,
    /// Where a shard has read to is stored apart from what it knew: now and then only the first is there afterwards.
    CursorApart,
    /// No node knows which events it has taken: what is delivered again is taken again.
    DeliveryForgotten,
    /// Tuples are lost on their way to where correlations across regions are judged.
    TupleLost,
}

impl Plant {
    /// Each with its name, and the seeds within which it must be caught. With none it is still too well hidden for
    /// the gate: `sim plant NAME --seeds N` goes looking for it.
    pub const ALL: &[(&str, Self, u64)] = &[
        ("leader-restore", Self::LeaderRestore, 40),
        ("lying-fsync", Self::LyingFsync, 5),
        ("early-ack", Self::EarlyAck, 0),
        ("vote-forgotten", Self::VoteForgotten, 0),
        ("audit-leaf-dropped", Self::AuditLeafDropped, 2),
        ("tenant-mixed", Self::TenantMixed, 2),
        ("stale-read", Self::StaleRead, 5),
        ("duplicate-apply", Self::DuplicateApply, 20),
        ("alert-twice", Self::AlertTwice, 5),
        ("state-forgotten", Self::StateForgotten, 5),
        ("clock-ordered", Self::ClockOrdered, 0),
        ("unfenced", Self::Unfenced, 5),
        ("cursor-apart", Self::CursorApart, 5),
        ("delivery-forgotten", Self::DeliveryForgotten, 5),
        ("tuple-lost", Self::TupleLost, 5),
    ];

    /// Whether it is looked for where those are hunted who have duties, so many times in a run.
    pub const fn hunt(self) -> Option<u64> {
        match self {
            Self::AlertTwice
            | Self::StateForgotten
            | Self::Unfenced
            | Self::CursorApart
            | Self::DeliveryForgotten
            | Self::TupleLost => Some(20),
            _ => None,
        }
    }

    /// What it is in the node itself; all others are in what surrounds it.
    pub const fn defect(self) -> Option<Defect> {
        match self {
            Self::LeaderRestore => Some(Defect::LeaderRestored),
            Self::Unfenced => Some(Defect::Unfenced),
            Self::DeliveryForgotten => Some(Defect::DeliveryForgotten),
            Self::TupleLost => Some(Defect::TupleLost),
            _ => None,
        }
    }

    /// The one with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _, _)| *known == name).map(|(_, plant, _)| *plant)
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, plant, _)| *plant == self).map_or("", |(name, _, _)| name)
    }
}
