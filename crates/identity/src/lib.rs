//! Who may do what: passwords, second factors, accounts, roles, sessions and policy decisions.
//!
//! Pure: time comes as `now_ms` (milliseconds since 1970 UTC), entropy as [`model::entropy::Entropy`]; nothing here
//! reads a clock, draws randomness, waits or stores.
//! What it must never do: make a [`Session`] or a [`TenantScope`] from anything but a verified token, or let a
//! permission come from anything but a role.

pub mod account;
pub mod capability;
pub mod lockout;
pub mod mask;
pub mod password;
pub mod policy;
pub mod role;
pub mod session;
pub mod token;
pub mod totp;
pub mod vector;

pub use account::{Account, Login, LoginError};
pub use capability::Capability;
pub use mask::FieldMask;
pub use policy::{Decision, Denied, Policy, PolicyError, Resource, Subject};
pub use role::{Action, Grant, Role};
pub use session::{Issued, ScopeError, Session, SessionError, TenantScope};
pub use token::{KeyId, SessionKey, SessionKeys};
pub use vector::{VectorToken, VectorTokenError};
