//! Breach clocks: duties to report that run from the moment something is known.
//!
//! GDPR art. 33(1): 72 hours to the authority; art. 33(2): the processor tells the controller without undue delay;
//! NIS2 art. 23(4): early warning within 24 hours, notification within 72. Pure: it says what is due, and tells nobody.

use serde::{Deserialize, Serialize};

const HOUR_MS: u64 = 3_600_000;

/// A duty to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// A breach of personal data, to the supervisory authority.
    GdprAuthority,
    /// A significant incident's early warning, to the CSIRT.
    Nis2EarlyWarning,
    /// A significant incident's notification, to the CSIRT.
    Nis2Notification,
    /// A breach of personal data, from us as processor to a controller; a contract says how soon.
    ProcessorNotice,
}

impl ClockKind {
    /// How long may pass at most: by law, or by what is usual where a contract may say less or more.
    pub const fn limit_ms(self) -> u64 {
        match self {
            Self::Nis2EarlyWarning | Self::ProcessorNotice => 24 * HOUR_MS,
            Self::GdprAuthority | Self::Nis2Notification => 72 * HOUR_MS,
        }
    }
    /// Whether so long may be allowed: a contract never extends what the law gives.
    pub const fn admits(self, limit_ms: u64) -> bool {
        limit_ms > 0
            && limit_ms <= 72 * HOUR_MS
            && (limit_ms <= self.limit_ms() || matches!(self, Self::ProcessorNotice))
    }
}

/// One duty of one incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Which duty.
    pub kind: ClockKind,
    /// To or about whom: a tenant, a controller, an authority.
    pub subject: String,
    /// Since when it has been known.
    pub aware_ms: u64,
    /// Until when it must be reported.
    pub due_ms: u64,
    /// When it was reported, and under which reference.
    pub met: Option<(u64, String)>,
    /// Whether the duty turned out not to exist.
    pub stopped: bool,
}

/// How a duty stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockState {
    /// So many milliseconds are left.
    Running {
        /// How many.
        left_ms: u64,
    },
    /// So many milliseconds too long.
    Overdue {
        /// How many.
        over_ms: u64,
    },
    /// Reported in time.
    Met,
    /// Reported too late: the law asks for the reasons of the delay.
    MetLate {
        /// By how much.
        over_ms: u64,
    },
    /// It does not exist.
    Stopped,
}

impl Clock {
    /// How it stands.
    pub fn state(&self, now_ms: u64) -> ClockState {
        match &self.met {
            Some((at_ms, _)) if *at_ms <= self.due_ms => ClockState::Met,
            Some((at_ms, _)) => ClockState::MetLate { over_ms: at_ms - self.due_ms },
            None if self.stopped => ClockState::Stopped,
            None if now_ms <= self.due_ms => ClockState::Running { left_ms: self.due_ms - now_ms },
            None => ClockState::Overdue { over_ms: now_ms - self.due_ms },
        }
    }
    /// Whether it must still be reported.
    pub fn is_open(&self) -> bool {
        self.met.is_none() && !self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_runs_from_knowledge_and_is_met_late_when_it_is() {
        let due_ms = 10 + ClockKind::Nis2EarlyWarning.limit_ms();
        let mut clock = Clock {
            kind: ClockKind::Nis2EarlyWarning,
            subject: "csirt".into(),
            aware_ms: 10,
            due_ms,
            met: None,
            stopped: false,
        };
        assert_eq!(clock.state(due_ms), ClockState::Running { left_ms: 0 });
        assert_eq!(clock.state(due_ms + 1), ClockState::Overdue { over_ms: 1 });
        clock.met = Some((due_ms + 5, "A-1".into()));
        assert_eq!(clock.state(due_ms + 9), ClockState::MetLate { over_ms: 5 });
        clock.met = Some((due_ms, "A-1".into()));
        assert_eq!(clock.state(due_ms + 9), ClockState::Met);
    }

    #[test]
    fn no_contract_extends_what_the_law_gives() {
        assert!(!ClockKind::Nis2EarlyWarning.admits(25 * HOUR_MS));
        assert!(!ClockKind::GdprAuthority.admits(73 * HOUR_MS));
        assert!(ClockKind::ProcessorNotice.admits(48 * HOUR_MS));
        assert!(!ClockKind::ProcessorNotice.admits(0));
    }
}
