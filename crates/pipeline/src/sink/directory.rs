//! Notices as files of JSON lines.

use super::config::Wants;
use crate::resource::Invalid;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Bytes after which a new file is begun, unless the description says otherwise.
pub const SEGMENT_SIZE_BYTES: u64 = 64 * 1024 * 1024;

/// A folder of JSON lines as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The folder; it is made where it is missing.
    pub folder: PathBuf,
    /// Bytes after which a new file is begun.
    #[serde(default = "segment_size_bytes_max")]
    pub segment_size_bytes_max: u64,
    /// Which notices it is for.
    #[serde(default)]
    pub wants: Wants,
}

fn segment_size_bytes_max() -> u64 {
    SEGMENT_SIZE_BYTES
}

impl DirectoryConfig {
    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let fits = self.segment_size_bytes_max >= 4096;
        (!fits).then(|| Invalid::new("segment_size_bytes_max", "write at least 4096")).into_iter().collect()
    }
}
