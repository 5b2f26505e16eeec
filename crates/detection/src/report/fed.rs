//! Correlations that can never fire: of what they are about too little matches, the fields they group or reckon by are
//! not there, or no number lies within their bounds.

use super::check::{FindingKind, Known, is_known, schema_of};
use crate::correlation::{Measure, Shape, within};
use crate::rules::{CorrelationPlan, Feed, Origin, RuleSet, TENANT_FIELD};
use crate::sigma::Bound;
use std::collections::BTreeSet;

/// What is odd about correlations, by their places; `dead` says of each rule whether it never matches.
pub(super) fn findings(rules: &RuleSet, known: &Known, dead: &[bool]) -> Vec<(usize, FindingKind)> {
    let mut found = Vec::new();
    let mut dead_correlations: Vec<bool> = Vec::new();
    for (place, plan) in rules.correlations.iter().enumerate() {
        found.extend(plan.odd_aliases.iter().map(|why| (place, FindingKind::OddAlias { why: why.clone() })));
        let mut lacking = BTreeSet::new();
        let (mut live, mut matching) = (BTreeSet::new(), BTreeSet::new());
        for feed in &plan.feeds {
            let matches = match feed.origin {
                Origin::Rule(rule) => !dead[rule],
                Origin::Correlation(other) => !dead_correlations[other],
            };
            matching.extend(matches.then_some(feed.slot));
            let absent = unknown_fields(feed, rules, known);
            live.extend((matches && absent.is_empty()).then_some(feed.slot));
            lacking.extend(absent);
        }
        let is_within =
            !matches!(&plan.shape, Shape::Window { measure, bounds } if !is_possible(plan, *measure, bounds));
        let can_fire = is_within && is_enough(plan, &live);
        dead_correlations.push(!can_fire);
        found.extend((!is_within).then_some((place, FindingKind::EmptyBounds)));
        let is_fed = is_enough(plan, &matching);
        found.extend((is_within && !is_fed).then_some((place, FindingKind::NeverFed)));
        let never = is_within && is_fed && !can_fire;
        found.extend(lacking.into_iter().map(|field| (place, FindingKind::UnknownField { field, never })));
    }
    found
}

/// The fields a correlation takes of a rule's events that those do not have.
fn unknown_fields(feed: &Feed, rules: &RuleSet, known: &Known) -> Vec<String> {
    // A correlation's events have the fields that it groups by.
    let Origin::Rule(rule) = feed.origin else { return Vec::new() };
    let Some(schema) = schema_of(&rules.rules[rule], known) else { return Vec::new() };
    let fields = feed.group_fields.iter().chain(&feed.value_fields);
    let is_there = |names: &&Vec<String>| names.iter().any(|name| name == TENANT_FIELD || is_known(&schema, name));
    fields.filter(|names| !is_there(names)).map(|names| names.join(" or ")).collect()
}

/// Whether a correlation can fire when only these of its rules match.
fn is_enough(plan: &CorrelationPlan, live: &BTreeSet<u32>) -> bool {
    let all = |way: &[u32]| way.iter().all(|slot| live.contains(slot));
    match &plan.shape {
        Shape::Distinct { at_least } if tells_rules_apart(plan) => live.len() >= *at_least as usize,
        Shape::Ordered { ways } | Shape::Either { ways } => ways.iter().any(|way| all(way)),
        // What must not match must have done so once: a group that was never seen has no window.
        Shape::Absent { ways, .. } => !live.is_empty() && ways.iter().any(|way| all(&way.positive)),
        Shape::Count { .. } | Shape::Distinct { .. } | Shape::Sum { .. } | Shape::Window { .. } => !live.is_empty(),
    }
}

fn tells_rules_apart(plan: &CorrelationPlan) -> bool {
    plan.feeds.iter().all(|feed| feed.value_fields.is_empty())
}

/// Whether any number that the measure of a window can be lies within bounds.
fn is_possible(plan: &CorrelationPlan, measure: Measure, bounds: &[Bound]) -> bool {
    let rules = plan.feeds.iter().map(|feed| feed.slot).collect::<BTreeSet<_>>().len() as f64;
    let (least, most, is_whole) = match measure {
        // A window begins with an event.
        Measure::Events => (1.0, f64::INFINITY, true),
        Measure::Distinct if !tells_rules_apart(plan) => (1.0, f64::INFINITY, true),
        Measure::Distinct => (1.0, rules, true),
        Measure::InOrder => (0.0, plan.slots.len() as f64, true),
        Measure::Share => (f64::MIN_POSITIVE, 100.0, false),
        Measure::Sum | Measure::Average | Measure::Percentile(_) => (f64::NEG_INFINITY, f64::INFINITY, false),
    };
    let mut points: Vec<f64> = bounds.iter().map(|bound| bound.value).chain([least, most]).collect();
    points.retain(|point| point.is_finite());
    points.sort_by(f64::total_cmp);
    // Whether a number is within bounds changes only at those: they, what lies beside them, and what lies between.
    let beside = points.iter().flat_map(|point| [point.floor() - 1.0, point.floor(), point.ceil(), point.ceil() + 1.0]);
    let between = points.windows(2).map(|pair| f64::midpoint(pair[0], pair[1]));
    let mut numbers: Vec<f64> = points.iter().copied().chain(beside).chain(between).collect();
    numbers.retain(|number| (least..=most).contains(number) && (!is_whole || number.fract() == 0.0));
    numbers.iter().any(|number| within(bounds, *number)) || points.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::load_texts;

    fn is_possible_of(kind: &str, condition: &str) -> bool {
        let rule = |name: &str| {
            format!(
                "title: {name}\nname: {name}\nlogsource: {{}}\ndetection: {{s: {{f: {name}}}, condition: s}}\n---\n"
            )
        };
        let text = format!(
            "{}{}title: c\ncorrelation: {{type: {kind}, rules: [a, b], timespan: 1m, condition: {{{condition}}}}}\n",
            rule("a"),
            rule("b")
        );
        let (rules, errors) = load_texts(vec![("c.yml".to_owned(), text)]);
        assert!(errors.is_empty(), "{errors:?}");
        match &rules.correlations[0].shape {
            Shape::Window { measure, bounds } => is_possible(&rules.correlations[0], *measure, bounds),
            _ => true,
        }
    }

    #[test]
    fn bounds_that_no_number_meets_are_told_from_those_that_some_does() {
        for (kind, condition, expect) in [
            ("event_count", "gt: 5, lt: 3", false),
            ("event_count", "gt: 5, lt: 6", false),
            ("event_count", "gt: 5, lt: 7", true),
            ("event_count", "lt: 1", false),
            ("event_count", "lt: 2", true),
            ("event_count", "lt: 3, neq: 1", true),
            ("event_count", "lt: 3, gt: 0.5, neq: 1", true),
            ("event_count", "lt: 2, neq: 1", false),
            ("event_count", "eq: 2.5", false),
            ("event_count", "neq: 1", true),
            ("temporal", "lt: 5", true),
            ("temporal", "eq: 3", false),
            ("value_avg", "field: x, gt: 5, lt: 6", true),
            ("value_avg", "field: x, gt: 5, lt: 5", false),
            ("value_avg", "field: x, eq: 5, neq: 5", false),
            ("value_sum", "field: x, lt: -3", true),
            ("value_percentile", "field: x, gt: 100", false),
            ("value_percentile", "field: x, lt: 0.1", true),
        ] {
            assert_eq!(is_possible_of(kind, condition), expect, "{kind} {condition}");
        }
    }
}
