//! Transforms: what is done to records between sources and sinks.
//!
//! Pure but for the lists that `enrich` reads: a record in, and out come records, a refusal with its reason, or nothing
//! because the user said so. Nothing here waits, and nothing remembers one record when it sees the next.

pub mod condition;
pub mod enrich;
pub mod filter;
pub mod normalise;
pub mod parse;
pub mod redact;
pub mod route;
pub mod sample;
pub mod schema;

use crate::record::Record;
use condition::BadCondition;
use detection::RejectReason;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;

/// A transform as the topology describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TransformConfig {
    /// Takes lines, or texts in fields, apart.
    Parse(parse::ParseConfig),
    /// Gives fields OCSF's names.
    Normalise(normalise::NormaliseConfig),
    /// Adds what lists say.
    Enrich(enrich::EnrichConfig),
    /// Lets pass what meets a condition.
    Filter(filter::FilterConfig),
    /// Sends records different ways.
    Route(route::RouteConfig),
    /// Takes out what must not travel on.
    Redact(redact::RedactConfig),
    /// Lets a share pass.
    Sample(sample::SampleConfig),
}

/// The names of all transforms, for messages.
pub const TYPES: [&str; 7] = ["parse", "normalise", "enrich", "filter", "route", "redact", "sample"];

/// Why a transform cannot be what its description says.
#[derive(Debug, thiserror::Error)]
pub enum BadTransform {
    /// Its condition.
    #[error("{key}: {why}")]
    Condition {
        /// Where it stands.
        key: String,
        /// What is wrong with it.
        why: BadCondition,
    },
    /// A regular expression that does not compile, or is too large compiled.
    #[error("{key}: {why}")]
    Regex {
        /// Where it stands.
        key: &'static str,
        /// What the compiler said.
        why: String,
    },
    /// A setting that makes no sense, or not with the others.
    #[error("{key} {why}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What it must be.
        why: &'static str,
    },
    /// A file that cannot be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A line of a file that is not what it should be.
    #[error("{path}:{line}: {why}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl TransformConfig {
    /// Compiles it; the files it names are relative to `folder`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(&self, folder: &Path) -> Result<Box<dyn Transform>, BadTransform> {
        Ok(match self {
            Self::Parse(config) => Box::new(config.open()?),
            Self::Normalise(config) => Box::new(config.open()?),
            Self::Enrich(config) => Box::new(config.open(folder)?),
            Self::Filter(config) => Box::new(config.open()?),
            Self::Route(config) => Box::new(config.open()?),
            Self::Redact(config) => Box::new(config.open(folder)?),
            Self::Sample(config) => Box::new(config.open()?),
        })
    }

    /// Its type's name.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Parse(_) => "parse",
            Self::Normalise(_) => "normalise",
            Self::Enrich(_) => "enrich",
            Self::Filter(_) => "filter",
            Self::Route(_) => "route",
            Self::Redact(_) => "redact",
            Self::Sample(_) => "sample",
        }
    }

    /// The names of its outputs; none where its only output has its own name.
    pub fn outputs(&self) -> Vec<Arc<str>> {
        match self {
            Self::Route(config) => config.outputs(),
            _ => Vec::new(),
        }
    }
}

/// Does one thing to one record at a time.
pub trait Transform: Send + Sync {
    /// Takes a record and says what became of it.
    fn apply(&self, record: Record, out: &mut Outputs);
    /// Looks again at the files it was made of; what is wrong with them is logged by the caller, and the old is kept.
    ///
    /// # Errors
    /// What is wrong with a file that has changed.
    fn reload(&self) -> Result<bool, BadTransform> {
        Ok(false)
    }
}

/// What became of records.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Those that go on, and by which output.
    pub passed: Vec<(usize, Record)>,
    /// Those that could not be dealt with: dead letters.
    pub refused: Vec<(Record, Refusal)>,
    /// How many were left out because the user said so.
    pub left_out: u64,
}

impl Outputs {
    /// Goes on by the only output.
    pub fn pass(&mut self, record: Record) {
        self.passed.push((0, record));
    }
}

/// Why a record became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It could not be framed or parsed.
    #[error(transparent)]
    Rejected(#[from] RejectReason),
    /// The expression does not match.
    #[error("the expression does not match")]
    NoMatch,
    /// Not CEF.
    #[error("not CEF: {0}")]
    NotCef(&'static str),
    /// Not pairs of keys and values.
    #[error("no pair of a key and a value")]
    NoPairs,
    /// The field that is to be parsed is not there or is not a text.
    #[error("field {0} is missing or not a text")]
    NoText(String),
    /// What the class of OCSF requires is not there, or has the wrong type.
    #[error("class {class_uid} of OCSF: {attribute} {why}")]
    NotOcsf {
        /// The class.
        class_uid: u32,
        /// The attribute.
        attribute: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It says whose it is, and its source does not speak for that tenant.
    #[error("it names a tenant that its source does not speak for: tenant = \"…\" says for whom a source does")]
    OtherTenant,
    /// A sink said that it will never take it.
    #[error("{0}")]
    Sink(String),
    /// It lay in a buffer and is damaged.
    #[error("{bytes} bytes of the buffer are damaged, with {records} records or more")]
    Damaged {
        /// How many bytes were skipped.
        bytes: u64,
        /// How many records are missing.
        records: u64,
    },
}

impl Refusal {
    /// A short stable word for it, fit for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Rejected(reason) => reason.label(),
            Self::NoMatch => "no_match",
            Self::NotCef(_) => "not_cef",
            Self::NoPairs => "no_pairs",
            Self::NoText(_) => "no_text",
            Self::NotOcsf { .. } => "not_ocsf",
            Self::OtherTenant => "other_tenant",
            Self::Sink(_) => "sink_refused",
            Self::Damaged { .. } => "damaged",
        }
    }
}

/// Most bytes of an expression as it is written.
pub const REGEX_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of an expression compiled: what hostile repetitions run into.
pub const REGEX_COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Compiles an expression within bounds; matching takes time linear in the text.
fn regex(key: &'static str, text: &str) -> Result<regex::Regex, BadTransform> {
    let refused = |why: String| BadTransform::Regex { key, why };
    if text.len() > REGEX_BYTES_MAX {
        return Err(refused(format!("longer than {REGEX_BYTES_MAX} bytes")));
    }
    let builder = regex::RegexBuilder::new(text)
        .size_limit(REGEX_COMPILED_BYTES_MAX)
        .dfa_size_limit(REGEX_COMPILED_BYTES_MAX)
        .build();
    builder.map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_expressions_are_refused_when_they_are_read() {
        assert!(regex("pattern", "((a{1,1000}){1,1000}){1,1000}").is_err());
        assert!(regex("pattern", &"a".repeat(REGEX_BYTES_MAX + 1)).is_err());
        assert!(regex("pattern", r"(?P<a>\w+)\1").is_err(), "what needs backtracking does not compile");
    }

    #[test]
    fn every_transform_reads_its_own_type() {
        for name in TYPES {
            let found = toml::from_str::<TransformConfig>(&format!("type = '{name}'\nno_such_key = 1")).unwrap_err();
            assert!(!found.message().contains("unknown variant"), "{name}: {found}");
        }
    }
}
