//! How many alerts a tenant's rule raises in an hour of event time; what is beyond the quota is counted and told once.
//!
//! Which alerts are beyond it depends on the order in which events come; that some are, and that it is told, does not.

use crate::alert::{Alert, EventSummary, RuleReference, Severity};
use crate::id::{Digest, EventId, SemanticHash};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const HOUR_MS: u64 = 3_600_000;
/// Most tenants, rules and hours that are remembered; the oldest hours leave first.
const USES_MAX: usize = 100_000;

/// The id of the alert that tells of a quota.
pub const QUOTA_RULE: &str = "holdfast-tenant-quota-exceeded";

/// Hour, tenant and rule: the oldest are the first.
pub(super) type Key = (u64, Arc<str>, Arc<str>);

/// What is stored of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Use {
    key: Key,
    alerts: u32,
}

/// How many alerts were raised.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    alerts: BTreeMap<Key, u32>,
    changed: BTreeSet<Key>,
}

/// An alert is beyond the quota.
pub(super) struct Beyond {
    /// What tells of it, the first time.
    pub(super) first: Option<Alert>,
}

impl Quotas {
    /// Counts an alert; whether it is beyond the quota.
    pub(super) fn beyond(&mut self, alerts_max: u32, alert: &Alert) -> Option<Beyond> {
        let key: Key = (alert.last_ms / HOUR_MS, alert.tenant.clone(), alert.rule.id.clone());
        let count = self.alerts.entry(key.clone()).or_default();
        let before = *count;
        // One more than the quota is enough to know that it was told of.
        *count = before.saturating_add(1).min(alerts_max.saturating_add(1));
        if before != *count {
            self.changed.insert(key);
        }
        while self.alerts.len() > USES_MAX {
            if let Some((oldest, _)) = self.alerts.pop_first() {
                self.changed.insert(oldest);
            }
        }
        (before >= alerts_max).then(|| Beyond { first: (before == alerts_max).then(|| notice(alerts_max, alert)) })
    }

    /// What changed since this was last called: the name of each, and its bytes unless it is forgotten.
    pub(super) fn take(&mut self) -> Vec<([u8; 16], Option<Use>)> {
        let changed = std::mem::take(&mut self.changed);
        let row =
            |key: Key| (name(&key), self.alerts.get(&key).map(|alerts| Use { alerts: *alerts, key: key.clone() }));
        changed.into_iter().map(row).collect()
    }

    /// Puts back what was stored.
    pub(super) fn restore(&mut self, stored: Use) {
        self.alerts.insert(stored.key, stored.alerts);
    }
}

fn name((hour, tenant, rule): &Key) -> [u8; 16] {
    let mut hash = Digest::new("holdfast detector quota 1");
    hash.part(&hour.to_le_bytes()).part(tenant.as_bytes()).part(rule.as_bytes());
    *EventId::of(hash).as_bytes()
}

/// The one alert on a rule's quota in an hour: the same whichever event went beyond it.
fn notice(alerts_max: u32, alert: &Alert) -> Alert {
    let hour = alert.last_ms / HOUR_MS;
    let event = EventSummary {
        id: EventId::from_bytes(name(&(hour, alert.tenant.clone(), alert.rule.id.clone()))),
        time_ms: hour * HOUR_MS,
        class_uid: 0,
        activity_id: 0,
        text: format!("\"{}\" raised {alerts_max} alerts in an hour; those beyond are counted only", alert.rule.title),
        entities: BTreeSet::new(),
    };
    let rule = RuleReference {
        id: QUOTA_RULE.into(),
        title: "Tenant's alert quota exceeded".into(),
        semantic_hash: SemanticHash::of(Digest::new(QUOTA_RULE)),
        tags: Vec::new(),
    };
    let key = BTreeMap::from([("rule".to_owned(), alert.rule.id.to_string()), ("hour".to_owned(), hour.to_string())]);
    Alert::new(alert.tenant.clone(), rule, Severity::Medium, key, vec![event])
}
