//! Which rules there are, whom they are for, and what tenants are allowed.

use crate::correlation::{Measure, Shape};
use crate::rules::{CorrelationPlan, RuleSet, View};
use crate::sigma::{Audience, Header};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One rule or correlation of a set.
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// What it says of itself.
    pub header: &'a Header,
    /// `rule`, or the type of the correlation.
    pub kind: &'static str,
    /// Whether it raises alerts of its own, or only feeds correlations.
    pub alerts: bool,
}

/// What a tenant's rules may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRules {
    /// The tenant; all that are not named where there is none.
    pub tenant: Option<Arc<str>>,
    /// Rules on single events that its events meet, beside the platform's.
    pub rules: usize,
    /// Of all rules and correlations, those of its own, and those that its filters narrow for it.
    pub own: usize,
    /// How many rules of its own it may have.
    pub rules_max: usize,
    /// Alerts of one rule in one hour; those beyond are counted only.
    pub alerts_per_rule_hour: u32,
    /// Whether alerts carry text of its events.
    pub shows_text: bool,
    /// Rules that raise no alerts of its events.
    pub disabled: Vec<Arc<str>>,
}

/// The rules and correlations of a set, by their ids; of those of [`RuleSet::for_tenant`] a tenant is told which it has
/// not disabled.
pub fn listing<'a>(rules: &'a RuleSet, tenant: Option<&str>) -> Vec<Listed<'a>> {
    let single = rules.rules().iter().enumerate();
    let single =
        single.map(|(place, rule)| Listed { header: &rule.header, kind: "rule", alerts: rules.raises_alerts(place) });
    let correlations = rules.correlations().iter();
    let correlations =
        correlations.map(|plan| Listed { header: &plan.header, kind: kind(plan), alerts: plan.raises_alerts() });
    let silent = tenant.and_then(|tenant| rules.tenancy.view(tenant)).map(|view| &view.silent);
    let is_wanted = |one: &Listed<'_>| silent.is_none_or(|silent| !silent.contains(&one.header.reference.id));
    let mut all: Vec<Listed<'a>> = single.chain(correlations).filter(is_wanted).collect();
    all.sort_by(|one, other| one.header.reference.id.cmp(&other.header.reference.id));
    all
}

/// The type as its author wrote it.
fn kind(plan: &CorrelationPlan) -> &'static str {
    let has_values = plan.feeds.iter().any(|feed| !feed.value_fields.is_empty());
    let distinct = if has_values { "value_count" } else { "temporal" };
    match &plan.shape {
        Shape::Count { .. } | Shape::Window { measure: Measure::Events, .. } => "event_count",
        Shape::Distinct { .. } | Shape::Window { measure: Measure::Distinct, .. } => distinct,
        Shape::Ordered { .. } | Shape::Window { measure: Measure::InOrder, .. } => "temporal_ordered",
        Shape::Absent { ordered: true, .. } => "temporal_ordered",
        Shape::Either { .. } | Shape::Absent { ordered: false, .. } => "temporal",
        Shape::Sum { .. } | Shape::Window { measure: Measure::Sum, .. } => "value_sum",
        Shape::Window { measure: Measure::Average, .. } => "value_avg",
        Shape::Window { measure: Measure::Percentile(_) | Measure::Share, .. } => "value_percentile",
    }
}

/// What tenants are allowed: those that are named, then all others where rules are for them.
pub fn tenants(rules: &RuleSet) -> Vec<TenantRules> {
    let single = rules.rules().iter().map(|rule| &rule.header);
    let mut own: BTreeMap<&str, usize> = BTreeMap::new();
    for header in single.chain(rules.correlations().iter().map(|plan| &plan.header)) {
        if let Audience::Tenant(tenant) = &header.audience {
            *own.entry(tenant).or_default() += 1;
        }
    }
    let view = |tenant: Option<&Arc<str>>, view: &View| TenantRules {
        tenant: tenant.cloned(),
        rules: view.rules.len(),
        own: tenant.and_then(|tenant| own.get(&**tenant)).copied().unwrap_or(0),
        rules_max: view.rules_max,
        alerts_per_rule_hour: view.alerts_max,
        shows_text: view.shows_text,
        disabled: view.silent.iter().cloned().collect(),
    };
    let named = rules.tenancy.named.iter().map(|(name, of)| view(Some(name), of));
    named.chain(rules.tenancy.others.iter().map(|of| view(None, of))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_are_listed_under_the_types_their_authors_know() {
        let rule = "title: A\nname: a\nlogsource: {product: p}\ndetection: {s: {x: 1}, condition: s}\n";
        let cases = [
            ("event_count", "condition: {gte: 3}", "event_count"),
            ("event_count", "condition: {lt: 3}", "event_count"),
            ("value_count", "condition: {gte: 3, field: y}", "value_count"),
            ("value_count", "condition: {lte: 3, field: y}", "value_count"),
            ("temporal", "condition: {gte: 1}", "temporal"),
            ("temporal_ordered", "condition: {gte: 1}", "temporal_ordered"),
            ("value_sum", "condition: {gt: 3, field: y}", "value_sum"),
            ("value_avg", "condition: {gt: 3, field: y}", "value_avg"),
            ("value_percentile", "condition: {gt: 3, field: y, percentile: 95}", "value_percentile"),
        ];
        for (of, condition, expect) in cases {
            let text = format!(
                "{rule}---\ntitle: C\nname: c\ncorrelation: {{type: {of}, rules: [a], group-by: [z], timespan: 5m, \
                 {condition}}}\n"
            );
            let (rules, errors) = crate::rules::load_texts(vec![("a.yml".into(), text)]);
            assert!(errors.is_empty(), "{of}: {errors:?}");
            let listed = listing(&rules, None);
            assert_eq!(
                listed.iter().map(|one| (one.kind, one.alerts)).collect::<Vec<_>>(),
                [("rule", false), (expect, true)]
            );
        }
    }
}
