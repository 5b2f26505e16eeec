//! Syslog to others: RFC 5424 lines, octet-counted, over TCP (RFC 6587) or TLS (RFC 5425).
//!
//! Syslog has no answer. A notice counts as taken once its line was handed to the connection, so one that breaks
//! just then loses lines that were on their way; where that matters a webhook is the better sink. A connection that
//! the other side has closed is noticed before it is written to.

use super::config::Wants;
use super::{Notice, Refused, Sink};
use crate::resource::{Invalid, OpenError};
use crate::tls::ClientTls;
use async_trait::async_trait;
use detection::Severity;
use futures::FutureExt;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// Most bytes of a notice's body inside a line; a larger one is left out, and the line says so.
pub const BODY_SIZE_BYTES_MAX: usize = 8 * 1024;
/// Most characters of each text in a line.
pub const TEXT_CHARACTERS_MAX: usize = 1024;
/// The structured data element; the number is the one for documentation (RFC 5612).
const ELEMENT: &str = "holdfast@32473";

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
        if ServerName::try_from(self.host.as_str()).is_err() {
            problems.push(Invalid::new("host", "write the receiver's name or address, without a port"));
        }
        if self.port == 0 {
            problems.push(Invalid::new("port", "name the receiver's port: by custom 6514 with TLS, 601 without"));
        }
        if self.facility > 23 {
            problems.push(Invalid::new("facility", "write a number from 0 to 23 (RFC 5424)"));
        }
        let fits = !self.hostname.is_empty() && self.hostname.len() <= 255;
        if !fits || !self.hostname.bytes().all(|byte| byte.is_ascii_graphic()) {
            problems.push(Invalid::new("hostname", "write printable ASCII without spaces, or \"-\""));
        }
        problems
    }
}

/// A connection, with TLS or without.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// One receiver.
pub struct Syslog {
    name: String,
    config: SyslogConfig,
    tls: Option<TlsConnector>,
    /// Kept between deliveries; none after one that failed.
    connection: Mutex<Option<Box<dyn Connection>>>,
}

impl Syslog {
    /// Reads the certificates.
    pub fn open(name: &str, config: &SyslogConfig) -> Result<Self, OpenError> {
        let tls = config.tls.as_ref().map(ClientTls::load).transpose()?;
        let tls = tls.map(|tls| TlsConnector::from(Arc::new(tls)));
        Ok(Self { name: name.to_owned(), config: config.clone(), tls, connection: Mutex::new(None) })
    }

    async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        let tcp = TcpStream::connect((self.config.host.as_str(), self.config.port)).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(self.config.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }

    async fn send(&self, frames: &[u8]) -> io::Result<()> {
        let mut kept = self.connection.lock().await;
        // The runtime looks at its sockets: one that was closed long ago is not written to.
        tokio::task::yield_now().await;
        // Taken out meanwhile: one that fails, or is given up half written, is never used again.
        let open = kept.take().and_then(|mut connection| is_open(&mut connection).then_some(connection));
        let mut connection = match open {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.write_all(frames).await?;
        connection.flush().await?;
        if !is_open(&mut connection) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        *kept = Some(connection);
        Ok(())
    }
}

/// Whether the other side has not closed; what it says, against custom, is dropped.
fn is_open(connection: &mut Box<dyn Connection>) -> bool {
    let mut said = [0; 64];
    loop {
        match connection.read(&mut said).now_or_never() {
            None => return true,
            Some(Ok(1..)) => {}
            Some(Ok(0) | Err(_)) => return false,
        }
    }
}

/// A notice as an RFC 5424 line.
pub fn line(notice: &Notice, facility: u8, hostname: &str) -> String {
    let severity = match notice.severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Informational => 6,
    };
    let time = i64::try_from(notice.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"));
    let mut line =
        format!("<{}>1 {time} {hostname} holdfast - {} [{ELEMENT}", facility * 8 + severity, notice.topic.name());
    let parameters = [("key", &notice.key), ("tenant", &notice.tenant)];
    for (name, value) in parameters {
        parameter(&mut line, name, &text(value));
    }
    parameter(&mut line, "severity", notice.severity.name());
    match notice.body.len() <= BODY_SIZE_BYTES_MAX {
        true => parameter(&mut line, "body", &without_controls(&notice.body).collect::<String>()),
        false => parameter(&mut line, "body_size_bytes", &notice.body.len().to_string()),
    }
    line.push_str("] ");
    line.push_str(&text(&notice.subject));
    line
}

fn parameter(line: &mut String, name: &str, value: &str) {
    line.push_str(&format!(" {name}=\""));
    for character in value.chars() {
        if matches!(character, '"' | '\\' | ']') {
            line.push('\\');
        }
        line.push(character);
    }
    line.push('"');
}

/// A text without what would end a line or confuse a terminal.
fn text(value: &str) -> String {
    without_controls(value).take(TEXT_CHARACTERS_MAX).collect()
}

fn without_controls(value: &str) -> impl Iterator<Item = char> {
    value.chars().map(|character| if character.is_control() { ' ' } else { character })
}

#[async_trait]
impl Sink for Syslog {
    fn name(&self) -> &str {
        &self.name
    }
    fn wants(&self, notice: &Notice) -> bool {
        self.config.wants.admit(notice)
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        let mut frames = String::new();
        for notice in notices {
            let line = line(notice, self.config.facility, &self.config.hostname);
            write!(frames, "{} {line}", line.len()).expect("a string takes all that is written");
        }
        let limit = Duration::from_secs(self.config.timeout_seconds);
        match tokio::time::timeout(limit, self.send(frames.as_bytes())).await {
            Ok(Ok(())) => (notices.len(), Ok(())),
            Ok(Err(error)) => (0, Err(Refused::Later(error.to_string()))),
            Err(_) => (0, Err(Refused::Later(format!("nothing within {} seconds", limit.as_secs())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Topic;
    use proptest::prelude::*;

    fn notice(subject: &str, key: &str, body: &str) -> Notice {
        Notice {
            key: key.to_owned(),
            topic: Topic::Incident,
            tenant: "acme".to_owned(),
            at_ms: 1_795_467_600_007,
            severity: Severity::High,
            subject: subject.to_owned(),
            to: Vec::new(),
            body: body.to_owned(),
        }
    }

    #[test]
    fn a_line_is_rfc_5424() {
        let line = line(&notice("Brute force\non h", "k/1", r#"{"a":"]"}"#), 13, "eu-1");
        let expect = r#"<107>1 2026-11-23T21:00:00.007Z eu-1 holdfast - incident [holdfast@32473 key="k/1" tenant="acme" severity="high" body="{\"a\":\"\]\"}"] Brute force on h"#;
        assert_eq!(line, expect);
    }

    proptest! {
        #[test]
        fn whatever_a_notice_says_comes_back_by_our_own_parser(subject in "[^ ]\\PC{0,40}", key in ".{0,40}", body in ".{0,80}") {
            let line = line(&notice(&subject, &key, &body), 13, "-");
            prop_assert!(!line.contains(['\n', '\r', '\0']));
            let parsed = detection::source::syslog::parse(line.as_bytes(), 0).unwrap();
            prop_assert_eq!(parsed.message_id.as_deref(), Some("incident"));
            let expect: String = without_controls(&key).collect();
            prop_assert_eq!(&parsed.parameters[0].2, &expect);
            let expect: String = without_controls(&body).collect();
            prop_assert_eq!(&parsed.parameters[3].2, &expect);
        }
    }
}
