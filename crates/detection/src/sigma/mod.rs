//! Sigma 2.1 rules: parsed from YAML, checked, and compiled to matchers on interned fields.
//!
//! Pure: text in, rules or errors with file, line and reason out. A bad document never takes its neighbours with it.

pub(crate) mod budget;
mod condition;
mod correlate;
mod document;
mod effect;
mod encode;
mod error;
mod grammar;
pub(crate) mod matcher;
mod modifier;
mod moment;
pub(crate) mod pattern;
mod pipeline;
mod rule;
mod scan;
pub(crate) mod view;
pub(crate) mod yaml;

pub use document::{Document, parse, parse_with};
pub use error::{Reason, RuleError};
pub use pipeline::Pipeline;
pub use rule::{Filter, FilterTarget, Rule};
pub use view::{FieldId, FieldNames, View};

pub(crate) use rule::{ExtraKind, Taxonomy};

use crate::alert::{RuleReference, Severity};
use crate::event::LogSource;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most bytes of one rule file.
pub const FILE_SIZE_BYTES_MAX: usize = 1024 * 1024;
/// Most nesting of a condition or a selection.
pub const DEPTH_MAX: usize = 64;
/// Most values under one field of a selection.
pub const VALUES_MAX: usize = 20_000;

/// What a rule says of itself, beside what it detects.
#[derive(Clone, Debug)]
pub struct Header {
    /// Id (or name, or title), title, meaning and tags.
    pub reference: RuleReference,
    /// Its `name`, by which correlations may refer to it.
    pub name: Option<Arc<str>>,
    /// Its level.
    pub severity: Severity,
    /// `alerts: true` beside the title: it raises alerts also where a correlation is about it.
    pub always_alerts: bool,
    /// `shadow: true` beside the title: it counts what it would raise, and raises nothing.
    pub shadow: bool,
    /// What whoever handles its alerts should read: the first of its `references` that is a file and no address.
    pub runbook: Option<Arc<str>>,
    /// `status: experimental`, as rules say that wait for events that nothing sends yet.
    pub is_experimental: bool,
    /// `across_regions: true` beside the title of a correlation: it looks at what matched in all regions.
    pub across_regions: bool,
    /// Whose events it looks at.
    pub audience: Audience,
    /// The file it came from.
    pub file: Arc<str>,
    /// The line its document begins at.
    pub line: u32,
}

/// Whose events a rule looks at, and whose alerts it raises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// The platform's: all events, whoever they are of.
    #[default]
    Platform,
    /// All tenants that see it, each tenant's events apart.
    Tenants,
    /// One tenant.
    Tenant(Arc<str>),
}

/// Which events a rule is for; what it leaves out matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LogSourceFilter {
    /// The product it wants.
    pub product: Option<Arc<str>>,
    /// The category it wants.
    pub category: Option<Arc<str>>,
    /// The service it wants.
    pub service: Option<Arc<str>>,
}

impl LogSourceFilter {
    /// Whether events of that source are for this rule.
    pub fn admits(&self, source: &LogSource) -> bool {
        let same = |want: &Option<Arc<str>>, is: &Option<Arc<str>>| want.is_none() || want == is;
        same(&self.product, &source.product)
            && same(&self.category, &source.category)
            && self.service.as_ref().is_none_or(|service| source.services.contains(service))
    }

    /// Whether every event for `other` is also for this.
    pub fn contains(&self, other: &Self) -> bool {
        let same = |want: &Option<Arc<str>>, is: &Option<Arc<str>>| want.is_none() || want == is;
        same(&self.product, &other.product)
            && same(&self.category, &other.category)
            && same(&self.service, &other.service)
    }
}

/// The type of a correlation.
#[derive(Clone, Debug, PartialEq)]
pub enum CorrelationKind {
    /// At least so many events.
    EventCount {
        /// How many.
        at_least: u32,
    },
    /// At least so many distinct values of a field, or of several together.
    ValueCount {
        /// The fields.
        fields: Vec<String>,
        /// How many.
        at_least: u32,
    },
    /// At least so many of the rules, in any order.
    Temporal {
        /// How many.
        at_least: u32,
    },
    /// At least so many of the rules, in their order.
    TemporalOrdered {
        /// How many.
        at_least: u32,
    },
    /// A number of the rules within bounds that more of them may leave again.
    Rules {
        /// Whether those count that match in their order.
        ordered: bool,
        /// All must hold.
        bounds: Vec<Bound>,
    },
    /// Events, or distinct values of fields, within bounds that more of them may leave again.
    Count {
        /// The fields whose values are counted; none to count events.
        fields: Vec<String>,
        /// All must hold.
        bounds: Vec<Bound>,
    },
    /// What the values of a field come to, within bounds.
    Value {
        /// What is made of the values.
        of: Aggregate,
        /// The field.
        field: String,
        /// All must hold.
        bounds: Vec<Bound>,
    },
    /// An extended condition over the rules.
    Expression {
        /// The condition.
        condition: RuleExpression,
        /// Whether the rules must match in the order in which they are listed.
        ordered: bool,
    },
}

impl CorrelationKind {
    /// Its type and what is special about it, as a rule's author knows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::EventCount { .. } => "event_count",
            Self::ValueCount { .. } => "value_count",
            Self::Temporal { .. } => "temporal",
            Self::TemporalOrdered { .. } => "temporal_ordered",
            Self::Rules { ordered: false, .. } => "temporal with bounds other than gt or gte",
            Self::Rules { ordered: true, .. } => "temporal_ordered with bounds other than gt or gte",
            Self::Count { fields, .. } if fields.is_empty() => "event_count with bounds other than gt or gte",
            Self::Count { .. } => "value_count with bounds other than gt or gte",
            Self::Value { of: Aggregate::Sum, .. } => "value_sum",
            Self::Value { of: Aggregate::Average, .. } => "value_avg",
            Self::Value { of: Aggregate::Percentile(_) | Aggregate::Share, .. } => "value_percentile",
            Self::Expression { ordered: false, .. } => "temporal with an extended condition",
            Self::Expression { ordered: true, .. } => "temporal_ordered with an extended condition",
        }
    }

    /// Whether it tells its rules apart, rather than to count what any of them match.
    pub(crate) fn is_about_rules(&self) -> bool {
        match self {
            Self::Temporal { .. } | Self::TemporalOrdered { .. } | Self::Rules { .. } | Self::Expression { .. } => true,
            Self::EventCount { .. } | Self::ValueCount { .. } | Self::Count { .. } | Self::Value { .. } => false,
        }
    }

    /// The fields whose values it reckons with.
    pub(crate) fn fields(&self) -> Vec<String> {
        match self {
            Self::ValueCount { fields, .. } | Self::Count { fields, .. } => fields.clone(),
            Self::Value { field, .. } => vec![field.clone()],
            _ => Vec::new(),
        }
    }
}

/// What is made of the values of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregate {
    /// Their sum.
    Sum,
    /// Their mean.
    Average,
    /// The value that so many in a hundred are not above; the median is 50.
    Percentile(f64),
    /// How many in a hundred of the events have the same value.
    Share,
}

/// A bound of a correlation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// How it compares.
    pub comparison: Comparison,
    /// With what.
    pub value: f64,
}

/// How a correlation's number compares with a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `gt`
    Greater,
    /// `gte`
    GreaterOrEqual,
    /// `lt`
    Less,
    /// `lte`
    LessOrEqual,
    /// `eq`
    Equal,
    /// `neq`
    NotEqual,
}

impl Comparison {
    /// As it is written in short.
    pub(crate) const fn sign(self) -> &'static str {
        match self {
            Self::Greater => ">",
            Self::GreaterOrEqual => "≥",
            Self::Less => "<",
            Self::LessOrEqual => "≤",
            Self::Equal => "=",
            Self::NotEqual => "≠",
        }
    }
}

/// A condition over the rules of a correlation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleExpression {
    /// All of them hold.
    All(Vec<RuleExpression>),
    /// One of them holds.
    Any(Vec<RuleExpression>),
    /// It does not hold.
    Not(Box<RuleExpression>),
    /// The rule of that place in the correlation's list matched within the timespan.
    Rule(usize),
}

/// A correlation rule, as parsed: it names the rules it is about, which are resolved when rules are put together.
#[derive(Clone, Debug)]
pub struct Correlation {
    /// What it says of itself.
    pub header: Header,
    /// Its type and threshold.
    pub kind: CorrelationKind,
    /// Ids or names of the rules it is about, in order.
    pub rules: Vec<String>,
    /// Fields, or aliases, whose values make the group key.
    pub group_by: Vec<String>,
    /// For an alias and a rule's id or name: the field it stands for.
    pub aliases: BTreeMap<String, BTreeMap<String, String>>,
    /// Within what time.
    pub timespan_ms: u64,
    /// `generate: true`: all the rules it is about raise alerts of their own.
    pub generate: bool,
}

/// Most events, values or rules that a correlation may demand: its state for each group key is that large.
pub const THRESHOLD_MAX: u32 = 100_000;
