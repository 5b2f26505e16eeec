//! Log files that are followed through rotation, by renaming and by copying and truncating.
//!
//! A record's position is its place in its file, so that it has the same one however often it is read. What is
//! durable elsewhere is remembered only after it is. Copying and truncating loses what is written in between: that
//! is so whoever reads.

mod checkpoint;
mod cut;
mod find;
mod follow;
mod tail;

pub(super) use cut::Cut;
pub(super) use follow::Follow;
pub(super) use tail::{Chunk, Settings};

use super::{Batch, Source, Surroundings};
use crate::resource::{self, Invalid, OpenError};
use detection::{Position, RawEvent, Reject, SourceKind};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that rotation renamed is left once nobody has written to it for so long.
pub const QUIET: Duration = Duration::from_secs(300);

/// How often files are looked at, unless the description says otherwise.
pub const POLL_MILLISECONDS: u64 = 250;
/// Most patterns of one source.
pub const PATTERNS_MAX: usize = 64;

/// How the lines of a file are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Syslog lines.
    Syslog,
    /// One JSON object a line.
    Ndjson,
}

/// Where reading a file begins that was there before anything was ever read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With its first line.
    #[default]
    Beginning,
    /// With what is written from now on.
    End,
}

/// Followed files as the topology file describes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Patterns such as `/var/log/*.log`. Copies and compressed parts that rotation makes are not to be among them.
    pub paths: Vec<PathBuf>,
    /// How lines are read.
    pub format: Format,
    /// Where reading begins at the very first start.
    #[serde(default)]
    pub from: Start,
    /// How often files are looked at.
    #[serde(default = "poll_milliseconds")]
    pub poll_milliseconds: u64,
}

/// The default of [`FileConfig::poll_milliseconds`].
pub(super) fn poll_milliseconds() -> u64 {
    POLL_MILLISECONDS
}

impl FileConfig {
    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        problems(&self.paths, self.poll_milliseconds)
    }

    /// Reads what is kept of earlier runs.
    pub(super) fn open(&self, name: &str, around: &Surroundings) -> Result<Box<dyn Source>, OpenError> {
        let kind = match self.format {
            Format::Syslog => SourceKind::Syslog,
            Format::Ndjson => SourceKind::Ndjson,
        };
        let settings = settings(name, &self.paths, Cut::Lines, self.from == Start::End, around);
        let poll = Duration::from_millis(self.poll_milliseconds);
        let follow = Follow::open(settings, poll, around, move |chunk, received_ms| lines(kind, chunk, received_ms))?;
        Ok(Box::new(follow))
    }
}

/// Lines as they are.
fn lines(kind: SourceKind, chunk: Chunk, received_ms: u64) -> Batch {
    let mut batch = Batch::default();
    for record in chunk.records {
        let position = Some(Position { stream: chunk.stream.clone(), sequence: record.offset });
        let raw = |bytes| RawEvent { source: kind, received_ms, position, bytes };
        match record.bytes {
            Ok(bytes) => batch.events.push(raw(bytes)),
            Err(reason) => batch.rejects.push(Reject::of(&raw(bytes::Bytes::new()), reason)),
        }
    }
    batch
}

/// What both kinds of files have in common.
pub(super) fn settings(name: &str, paths: &[PathBuf], cut: Cut, from_end: bool, around: &Surroundings) -> Settings {
    Settings {
        name: name.to_owned(),
        // Descriptions with other paths were refused.
        patterns: paths.iter().filter_map(|path| path.to_str().map(str::to_owned)).collect(),
        cut,
        from_end,
        quiet: QUIET,
        checkpoint: around.checkpoint(name),
    }
}

/// What is wrong with patterns and a pause.
pub(super) fn problems(paths: &[PathBuf], poll_milliseconds: u64) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if paths.is_empty() || paths.len() > PATTERNS_MAX {
        problems.push(Invalid::new("paths", format!("name 1 to {PATTERNS_MAX} patterns, such as \"/var/log/*.log\"")));
    }
    for path in paths {
        match path.to_str().map(glob::Pattern::new) {
            None => problems.push(Invalid::new("paths", format!("{}: not UTF-8", path.display()))),
            Some(Err(error)) => problems.push(Invalid::new("paths", format!("{}: {error}", path.display()))),
            Some(Ok(_)) => {}
        }
    }
    if poll_milliseconds == 0 {
        problems.push(Invalid::new("poll_milliseconds", "wait at least 1 millisecond between looks"));
    }
    problems
}

/// Makes patterns count from a folder.
pub(super) fn resolve(paths: &mut [PathBuf], folder: &Path) {
    paths.iter_mut().for_each(|path| resource::resolve(path, folder));
}
