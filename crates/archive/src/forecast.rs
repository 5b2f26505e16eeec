//! Forecasts: what rules would have raised of the events that are kept, before anybody relies on them.

use crate::archive::{Archive, Tenants};
use crate::layout::Span;
use crate::merge::Merge;
use crate::search::Progress;
use detection::report::{Backtest, Run};
use detection::rules::RuleSet;
use std::time::Duration;

/// Bounds of a forecast: what it has seen when it reaches one is what it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Events.
    pub events_max: usize,
    /// How long it may take.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { events_max: 2_000_000, time: Duration::from_secs(60) }
    }
}

/// Runs rules over the events of a span, of all tenants. Blocks the thread.
pub fn run(archive: &Archive, rules: &RuleSet, span: Span, bounds: Bounds) -> Backtest {
    let progress = Progress::default();
    progress.limit(bounds.time);
    let snapshot = archive.snapshot(&Tenants::All, span);
    let events = Merge::new(snapshot, span, &Tenants::All, &progress);
    let mut backtest = Run::new(rules);
    for arrived in events.take(bounds.events_max).take_while(|_| progress.end().is_ok()) {
        backtest.take(&arrived.raw, arrived.owner());
    }
    progress.report(archive);
    backtest.end()
}
