//! How detection does: rules in charge and on trial, what was counted, how far behind it is.

use super::incident::Severity;
use super::record::Page;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How detection in this region does. Any node answers; each shard is worked on by one of them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DetectionStatus {
    /// The region.
    pub region: String,
    /// The node that answers.
    pub node: String,
    /// The rules that this node has read.
    pub rules: KnownRules,
    /// Every shard of the detector.
    pub shards: Vec<ShardStatus>,
    /// What tenants' rules may do: those that are named, then all others. None where rules are the platform's only.
    pub tenants: Vec<TenantLimits>,
}

/// A set of rules that a node has read.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KnownRules {
    /// A hash of everything that alerts depend on.
    pub set: String,
    /// Rules on single events.
    pub rules: u64,
    /// Correlations.
    pub correlations: u64,
    /// Whether it is known what is to be expected of them: only of rules that changed while the node runs.
    pub is_foretold: bool,
}

/// One shard of the detector: it has a part of the rules, and reads every event.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShardStatus {
    /// Its number.
    pub shard: u16,
    /// The node that has it; null while nobody does.
    pub node: Option<String>,
    /// The lease's epoch.
    pub epoch: Option<u64>,
    /// What that node, or the one before it, said last; null until one does.
    pub report: Option<ShardReport>,
    /// What it reads.
    pub streams: Vec<StreamStatus>,
}

/// What the node of a shard says of it, at most every ten seconds. Counts begin when a node takes the shard over.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShardReport {
    /// When it was said: milliseconds since 1970.
    pub at_ms: u64,
    /// Whether its node has read the same rules as the node that answers.
    pub has_same_rules: bool,
    /// The rules in charge, hashed.
    pub set: String,
    /// Rules on single events in charge.
    pub rules: u64,
    /// Correlations in charge.
    pub correlations: u64,
    /// `steady`; `shadow` while other rules run beside those in charge; `watched` once they are in charge.
    pub phase: String,
    /// The rules on trial.
    pub trial: Option<RulesOnTrial>,
    /// Rules that went wrong, and are not tried again until they change.
    pub rejected: Option<RejectedRules>,
    /// What rules with `shadow: true` would have raised: the hundred that would have raised most.
    pub shadows: Vec<RuleCount>,
    /// Spans of stored events that wait to be judged again because something came late.
    pub late_spans: u64,
    /// Group keys of correlations.
    pub keys: u64,
    /// Events that are remembered, to know them again.
    pub remembered: u64,
    /// What was counted, under the names of `holdfast_detection_events_total`.
    pub counts: BTreeMap<String, u64>,
    /// Of it, what may have been missed: keys, entries and rows lost, late events unseen. Empty where nothing was.
    pub losses: BTreeMap<String, u64>,
}

/// Rules on trial.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RulesOnTrial {
    /// The rules, hashed.
    pub set: String,
    /// When this phase of the trial began: milliseconds since 1970.
    pub since_ms: u64,
    /// Events seen in this phase.
    pub events: u64,
    /// Whether it is known what is to be expected of them: before that a trial does not end.
    pub is_foretold: bool,
    /// How many rules are new, or mean something else.
    pub new: u64,
    /// The hundred of them with most alerts.
    pub rules: Vec<RuleOnTrial>,
}

/// One rule on trial.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RuleOnTrial {
    /// Its id.
    pub rule: String,
    /// Alerts that it raised, or would have raised, in this phase.
    pub alerts: u64,
    /// How many are allowed until now; null while that is not known.
    pub allowed: Option<u64>,
}

/// Rules that went wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RejectedRules {
    /// Why.
    pub why: String,
    /// Those that were new, at most a hundred.
    pub rules: Vec<String>,
}

/// How often something was about a rule.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RuleCount {
    /// The rule's id.
    pub rule: String,
    /// How often.
    pub count: u64,
}

/// How far a shard has read a stream; what it read in the last second may not be stored yet.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StreamStatus {
    /// The stream: an audit log, or the events of others.
    pub stream: String,
    /// What is read next.
    pub next: u64,
    /// What will be written next.
    pub head: u64,
    /// How many events wait.
    pub behind: u64,
    /// How long the first of them has waited; null where none does.
    pub behind_ms: Option<u64>,
}

/// What a tenant's rules may do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TenantLimits {
    /// The tenant; null for all that are not named.
    pub tenant: Option<String>,
    /// Rules on single events that its events meet, beside the platform's.
    pub rules: u64,
    /// Of all rules, those of its own, and those that its filters narrow for it.
    pub own: u64,
    /// How many rules of its own it may have.
    pub rules_max: u64,
    /// Alerts of one rule in one hour; those beyond are counted only, and `holdfast-tenant-quota-exceeded` tells once.
    pub alerts_per_rule_hour: u32,
    /// Whether alerts carry text of its events.
    pub alerts_show_text: bool,
    /// Rules that it has disabled.
    pub disabled: Vec<String>,
}

/// Which rules are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFilter {
    /// Which part of the list.
    pub page: Page,
}

/// Rules, by their ids.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RuleList {
    /// One page.
    pub rules: Vec<RuleView>,
    /// How many there are in all.
    pub total: u64,
    /// To go on with; null at the end.
    #[serde(rename = "next_page_token")]
    pub next: Option<String>,
}

/// One rule that the node that answers has read.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RuleView {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its level.
    pub level: Severity,
    /// `rule`, or the type of a correlation such as `event_count`.
    pub kind: String,
    /// Its tags, such as `attack.t1110`.
    pub tags: Vec<String>,
    /// Whose events it looks at: `platform`, `tenants` or `tenant`.
    pub audience: String,
    /// The tenant, where it is one tenant's.
    pub tenant: Option<String>,
    /// Whether it raises alerts, or only feeds correlations.
    pub alerts: bool,
    /// Whether it only counts what it would raise.
    pub shadow: bool,
    /// What it means, hashed.
    pub semantic_hash: String,
    /// How it stands, in words: `in charge`, `on trial in shadow`…
    pub status: String,
}
