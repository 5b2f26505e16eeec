//! Retro-hunts: detection rules over events of the past, with the detector that live events meet.

use crate::ArchiveError;
use crate::archive::{Archive, Tenants};
use crate::layout::Span;
use crate::merge::Merge;
use crate::search::{Limits, Progress};
use detection::engine::{Detector, Effect, Input, Options};
use detection::normalise::normalise_for;
use detection::rules::RuleSet;
use detection::{Alert, AlertId, Event};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How far before and after the span events are read at most: as far as the rules reach, up to this.
pub const REACH_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Alerts kept; there may be more, which is said.
pub const ALERTS_MAX: usize = 5_000;
/// Bytes of them, about.
pub const ALERTS_BYTES_MAX: usize = 64 << 20;
/// What an alert, and an event of one, take beside their texts.
const OVERHEAD_BYTES: usize = 256;
/// How long after the last event, in event time, the detector is told that time passes: longer than it waits for what
/// comes late.
const WAITS_MS: u64 = 2 * 3_600_000;
/// How often, in event time, the detector is told that time passes.
const TICK_MS: u64 = 1_000;

/// A hunt.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Whose events.
    pub tenants: Tenants,
    /// Of which of them entries of the audit log too.
    pub audit: Tenants,
    /// When the last event of an alert happened.
    pub span: Span,
    /// The rules.
    pub rules: RuleSet,
    /// Only alerts of these rules, by id; of all where empty. The others still feed correlations.
    pub only: BTreeSet<String>,
    /// Whose rules these are, as live detection has it: a part of alerts' ids.
    pub options: Options,
    /// Up to when is known what happened: what waits for time to pass waits until then at most.
    pub known_ms: u64,
}

/// What a hunt found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Alerts that stand, by the time of their last event.
    pub alerts: Vec<Arc<Alert>>,
    /// Whether there were more than [`ALERTS_MAX`], or larger ones than [`ALERTS_BYTES_MAX`].
    pub truncated: bool,
    /// Bytes of the alerts, about.
    #[serde(skip)]
    pub size_bytes: usize,
    /// Events the rules saw.
    pub events: u64,
    /// Events that the parsers of today reject, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// Hunts. Blocks the thread until it is done, cancelled or out of time.
pub fn run(archive: &Archive, hunt: Hunt, limits: Limits, progress: &Progress) -> Result<Found, ArchiveError> {
    progress.limit(limits.time);
    let reach_ms = hunt.rules.reach_ms().min(REACH_MS_MAX);
    // What came after the span decides about windows that began in it.
    let to_ms = hunt.span.to_ms.saturating_add(reach_ms).min(Span::ALL.to_ms);
    let read = Span { from_ms: hunt.span.from_ms.saturating_sub(reach_ms), to_ms };
    let snapshot = archive.snapshot(&hunt.tenants, read);
    progress.files_total.store(snapshot.files.len() as u64, Ordering::Relaxed);
    let mut found = Found::default();
    let mut alerts =
        Alerts { span: hunt.span, only: hunt.only, standing: BTreeMap::new(), size_bytes: 0, truncated: false };
    let options = Options { ahead_max_ms: u64::MAX, ..hunt.options };
    let mut detector = Detector::new(hunt.rules, options);
    let (mut now_ms, mut effects) = (0, Vec::new());
    for arrived in Merge::new(snapshot, read, &hunt.audit, progress) {
        let time_ms = arrived.time_ms;
        progress.end()?;
        // The clock of the hunt is that of the events: none of them is late or ahead.
        if time_ms >= now_ms + TICK_MS {
            now_ms = time_ms;
            detector.step(now_ms, Input::Tick, &mut effects);
        }
        match normalise_for(&arrived.raw, arrived.owner()) {
            Ok(event) => {
                found.events += 1;
                detector.step(time_ms, Input::Event(Event { time_ms, ..event }), &mut effects);
            }
            Err(reject) => *found.rejected.entry(reject.reason.label().to_owned()).or_default() += 1,
        }
        alerts.take(&mut effects);
    }
    progress.end()?;
    // What waits for time to pass gets it.
    let end_ms = hunt.known_ms.min(now_ms + reach_ms + WAITS_MS).max(now_ms);
    detector.step(end_ms, Input::Tick, &mut effects);
    alerts.take(&mut effects);
    progress.report(archive);
    (found.truncated, found.size_bytes) = (alerts.truncated, alerts.size_bytes);
    found.alerts = alerts.standing.into_values().collect();
    found.alerts.sort_by_key(|alert| (alert.last_ms, alert.id));
    progress.rows_matched.store(found.alerts.len() as u64, Ordering::Relaxed);
    Ok(found)
}

/// Alerts that were asked for and stand. What was not asked for takes no room.
struct Alerts {
    span: Span,
    only: BTreeSet<String>,
    standing: BTreeMap<AlertId, Arc<Alert>>,
    size_bytes: usize,
    truncated: bool,
}

impl Alerts {
    fn take(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Alert(alert) if self.is_wanted(&alert) => self.add(alert),
                Effect::Superseded { old, .. } => {
                    if let Some(gone) = self.standing.remove(&old) {
                        self.size_bytes -= size_of(&gone);
                    }
                }
                Effect::Alert(_) | Effect::Extended { .. } => {}
            }
        }
    }

    fn is_wanted(&self, alert: &Alert) -> bool {
        self.span.contains(alert.last_ms) && (self.only.is_empty() || self.only.contains(alert.rule.id.as_ref()))
    }

    fn add(&mut self, alert: Arc<Alert>) {
        if self.standing.contains_key(&alert.id) {
            return;
        }
        if self.standing.len() >= ALERTS_MAX || self.size_bytes >= ALERTS_BYTES_MAX {
            self.truncated = true;
            return;
        }
        self.size_bytes += size_of(&alert);
        self.standing.insert(alert.id, alert);
    }
}

fn size_of(alert: &Alert) -> usize {
    alert.events.iter().map(|event| OVERHEAD_BYTES + event.text.len()).sum::<usize>() + OVERHEAD_BYTES
}
