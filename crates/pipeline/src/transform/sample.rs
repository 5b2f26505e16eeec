//! Sample: lets one in so many pass, and everything that matters for security.
//!
//! Which ones is a function of a key's value alone: the same user, host or session is taken whole or not at all, on
//! every node and in every replay.

use super::condition::{Condition, ConditionConfig};
use super::{BadTransform, Outputs, Transform};
use crate::record::Record;
use serde::Deserialize;

/// The share that passes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleConfig {
    /// One in so many keys passes.
    one_in: u64,
    /// The field whose value decides; the whole record by default.
    key: Option<String>,
    /// What is never left out.
    keep: ConditionConfig,
}

impl SampleConfig {
    pub(super) fn open(&self) -> Result<Sample, BadTransform> {
        if self.one_in < 2 {
            return Err(BadTransform::Setting { key: "one_in", why: "must be 2 or more" });
        }
        let wrong = |why| BadTransform::Condition { key: "keep".into(), why };
        let keep = self.keep.open().map_err(wrong)?;
        Ok(Sample { one_in: self.one_in, key: self.key.clone(), keep })
    }
}

/// Lets a share pass.
pub struct Sample {
    one_in: u64,
    key: Option<String>,
    keep: Condition,
}

impl Sample {
    fn is_taken(&self, record: &Record) -> bool {
        let hash = match &self.key {
            Some(key) => match record.fields().get(key) {
                Some(value) => *blake3::hash(value.to_string().as_bytes()).as_bytes(),
                // Without its key nothing says that it may be left out.
                None => return true,
            },
            None => *blake3::hash(record.id().as_bytes()).as_bytes(),
        };
        let number = u64::from_le_bytes(hash[..8].try_into().expect("a hash has 32 bytes"));
        number.is_multiple_of(self.one_in)
    }
}

impl Transform for Sample {
    fn apply(&self, mut record: Record, out: &mut Outputs) {
        if self.keep.holds(&mut record) || self.is_taken(&record) {
            out.pass(record);
        } else {
            out.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::SourceKind;
    use proptest::prelude::*;

    fn passes(sample: &Sample, user: &str, severity: u64) -> bool {
        let raw = Default::default();
        let mut record =
            Record { source: SourceKind::Ndjson, received_ms: 0, position: None, tenant: None, raw, fields: None };
        record.set("user", user);
        record.set("severity_id", severity);
        let mut out = Outputs::default();
        sample.apply(record, &mut out);
        assert_eq!(out.passed.len() as u64 + out.left_out, 1);
        out.left_out == 0
    }

    fn tenth() -> Sample {
        let text = "one_in = 10\nkey = 'user'\nkeep = { 'severity_id|gte' = 3 }";
        toml::from_str::<SampleConfig>(text).unwrap().open().unwrap()
    }

    #[test]
    fn about_the_share_passes() {
        let sample = tenth();
        let count = (0..10_000).filter(|user| passes(&sample, &format!("user-{user}"), 1)).count();
        assert!((850..1_150).contains(&count), "{count} of 10000");
    }

    proptest! {
        #[test]
        fn what_matters_is_never_left_out_and_the_rest_is_decided_by_the_key(user in "\\PC{0,8}", severity in 0..7_u64) {
            let sample = tenth();
            let passed = passes(&sample, &user, severity);
            prop_assert_eq!(passed, passes(&tenth(), &user, severity));
            prop_assert!(passed || severity < 3);
            prop_assert_eq!(passes(&sample, &user, 1), passes(&sample, &user, 2));
        }
    }
}
