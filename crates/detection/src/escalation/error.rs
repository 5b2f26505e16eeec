//! What can be wrong with a policy document, and where.

use std::fmt;
use std::sync::Arc;

/// A fault of a policy document: file, line and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The file's name as it was given.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}
impl std::error::Error for PolicyError {}

/// Why a policy document is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Larger than [`super::DOCUMENT_SIZE_BYTES_MAX`].
    #[error("the document is too large")]
    TooLarge,
    /// Not text.
    #[error("not UTF-8")]
    NotUtf8,
    /// Not TOML, or with keys or types that are not known here.
    #[error("{cause}")]
    NotToml {
        /// What the parser said.
        cause: String,
    },
    /// Written for another version.
    #[error("version {found} is not known; this program reads version 1")]
    Version {
        /// The version it names.
        found: u32,
    },
    /// More of something than there may be.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// None of something that there must be.
    #[error("at least one of {what} is needed")]
    Empty {
        /// Of what.
        what: &'static str,
    },
    /// A name, address or URL that is empty or too long.
    #[error("{what} is empty or too long")]
    BadText {
        /// What.
        what: &'static str,
    },
    /// A second of that name.
    #[error("{name} is there twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A name that nothing has.
    #[error("there is no {what} called {name}")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A target that is not `person:`, `team:`, `schedule:` or `webhook:` and a name.
    #[error("{text} is not person:, team:, schedule: or webhook: with a name")]
    BadTarget {
        /// The text.
        text: String,
    },
    /// An entity that is not a kind and a name.
    #[error("{text} is not an entity such as host:db-1 or user:ann")]
    BadEntity {
        /// The text.
        text: String,
    },
    /// A person whom nothing reaches.
    #[error("{login} has neither email nor webhook")]
    Unreachable {
        /// Whom.
        login: String,
    },
    /// A URL that is not `https://`.
    #[error("{url} does not begin with https://")]
    NotHttps {
        /// The URL.
        url: String,
    },
    /// An e-mail address that is not one.
    #[error("{address} is not an e-mail address")]
    BadAddress {
        /// The text.
        address: String,
    },
    /// A time zone that is not known.
    #[error("{name} is not a time zone")]
    BadZone {
        /// The name.
        name: String,
    },
    /// A date, a time of day, or both that is not one.
    #[error("{text} is not {expected}")]
    BadTime {
        /// The text.
        text: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A number or a time span out of its range.
    #[error("{what} must be {range}")]
    OutOfRange {
        /// What.
        what: &'static str,
        /// Its range.
        range: &'static str,
    },
    /// A span that ends before it begins.
    #[error("ends before it begins")]
    Backwards,
    /// A policy that names a schedule, in which there may be gaps, and has nobody to fall back on.
    #[error("policy {name} needs a fallback of people, teams or webhooks")]
    NoFallback {
        /// The policy.
        name: String,
    },
}
