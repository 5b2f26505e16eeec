//! Retro-hunts: detection rules over events of the past, with the detector that live events meet.

use crate::archive::{Archive, Tenants};
use crate::layout::Span;
use crate::merge::Merge;
use crate::search::Progress;
use crate::{ArchiveError, row::Arrived};
use detection::engine::{Detector, Effect, Input, Options};
use detection::normalise::normalise;
use detection::rules::RuleSet;
use detection::{Alert, AlertId, Event};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// How far before the span events are read: longer than any rule looks back, so that what began before it is found.
pub const LOOK_BACK_MS: u64 = 2 * 3_600_000;
/// Alerts kept; there may be more, which is said.
pub const ALERTS_MAX: usize = 5_000;
/// How often, in event time, the detector is told that time passes.
const TICK_MS: u64 = 1_000;

/// A hunt.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Whose events.
    pub tenants: Tenants,
    /// When the last event of an alert happened.
    pub span: Span,
    /// The rules.
    pub rules: RuleSet,
    /// Only alerts of these rules, by id; of all where empty. The others still feed correlations.
    pub only: BTreeSet<String>,
    /// Whose rules these are, as live detection has it: a part of alerts' ids.
    pub options: Options,
}

/// What a hunt found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Alerts that stand, by the time of their last event.
    pub alerts: Vec<Alert>,
    /// Whether there were more than [`ALERTS_MAX`].
    pub truncated: bool,
    /// Events the rules saw.
    pub events: u64,
    /// Events that the parsers of today reject, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// Hunts. Blocks the thread until it is done or cancelled.
pub fn run(archive: &Archive, hunt: Hunt, progress: &Progress) -> Result<Found, ArchiveError> {
    let read = Span { from_ms: hunt.span.from_ms.saturating_sub(LOOK_BACK_MS), to_ms: hunt.span.to_ms };
    let snapshot = archive.snapshot(&hunt.tenants, read);
    progress.files_total.store(snapshot.files.len() as u64, Ordering::Relaxed);
    let mut found = Found::default();
    let mut alerts: BTreeMap<AlertId, Alert> = BTreeMap::new();
    let options = Options { ahead_max_ms: u64::MAX, ..hunt.options };
    let mut detector = Detector::new(hunt.rules, options);
    let (mut now_ms, mut effects) = (0, Vec::new());
    for Arrived { time_ms, raw } in Merge::new(snapshot, read, progress) {
        if progress.is_cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        // The clock of the hunt is that of the events: none of them is late or ahead.
        if time_ms >= now_ms + TICK_MS {
            now_ms = time_ms;
            detector.step(now_ms, Input::Tick, &mut effects);
        }
        match normalise(&raw) {
            Ok(event) => {
                found.events += 1;
                detector.step(time_ms, Input::Event(Event { time_ms, ..event }), &mut effects);
            }
            Err(reject) => *found.rejected.entry(reject.reason.label().to_owned()).or_default() += 1,
        }
        keep(&mut effects, &mut alerts, &mut found);
    }
    // What waits for time to pass gets it.
    detector.step(hunt.span.to_ms.min(now_ms + LOOK_BACK_MS), Input::Tick, &mut effects);
    keep(&mut effects, &mut alerts, &mut found);
    for (path, reason) in progress.broken() {
        archive.report_broken(&path, &reason);
    }
    let wanted = |alert: &Alert| {
        hunt.span.contains(alert.last_ms) && (hunt.only.is_empty() || hunt.only.contains(alert.rule.id.as_ref()))
    };
    found.alerts = alerts.into_values().filter(wanted).collect();
    found.alerts.sort_by(|one, other| (one.last_ms, one.id).cmp(&(other.last_ms, other.id)));
    progress.rows_matched.store(found.alerts.len() as u64, Ordering::Relaxed);
    Ok(found)
}

/// Keeps the alerts that stand.
fn keep(effects: &mut Vec<Effect>, alerts: &mut BTreeMap<AlertId, Alert>, found: &mut Found) {
    for effect in effects.drain(..) {
        match effect {
            Effect::Alert(alert) => {
                if alerts.len() < ALERTS_MAX || alerts.contains_key(&alert.id) {
                    alerts.insert(alert.id, alert);
                } else {
                    found.truncated = true;
                }
            }
            Effect::Superseded { old, .. } => {
                alerts.remove(&old);
            }
            Effect::Extended { .. } => {}
        }
    }
}
