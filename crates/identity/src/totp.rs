//! Time-based one-time passwords (RFC 6238): SHA-1, six digits, 30 seconds, one step either way.
//!
//! SHA-1 because authenticator applications ignore other algorithms silently; HMAC does not rest on collisions.
//! Each code opens at most once: the caller stores the step that a check returns and gives it to the next.

use model::entropy::Entropy;
use serde::{Deserialize, Serialize};
use std::fmt;
use totp_rs::{Algorithm, Builder, Totp};

/// Seconds of a step.
pub const STEP_SECONDS: u64 = 30;
/// Steps accepted before and after the current one.
pub const SKEW_STEPS: u16 = 1;
const DIGITS: u8 = 6;
const SECRET_BYTES: usize = 20;

/// The secret shared with a person's authenticator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotpSecret([u8; SECRET_BYTES]);

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(..)")
    }
}

/// A time step that a code belonged to: later steps are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TotpStep(u64);

impl TotpStep {
    /// The number of steps since 1970.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Why a code does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TotpError {
    /// Not the code of this moment.
    #[error("the code is wrong or too old")]
    Wrong,
    /// The code of a step that opened before.
    #[error("the code was used before; wait for the next one")]
    Replayed,
}

impl TotpSecret {
    /// Draws a new secret.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; SECRET_BYTES];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// Reads a secret in base32, as [`TotpSecret::base32`] writes it.
    pub fn from_base32(text: &str) -> Option<Self> {
        let secret = totp_rs::Secret::try_from_base32(text.trim()).ok()?;
        secret.as_bytes().try_into().ok().map(Self)
    }

    /// The secret in base32 without padding, for those who cannot scan.
    pub fn base32(&self) -> String {
        self.totp("", "").secret().to_base32()
    }

    /// The `otpauth://` address that authenticators scan.
    pub fn uri(&self, login: &str, issuer: &str) -> String {
        // A colon separates issuer and account in the address.
        let plain = |text: &str| text.replace(':', " ");
        let login = if login.is_empty() { "account" } else { login };
        self.totp(&plain(login), &plain(issuer)).to_url().expect("the account is named and has no colon")
    }

    /// The code of a moment: for tests, demonstrations and command-line clients.
    pub fn code(&self, now_ms: u64) -> String {
        self.totp("", "").generate(now_ms / 1000).to_string()
    }

    /// Checks a code. `last` is the step of the last code that opened: it and all before it are refused.
    pub fn check(&self, code: &str, now_ms: u64, last: Option<TotpStep>) -> Result<TotpStep, TotpError> {
        if code.len() != usize::from(DIGITS) || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(TotpError::Wrong);
        }
        let step = self.totp("", "").check(code, now_ms / 1000).map(TotpStep).ok_or(TotpError::Wrong)?;
        if last.is_some_and(|last| step <= last) { Err(TotpError::Replayed) } else { Ok(step) }
    }

    fn totp(&self, login: &str, issuer: &str) -> Totp {
        Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS)
            .with_skew(SKEW_STEPS)
            .with_step_duration(STEP_SECONDS)
            .with_secret(self.0)
            .with_account_name(login)
            .with_issuer((!issuer.is_empty()).then_some(issuer))
            .build()
            .expect("algorithm, digits and the secret's size are constants that RFC 6238 allows")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: TotpSecret = TotpSecret(*b"12345678901234567890");

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B, SHA-1: the last six of eight digits.
        for (seconds, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(SECRET.code(seconds * 1000), code);
            assert_eq!(SECRET.check(code, seconds * 1000, None).unwrap().get(), seconds / STEP_SECONDS);
        }
    }

    #[test]
    fn a_code_opens_once_and_one_step_either_way() {
        let now_ms = 1_800_000_000_000;
        let step_ms = STEP_SECONDS * 1000;
        let code = SECRET.code(now_ms);
        let step = SECRET.check(&code, now_ms, None).unwrap();
        assert_eq!(SECRET.check(&code, now_ms, Some(step)), Err(TotpError::Replayed));
        assert_eq!(SECRET.check(&code, now_ms + step_ms, None), Ok(step));
        assert_eq!(SECRET.check(&code, now_ms - step_ms, None), Ok(step));
        assert_eq!(SECRET.check(&code, now_ms + 2 * step_ms, None), Err(TotpError::Wrong));
        let earlier = SECRET.code(now_ms - step_ms);
        assert_eq!(SECRET.check(&earlier, now_ms, Some(step)), Err(TotpError::Replayed), "nor does an older one");
        assert!(SECRET.check(&SECRET.code(now_ms + step_ms), now_ms, Some(step)).unwrap() > step);
    }

    #[test]
    fn the_address_is_what_authenticators_scan() {
        assert_eq!(
            SECRET.uri("carol", "Holdfast: demo"),
            "otpauth://totp/Holdfast%20%20demo:carol?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Holdfast%20%20demo"
        );
        assert_eq!(SECRET.base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert!(SECRET.uri("", "").starts_with("otpauth://totp/account?"));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_codes_and_clocks_never_panic(code in "\\PC{0,12}", now_ms in proptest::num::u64::ANY) {
            let _ = SECRET.check(&code, now_ms, None);
            let _ = SECRET.check("123456", now_ms, None);
        }
    }
}
