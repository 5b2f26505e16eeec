//! Where alerts leave the detector: raised, held back by a quota, or only counted because their rule is in shadow.

use super::{Detector, Effect};
use crate::alert::Alert;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most alerts of one rule in shadow that are kept to be looked at.
pub const SHADOW_ALERTS_MAX: usize = 8;

/// What a rule in shadow would have raised since the detector began. It is not kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shadow {
    /// How many alerts.
    pub alerts: u64,
    /// The first of them.
    pub first: Vec<Arc<Alert>>,
}

impl Detector {
    /// What rules in shadow would have raised, by their ids.
    pub fn shadows(&self) -> &BTreeMap<Arc<str>, Shadow> {
        &self.shadows
    }

    /// Raises an alert unless it must not be; whether it, or one in its place, was.
    pub(super) fn raise(&mut self, is_shadow: bool, alert: Arc<Alert>, effects: &mut Vec<Effect>) -> bool {
        if is_shadow {
            self.counts.shadowed += 1;
            let shadow = self.shadows.entry(alert.rule.id.clone()).or_default();
            shadow.alerts += 1;
            if shadow.first.len() < SHADOW_ALERTS_MAX {
                shadow.first.push(alert);
            }
            return false;
        }
        let view = if alert.tenant == self.options.tenant { None } else { self.rules.tenancy.view(&alert.tenant) };
        if view.is_some_and(|view| view.silent.contains(&alert.rule.id)) {
            return false;
        }
        if let Some(view) = view
            && let Some(beyond) = self.quotas.beyond(view.alerts_max, &alert)
        {
            self.counts.held += 1;
            if let Some(notice) = beyond.first {
                self.counts.alerts += 1;
                effects.push(Effect::Alert(Arc::new(notice)));
            }
            return false;
        }
        self.counts.alerts += 1;
        effects.push(Effect::Alert(alert));
        true
    }
}
