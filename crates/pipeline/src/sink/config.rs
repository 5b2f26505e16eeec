//! Sinks as the topology file describes them.

use super::Sink;
use super::directory::{Directory, DirectoryConfig};
use crate::resource::{Invalid, OpenError, Resource};
use model::time::Clock;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// A sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SinkConfig {
    /// Files of JSON lines.
    Directory(DirectoryConfig),
}

impl SinkConfig {
    /// Makes relative paths count from a folder: that of the topology file.
    pub fn resolve(&mut self, folder: &Path) {
        let Self::Directory(config) = self;
        crate::resource::resolve(&mut config.folder, folder);
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        Vec::new()
    }

    /// What it claims.
    pub fn resources(&self) -> Vec<Resource> {
        let Self::Directory(config) = self;
        vec![Resource::Folder(config.folder.clone())]
    }

    /// Reads its secrets and certificates; nothing is sent yet.
    ///
    /// # Errors
    /// What could not be opened.
    pub fn open(&self, name: &str, _clock: &Arc<dyn Clock>) -> Result<Box<dyn Sink>, OpenError> {
        let Self::Directory(config) = self;
        Ok(Box::new(Directory::open(name, config)?))
    }
}
