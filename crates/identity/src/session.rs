//! Sessions: proof that a token was verified, and scopes: proof that a session belongs to a tenant.
//!
//! Neither can be built in another way: their fields are private, they are not deserialised, and only
//! [`SessionKeys::verify`] and [`Session::scope`] make them.

use crate::token::{Kind, OpenError};
use crate::{Account, SessionKeys, Subject};
use model::entropy::Entropy;
use model::{SessionId, TenantId, UserId};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// Longest life of a session. A second factor is given when a session begins, so none is older than this either.
pub const LIFETIME_MS_MAX: u64 = 12 * 60 * 60 * 1000;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    session: SessionId,
    user: UserId,
    tenant: TenantId,
    epoch: u32,
    address: IpAddr,
    issued_ms: u64,
    expires_ms: u64,
    second_factor: bool,
}

/// A token as it is given to a client, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// What the client sends as `Authorization: Bearer`.
    pub token: String,
    /// The session's id: what logs, audit and revocations name instead of the token.
    pub session: SessionId,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Issued({}, until {})", self.session, self.expires_ms)
    }
}

/// Whose token was refused: what the audit log says about it. Its signature was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The session.
    pub session: SessionId,
    /// The account.
    pub user: UserId,
    /// The account's tenant when the token was issued.
    pub tenant: TenantId,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Not a token, or its signature is wrong.
    #[error("the session token is malformed")]
    Malformed,
    /// Signed by a key that is not, or no longer, of this cluster.
    #[error("the session token was signed by an unknown key")]
    UnknownKey,
    /// Its time is over.
    #[error("the session has expired")]
    Expired(Holder),
    /// It came over a connection from another address than the login.
    #[error("the session belongs to another address")]
    AddressMismatch(Holder),
    /// Logged out, or credentials or grants have changed since.
    #[error("the session was revoked")]
    Revoked(Holder),
    /// The account is disabled, without grants, or gone.
    #[error("the account is disabled")]
    AccountDisabled(Holder),
}

impl SessionError {
    /// Whose token it was, if its signature was right.
    pub const fn holder(&self) -> Option<Holder> {
        match self {
            Self::Malformed | Self::UnknownKey => None,
            Self::Expired(holder)
            | Self::AddressMismatch(holder)
            | Self::Revoked(holder)
            | Self::AccountDisabled(holder) => Some(*holder),
        }
    }
    /// Stable word for the `type` of a problem document.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "session-malformed",
            Self::UnknownKey => "session-unknown-key",
            Self::Expired(_) => "session-expired",
            Self::AddressMismatch(_) => "session-ip-mismatch",
            Self::Revoked(_) => "session-revoked",
            Self::AccountDisabled(_) => "account-disabled",
        }
    }
}

/// Proof that a request carries a valid token, over a connection from the address it is locked to.
#[derive(Clone, Debug)]
pub struct Session {
    claims: Claims,
    account: Arc<Account>,
}

/// Proof that a verified session may act inside one tenant's data: its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantScope {
    tenant: TenantId,
    user: UserId,
    session: SessionId,
}

/// Why a session gets no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Another tenant: to the session it does not exist.
    #[error("no such tenant")]
    OtherTenant,
    /// A role of the account needs a second factor, and the session began without.
    #[error("this account needs a second factor")]
    SecondFactorNeeded,
    /// The password must be changed first.
    #[error("the password must be changed first")]
    MustChange,
}

/// The one form of an address: IPv4 inside IPv6 (`::ffff:192.0.2.1`) is IPv4.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

impl SessionKeys {
    /// Begins a session of an account whose credentials the caller has just verified, locked to `address`.
    /// `second_factor`: whether a one-time code was among them. Lives at most [`LIFETIME_MS_MAX`].
    pub fn issue(
        &self,
        account: &Account,
        address: IpAddr,
        second_factor: bool,
        now_ms: u64,
        lifetime_ms: u64,
        entropy: &dyn Entropy,
    ) -> Issued {
        let mut id = [0; 16];
        entropy.fill(&mut id);
        let claims = Claims {
            session: SessionId::new(id),
            user: account.id,
            tenant: account.tenant,
            epoch: account.epoch,
            address: canonical(address),
            issued_ms: now_ms,
            expires_ms: now_ms.saturating_add(lifetime_ms.min(LIFETIME_MS_MAX)),
            second_factor,
        };
        Issued { token: self.seal(Kind::Session, &claims), session: claims.session, expires_ms: claims.expires_ms }
    }

    /// Verifies a token that came over a connection from `peer`.
    ///
    /// `peer` is the address of the connection itself, never of a header. `revoked` tells whether the session was
    /// logged out; `account` finds the account as it is now. Neither is asked before the signature is verified.
    pub fn verify(
        &self,
        token: &str,
        peer: IpAddr,
        now_ms: u64,
        revoked: impl FnOnce(SessionId) -> bool,
        account: impl FnOnce(UserId) -> Option<Arc<Account>>,
    ) -> Result<Session, SessionError> {
        let claims: Claims = self.open(Kind::Session, token).map_err(|error| match error {
            OpenError::Malformed => SessionError::Malformed,
            OpenError::UnknownKey => SessionError::UnknownKey,
        })?;
        let holder = Holder { session: claims.session, user: claims.user, tenant: claims.tenant };
        if now_ms >= claims.expires_ms {
            return Err(SessionError::Expired(holder));
        }
        if canonical(peer) != claims.address {
            return Err(SessionError::AddressMismatch(holder));
        }
        if revoked(claims.session) {
            return Err(SessionError::Revoked(holder));
        }
        let account = account(claims.user)
            .filter(|account| account.id == claims.user && !account.disabled && !account.grants.is_empty())
            .ok_or(SessionError::AccountDisabled(holder))?;
        if account.epoch != claims.epoch || account.tenant != claims.tenant {
            return Err(SessionError::Revoked(holder));
        }
        Ok(Session { claims, account })
    }
}

impl Session {
    /// Its id.
    pub const fn id(&self) -> SessionId {
        self.claims.session
    }
    /// Whose it is.
    pub const fn user(&self) -> UserId {
        self.claims.user
    }
    /// The account's tenant.
    pub const fn tenant(&self) -> TenantId {
        self.claims.tenant
    }
    /// The account as it was when the token was verified.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
    /// The address it is locked to.
    pub const fn address(&self) -> IpAddr {
        self.claims.address
    }
    /// Whether it began with a second factor.
    pub const fn second_factor(&self) -> bool {
        self.claims.second_factor
    }
    /// When it began, in milliseconds since 1970.
    pub const fn issued_ms(&self) -> u64 {
        self.claims.issued_ms
    }
    /// When it ends, in milliseconds since 1970.
    pub const fn expires_ms(&self) -> u64 {
        self.claims.expires_ms
    }
    /// The facts that policies decide on.
    pub fn subject(&self) -> Subject<'_> {
        Subject::new(&self.account, self.claims.second_factor)
    }
    /// Enters a tenant: only the account's own. Whoever runs the platform gets no customer's data either.
    pub fn scope(&self, tenant: TenantId) -> Result<TenantScope, ScopeError> {
        if tenant != self.claims.tenant {
            return Err(ScopeError::OtherTenant);
        }
        if self.account.must_change {
            return Err(ScopeError::MustChange);
        }
        if self.account.needs_second_factor() && !self.claims.second_factor {
            return Err(ScopeError::SecondFactorNeeded);
        }
        Ok(TenantScope { tenant, user: self.claims.user, session: self.claims.session })
    }
}

impl TenantScope {
    /// The only tenant it opens.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// Who acts.
    pub const fn user(&self) -> UserId {
        self.user
    }
    /// In which session.
    pub const fn session(&self) -> SessionId {
        self.session
    }
}
