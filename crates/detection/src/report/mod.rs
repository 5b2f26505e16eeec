//! What is said about rules: whether they are right, why they match, what their tests say, what they cover.
//!
//! Pure: rules and events in, serialisable reports out. Reading files and printing is the caller's.

mod backtest;
mod cases;
mod check;
mod correlated;
mod coverage;
mod explain;
mod fed;
mod listing;
mod never;

pub use backtest::{Backtest, Forecast, RuleHits, Run, backtest};
pub use cases::{CASES_FILE_BYTES_MAX, CASES_MAX, CaseResult, TestReport, test};
pub use check::{CheckReport, Finding, FindingKind, Known, Problem, Schema, check};
pub use correlated::{CorrelationExplained, FeedExplained, GroupExplained, explain_correlations};
pub use coverage::{CoverageReport, Covered, coverage};
pub use explain::{
    AddedExplained, ConditionExplained, Explanation, FieldExplained, Part, SelectionExplained, explain, explain_all,
};
pub use listing::{Listed, TenantRules, listing, tenants};
