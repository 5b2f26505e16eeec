//! What the region's log says the time is, so that one node's clock cannot decide when people are called.
//!
//! Each entry carries the clock of the leader that proposed it; between entries this node's own clock counts on from
//! there. A clock that is ahead of the log does not count; one that is behind does, for a leader may be the one that is
//! wrong, and a call that is late is better than one that never comes.

use crate::node::Node;
use model::time::Clock;
use parking_lot::Mutex;
use std::time::Duration;

/// How far the own clock may be ahead of the log.
const AHEAD_MS_MAX: u64 = 5_000;
/// An entry that came with less delay counts for so long; then the next one does, whichever it is.
const KEPT: Duration = Duration::from_secs(600);

/// The time by the log.
#[derive(Debug, Default)]
pub struct Beat {
    /// The leader's clock, and when it was heard by the clock that never goes back.
    last: Mutex<Option<(u64, Duration)>>,
}

impl Beat {
    /// An entry was applied. Those that are applied again after a restart are old, and those that came late tell less:
    /// the one that says the latest time counts.
    pub fn heard(&self, clock: &dyn Clock, wall_ms: u64) {
        let now = clock.monotonic();
        let mut last = self.last.lock();
        let is_better = last.is_none_or(|(known_ms, at)| {
            let age = now.saturating_sub(at);
            age > KEPT || wall_ms >= known_ms.saturating_add(milliseconds(age))
        });
        if is_better {
            *last = Some((wall_ms, now));
        }
    }

    /// The own wall clock, as far as the log bears it out.
    pub fn now_ms(&self, clock: &dyn Clock) -> u64 {
        let most_ms = self.by_log_ms(clock).map_or(u64::MAX, |log_ms| log_ms.saturating_add(AHEAD_MS_MAX));
        clock.wall_ms().min(most_ms)
    }

    /// How far the own wall clock is ahead of the log, in milliseconds.
    pub fn ahead_ms(&self, clock: &dyn Clock) -> i64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        self.by_log_ms(clock).map_or(0, |log_ms| signed(clock.wall_ms()).saturating_sub(signed(log_ms)))
    }

    fn by_log_ms(&self, clock: &dyn Clock) -> Option<u64> {
        let (known_ms, at) = (*self.last.lock())?;
        Some(known_ms.saturating_add(milliseconds(clock.monotonic().saturating_sub(at))))
    }
}

impl Node {
    /// What time it is for incidents, escalations and tickets.
    pub(crate) fn now_ms(&self) -> u64 {
        self.beat.now_ms(&*self.world.clock)
    }
    /// How far this node's clock is ahead of its region's log.
    pub(crate) fn clock_ahead_ms(&self) -> i64 {
        self.beat.ahead_ms(&*self.world.clock)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hands {
        wall_ms: u64,
        monotonic_ms: u64,
    }

    impl Clock for Hands {
        fn wall_ms(&self) -> u64 {
            self.wall_ms
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic_ms)
        }
    }

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_clock_that_is_a_day_ahead_does_not_decide_what_time_it_is() {
        let beat = Beat::default();
        let at = |wall_ms, monotonic_ms| Hands { wall_ms, monotonic_ms };
        assert_eq!(beat.now_ms(&at(DAY_MS, 0)), DAY_MS, "nothing was heard yet");
        beat.heard(&at(3 * DAY_MS, 100), 2 * DAY_MS);
        assert_eq!(beat.now_ms(&at(3 * DAY_MS, 1_100)), 2 * DAY_MS + 1_000 + AHEAD_MS_MAX);
        assert_eq!(beat.now_ms(&at(DAY_MS, 1_100)), DAY_MS, "it may be the leader that is wrong");
        assert_eq!(beat.now_ms(&at(2 * DAY_MS + 1_200, 1_100)), 2 * DAY_MS + 1_200, "one that is right counts");
        assert_eq!(beat.ahead_ms(&at(3 * DAY_MS, 1_100)), (DAY_MS - 1_000) as i64);
    }

    #[test]
    fn entries_of_before_a_restart_do_not_turn_time_back() {
        let beat = Beat::default();
        let clock = Hands { wall_ms: 5 * DAY_MS, monotonic_ms: 10 };
        beat.heard(&clock, 5 * DAY_MS);
        beat.heard(&clock, 4 * DAY_MS);
        assert_eq!(beat.ahead_ms(&clock), 0);
        let later = Hands { wall_ms: 5 * DAY_MS + 700_000, monotonic_ms: 700_000 };
        beat.heard(&later, 4 * DAY_MS);
        assert!(beat.ahead_ms(&later) > 0, "a leader that was ahead does not count for ever");
    }
}
