//! Sigma 2.1 rules: parsed from YAML, checked, and compiled to matchers on interned fields.
//!
//! Pure: text in, rules or errors with file, line and reason out. A bad document never takes its neighbours with it.

mod condition;
mod document;
mod error;
mod matcher;
mod modifier;
mod pattern;
mod scan;
mod view;

pub use document::{Document, parse};
pub use error::{Reason, RuleError};
pub use view::{FieldId, FieldNames, View};

use crate::alert::{RuleReference, Severity};
use crate::event::LogSource;
use matcher::Node;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most bytes of one rule file.
pub const FILE_SIZE_BYTES_MAX: usize = 1024 * 1024;
/// Most nesting of a condition or a selection.
pub const DEPTH_MAX: usize = 64;

/// What a rule says of itself, beside what it detects.
#[derive(Clone, Debug)]
pub struct Header {
    /// Id (or name, or title), title, meaning and tags.
    pub reference: RuleReference,
    /// Its `name`, by which correlations may refer to it.
    pub name: Option<Arc<str>>,
    /// Its level.
    pub severity: Severity,
    /// `generate: true` beside the title: it raises alerts also where a correlation is about it.
    pub always_alerts: bool,
    /// The file it came from.
    pub file: Arc<str>,
    /// The line its document begins at.
    pub line: u32,
}

/// Which events a rule is for; what it leaves out matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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
}

/// A rule on single events, compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it says of itself.
    pub header: Header,
    /// Which events it is for.
    pub source: LogSourceFilter,
    /// The conditions; one that holds is enough.
    pub(crate) conditions: Vec<Node>,
}

impl Rule {
    /// Whether the rule's condition holds for an event; its logsource is the caller's to check.
    pub fn matches(&self, view: &View<'_>) -> bool {
        self.conditions.iter().any(|node| node.holds(view))
    }
}

/// The type of a correlation.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// All of the rules, in their order.
    TemporalOrdered,
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
    /// `generate: true` inside the correlation: all the rules it is about raise alerts of their own.
    pub generate: bool,
}

/// Most events, values or rules that a correlation may demand: its state for each group key is that large.
pub const THRESHOLD_MAX: u32 = 10_000;
