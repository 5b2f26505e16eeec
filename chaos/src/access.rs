//! Logging in as a person would: password, one-time code, a new password at the first login.

use crate::client::{Answer, Call, Client, Door};
use anyhow::{Context as _, Result, bail};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};
use totp_rs::{Algorithm, Builder, Secret, Totp};

const STEP_SECONDS: u64 = 30;
/// How long a new account or password may take to be known on the node that is asked.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries; a refused login counts against the account, so there are few.
const RETRY_AFTER: Duration = Duration::from_millis(700);

/// The device that shows one-time codes; each is used once.
pub struct Authenticator {
    totp: Totp,
    used: u64,
}

impl Authenticator {
    /// From the secret in base32.
    pub fn new(secret: &str) -> Result<Self> {
        let secret = Secret::try_from_base32(secret.trim())
            .map_err(|error| anyhow::anyhow!("the secret of the second factor is not base32: {error}"))?;
        let builder = Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_skew(1);
        let builder = builder.with_step_duration(STEP_SECONDS).with_secret(secret).with_account_name("drill");
        let totp = builder.build().map_err(|error| anyhow::anyhow!("the second factor cannot be used: {error}"))?;
        Ok(Self { totp, used: 0 })
    }

    /// From the `otpauth://` address of an enrolment.
    pub fn from_uri(uri: &str) -> Result<Self> {
        let secret = uri.split(['?', '&']).find_map(|part| part.strip_prefix("secret="));
        Self::new(secret.context("the enrolment has no secret")?)
    }

    /// A code that was not used before, waiting for it if need be.
    ///
    /// The server takes the codes of the last, this and the next half minute, each later than the one before.
    pub async fn code(&mut self) -> String {
        loop {
            let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let step = next_step(seconds / STEP_SECONDS, self.used);
            if let Some(step) = step {
                self.used = step;
                return self.totp.generate(step * STEP_SECONDS).to_string();
            }
            let left = STEP_SECONDS - seconds % STEP_SECONDS;
            tokio::time::sleep(Duration::from_secs(left)).await;
        }
    }
}

/// The earliest step that is later than the last used one and still accepted.
fn next_step(now: u64, used: u64) -> Option<u64> {
    // The step before is about to be refused: it is only taken while this one has just begun nothing.
    let step = (used + 1).max(now.saturating_sub(1));
    (step <= now + 1).then_some(step)
}

/// A session that began.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The bearer token.
    pub token: String,
    /// The server's number of the request that began it.
    pub request: String,
    /// Whether only the password may be changed.
    pub must_change: bool,
}

/// Tries to log in once.
pub async fn attempt(client: &Client, door: &Door, login: &str, password: &str, code: Option<&str>) -> Result<Answer> {
    let body = json!({"login": login, "password": password, "totp": code});
    let call = Call::new(Method::POST, "/v1/sessions", "").json(&body);
    client.send(door, &call).await.map_err(|error| anyhow::anyhow!("login of {login} at {}: {error}", door.node))
}

/// Logs in; tries again while the account may not be known at this node yet.
pub async fn login(
    client: &Client,
    door: &Door,
    login: &str,
    password: &str,
    mut device: Option<&mut Authenticator>,
) -> Result<Pass> {
    let deadline = Instant::now() + KNOWN_WITHIN;
    loop {
        let code = match device.as_mut() {
            Some(device) => Some(device.code().await),
            None => None,
        };
        let answer = match attempt(client, door, login, password, code.as_deref()).await {
            // The door may be busy with others.
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
            answer => answer?,
        };
        if answer.is_success() {
            let token = answer.body["token"].as_str().context("a login without a token")?.to_owned();
            let must_change = answer.body["must_change_password"].as_bool().unwrap_or(false);
            return Ok(Pass { token, request: answer.request, must_change });
        }
        if Instant::now() >= deadline || !matches!(answer.status, 401 | 503) {
            bail!("login of {login} at {}: {}", door.node, answer.problem());
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Changes the password that somebody else chose; the session ends with it.
pub async fn change_password(
    client: &Client,
    door: &Door,
    pass: &Pass,
    passwords: (&str, &str),
    device: Option<&mut Authenticator>,
) -> Result<Answer> {
    let code = match device {
        Some(device) => Some(device.code().await),
        None => None,
    };
    let body = json!({"current": passwords.0, "new": passwords.1, "totp": code});
    client.must(door, &Call::new(Method::PUT, "/v1/me/password", &pass.token).json(&body)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_only_go_forward_and_stay_in_the_window() {
        assert_eq!(next_step(100, 0), Some(99));
        assert_eq!(next_step(100, 99), Some(100));
        assert_eq!(next_step(100, 100), Some(101));
        assert_eq!(next_step(100, 101), None);
    }

    #[test]
    fn an_enrolment_is_read() {
        let uri = "otpauth://totp/Holdfast%20demo:carol?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Holdfast";
        let device = Authenticator::from_uri(uri).unwrap();
        // RFC 6238, appendix B.
        assert_eq!(device.totp.generate(59).to_string(), "287082");
        assert!(Authenticator::from_uri("otpauth://totp/x").is_err());
    }
}
