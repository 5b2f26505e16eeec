//! E-mail.

use super::config::Wants;
use crate::resource::{Invalid, resolve};
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the connection to the mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// TLS from the first byte; by custom port 465.
    #[default]
    Tls,
    /// STARTTLS, never without; by custom port 587.
    Starttls,
    /// None: only to this machine.
    None,
}

/// A mail server as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// Its name: its certificate must be for it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    #[serde(default)]
    pub security: Security,
    /// The authority its certificate must be of, in PEM; without it the system's authorities count.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Who logs in.
    #[serde(default)]
    pub username: Option<String>,
    /// The file with their password.
    #[serde(default)]
    pub password: Option<PathBuf>,
    /// Who writes.
    pub from: String,
    /// Who is written to, where a notice names nobody.
    #[serde(default)]
    pub to: Vec<String>,
    /// An attempt takes no longer.
    #[serde(default = "super::http::attempt_seconds")]
    pub timeout_seconds: u64,
    /// Which notices it is for.
    #[serde(default)]
    pub wants: Wants,
}

impl SmtpConfig {
    /// Makes relative paths count from a folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.ca.iter_mut().chain(&mut self.password).for_each(|path| resolve(path, folder));
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems: Vec<_> = super::http::timeout_problem(self.timeout_seconds).into_iter().collect();
        if self.host.is_empty() {
            problems.push(Invalid::new("host", "name the mail server"));
        }
        if self.port == 0 {
            problems.push(Invalid::new("port", "name the server's port: by custom 465 with TLS, 587 with STARTTLS"));
        }
        let address = self.host.parse::<std::net::IpAddr>();
        let is_here = self.host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        if self.security == Security::None && !is_here {
            problems.push(Invalid::new("security", "mail to other machines needs \"tls\" or \"starttls\""));
        }
        if self.username.is_some() != self.password.is_some() {
            problems.push(Invalid::new("password", "name both `username` and `password` (a file), or neither"));
        }
        for (field, text) in [("from", &self.from)].into_iter().chain(self.to.iter().map(|to| ("to", to))) {
            if let Err(error) = text.parse::<Mailbox>() {
                problems.push(Invalid::new(field, format!("{text:?}: {error}; write name@example.org")));
            }
        }
        problems
    }
}
