//! What sinks over HTTP have in common: which addresses may be, how long an attempt takes, what an answer means.

use super::Refused;
use crate::resource::{Invalid, OpenError};
use crate::tls::ClientTls;
use std::time::Duration;

/// An attempt takes no longer, unless the description says otherwise.
pub const ATTEMPT_SECONDS: u64 = 10;
/// The most a description may allow.
pub const ATTEMPT_SECONDS_MAX: u64 = 300;
/// Most bytes that are read of an answer.
pub const ANSWER_SIZE_BYTES_MAX: usize = 64 * 1024;

/// The default for `timeout_seconds`.
pub(super) fn attempt_seconds() -> u64 {
    ATTEMPT_SECONDS
}

/// What is wrong with a time limit.
pub(super) fn timeout_problem(seconds: u64) -> Option<Invalid> {
    let fits = (1..=ATTEMPT_SECONDS_MAX).contains(&seconds);
    (!fits).then(|| Invalid::new("timeout_seconds", format!("write a number from 1 to {ATTEMPT_SECONDS_MAX}")))
}

/// What is wrong with an address and a time limit.
pub(super) fn problems(url: &str, timeout_seconds: u64) -> Vec<Invalid> {
    let advice = match reqwest::Url::parse(url) {
        Err(error) => Some(format!("{url:?} is no address: {error}")),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("take the password out of the address: secrets are read from files".to_owned())
        }
        Ok(url) if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) => None,
        Ok(_) => Some(format!("{url:?}: write https, or http to 127.0.0.1, [::1] or localhost")),
    };
    advice.map(|advice| Invalid::new("url", advice)).into_iter().chain(timeout_problem(timeout_seconds)).collect()
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A client that follows no redirect and asks no proxy: what is signed goes where the description says.
pub(super) fn client(tls: &ClientTls, timeout_seconds: u64) -> Result<reqwest::Client, OpenError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.load()?)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(timeout_seconds))
        .build()
        .map_err(|error| OpenError::Invalid(Invalid::new("url", error.to_string())))
}

/// What a failed exchange means: it may have reached the other side, so the same key is sent again.
pub(super) fn later(error: &reqwest::Error) -> Refused {
    // Only the kind and the cause: the address may hold what is not for logs.
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Refused::Later(cause.to_string())
}

/// An answer's body, or its beginning.
pub(super) async fn body(mut answer: reqwest::Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        let room = ANSWER_SIZE_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == ANSWER_SIZE_BYTES_MAX {
            break;
        }
    }
    Ok(body)
}

/// What an answer's status means.
pub(super) enum Verdict {
    Taken,
    Refused(Refused),
}

/// 2xx is taken; a request that the other side calls wrong is never sent again; all else is tried later. What is wrong
/// with the login or the address is the description's fault or the other side's, not the notice's.
pub(super) fn verdict(status: reqwest::StatusCode) -> Verdict {
    match status.as_u16() {
        200..=299 => Verdict::Taken,
        401 | 403 | 404 | 405 | 407 | 408 | 410 | 425 | 429 => {
            Verdict::Refused(Refused::Later(format!("answer {status}")))
        }
        400..=499 => Verdict::Refused(Refused::Never(format!("answer {status}"))),
        300..=399 => Verdict::Refused(Refused::Later(format!("answer {status}: redirects are not followed"))),
        _ => Verdict::Refused(Refused::Later(format!("answer {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_secret_or_route_does_not_lose_a_notice_and_a_wrong_request_is_not_repeated() {
        let of = |status: u16| match verdict(reqwest::StatusCode::from_u16(status).unwrap()) {
            Verdict::Taken => "taken",
            Verdict::Refused(Refused::Later(_)) => "later",
            Verdict::Refused(Refused::Never(_)) => "never",
        };
        assert!([200, 204].into_iter().all(|status| of(status) == "taken"));
        assert!([301, 401, 403, 404, 410, 429, 500, 503].into_iter().all(|status| of(status) == "later"));
        assert!([400, 413, 415, 422].into_iter().all(|status| of(status) == "never"));
    }
}
