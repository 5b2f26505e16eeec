//! What went wrong, as RFC 9457 problem details.

use identity::SessionError;
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// One thing wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Violation {
    /// Where: a JSON path, a header, a query parameter.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    /// No bearer token came.
    SessionMissing,
    /// The token is not one of ours.
    SessionInvalid,
    /// The session has ended by time.
    SessionExpired,
    /// The session began at another address.
    SessionIpMismatch,
    /// The session was ended.
    SessionRevoked,
    /// Login and password do not fit; which one is not said.
    CredentialsRefused,
    /// A one-time code is needed, or the one given is not right.
    MfaRequired,
}

/// Why nothing can be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No leader, or no majority reachable in time. The outcome of a write is unknown only if `detail` says so.
    NoQuorum,
    /// Remote regions lag so far that more writes would break the recovery point objective.
    RpoGuard,
    /// The node is stopping: another one serves.
    ShuttingDown,
    /// The node is starting.
    Starting,
    /// It took longer than it may. The outcome of a write is unknown: retry with the same `Idempotency-Key`.
    Timeout,
}

/// Every problem a request can end in. Each has a stable type and status.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// 400: not HTTP or JSON as it should be.
    #[error("{detail}")]
    Malformed {
        /// What exactly.
        detail: String,
    },
    /// 401.
    #[error("{0:?}")]
    Unauthenticated(Unauthenticated),
    /// 403: the policy says no.
    #[error("{detail}")]
    Forbidden {
        /// What is missing.
        detail: String,
    },
    /// 403: nothing but changing the password is allowed.
    #[error("the password must be changed first")]
    MustChangePassword,
    /// 404: unknown, or of another tenant.
    #[error("there is no such {what}")]
    NotFound {
        /// `tenant`, `table`, `record`, …
        what: &'static str,
    },
    /// 405.
    #[error("this method is not allowed here")]
    MethodNotAllowed,
    /// 409: something of that name exists, or its state does not allow it.
    #[error("{detail}")]
    Conflict {
        /// What.
        detail: String,
    },
    /// 409: the idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request")]
    IdempotencyReuse,
    /// 410: what the session token asks for died with a region.
    #[error("writes this session had seen were lost with region {region}")]
    LostWrites {
        /// The region.
        region: String,
        /// A token to go on with.
        repaired: String,
    },
    /// 412.
    #[error("the record is not as the precondition says")]
    PreconditionFailed {
        /// In a transaction: the operation's position.
        operation: Option<usize>,
    },
    /// 413.
    #[error("the request is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// 415.
    #[error("the content type must be {expected}")]
    UnsupportedMediaType {
        /// What it must be.
        expected: &'static str,
    },
    /// 422: well-formed, but not acceptable.
    #[error("the request is not valid")]
    Invalid {
        /// Everything that is wrong.
        violations: Vec<Violation>,
    },
    /// 425: this region has not yet what the session token asks for.
    #[error("this region lags behind the session")]
    Behind {
        /// What is missing: for each origin the sequence asked for and the one here.
        missing: Vec<Missing>,
        /// How long it may take.
        retry_after: Duration,
    },
    /// 428.
    #[error("the record exists: say If-Match (or If-Match: *) to change it")]
    PreconditionRequired,
    /// 429.
    #[error("too many requests")]
    TooMany {
        /// When to come again.
        retry_after: Duration,
    },
    /// 500: a defect; its detail is in the log under the request's id, never here.
    #[error("the request could not be processed")]
    Internal,
    /// 503.
    #[error("{detail}")]
    Unavailable {
        /// Why.
        reason: Unavailable,
        /// More.
        detail: String,
        /// When to come again.
        retry_after: Duration,
    },
}

/// A part of a session token that is not here yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Missing {
    /// Whose changes: `r1.0`.
    pub origin: String,
    /// How far the session has seen.
    pub wanted: u64,
    /// How far this region is.
    pub known: u64,
}

impl Problem {
    /// 400 with what exactly.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::Malformed { detail: detail.into() }
    }
    /// 401 for want of a bearer token.
    pub const fn unauthenticated() -> Self {
        Self::Unauthenticated(Unauthenticated::SessionMissing)
    }
    /// 403 with what is missing.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::Forbidden { detail: detail.into() }
    }
    /// 404: unknown, or of another tenant.
    pub const fn not_found(what: &'static str) -> Self {
        Self::NotFound { what }
    }
    /// 409 with what.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::Conflict { detail: detail.into() }
    }
    /// 422 with one violation.
    pub fn invalid(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { violations: vec![Violation { at: at.into(), message: message.into() }] }
    }
    /// 503.
    pub fn unavailable(reason: Unavailable, detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::Unavailable { reason, detail: detail.into(), retry_after }
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        Self::Unauthenticated(match error {
            SessionError::Malformed | SessionError::UnknownKey => Unauthenticated::SessionInvalid,
            SessionError::Expired(_) => Unauthenticated::SessionExpired,
            SessionError::AddressMismatch(_) => Unauthenticated::SessionIpMismatch,
            SessionError::Revoked(_) | SessionError::AccountDisabled(_) => Unauthenticated::SessionRevoked,
        })
    }
}
