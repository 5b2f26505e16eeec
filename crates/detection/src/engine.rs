//! The detector: events in, alerts out.
//!
//! Pure and deterministic: the time is an argument, and the same inputs give the same effects in the same order.

use crate::alert::Alert;
use crate::event::Event;
use crate::id::AlertId;
use std::sync::Arc;

/// Bounds and times of a detector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whose rules these are; part of every alert's id.
    pub tenant: Arc<str>,
    /// How much later than the newest event of its stream an event may come and still be correlated.
    pub allowed_lateness_ms: u64,
    /// How long a stream may be silent before it stops holding others' windows open.
    pub idle_after_ms: u64,
    /// How far an event's clock may be ahead of ours; beyond it the time of receipt counts.
    pub ahead_max_ms: u64,
    /// Most group keys a correlation keeps; the least recent leave, counted and reported as an alert.
    pub keys_max: usize,
    /// Most events remembered to drop duplicates; beyond it the allowed lateness shrinks.
    pub remembered_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tenant: "platform".into(),
            allowed_lateness_ms: 60_000,
            idle_after_ms: 30_000,
            ahead_max_ms: 60_000,
            keys_max: 100_000,
            remembered_max: 1_000_000,
        }
    }
}

/// What goes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An event.
    Event(Event),
    /// Time passed; about once a second.
    Tick,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A rule is satisfied. Store it under its id: the same alert may be raised again by a replay.
    Alert(Alert),
    /// An event that came late changed which events a burst begins with: `old` no longer stands, `by` does.
    Superseded {
        /// The alert that no longer stands.
        old: AlertId,
        /// The one that covers its events; always raised before.
        by: AlertId,
    },
    /// The burst that an alert reported goes on; told when the count of satisfying events has doubled.
    Extended {
        /// The alert.
        alert: AlertId,
        /// Satisfying events so far.
        count: u64,
        /// When the last of them happened.
        last_ms: u64,
    },
}

/// What the detector has done, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events taken in.
    pub events: u64,
    /// Of them, dropped as duplicates.
    pub duplicates: u64,
    /// Of them, later than the allowed lateness: matched by single-event rules, not correlated.
    pub late: u64,
    /// Of them, with a clock too far ahead.
    pub ahead: u64,
    /// Times a single-event rule matched.
    pub matches: u64,
    /// Alerts raised.
    pub alerts: u64,
    /// Alerts superseded.
    pub superseded: u64,
    /// Group keys evicted because of the bound: from here on the detector may have missed something.
    pub keys_evicted: u64,
    /// Group keys held now.
    pub keys: u64,
    /// Events remembered now.
    pub remembered: u64,
}
