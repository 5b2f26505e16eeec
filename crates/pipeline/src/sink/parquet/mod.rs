//! Events as Parquet files by tenant and hour, in a folder or in an object store (S3 and what speaks like it).
//!
//! A file is there whole or not at all, and events are taken once their files are durable. Its name follows from its
//! rows, so that an attempt whose answer was lost is written over; an event that comes again is known by its `uid`.

mod sign;
mod store;

pub use store::BucketConfig;

use super::config::Wants;
use super::{Bulk, Notice, Refused, Roll, Sink};
use crate::resource::{Invalid, OpenError};
use archive::export::{self, Row};
use async_trait::async_trait;
use model::time::Clock;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::Store;

/// Events after which files are written, unless the description says otherwise.
pub const ROLL_EVENTS: usize = 100_000;
/// Bytes of events after which files are written.
pub const ROLL_BYTES: usize = 16 * 1024 * 1024;
/// Seconds after which files are written whatever there is.
pub const ROLL_SECONDS: u64 = 60;
/// The most a description may ask for: so much is held in memory, several times over while files are made of it.
pub const ROLL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest a description may hold events back.
pub const ROLL_SECONDS_MAX: u64 = 3_600;
/// The longest without a buffer on disk: whoever waits for an answer waits no longer than half a minute.
pub const ROLL_SECONDS_UNBUFFERED_MAX: u64 = 15;

/// Parquet files as the topology file describes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetConfig {
    /// The folder they are written to; it is made where it is missing.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// The bucket they are written to, instead of a folder.
    #[serde(default)]
    pub bucket: Option<BucketConfig>,
    /// Whether the line that arrived leaves as well, where no transform has taken it away.
    #[serde(default)]
    pub raw: bool,
    /// Events after which files are written.
    #[serde(default = "roll_events")]
    pub roll_events: usize,
    /// Bytes of events after which files are written.
    #[serde(default = "roll_bytes")]
    pub roll_bytes: usize,
    /// Seconds after which files are written.
    #[serde(default = "roll_seconds")]
    pub roll_seconds: u64,
    /// Which events it is for.
    #[serde(default)]
    pub wants: Wants,
}

fn roll_events() -> usize {
    ROLL_EVENTS
}

fn roll_bytes() -> usize {
    ROLL_BYTES
}

fn roll_seconds() -> u64 {
    ROLL_SECONDS
}

impl ParquetConfig {
    /// Makes relative paths count from a folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.folder.iter_mut().for_each(|path| crate::resource::resolve(path, folder));
        self.bucket.iter_mut().for_each(|bucket| bucket.resolve(folder));
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems = Vec::new();
        if self.folder.is_some() == self.bucket.is_some() {
            problems.push(Invalid::new("folder", "name either `folder` or `bucket`"));
        }
        problems.extend(self.bucket.iter().flat_map(BucketConfig::problems));
        if self.roll_events == 0 {
            problems.push(Invalid::new("roll_events", "write at least 1"));
        }
        if !(1..=ROLL_BYTES_MAX).contains(&self.roll_bytes) {
            problems.push(Invalid::new("roll_bytes", format!("write a number from 1 to {ROLL_BYTES_MAX}")));
        }
        if !(1..=ROLL_SECONDS_MAX).contains(&self.roll_seconds) {
            problems.push(Invalid::new("roll_seconds", format!("write a number from 1 to {ROLL_SECONDS_MAX}")));
        }
        problems
    }

    /// What is wrong with it where no buffer on disk is before it.
    pub fn problem_unbuffered(&self) -> Option<Invalid> {
        let advice = format!(
            "add buffer = {{ max_bytes = … }}, or write at most {ROLL_SECONDS_UNBUFFERED_MAX}: until a file is written \
             the sources wait"
        );
        (self.roll_seconds > ROLL_SECONDS_UNBUFFERED_MAX).then(|| Invalid::new("roll_seconds", advice))
    }

    /// Reads its secrets and certificates, and makes nothing.
    pub(super) fn look(&self, clock: &Arc<dyn Clock>) -> Result<(), OpenError> {
        self.bucket.iter().try_for_each(|bucket| bucket.open(clock).map(drop))
    }
}

/// Parquet files in one place.
pub struct Parquet {
    name: String,
    store: Store,
    roll: Roll,
    raw: bool,
    wants: Wants,
}

impl Parquet {
    /// Makes the folder, or reads the bucket's secrets; nothing is written yet.
    pub fn open(name: &str, config: &ParquetConfig, clock: &Arc<dyn Clock>) -> Result<Self, OpenError> {
        let store = match (&config.folder, &config.bucket) {
            (Some(folder), None) => store::folder(folder)?,
            (None, Some(bucket)) => bucket.open(clock)?,
            _ => return Err(Invalid::new("folder", "name either `folder` or `bucket`").into()),
        };
        let roll = Roll {
            events: config.roll_events,
            bytes: config.roll_bytes,
            time: Duration::from_secs(config.roll_seconds),
        };
        Ok(Self { name: name.to_owned(), store, roll, raw: config.raw, wants: config.wants.clone() })
    }
}

#[async_trait]
impl Sink for Parquet {
    fn name(&self) -> &str {
        &self.name
    }
    fn wants(&self, notice: &Notice) -> bool {
        self.wants.admit(notice)
    }
    async fn deliver(&self, _notices: &[Notice]) -> (usize, Result<(), Refused>) {
        (0, Err(Refused::Never("files of Parquet hold events, and nothing else".to_owned())))
    }
    fn bulk(&self) -> Option<&dyn Bulk> {
        Some(self)
    }
}

#[async_trait]
impl Bulk for Parquet {
    fn roll(&self) -> Roll {
        self.roll
    }
    async fn put(&self, rows: Arc<Vec<Row>>) -> Result<(), Refused> {
        let with_lines = self.raw;
        let made = tokio::task::spawn_blocking(move || export::objects(&rows, with_lines));
        let objects = match made.await {
            Ok(Ok(objects)) => objects,
            Ok(Err(error)) => return Err(Refused::Never(error.to_string())),
            Err(error) => return Err(Refused::Later(error.to_string())),
        };
        for object in objects {
            self.store.put(object).await?;
        }
        Ok(())
    }
}
