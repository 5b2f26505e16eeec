//! Stamps of changes: a hybrid logical clock inside the state machine.
//!
//! A leader reads its clock once and puts the reading into the command; every replica then computes the same stamp.
//! Nothing here reads a clock.

use model::Hlc;

/// How far a leader's clock may be from what its peers agree on, in milliseconds.
pub const LEADER_SKEW_MS_MAX: u64 = 500;

/// Why a leader may not stamp, and should hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node's clock is {skew_ms} ms from what its peers agree on; {LEADER_SKEW_MS_MAX} are allowed")]
pub struct ClockOff {
    /// Distance to the peers' median, in milliseconds.
    pub skew_ms: u64,
}

/// Checks a leader's clock against its peers' readings of the same moment. Without peers every clock is right.
pub fn check_leader(wall_ms: u64, peers_wall_ms: &[u64]) -> Result<(), ClockOff> {
    let mut all = peers_wall_ms.to_vec();
    all.push(wall_ms);
    all.sort_unstable();
    // Of an even number the middle that is nearer: two nodes alone cannot say which of them is wrong.
    let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
    let skew_ms = wall_ms.abs_diff(low).min(wall_ms.abs_diff(high));
    if skew_ms > LEADER_SKEW_MS_MAX { Err(ClockOff { skew_ms }) } else { Ok(()) }
}

/// The stamp of a local change: the leader's reading, but always later than everything applied before.
pub fn next(last: Hlc, leader_wall_ms: u64) -> Hlc {
    last.advance(Hlc::new(leader_wall_ms, 0))
}

/// The clock after applying a change of another region: what is written from now on is later than it.
pub fn observe(last: Hlc, remote: Hlc) -> Hlc {
    last.max(remote)
}

/// Whether a change is from further in the future than clocks may differ: it is held, never applied early.
pub fn is_from_the_future(hlc: Hlc, wall_ms: u64, skew_ms_max: u64) -> bool {
    hlc.wall_ms() > wall_ms.saturating_add(skew_ms_max)
}
