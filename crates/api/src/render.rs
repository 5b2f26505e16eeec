//! Problems as HTTP: status, stable type, title and extra members.
//!
//! A problem travels as an extension of the response until [`crate::guard`] writes it, which knows the request.

use crate::problem::{Problem, Unauthenticated, Unavailable};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What every problem's type begins with.
pub const TYPE_BASE: &str = "https://holdfast.dev/problems/";

impl Unauthenticated {
    const fn kind(self) -> &'static str {
        match self {
            Self::SessionMissing => "session-missing",
            Self::SessionInvalid => "session-invalid",
            Self::SessionExpired => "session-expired",
            Self::SessionIpMismatch => "session-ip-mismatch",
            Self::SessionRevoked => "session-revoked",
            Self::CredentialsRefused => "credentials-refused",
            Self::MfaRequired => "mfa-required",
        }
    }
    const fn detail(self) -> &'static str {
        match self {
            Self::SessionMissing => "log in, and send the token as Authorization: Bearer",
            Self::SessionInvalid => "the token is not one of this cluster's",
            Self::SessionExpired => "the session has ended: log in again",
            Self::SessionIpMismatch => "the session began at another address: log in from this one",
            Self::SessionRevoked => "the session was ended: log in again",
            Self::CredentialsRefused => "login and password do not fit",
            Self::MfaRequired => "a valid one-time code is needed",
        }
    }
}

impl Unavailable {
    const fn kind(self) -> &'static str {
        match self {
            Self::NoQuorum => "no-quorum",
            Self::RpoGuard => "rpo-guard",
            Self::ShuttingDown => "shutting-down",
            Self::Starting => "starting",
            Self::Timeout => "timeout",
        }
    }
}

impl Problem {
    /// The status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } | Self::MustChangePassword => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict { .. } | Self::IdempotencyReuse => StatusCode::CONFLICT,
            Self::LostWrites { .. } => StatusCode::GONE,
            Self::PreconditionFailed { .. } => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Behind { .. } => StatusCode::TOO_EARLY,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The last part of the type: stable, for programs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Unauthenticated(reason) => reason.kind(),
            Self::Forbidden { .. } => "forbidden",
            Self::MustChangePassword => "must-change-password",
            Self::NotFound { .. } => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Conflict { .. } => "conflict",
            Self::IdempotencyReuse => "idempotency-reuse",
            Self::LostWrites { .. } => "lost-writes",
            Self::PreconditionFailed { .. } => "precondition-failed",
            Self::TooLarge { .. } => "too-large",
            Self::UnsupportedMediaType { .. } => "unsupported-media-type",
            Self::Invalid { .. } => "invalid",
            Self::Behind { .. } => "behind",
            Self::PreconditionRequired => "precondition-required",
            Self::TooMany { .. } => "too-many-requests",
            Self::Internal => "internal",
            Self::Unavailable { reason, .. } => reason.kind(),
        }
    }

    /// When to come again, if that helps.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Behind { retry_after, .. }
            | Self::TooMany { retry_after }
            | Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    fn extra(&self, members: &mut Map<String, Value>) {
        let (name, value) = match self {
            Self::Invalid { violations } => ("violations", json!(violations)),
            Self::Behind { missing, .. } => ("missing", json!(missing)),
            Self::LostWrites { repaired, .. } => ("repaired", json!(repaired)),
            Self::PreconditionFailed { operation: Some(operation) } => ("operation", json!(operation)),
            Self::TooLarge { max_bytes } => ("max_bytes", json!(max_bytes)),
            _ => return,
        };
        members.insert(name.into(), value);
    }

    /// The document, for the request of this number.
    pub fn document(&self, request: u128) -> Value {
        let status = self.status();
        let detail = match self {
            Self::Unauthenticated(reason) => reason.detail().to_owned(),
            other => other.to_string(),
        };
        let mut members = Map::new();
        members.insert("type".into(), format!("{TYPE_BASE}{}", self.kind()).into());
        members.insert("title".into(), status.canonical_reason().unwrap_or("Error").into());
        members.insert("status".into(), status.as_u16().into());
        members.insert("detail".into(), detail.into());
        members.insert("instance".into(), format!("urn:holdfast:request:{request:032x}").into());
        if let Some(after) = self.retry_after() {
            members.insert("retry_after_ms".into(), u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into());
        }
        self.extra(&mut members);
        Value::Object(members)
    }

    /// Writes the document into a response.
    pub(crate) fn write(&self, response: &mut Response, request: u128) {
        *response.status_mut() = self.status();
        *response.body_mut() = Body::from(self.document(request).to_string());
        let headers = response.headers_mut();
        headers.remove(http::header::CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self, Self::Unauthenticated(_)) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after() {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
