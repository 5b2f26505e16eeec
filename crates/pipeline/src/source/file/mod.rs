//! Log files that are followed through rotation.

use crate::resource::{self, Invalid};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
