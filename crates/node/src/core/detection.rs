//! How detection does, and which rules there are. Any node of the region answers: what the node of a shard says of it
//! is a row of its duty, and how far it has read is another.

use super::incident::{paged, severity};
use super::wait::internal;
use crate::driver::detect;
use crate::driver::known::Known;
use crate::driver::status::{OnTrial, RULES_TOLD, Status};
use crate::driver::streams::{self, Turn};
use crate::node::Node;
use api::core::Answer;
use api::types::{
    Caller, DetectionStatus, KnownRules, RejectedRules, RuleCount, RuleFilter, RuleList, RuleOnTrial, RuleView,
    RulesOnTrial, ShardReport, ShardStatus, StreamStatus, TenantLimits,
};
use detection::SemanticHash;
use detection::report::{Listed, TenantRules, listing, tenants};
use detection::sigma::Audience;
use identity::Session;
use std::borrow::Cow;
use std::sync::Arc;

/// Counts that say that something may have been missed.
const LOSSES: [&str; 7] =
    ["keys_evicted", "entries_lost", "early", "forgotten_early", "late_unseen", "not_numbers", "rows_lost"];

impl Node {
    /// How detection in this region does.
    pub(crate) async fn detection(&self, caller: &Caller, session: &Session) -> Answer<DetectionStatus> {
        self.may_see(caller, session, "detection").await?;
        self.detection_status()
    }

    pub(crate) fn detection_status(&self) -> Answer<DetectionStatus> {
        let known = self.rules.borrow().clone();
        let identity = known.rules.identity();
        let leases = self.home().machine.leases().map_err(|error| internal("the duties cannot be read", &error))?;
        let shard = |shard: u16| {
            let duty = detect::duty_of(shard);
            let lease = leases.get(&duty);
            Ok(ShardStatus {
                shard,
                node: lease.map(|lease| self.node_name(lease.holder)),
                epoch: lease.map(|lease| lease.epoch),
                report: self.shard_status(shard)?.map(|status| report(status, identity)),
                streams: self.stream_status(shard)?,
            })
        };
        Ok(DetectionStatus {
            region: self.region.name.clone(),
            node: self.place.name.clone(),
            rules: KnownRules {
                set: identity.to_string(),
                rules: known.rules.rules().len() as u64,
                correlations: known.rules.correlations().len() as u64,
                is_foretold: known.forecast.is_some(),
            },
            shards: (0..self.cluster.detection_shards).map(shard).collect::<Answer<_>>()?,
            tenants: tenants(&known.rules).into_iter().map(limits).collect(),
        })
    }

    /// What was said of a shard last.
    fn shard_status(&self, shard: u16) -> Answer<Option<Status>> {
        detect::status_of(self, shard).map_err(|error| internal("how a shard does cannot be read", &error))
    }

    fn stream_status(&self, shard: u16) -> Answer<Vec<StreamStatus>> {
        let read = |error| internal("how far a shard has read cannot be read", &error);
        let places = detect::places_of(self, shard).map_err(read)?;
        let now_ms = self.world.clock.wall_ms();
        let view = |stream: String| {
            let (next, head) = (places.get(&stream).copied().unwrap_or(0), streams::head(self, &stream));
            let behind = head.saturating_sub(next);
            // Only where something waits is it worth a look at it.
            let waiting =
                if behind > 0 { streams::try_turn(self, &stream, next).map_err(read)? } else { Turn::default() };
            let since_ms = waiting.events.iter().find_map(|(_, event)| Some(event.as_ref()?.raw.received_ms));
            Ok(StreamStatus { stream, next, head, behind, behind_ms: since_ms.map(|ms| now_ms.saturating_sub(ms)) })
        };
        streams::detected(self).into_iter().map(view).collect()
    }

    /// The rules that this node has read; of those, a tenant's own SOC sees what applies to the tenant.
    pub(crate) async fn rules_read(&self, caller: &Caller, session: &Session, filter: &RuleFilter) -> Answer<RuleList> {
        let own = self.may_see_alerts(caller, session, "detection/rules").await?;
        self.rules_listed(own.as_deref(), filter)
    }

    /// All of them, or those of one tenant.
    pub(crate) fn rules_listed(&self, own: Option<&str>, filter: &RuleFilter) -> Answer<RuleList> {
        let known = self.rules.borrow().clone();
        let statuses: Vec<Option<Status>> =
            (0..self.cluster.detection_shards).map(|shard| self.shard_status(shard)).collect::<Answer<_>>()?;
        list(&known, &statuses, own, filter)
    }
}

fn list(known: &Known, statuses: &[Option<Status>], own: Option<&str>, filter: &RuleFilter) -> Answer<RuleList> {
    let identity = known.rules.identity();
    let rules = own.map_or(Cow::Borrowed(&*known.rules), |own| Cow::Owned(known.rules.for_tenant(own)));
    let all = listing(&rules, own);
    let total = all.len() as u64;
    let (page, next) = paged(all, &filter.page)?;
    let view = |one: Listed<'_>| rule(&one, standing(&one, identity, statuses));
    Ok(RuleList { rules: page.into_iter().map(view).collect(), total, next })
}

/// How a rule stands, in words.
fn standing(one: &Listed<'_>, known: SemanticHash, statuses: &[Option<Status>]) -> String {
    let id = &one.header.reference.id;
    let is_taken_up = |status: &Option<Status>| status.as_ref().is_some_and(|status| status.known == Some(known));
    if !statuses.iter().all(is_taken_up) {
        return "not known to all shards yet".into();
    }
    let told = || statuses.iter().flatten();
    let rejected = told().filter_map(|status| status.rejected.as_ref()).find(|rejected| rejected.rules.contains(id));
    if let Some(rejected) = rejected {
        return format!("rejected with its rule set: {}", rejected.why);
    }
    let is_of = |trial: &OnTrial| trial.first.iter().any(|(rule, ..)| rule == id);
    let phase = told().find(|status| status.trial.as_ref().is_some_and(is_of)).map(|status| status.phase.as_str());
    match phase {
        Some("shadow") => return "on trial in shadow".into(),
        Some(_) => return "in charge, and watched".into(),
        None => {}
    }
    let is_cut = |status: &Status| {
        let of_trial = status.trial.as_ref().is_some_and(|trial| trial.new > trial.first.len() as u64);
        of_trial || status.rejected.as_ref().is_some_and(|rejected| rejected.rules.len() >= RULES_TOLD)
    };
    match (one.header.shadow, told().any(is_cut)) {
        (true, _) => "in shadow: it counts what it would raise".into(),
        (false, true) => "in charge, or on trial with many others".into(),
        (false, false) => "in charge".into(),
    }
}

fn rule(one: &Listed<'_>, status: String) -> RuleView {
    let reference = &one.header.reference;
    let (audience, tenant) = match &one.header.audience {
        Audience::Platform => ("platform", None),
        Audience::Tenants => ("tenants", None),
        Audience::Tenant(tenant) => ("tenant", Some(tenant.to_string())),
    };
    RuleView {
        id: reference.id.to_string(),
        title: reference.title.to_string(),
        level: severity(one.header.severity),
        kind: one.kind.into(),
        tags: reference.tags.iter().map(ToString::to_string).collect(),
        audience: audience.into(),
        tenant,
        alerts: one.alerts,
        shadow: one.header.shadow,
        semantic_hash: reference.semantic_hash.to_string(),
        status,
    }
}

fn report(status: Status, known: SemanticHash) -> ShardReport {
    let hash = |set: Option<SemanticHash>| set.map(|set| set.to_string()).unwrap_or_default();
    let texts = |rules: Vec<Arc<str>>| rules.iter().map(ToString::to_string).collect();
    let is_loss = |(name, count): &(&String, &u64)| **count > 0 && LOSSES.contains(&name.as_str());
    let losses = status.counts.iter().filter(is_loss).map(|(name, count)| (name.clone(), *count)).collect();
    let on_trial =
        |(rule, alerts, allowed): (Arc<str>, u64, Option<u64>)| RuleOnTrial { rule: rule.to_string(), alerts, allowed };
    ShardReport {
        at_ms: status.at_ms,
        has_same_rules: status.known == Some(known),
        set: hash(status.in_charge),
        rules: status.rules,
        correlations: status.correlations,
        phase: status.phase,
        trial: status.trial.map(|trial| RulesOnTrial {
            set: hash(trial.set),
            since_ms: trial.since_ms,
            events: trial.events,
            is_foretold: trial.is_foretold,
            new: trial.new,
            rules: trial.first.into_iter().map(on_trial).collect(),
        }),
        rejected: status.rejected.map(|rejected| RejectedRules { why: rejected.why, rules: texts(rejected.rules) }),
        shadows: status.shadows.into_iter().map(|(rule, count)| RuleCount { rule: rule.to_string(), count }).collect(),
        late_spans: status.late_spans,
        keys: status.keys,
        remembered: status.remembered,
        counts: status.counts,
        losses,
    }
}

fn limits(of: TenantRules) -> TenantLimits {
    TenantLimits {
        tenant: of.tenant.map(|tenant| tenant.to_string()),
        rules: of.rules as u64,
        own: of.own as u64,
        rules_max: of.rules_max as u64,
        alerts_per_rule_hour: of.alerts_per_rule_hour,
        alerts_show_text: of.shows_text,
        disabled: of.disabled.iter().map(ToString::to_string).collect(),
    }
}
