//! Filter: lets pass what meets a condition; the rest is left out, and counted.

use super::condition::{Condition, ConditionConfig};
use super::{BadTransform, Outputs, Transform};
use crate::record::Record;
use serde::Deserialize;

/// What passes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterConfig {
    /// The condition.
    #[serde(rename = "where")]
    condition: ConditionConfig,
}

impl FilterConfig {
    pub(super) fn open(&self) -> Result<Filter, BadTransform> {
        let wrong = |why| BadTransform::Condition { key: "where".into(), why };
        Ok(Filter { condition: self.condition.open().map_err(wrong)? })
    }
}

/// Lets pass what meets its condition.
pub struct Filter {
    condition: Condition,
}

impl Transform for Filter {
    fn apply(&self, mut record: Record, out: &mut Outputs) {
        if self.condition.holds(&mut record) {
            out.pass(record);
        } else {
            out.left_out += 1;
        }
    }
}
