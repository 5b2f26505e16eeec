//! Mutes: notifications about an entity or a rule rest for a while.
//!
//! Only notifications. Alerts of what is muted open and join incidents as ever and their risk counts: nothing in
//! [`super::risk`] knows of mutes. An incident is quiet while each of its alerts is muted: one that is not calls people.

use super::entity;
use super::state::{AlertLine, Incident};
use super::{REASON_SIZE_BYTES_MAX, SUPPRESSION_MAX_MS};
use crate::alert::Entity;
use crate::id::{Digest, MuteId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The version of the stored form that is written.
pub const VERSION: u32 = 1;
/// Most mutes at a time.
pub const MUTES_MAX: usize = 1_024;

/// What rests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Alerts that concern it.
    Entity(Entity),
    /// Alerts of this rule's id.
    Rule(Arc<str>),
}

/// Notifications that rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    /// The version of the stored form.
    pub version: u32,
    /// About what.
    pub subject: Subject,
    /// Only in this tenant's incidents; `None` for all.
    pub tenant: Option<Arc<str>>,
    /// Until when.
    pub until_ms: u64,
    /// Who said so.
    pub by: Arc<str>,
    /// Why.
    pub why: Arc<str>,
}

/// Why a mute is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMuted {
    /// In the past, or further ahead than [`SUPPRESSION_MAX_MS`].
    #[error("until when: a time at most seven days ahead")]
    TimeOutOfRange,
    /// No reason, or one too long.
    #[error("a reason is required, of at most {REASON_SIZE_BYTES_MAX} bytes")]
    ReasonRequired,
    /// No rule's id, or one too long.
    #[error("the id of a rule is required, of at most {REASON_SIZE_BYTES_MAX} bytes")]
    RuleRequired,
}

impl Mute {
    /// The same for the same subject and tenant: a later mute replaces it.
    pub fn id(&self) -> MuteId {
        let mut hash = Digest::new("holdfast mute 1");
        match &self.subject {
            Subject::Entity(entity) => hash.part(b"entity").part(entity::text(entity).as_bytes()),
            Subject::Rule(rule) => hash.part(b"rule").part(rule.as_bytes()),
        };
        hash.part(self.tenant.as_deref().unwrap_or_default().as_bytes());
        MuteId::of(hash)
    }

    /// Whether it may be at all.
    pub fn check(&self, now_ms: u64) -> Result<(), NotMuted> {
        let fits = |text: &str| !text.trim().is_empty() && text.len() <= REASON_SIZE_BYTES_MAX;
        if self.until_ms <= now_ms || self.until_ms - now_ms > SUPPRESSION_MAX_MS {
            return Err(NotMuted::TimeOutOfRange);
        }
        if !fits(&self.why) {
            return Err(NotMuted::ReasonRequired);
        }
        match &self.subject {
            Subject::Rule(rule) if !fits(rule) => Err(NotMuted::RuleRequired),
            _ => Ok(()),
        }
    }

    fn covers(&self, tenant: &str, line: &AlertLine) -> bool {
        let is_subject = match &self.subject {
            Subject::Entity(entity) => line.entities.contains(entity),
            Subject::Rule(rule) => line.rule == *rule,
        };
        is_subject && self.tenant.as_deref().is_none_or(|own| own == tenant)
    }
}

/// Until when nobody is called about an incident: because it is suppressed itself, or because all of its alerts are
/// muted. `None` where people are called.
pub fn quiet_until_ms(incident: &Incident, mutes: &[Mute], now_ms: u64) -> Option<u64> {
    let muted = |line: &AlertLine| {
        let covering = mutes.iter().filter(|mute| now_ms < mute.until_ms && mute.covers(&incident.tenant, line));
        covering.map(|mute| mute.until_ms).max()
    };
    let all =
        incident.alerts.values().map(muted).try_fold(u64::MAX, |first, until| until.map(|until| first.min(until)));
    let by_mutes = all.filter(|_| !incident.alerts.is_empty());
    incident.quiet_until_ms(now_ms).max(by_mutes)
}
