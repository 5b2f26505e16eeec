//! E-mail over SMTP with TLS, STARTTLS, or, to this machine, neither.
//!
//! A mail server may take a mail and its answer be lost: the mail is sent again under the same `Message-ID`. Nothing
//! that a notice says becomes a header or a command.

use super::config::Wants;
use super::{Notice, Refused, Sink, Topic};
use crate::resource::{Invalid, OpenError, resolve, secret};
use async_trait::async_trait;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Most recipients of one mail; further ones are left out.
pub const RECIPIENTS_MAX: usize = 32;
/// Most characters of a subject.
pub const SUBJECT_CHARACTERS_MAX: usize = 200;
/// Most characters of a text; the rest is cut off.
pub const TEXT_CHARACTERS_MAX: usize = 64 * 1024;
/// The last moment of the year 9999: no mail is dated later.
const TIME_MS_MAX: u64 = 253_402_300_799_000;

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

/// One mail server.
pub struct Mail {
    name: String,
    from: Mailbox,
    to: Vec<Mailbox>,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    limit: Duration,
    wants: Wants,
}

impl Mail {
    /// Reads the password and the certificates.
    pub fn open(name: &str, config: &SmtpConfig) -> Result<Self, OpenError> {
        let address = |field, text: &str| text.parse::<Mailbox>().map_err(|e| Invalid::new(field, e.to_string()));
        let tls = match config.security {
            Security::None => Tls::None,
            Security::Tls => Tls::Wrapper(parameters(config)?),
            Security::Starttls => Tls::Required(parameters(config)?),
        };
        let limit = Duration::from_secs(config.timeout_seconds);
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(config.port)
            .tls(tls)
            .timeout(Some(limit));
        if let (Some(username), Some(password)) = (&config.username, &config.password) {
            builder = builder.credentials(Credentials::new(username.clone(), secret(password)?));
        }
        Ok(Self {
            name: name.to_owned(),
            from: address("from", &config.from)?,
            to: config.to.iter().map(|to| address("to", to)).collect::<Result<_, _>>()?,
            transport: builder.build(),
            limit,
            wants: config.wants.clone(),
        })
    }

    async fn mail(&self, notice: &Notice) -> Result<(), Refused> {
        let to = self.recipients(notice)?;
        let refused = match self.send(notice, &to).await {
            Err(Refused::Never(reason)) if to.len() > 1 => Refused::Never(reason),
            outcome => return outcome,
        };
        // One recipient that does not exist must not keep the others from being told.
        let mut outcome = Err(refused);
        for to in to {
            match self.send(notice, std::slice::from_ref(&to)).await {
                Ok(()) => outcome = Ok(()),
                Err(Refused::Never(reason)) => {
                    tracing::warn!(sink = self.name, to = %to.email, reason, "a recipient was refused");
                }
                Err(later) => return Err(later),
            }
        }
        outcome
    }

    /// Whom a notice names, or whom the description does.
    fn recipients(&self, notice: &Notice) -> Result<Vec<Mailbox>, Refused> {
        if notice.to.is_empty() {
            return match self.to.is_empty() {
                true => Err(Refused::Never("nobody is named to write to".to_owned())),
                false => Ok(self.to.clone()),
            };
        }
        let mut to = Vec::new();
        for text in notice.to.iter().take(RECIPIENTS_MAX) {
            match text.parse::<Mailbox>() {
                Ok(mailbox) => to.push(mailbox),
                Err(error) => tracing::warn!(sink = self.name, %error, "an address is none"),
            }
        }
        if to.is_empty() { Err(Refused::Never("no address of it is one".to_owned())) } else { Ok(to) }
    }

    async fn send(&self, notice: &Notice, to: &[Mailbox]) -> Result<(), Refused> {
        let message = message(notice, &self.from, to)?;
        match tokio::time::timeout(self.limit, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Err(Refused::Later(format!("nothing within {} seconds", self.limit.as_secs()))),
        }
    }
}

fn parameters(config: &SmtpConfig) -> Result<TlsParameters, OpenError> {
    let mut builder = TlsParameters::builder(config.host.clone());
    let mut named = PathBuf::from("the system's authorities");
    if let Some(path) = &config.ca {
        let file = |error| OpenError::File { path: path.clone(), error };
        let pem = std::fs::read(path).map_err(file)?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| file(std::io::Error::other(error)))?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
        named.clone_from(path);
    }
    builder.build_rustls().map_err(|error| OpenError::File { path: named, error: std::io::Error::other(error) })
}

/// What a failure means. A login that is refused is the description's fault, not the notice's.
fn refused(error: &lettre::transport::smtp::Error) -> Refused {
    let login = error.status().is_some_and(|code| matches!(code.to_string().as_str(), "530" | "534" | "535" | "538"));
    match error.is_permanent() && !login {
        true => Refused::Never(error.to_string()),
        false => Refused::Later(error.to_string()),
    }
}

/// A machine wrote it: nobody's automatic answer is wanted (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }
    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }
    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A notice as a mail. The same notice has the same `Message-ID`, by which mail programs know a repetition.
pub fn message(notice: &Notice, from: &Mailbox, to: &[Mailbox]) -> Result<Message, Refused> {
    let id = hex::encode(&blake3::hash(notice.key.as_bytes()).as_bytes()[..16]);
    let subject = plain(&format!("[{}] {}", notice.severity.name(), notice.subject));
    let mut builder = Message::builder()
        .from(from.clone())
        .subject(subject.chars().take(SUBJECT_CHARACTERS_MAX).collect::<String>())
        .date(SystemTime::UNIX_EPOCH + Duration::from_millis(notice.at_ms.min(TIME_MS_MAX)))
        .message_id(Some(format!("<{id}@{}>", from.email.domain())))
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN);
    for to in to {
        builder = builder.to(to.clone());
    }
    builder.body(text(notice)).map_err(|error| Refused::Never(error.to_string()))
}

/// A text on one line.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// What people read: the subject, the facts, and the object for whoever wants to know more.
fn text(notice: &Notice) -> String {
    let time = i64::try_from(notice.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.map(|time| format!("{time:.0}")).unwrap_or_default();
    let object = serde_json::from_str::<serde_json::Value>(&notice.body);
    let object = object.and_then(|object| serde_json::to_string_pretty(&object)).unwrap_or_default();
    let (subject, tenant, key) = (plain(&notice.subject), plain(&notice.tenant), plain(&notice.key));
    let severity = notice.severity.name();
    let text =
        format!("{subject}\n\nseverity: {severity}\ntenant: {tenant}\ntime: {time}\nreference: {key}\n\n{object}\n");
    text.chars().filter(|c| *c == '\n' || !c.is_control()).take(TEXT_CHARACTERS_MAX).collect()
}

#[async_trait]
impl Sink for Mail {
    fn name(&self) -> &str {
        &self.name
    }
    fn wants(&self, notice: &Notice) -> bool {
        // A call that names no address is for a webhook, not for whoever is written to otherwise.
        let is_for_mail = notice.topic != Topic::Page || !notice.to.is_empty();
        is_for_mail && self.wants.admit(notice)
    }
    fn calls_people(&self) -> bool {
        true
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        for (taken, notice) in notices.iter().enumerate() {
            if let Err(refused) = self.mail(notice).await {
                return (taken, Err(refused));
            }
        }
        (notices.len(), Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detection::Severity;
    use proptest::prelude::*;

    fn notice(subject: &str, key: &str) -> Notice {
        Notice {
            key: key.to_owned(),
            topic: Topic::Page,
            tenant: "acme".to_owned(),
            at_ms: 1_795_467_600_000,
            severity: Severity::High,
            subject: subject.to_owned(),
            to: Vec::new(),
            body: "{}".to_owned(),
        }
    }

    /// The names of a mail's headers, in order.
    fn headers(notice: &Notice) -> Vec<String> {
        let from: Mailbox = "Holdfast <soc@example.org>".parse().unwrap();
        let to: Mailbox = "ann@example.org".parse().unwrap();
        let mail = String::from_utf8(message(notice, &from, &[to]).unwrap().formatted()).unwrap();
        let (head, _) = mail.split_once("\r\n\r\n").unwrap();
        let lines = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
        lines.map(|line| line.split(':').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_subject_cannot_add_a_header() {
        let plain = headers(&notice("plain", "k"));
        assert!(plain.contains(&"Message-ID".to_owned()) && plain.contains(&"Auto-Submitted".to_owned()));
        for evil in ["x\r\nBcc: eve@example.org", "x\nBcc: eve@example.org", "x\r\n\r\nbody", "é\r\nBcc: e@example.org"]
        {
            assert_eq!(headers(&notice(evil, "k")), plain, "{evil:?}");
            assert_eq!(headers(&notice("plain", evil)), plain, "{evil:?}");
        }
    }

    #[test]
    fn a_call_to_a_webhook_is_not_written_to_whoever_is_written_to_otherwise() {
        let config = SmtpConfig {
            host: "localhost".to_owned(),
            port: 25,
            security: Security::None,
            ca: None,
            username: None,
            password: None,
            from: "soc@example.org".to_owned(),
            to: vec!["duty@example.org".to_owned()],
            timeout_seconds: 1,
            wants: Wants::default(),
        };
        let mail = Mail::open("mail", &config).unwrap();
        let page = notice("s", "k");
        assert!(!mail.wants(&page));
        assert!(mail.wants(&Notice { to: vec!["ann@example.org".to_owned()], ..page.clone() }));
        assert!(mail.wants(&Notice { topic: Topic::Incident, ..page }));
    }

    #[test]
    fn an_address_with_a_line_break_is_none() {
        assert!("ann@example.org\r\nRCPT TO:<eve@example.org>".parse::<Mailbox>().is_err());
        assert!("ann@example.org>\r\nDATA".parse::<Mailbox>().is_err());
    }

    #[test]
    fn one_notice_has_one_message_id() {
        let id = |key: &str| {
            let from: Mailbox = "soc@example.org".parse().unwrap();
            let mail = message(&notice("s", key), &from, std::slice::from_ref(&from)).unwrap();
            mail.headers().get_raw("Message-ID").unwrap().to_owned()
        };
        assert_eq!(id("a"), id("a"));
        assert_ne!(id("a"), id("b"));
        assert!(id("a").ends_with("@example.org>"));
    }

    proptest! {
        #[test]
        fn no_subject_and_no_key_add_headers(subject in "(?s).{0,300}", key in "(?s).{0,100}") {
            prop_assert_eq!(headers(&notice(&subject, &key)), headers(&notice("plain", "k")));
        }
    }
}
