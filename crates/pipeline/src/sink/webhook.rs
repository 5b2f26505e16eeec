//! Webhooks.

use super::config::Wants;
use crate::resource::{Invalid, resolve};
use crate::tls::ClientTls;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A webhook as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where it listens: `https`, or `http` on this machine.
    pub url: String,
    /// The file with the secret that signs.
    pub secret: PathBuf,
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

impl WebhookConfig {
    /// Makes relative paths count from a folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        resolve(&mut self.secret, folder);
        self.tls.resolve(folder);
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        super::http::problems(&self.url, self.timeout_seconds).into_iter().chain(self.tls.problems()).collect()
    }
}
