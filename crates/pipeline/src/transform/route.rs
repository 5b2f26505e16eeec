//! Route: sends records different ways, each way by its condition.
//!
//! What meets no condition goes by the output `unmatched`, unless the user says that it is left out: nothing vanishes
//! because a condition was forgotten.

use super::condition::{Condition, ConditionConfig};
use super::{BadTransform, Outputs, Transform};
use crate::record::Record;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The output of what meets no condition.
pub const UNMATCHED: &str = "unmatched";
/// Most outputs of a route.
const WAYS_MAX: usize = 64;

/// The ways and their conditions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// For each output's name, what goes there; a record goes every way whose condition it meets.
    ways: BTreeMap<Arc<str>, ConditionConfig>,
    /// What becomes of the rest.
    #[serde(default)]
    unmatched: Unmatched,
}

/// What becomes of records that meet no condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// They go by the output `unmatched`.
    #[default]
    Pass,
    /// They are left out, and counted.
    LeaveOut,
}

impl RouteConfig {
    pub(super) fn outputs(&self) -> Vec<Arc<str>> {
        let rest = (self.unmatched == Unmatched::Pass).then(|| UNMATCHED.into());
        self.ways.keys().cloned().chain(rest).collect()
    }

    pub(super) fn open(&self) -> Result<Route, BadTransform> {
        if self.ways.is_empty() || self.ways.len() > WAYS_MAX {
            return Err(BadTransform::Setting { key: "ways", why: "must be 1 to 64 outputs with their conditions" });
        }
        if self.ways.contains_key(UNMATCHED) {
            return Err(BadTransform::Setting { key: "ways", why: "cannot have an output called 'unmatched'" });
        }
        let open = |(name, config): (&Arc<str>, &ConditionConfig)| {
            config.open().map_err(|why| BadTransform::Condition { key: format!("ways.{name}"), why })
        };
        Ok(Route { ways: self.ways.iter().map(open).collect::<Result<_, _>>()?, unmatched: self.unmatched })
    }
}

/// Sends records every way whose condition they meet.
pub struct Route {
    ways: Vec<Condition>,
    unmatched: Unmatched,
}

impl Transform for Route {
    fn apply(&self, mut record: Record, out: &mut Outputs) {
        let met: Vec<usize> = (0..self.ways.len()).filter(|way| self.ways[*way].holds(&mut record)).collect();
        match (met.split_last(), self.unmatched) {
            (Some((last, others)), _) => {
                out.passed.extend(others.iter().map(|way| (*way, record.clone())));
                out.passed.push((*last, record));
            }
            (None, Unmatched::Pass) => out.passed.push((self.ways.len(), record)),
            (None, Unmatched::LeaveOut) => out.left_out += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::SourceKind;

    #[test]
    fn a_record_goes_every_way_it_fits_or_the_way_of_the_rest() {
        let text = "ways.low = { n = [1, 2] }\nways.even = { n = [2, 4] }";
        let config: RouteConfig = toml::from_str(text).unwrap();
        assert_eq!(config.outputs(), ["even".into(), "low".into(), UNMATCHED.into()]);
        let route = config.open().unwrap();
        let ways = |n: i64| {
            let raw = Default::default();
            let mut record =
                Record { source: SourceKind::Ndjson, received_ms: 0, position: None, tenant: None, raw, fields: None };
            record.set("n", n);
            let mut out = Outputs::default();
            route.apply(record, &mut out);
            out.passed.into_iter().map(|(way, _)| way).collect::<Vec<_>>()
        };
        assert_eq!((ways(1), ways(2), ways(4), ways(5)), (vec![1], vec![0, 1], vec![0], vec![2]));
    }
}
