//! Who is called when: the policy, the rota, and what runs.

use super::record::Etag;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The escalation policy: a document of people, teams, schedules and policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PolicyView {
    /// How many were applied before it, and itself.
    pub revision: u64,
    /// The document: TOML.
    pub text: String,
    /// Who applied it.
    pub by: String,
    /// When: milliseconds since 1970.
    pub applied_ms: u64,
    /// Why.
    pub why: Option<String>,
    /// What may leave people uncalled: a policy without fallback, and whom no sink of the answering node calls.
    pub warnings: Vec<String>,
    /// For `If-Match`; also the answer's `ETag`.
    pub etag: Etag,
}

/// Replaces the escalation policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicy {
    /// The document: TOML.
    pub text: String,
    /// Why.
    pub why: Option<String>,
}

/// Who is on call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OnCallList {
    /// When: milliseconds since 1970.
    pub at_ms: u64,
    /// In order of their names.
    pub schedules: Vec<OnCallView>,
}

/// Who is on call in one schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OnCallView {
    /// The schedule.
    pub schedule: String,
    /// Who; nobody where it is null.
    pub login: Option<String>,
    /// Until when: milliseconds since 1970; null where no hand-over is in sight.
    pub until_ms: Option<u64>,
    /// Who comes next; nobody where it is null.
    pub next: Option<String>,
}

/// Who is being called about what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EscalationList {
    /// Those that run first, the newest first.
    pub escalations: Vec<EscalationView>,
}

/// How calling people about one incident stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EscalationView {
    /// The incident.
    pub incident: String,
    /// The policy.
    pub policy: Option<String>,
    /// `running`, `quiet`, `exhausted`, `no_policy`, or `stopped` by an acknowledgement, an end or a merge.
    pub standing: String,
    /// Why it stopped: `acknowledged`, `ended` or `merged`.
    pub stopped_by: Option<String>,
    /// When people were first called: milliseconds since 1970.
    pub begun_ms: u64,
    /// The round of the policy's steps, from 1.
    pub round: Option<u32>,
    /// The step, from 1.
    pub step: Option<u32>,
    /// Whom that step has told.
    pub told: Vec<String>,
    /// Until when somebody should acknowledge before the next step: milliseconds since 1970.
    pub acknowledge_by_ms: Option<u64>,
    /// How many notifications were sent in all.
    pub sent: u64,
}
