//! Webhooks: a notice by HTTP POST, signed, under a key by which repetitions are known.
//!
//! The signature is the header `Holdfast-Signature: t=SECONDS,v1=HEX`. A receiver computes HMAC-SHA256 under the
//! secret's text over `SECONDS`, a dot and the body as it arrived, compares it with `HEX` in constant time, and
//! refuses times that are far from its own. `Idempotency-Key` is the same for every attempt at one notice; the time
//! is not.

use super::config::Wants;
use super::http::{self, Verdict};
use super::{Notice, Refused, Sink, message};
use crate::resource::{Invalid, OpenError, resolve, secret};
use crate::tls::ClientTls;
use async_trait::async_trait;
use keyring::MacKey;
use model::time::Clock;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The header with the signature.
pub const SIGNATURE_HEADER: &str = "holdfast-signature";
/// The header with the key of the notice.
pub const KEY_HEADER: &str = "idempotency-key";
/// Fewest bytes of a secret.
pub const SECRET_SIZE_BYTES_MIN: usize = 16;

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
    #[serde(default = "http::attempt_seconds")]
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
        http::problems(&self.url, self.timeout_seconds).into_iter().chain(self.tls.problems()).collect()
    }
}

/// One receiver.
pub struct Webhook {
    name: String,
    url: String,
    key: MacKey,
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
    wants: Wants,
}

impl Webhook {
    /// Reads the secret and the certificates.
    pub fn open(name: &str, config: &WebhookConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let secret = secret(&config.secret)?;
        if secret.len() < SECRET_SIZE_BYTES_MIN {
            let advice = format!("the file holds {} bytes: write at least {SECRET_SIZE_BYTES_MIN}", secret.len());
            return Err(Invalid::new("secret", advice).into());
        }
        Ok(Self {
            name: name.to_owned(),
            url: config.url.clone(),
            key: MacKey::of_bytes(secret.as_bytes()),
            client: http::client(&config.tls, config.timeout_seconds)?,
            clock,
            wants: config.wants.clone(),
        })
    }

    async fn post(&self, notice: &Notice) -> Result<(), Refused> {
        let key = HeaderValue::from_str(&notice.key)
            .map_err(|_| Refused::Never("the key has characters that no header may have".to_owned()))?;
        let body = message::json(notice)?;
        let request = self
            .client
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(KEY_HEADER, key)
            .header(SIGNATURE_HEADER, signature(&self.key, self.clock.wall_ms() / 1_000, body.as_bytes()))
            .body(body);
        let answer = request.send().await.map_err(|error| http::later(&error))?;
        match http::verdict(answer.status()) {
            Verdict::Taken => {
                // Read to its end, so that the connection serves again; what it says does not matter any more.
                let _ = http::body(answer).await;
                Ok(())
            }
            Verdict::Refused(refused) => Err(refused),
        }
    }
}

/// The signature's text, of seconds since 1970 and a body.
pub fn signature(key: &MacKey, seconds: u64, body: &[u8]) -> String {
    let tag = key.sign_parts(&[seconds.to_string().as_bytes(), b".", body]);
    format!("t={seconds},v1={}", hex::encode(tag.as_bytes()))
}

#[async_trait]
impl Sink for Webhook {
    fn name(&self) -> &str {
        &self.name
    }
    fn wants(&self, notice: &Notice) -> bool {
        self.wants.admit(notice)
    }
    fn calls_people(&self) -> bool {
        true
    }
    async fn deliver(&self, notices: &[Notice]) -> (usize, Result<(), Refused>) {
        for (taken, notice) in notices.iter().enumerate() {
            if let Err(refused) = self.post(notice).await {
                return (taken, Err(refused));
            }
        }
        (notices.len(), Ok(()))
    }
}
