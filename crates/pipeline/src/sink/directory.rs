//! Files of JSON lines.

use super::{Notice, Refused, Sink};
use crate::resource::OpenError;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;

/// Where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The folder.
    pub folder: PathBuf,
}

/// The folder, open.
pub struct Directory {
    name: String,
    folder: PathBuf,
}

impl Directory {
    /// Opens it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(name: &str, config: &DirectoryConfig) -> Result<Self, OpenError> {
        let folder = config.folder.clone();
        std::fs::create_dir_all(&folder).map_err(|error| OpenError::File { path: folder.clone(), error })?;
        Ok(Self { name: name.to_owned(), folder })
    }
}

#[async_trait]
impl Sink for Directory {
    fn name(&self) -> &str {
        &self.name
    }
    fn wants(&self, _notice: &Notice) -> bool {
        true
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        let path = self.folder.join("events.ndjson");
        let lines: String = notices.iter().map(|notice| notice.body.clone() + "\n").collect();
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        match opened.and_then(|mut file| file.write_all(lines.as_bytes())) {
            Ok(()) => (notices.len(), Ok(())),
            Err(error) => (0, Err(Refused::Later(error.to_string()))),
        }
    }
}
