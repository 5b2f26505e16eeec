//! Silence for a leader that hears no quorum.
//!
//! A deaf leader (it sends but cannot receive) would keep its followers quiet for ever. So once no
//! quorum has answered for a lease, it sends nothing for long enough that the others can elect, then
//! speaks again for as long, in case there is no one else to lead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Shut while this node must not send as a leader.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    shut: AtomicBool,
}

impl Gate {
    pub fn set(&self, shut: bool) {
        self.shut.store(shut, Ordering::Release);
    }
    pub fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }
}

/// Whether a leader keeps silent: not within its lease, then in every other phase.
///
/// A phase is two leases and a little more: the followers' lease has to expire and the longest
/// election timeout has to pass.
pub(crate) fn is_silent(since_quorum: Duration, lease: Duration) -> bool {
    let Some(lost) = since_quorum.checked_sub(lease) else { return false };
    let phase = lease.saturating_mul(2) + lease / 2;
    (lost.as_millis() / phase.as_millis().max(1)).is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_silent_in_every_other_phase_after_its_lease() {
        let lease = Duration::from_millis(500);
        let check = |ms, expect| assert_eq!(is_silent(Duration::from_millis(ms), lease), expect, "after {ms} ms");
        check(0, false);
        check(499, false);
        check(500, true);
        check(1_749, true);
        check(1_750, false);
        check(2_999, false);
        check(3_000, true);
    }
}
