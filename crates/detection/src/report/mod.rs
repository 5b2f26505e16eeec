//! What is said about rules: whether they are right, why they match, what their tests say, what they cover.
//!
//! Pure: rules and events in, serialisable reports out. Reading files and printing is the caller's.

mod backtest;
mod cases;
mod check;
mod coverage;
mod explain;
mod never;

pub use backtest::{Backtest, Forecast, RuleHits, backtest};
pub use cases::{CASES_MAX, CaseResult, TestReport, test};
pub use check::{CheckReport, Finding, FindingKind, Known, Problem, Schema, check};
pub use coverage::{CoverageReport, Covered, coverage};
pub use explain::{ConditionExplained, Explanation, FieldExplained, Part, SelectionExplained, explain, explain_all};
