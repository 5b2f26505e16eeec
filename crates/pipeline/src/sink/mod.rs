//! Sinks: who is told outside.
//!
//! A sink is asked again under the same key until it has taken a notice, or says that it never will.

pub mod config;
pub mod directory;
mod http;
pub mod mail;
mod message;
mod notice;
pub mod otlp;
pub mod parquet;
pub mod syslog;
pub mod webhook;

pub use config::{SinkConfig, Wants};

use archive::export::Row;
use async_trait::async_trait;
use detection::Severity;
use std::sync::Arc;
use std::time::Duration;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// A normalised event.
    Event,
    /// An alert.
    Alert,
    /// A change of an incident.
    Incident,
    /// Somebody is asked to come.
    Page,
    /// A change of a ticket.
    Ticket,
}

impl Topic {
    /// Its name, as descriptions write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Alert => "alert",
            Self::Incident => "incident",
            Self::Page => "page",
            Self::Ticket => "ticket",
        }
    }
}

/// Something to be told outside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Notice {
    /// The same for every attempt to tell this: a receiver knows repetitions by it.
    pub key: String,
    /// What it is about.
    pub topic: Topic,
    /// Whose it is.
    pub tenant: String,
    /// When it came about, in milliseconds since 1970.
    pub at_ms: u64,
    /// How grave it is.
    pub severity: Severity,
    /// One line for people.
    pub subject: String,
    /// Who is to be told, where that is for the notice to say: e-mail addresses.
    pub to: Vec<String>,
    /// A JSON object for machines.
    pub body: String,
}

/// Why a notice was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It may be taken later.
    #[error("not now: {0}")]
    Later(String),
    /// It never will be.
    #[error("refused: {0}")]
    Never(String),
}

/// The door through which the outside is told.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Its name, unique among sinks.
    fn name(&self) -> &str;
    /// Whether it cares for such a notice at all.
    fn wants(&self, notice: &Notice) -> bool;
    /// Whether somebody is called when it has taken a page: a file or a log calls nobody.
    fn calls_people(&self) -> bool {
        false
    }
    /// Tells notices in order; how many were taken, and why the next one was not.
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>);
    /// Where it takes events themselves, many at once, instead of notices of them.
    fn bulk(&self) -> Option<&dyn Bulk> {
        None
    }
}

/// When enough events were gathered: whichever of these comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// So many.
    pub events: usize,
    /// So many bytes of them.
    pub bytes: usize,
    /// The first of them has waited for so long.
    pub time: Duration,
}

/// A sink that takes events themselves, many at once.
#[async_trait]
pub trait Bulk: Send + Sync {
    /// When it is to be told.
    fn roll(&self) -> Roll;
    /// Takes events, all or none: durable when this returns.
    ///
    /// # Errors
    /// Not now, or never: then they become dead letters.
    async fn put(&self, rows: Arc<Vec<Row>>) -> Result<(), Refused>;
}
