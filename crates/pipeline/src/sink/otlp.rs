//! OpenTelemetry logs to others.

use super::config::Wants;
use crate::resource::{Invalid, resolve};
use crate::tls::ClientTls;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// An OTLP receiver as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where it listens: `https`, or `http` on this machine; by custom `…:4318/v1/logs`.
    pub url: String,
    /// The file with the value of the header `Authorization`, such as `Bearer …`.
    #[serde(default)]
    pub authorization: Option<PathBuf>,
    /// How the server is checked.
    #[serde(default)]
    pub tls: ClientTls,
    /// An attempt takes no longer.
    #[serde(default = "super::http::attempt_seconds")]
    pub timeout_seconds: u64,
    /// Which notices it is for.
    #[serde(default)]
    pub wants: Wants,
}

impl OtlpConfig {
    /// Makes relative paths count from a folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.authorization.iter_mut().for_each(|path| resolve(path, folder));
        self.tls.resolve(folder);
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        super::http::problems(&self.url, self.timeout_seconds).into_iter().chain(self.tls.problems()).collect()
    }
}
