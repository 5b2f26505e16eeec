//! Syslog to others.

use super::config::Wants;
use crate::resource::Invalid;
use crate::tls::ClientTls;
use serde::{Deserialize, Serialize};

/// A syslog receiver as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// Its name or address.
    pub host: String,
    /// Its port; by custom 6514 with TLS, 601 without.
    pub port: u16,
    /// How it is checked; without it lines go in the clear.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// The facility of lines, 0 to 23: 13 is the audit log, 16 the first local one.
    #[serde(default = "facility")]
    pub facility: u8,
    /// The host that lines say they are from; `-` where it is nobody's.
    #[serde(default = "nil")]
    pub hostname: String,
    /// An attempt takes no longer.
    #[serde(default = "super::http::attempt_seconds")]
    pub timeout_seconds: u64,
    /// Which notices it is for.
    #[serde(default)]
    pub wants: Wants,
}

fn facility() -> u8 {
    13
}

fn nil() -> String {
    "-".to_owned()
}

impl SyslogConfig {
    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems: Vec<_> = super::http::timeout_problem(self.timeout_seconds).into_iter().collect();
        problems.extend(self.tls.as_ref().and_then(ClientTls::problems));
        if self.host.is_empty() {
            problems.push(Invalid::new("host", "name the receiver"));
        }
        if self.port == 0 {
            problems.push(Invalid::new("port", "name the receiver's port: by custom 6514 with TLS, 601 without"));
        }
        if self.facility > 23 {
            problems.push(Invalid::new("facility", "write a number from 0 to 23 (RFC 5424)"));
        }
        let printable =
            |text: &str| !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
        if !printable(&self.hostname) {
            problems.push(Invalid::new("hostname", "write printable ASCII without spaces, or \"-\""));
        }
        problems
    }
}
