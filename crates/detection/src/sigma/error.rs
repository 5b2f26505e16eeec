//! What can be wrong with a rule, and where.

use std::fmt;
use std::sync::Arc;

/// A rule that was not taken: file, line and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// The line, from 1; the beginning of the document where it is not known better.
    pub line: u32,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}
impl std::error::Error for RuleError {}

/// Why a rule was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The file could not be read.
    #[error("cannot be read: {cause}")]
    Unreadable {
        /// What the system said.
        cause: String,
    },
    /// More files than [`crate::rules::FILES_MAX`] in one folder and those in it.
    #[error("more rule files than one folder may hold: the last by name are left out")]
    TooManyFiles,
    /// A folder that is a link: it may lead anywhere, also in circles.
    #[error("a link to a folder is not followed")]
    LinkedFolder,
    /// Larger than [`super::FILE_SIZE_BYTES_MAX`], or made larger by its aliases than any such file.
    #[error("the file is too large")]
    TooLarge,
    /// What its patterns and conditions come to is more than [`super::budget::FILE_COST_BYTES_MAX`] for one file, or
    /// more than a set of rules may come to.
    #[error("its patterns and conditions come to too much")]
    TooCostly,
    /// Not YAML.
    #[error("not YAML: {cause}")]
    NotYaml {
        /// What the parser said.
        cause: String,
    },
    /// Not a mapping.
    #[error("a rule must be a mapping")]
    NotAMapping,
    /// A key that must be there is not.
    #[error("{key} is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// A value of the wrong type or out of range.
    #[error("{key} must be {expected}")]
    Wrong {
        /// The key.
        key: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A modifier that does not exist.
    #[error("unknown modifier {modifier}")]
    UnknownModifier {
        /// The modifier.
        modifier: String,
    },
    /// Modifiers that do not go together.
    #[error("modifier {modifier} cannot be used here")]
    ModifierConflict {
        /// The modifier.
        modifier: String,
    },
    /// A placeholder that nothing is given for: it would never match, and match everything where it is negated.
    #[error("nothing is given for the placeholder %{name}%")]
    UnfilledPlaceholder {
        /// Its name.
        name: String,
    },
    /// A selection, or a part of one, of which a pipeline leaves nothing: it would match everything.
    #[error("the pipeline drops all of {name}")]
    Emptied {
        /// The selection.
        name: String,
    },
    /// A regular expression that does not compile, or needs what linear-time matching cannot do.
    #[error("bad regular expression: {cause}")]
    BadRegex {
        /// What the compiler said.
        cause: String,
    },
    /// A network that is not address/prefix.
    #[error("{text} is not a network in CIDR notation")]
    BadCidr {
        /// The text.
        text: String,
    },
    /// A condition that does not parse.
    #[error("the condition does not parse at {at:?}")]
    BadCondition {
        /// Where parsing stopped.
        at: String,
    },
    /// A condition that names a selection that is not there.
    #[error("the condition names {name}, which no selection is called")]
    UnknownSelection {
        /// The name.
        name: String,
    },
    /// A rule of a correlation that its extended condition does not name: it would be silenced for nothing.
    #[error("the condition does not name {name}, which is among its rules")]
    UnnamedRule {
        /// Its id or name.
        name: String,
    },
    /// A condition of more than 64 KB.
    #[error("the condition is too long")]
    TooLong,
    /// Nested deeper than [`super::DEPTH_MAX`].
    #[error("nested too deeply")]
    TooDeep,
    /// More opening brackets than a document may have.
    #[error("more than {max} opening brackets in one document")]
    TooManyBrackets {
        /// How many it may have.
        max: usize,
    },
    /// Something of Sigma that this engine does not do.
    #[error("{what} is not supported")]
    Unsupported {
        /// What.
        what: String,
    },
    /// A pipeline says that rules for this log source cannot be read.
    #[error("the pipeline refuses it: {why}")]
    Refused {
        /// What the pipeline says.
        why: String,
    },
    /// A filter of something that is not a rule on single events.
    #[error("filters {name}, which is a correlation")]
    NotFilterable {
        /// The id or name.
        name: String,
    },
    /// More rules than [`crate::rules::RULES_MAX`].
    #[error("more rules than one set holds")]
    TooMany,
    /// More rules than the tenant's quota allows, copies of those that its filters narrow included.
    #[error("more than the {max} rules that the tenant may have")]
    OverQuota {
        /// How many it may have.
        max: usize,
    },
    /// The configuration of packs and tenants is wrong.
    #[error("{why}")]
    Configuration {
        /// Why.
        why: String,
    },
    /// A correlation of a rule that is not loaded.
    #[error("refers to {name}, which no rule is called")]
    UnknownRule {
        /// The id or name.
        name: String,
    },
    /// A correlation of another that was refused.
    #[error("refers to {name}, which is refused")]
    RefusedRule {
        /// The id or name.
        name: String,
    },
    /// Correlations that refer to each other in a circle.
    #[error("refers to itself through other correlations")]
    Circular,
    /// A second rule of that id or name.
    #[error("{name} is taken by another rule")]
    Duplicate {
        /// The id or name.
        name: String,
    },
}
