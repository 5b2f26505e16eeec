//! What a `packs.toml` says. Unknown keys are errors.

use crate::sigma::{Reason, RuleError};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use toml::Spanned;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// What holds for every tenant that does not say otherwise.
    #[serde(default)]
    pub(super) tenants: Tenants,
    #[serde(default)]
    pub(super) pack: Vec<Spanned<Pack>>,
    #[serde(default)]
    pub(super) tenant: Vec<Spanned<Tenant>>,
}

/// Quotas and residency.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tenants {
    /// Most rules of its own, copies of those that its filters narrow included.
    pub(super) rules_max: usize,
    /// Most alerts of one rule in one hour.
    pub(super) alerts_per_rule_hour: u32,
    /// Whether alerts carry text of its events, and with it leave its region.
    pub(super) alerts_show_text: bool,
}

impl Default for Tenants {
    fn default() -> Self {
        Self { rules_max: 500, alerts_per_rule_hour: 100, alerts_show_text: false }
    }
}

/// A pack.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pack {
    pub(super) name: String,
    /// Relative to the file.
    pub(super) folders: Vec<PathBuf>,
    /// Whether folders inside those are read.
    #[serde(default)]
    pub(super) nested: bool,
    /// Files, or `ocsf` for the one that comes with the program; one after the other.
    #[serde(default)]
    pub(super) pipelines: Vec<String>,
    /// Who sees it, `*` for every tenant; without it, it is the platform's and looks at all events.
    pub(super) tenants: Option<Vec<String>>,
    /// Whether it only counts what it would raise.
    #[serde(default)]
    pub(super) shadow: bool,
}

/// A tenant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tenant {
    pub(super) name: String,
    /// A file or folder of rules and filters, relative to the file; `tenants/<name>` where that is there.
    pub(super) rules: Option<PathBuf>,
    /// As of packs: how its own rules are read. Its filters are read as the rules are that they narrow.
    #[serde(default)]
    pub(super) pipelines: Vec<String>,
    /// Ids of rules of packs that it does without.
    #[serde(default)]
    pub(super) disable: Vec<String>,
    pub(super) rules_max: Option<usize>,
    pub(super) alerts_per_rule_hour: Option<u32>,
    pub(super) alerts_show_text: Option<bool>,
}

/// Reads the file's text.
pub(super) fn read(file: &Arc<str>, text: &str) -> Result<Document, RuleError> {
    toml::from_str(text).map_err(|error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        RuleError { file: file.clone(), line, reason: Reason::Configuration { why: error.message().to_owned() } }
    })
}

/// The line of a place in a text, from 1.
pub(super) fn line_of(text: &str, place: usize) -> u32 {
    let before = text.as_bytes().get(..place).unwrap_or_default();
    u32::try_from(before.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u32::MAX - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text: String, keys in "(\\[\\[(pack|tenant)\\]\\]|name|folders|rules| = |\\[|\\]|\"|\n|a){0,20}") {
            for text in [text, keys] {
                if let Err(error) = read(&"packs.toml".into(), &text) {
                    prop_assert!(error.line as usize <= text.lines().count() + 1);
                }
            }
        }
    }
}
