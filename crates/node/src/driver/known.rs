//! The rules as a node knows them, and what is to be expected of them once that is known.

use detection::report::Forecast;
use detection::rules::RuleSet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is to be expected of rules, by their ids.
pub type Forecasts = BTreeMap<Arc<str>, Forecast>;

/// What every shard of a node is told of the rules. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The rules of all shards.
    pub rules: Arc<RuleSet>,
    /// What a backtest makes of them, which takes a while: a trial of the rules waits for it, nothing else does.
    pub forecast: Option<Arc<Forecasts>>,
}

impl Known {
    /// Rules of which nothing is expected yet.
    pub fn of(rules: impl Into<Arc<RuleSet>>) -> Self {
        Self { rules: rules.into(), forecast: None }
    }
}
