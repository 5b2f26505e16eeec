//! The engine's session: bounded memory, one thread, no spilling, and only functions whose results are no larger than
//! what goes in, since the engine does not count what functions make.

use super::{ArchiveError, Limits, functions, refused};
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionStateBuilder, SessionStateDefaults};
use datafusion::prelude::{SessionConfig, SessionContext};
use std::sync::Arc;

/// Functions of single rows that may be used.
const SCALAR: [&str; 30] = [
    "btrim",
    "ltrim",
    "rtrim",
    "lower",
    "upper",
    "substr",
    "left",
    "right",
    "split_part",
    "strpos",
    "starts_with",
    "ends_with",
    "contains",
    "character_length",
    "octet_length",
    "reverse",
    "regexp_like",
    "regexp_count",
    "coalesce",
    "nullif",
    "nvl",
    "greatest",
    "least",
    "now",
    "date_part",
    "date_trunc",
    "date_bin",
    "to_timestamp",
    "to_timestamp_millis",
    "ascii",
];
/// Functions of groups that may be used.
const AGGREGATE: [&str; 10] =
    ["count", "sum", "min", "max", "avg", "median", "approx_distinct", "stddev", "bool_and", "bool_or"];

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    let options = config.options_mut();
    options.execution.enable_recursive_ctes = false;
    config
}

fn runtime(limits: Limits) -> Result<Arc<RuntimeEnv>, ArchiveError> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
        .map_err(|error| refused(error, limits))
}

/// A session without any table.
pub(super) fn context(limits: Limits) -> Result<SessionContext, ArchiveError> {
    let mut scalar = SessionStateDefaults::default_scalar_functions();
    scalar.retain(|function| SCALAR.contains(&function.name()));
    scalar.extend(functions::all());
    let mut aggregate = SessionStateDefaults::default_aggregate_functions();
    aggregate.retain(|function| AGGREGATE.contains(&function.name()));
    let state = SessionStateBuilder::new()
        .with_config(config())
        .with_runtime_env(runtime(limits)?)
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(scalar)
        .with_aggregate_functions(aggregate)
        .build();
    Ok(SessionContext::new_with_state(state))
}

/// What one plan runs in: memory of its own.
pub(super) fn task(limits: Limits) -> Result<TaskContext, ArchiveError> {
    Ok(TaskContext::default().with_session_config(config()).with_runtime(runtime(limits)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_function_is_there() {
        let context = context(Limits::default()).unwrap();
        let state = context.state();
        let missing: Vec<_> = SCALAR.iter().filter(|name| !state.scalar_functions().contains_key(**name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let missing: Vec<_> =
            AGGREGATE.iter().filter(|name| !state.aggregate_functions().contains_key(**name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(state.table_functions().is_empty() && state.window_functions().is_empty());
    }
}
