//! What a correlation waits for, made of what its author wrote.
//!
//! Conditions that more events can only fulfil, never undo, are *eager*: they are told as soon as they hold. All
//! others are *closed*: a window is judged once the watermark has passed its end.

use crate::sigma::{Aggregate, Bound, Comparison, CorrelationKind, Reason, RuleExpression};
use std::collections::BTreeSet;

/// Most ways in which a condition over rules may be fulfilled.
const WAYS_MAX: usize = 1_024;
/// Parts of a number that are told apart: sums of such are exact, in whatever order they are made.
const PARTS: f64 = 1e6;

/// What a correlation waits for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// So many events.
    Count { at_least: u32 },
    /// So many distinct values, or rules.
    Distinct { at_least: u32 },
    /// The rules of one of these ways, in order.
    Ordered { ways: Vec<Vec<u32>> },
    /// The rules of one of these ways.
    Either { ways: Vec<Vec<u32>> },
    /// Values that come to so much.
    Sum { at_least: i128 },
    /// What a whole window comes to lies within bounds.
    Window { measure: Measure, bounds: Vec<Bound> },
    /// The rules of one of these ways, and others that do not match.
    Absent { ways: Vec<Way>, ordered: bool },
}

/// What a window is measured by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Measure {
    /// How many entries it holds.
    Events,
    /// How many values, or rules, it holds.
    Distinct,
    /// How many of the rules it holds in their order.
    InOrder,
    /// What its values sum up to.
    Sum,
    /// The mean of its values.
    Average,
    /// The value that so many in a hundred are not above.
    Percentile(f64),
    /// How many in a hundred of its entries have one value.
    Share,
}

/// Rules that match, and rules that do not; each by its number, in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) positive: Vec<u32>,
    pub(crate) negative: Vec<u32>,
}

/// A number in whole parts.
pub(crate) fn parts(value: f64) -> i128 {
    // So large that no sum of as many as there can be leaves the range.
    (value * PARTS).round().clamp(-1e30, 1e30) as i128
}

/// A number of whole parts.
pub(crate) fn number(parts: i128) -> f64 {
    parts as f64 / PARTS
}

impl Shape {
    /// The shape of a kind; `slots` has for each rule of the list its number.
    pub(crate) fn of(kind: &CorrelationKind, slots: &[u32]) -> Result<Self, Reason> {
        Ok(match kind {
            CorrelationKind::EventCount { at_least } => Self::Count { at_least: *at_least },
            CorrelationKind::ValueCount { at_least, .. } | CorrelationKind::Temporal { at_least } => {
                Self::Distinct { at_least: *at_least }
            }
            CorrelationKind::TemporalOrdered { at_least } => {
                Self::Ordered { ways: choices(slots, *at_least as usize)? }
            }
            CorrelationKind::Rules { ordered, bounds } => {
                let measure = if *ordered { Measure::InOrder } else { Measure::Distinct };
                Self::Window { measure, bounds: bounds.clone() }
            }
            CorrelationKind::Count { fields, bounds } => {
                let measure = if fields.is_empty() { Measure::Events } else { Measure::Distinct };
                Self::Window { measure, bounds: bounds.clone() }
            }
            CorrelationKind::Value { of, bounds, .. } => value(*of, bounds),
            CorrelationKind::Expression { condition, ordered } => expression(condition, *ordered, slots)?,
        })
    }

    /// Whether windows are judged when the watermark has passed them.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Window { .. } | Self::Absent { .. })
    }

    /// Whether it reckons with values that must be numbers.
    pub(crate) fn wants_numbers(&self) -> bool {
        let measure = match self {
            Self::Sum { .. } => return true,
            Self::Window { measure, .. } => measure,
            _ => return false,
        };
        matches!(measure, Measure::Sum | Measure::Average | Measure::Percentile(_))
    }
}

fn value(of: Aggregate, bounds: &[Bound]) -> Shape {
    let measure = match (of, bounds) {
        // More values can only add to a sum; those below nothing are left out.
        (Aggregate::Sum, [Bound { comparison: Comparison::GreaterOrEqual, value }]) if *value > 0.0 => {
            return Shape::Sum { at_least: parts(*value) };
        }
        (Aggregate::Sum, [Bound { comparison: Comparison::Greater, value }]) if *value >= 0.0 => {
            return Shape::Sum { at_least: parts(*value) + 1 };
        }
        (Aggregate::Sum, _) => Measure::Sum,
        (Aggregate::Average, _) => Measure::Average,
        (Aggregate::Percentile(percent), _) => Measure::Percentile(percent),
        (Aggregate::Share, _) => Measure::Share,
    };
    Shape::Window { measure, bounds: bounds.to_vec() }
}

/// Whether a measure lies within all bounds.
pub(crate) fn within(bounds: &[Bound], measure: f64) -> bool {
    bounds.iter().all(|bound| match bound.comparison {
        Comparison::Greater => measure > bound.value,
        Comparison::GreaterOrEqual => measure >= bound.value,
        Comparison::Less => measure < bound.value,
        Comparison::LessOrEqual => measure <= bound.value,
        Comparison::Equal => measure == bound.value,
        Comparison::NotEqual => measure != bound.value,
    })
}

fn too_many() -> Reason {
    Reason::Unsupported { what: format!("a condition that more than {WAYS_MAX} sets of rules fulfil") }
}

/// All ways to choose so many of the rules, in their order.
fn choices(slots: &[u32], count: usize) -> Result<Vec<Vec<u32>>, Reason> {
    let left_out = slots.len().saturating_sub(count);
    // How many there are is known before any is made: none of them grows smaller from one factor to the next.
    let mut total: usize = 1;
    for place in 0..count.min(left_out) {
        total = total * (slots.len() - place) / (place + 1);
        if total > WAYS_MAX {
            return Err(too_many());
        }
    }
    let mut ways: Vec<Vec<usize>> = vec![Vec::new()];
    for chosen in 0..count {
        // Only what leaves enough for the rest.
        let longer = ways.iter().flat_map(|way| {
            let next = way.last().map_or(0, |last| last + 1);
            (next..=left_out + chosen).map(|place| [&way[..], &[place]].concat())
        });
        ways = longer.collect();
    }
    Ok(ways.into_iter().map(|way| way.into_iter().map(|place| slots[place]).collect()).collect())
}

fn expression(condition: &RuleExpression, ordered: bool, slots: &[u32]) -> Result<Shape, Reason> {
    let mut ways = literals(condition, false, slots)?;
    let all = ways.clone();
    // A way that asks for more than another does adds nothing.
    ways.retain(|way| !all.iter().any(|other| other != way && other.is_subset(way)));
    if ways.is_empty() {
        return Err(Reason::Unsupported { what: "a condition that nothing can fulfil".to_owned() });
    }
    let of =
        |way: &BTreeSet<(u32, bool)>, is: bool| way.iter().filter(|(_, not)| *not != is).map(|(s, _)| *s).collect();
    let ways: Vec<Way> = ways.iter().map(|way| Way { positive: of(way, true), negative: of(way, false) }).collect();
    if ways.iter().any(|way| !way.negative.is_empty()) {
        return Ok(Shape::Absent { ways, ordered });
    }
    let ways = ways.into_iter().map(|way| way.positive).collect();
    Ok(if ordered { Shape::Ordered { ways } } else { Shape::Either { ways } })
}

/// The ways to fulfil a condition, each a set of rules with whether it must not match.
fn literals(condition: &RuleExpression, not: bool, slots: &[u32]) -> Result<BTreeSet<BTreeSet<(u32, bool)>>, Reason> {
    let parts = match condition {
        RuleExpression::Rule(place) => return Ok(BTreeSet::from([BTreeSet::from([(slots[*place], not)])])),
        RuleExpression::Not(part) => return literals(part, !not, slots),
        RuleExpression::All(parts) | RuleExpression::Any(parts) => parts,
    };
    let is_all = matches!(condition, RuleExpression::All(_)) != not;
    let mut ways = if is_all { BTreeSet::from([BTreeSet::new()]) } else { BTreeSet::new() };
    for part in parts {
        let more = literals(part, not, slots)?;
        if !is_all {
            ways.extend(more);
        } else {
            if ways.len() * more.len() > WAYS_MAX {
                return Err(too_many());
            }
            let both = |one: &BTreeSet<(u32, bool)>| more.iter().map(|other| one | other).collect::<Vec<_>>();
            ways = ways.iter().flat_map(both).collect();
            // A rule cannot match and not match.
            ways.retain(|way| !way.iter().any(|(slot, not)| way.contains(&(*slot, !not))));
        }
        if ways.len() > WAYS_MAX {
            return Err(too_many());
        }
    }
    Ok(ways)
}
