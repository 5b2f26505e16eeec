//! A notice as one JSON object: what a webhook is sent and a file's line holds.
//!
//! Pure. The notice's own object is carried as it is, under `body`.

use super::{Notice, Refused, Topic};
use detection::Severity;
use serde::Serialize;
use serde_json::value::RawValue;

/// The version of this form.
pub const VERSION: u32 = 1;

#[derive(Serialize)]
struct Message<'a> {
    version: u32,
    key: &'a str,
    topic: Topic,
    tenant: &'a str,
    at_ms: u64,
    severity: Severity,
    subject: &'a str,
    body: &'a RawValue,
}

/// The object, on one line; a notice whose body is not JSON is never taken.
pub(super) fn json(notice: &Notice) -> Result<String, Refused> {
    let refused = |error: serde_json::Error| Refused::Never(format!("the body is not JSON: {error}"));
    // A body over several lines would break a file of lines.
    let compact = match notice.body.contains(['\n', '\r']) {
        false => None,
        true => Some(serde_json::from_str::<serde_json::Value>(&notice.body).map_err(refused)?.to_string()),
    };
    let body: &RawValue = serde_json::from_str(compact.as_ref().unwrap_or(&notice.body)).map_err(refused)?;
    let Notice { key, topic, tenant, at_ms, severity, subject, .. } = notice;
    let message =
        Message { version: VERSION, key, topic: *topic, tenant, at_ms: *at_ms, severity: *severity, subject, body };
    serde_json::to_string(&message).map_err(refused)
}
