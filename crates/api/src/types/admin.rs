//! Sessions, users, tenants and tables.

use model::{FieldKind, Merge};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;

/// Begins a session.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's login.
    pub login: String,
    /// The password.
    pub password: String,
    /// Six digits, for users that are enrolled.
    #[serde(default)]
    pub totp: Option<String>,
}

impl fmt::Debug for Login {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("login", &self.login).finish_non_exhaustive()
    }
}

/// A session that began.
#[derive(Clone, Serialize, ToSchema)]
pub struct LoggedIn {
    /// The bearer token: valid in every region, from this address only.
    pub token: String,
    /// When it ends: milliseconds since 1970.
    pub expires_ms: u64,
    /// Whether nothing but changing the password is allowed.
    pub must_change_password: bool,
    /// The user.
    pub user: UserView,
}

/// Changes one's own password.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The password so far.
    pub current: String,
    /// The password from now on: 12 characters of four classes.
    pub new: String,
    /// Six digits, for users that are enrolled.
    #[serde(default)]
    pub totp: Option<String>,
}

/// Who a session is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Me {
    /// The user.
    pub user: UserView,
    /// The address the session is locked to.
    pub address: String,
    /// When the session ends: milliseconds since 1970.
    pub expires_ms: u64,
    /// Whether nothing but changing the password is allowed.
    pub must_change_password: bool,
}

/// A role held by a user, possibly narrowed to tables and, in each, to fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The role's name: see `identity::Role`.
    #[schema(example = "agent")]
    pub role: String,
    /// Names of tables, and for each the names of fields; a table's `null`: all of its fields; none at all: all
    /// tables of the user's tenant.
    #[serde(default)]
    pub tables: Option<BTreeMap<String, Option<Vec<String>>>>,
}

/// Creates a user.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Unique in the cluster.
    pub login: String,
    /// The person's name: accounts belong to one person.
    pub person: String,
    /// The name of the tenant whose data the user may be granted; none: the platform's own.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The first password: it must be changed at the first login.
    pub password: String,
    /// What the user may do.
    pub grants: Vec<Grant>,
    /// The change request that this carries out, such as `CHG-1042`: letters, digits, `-`, `_` and `.`, at most 64.
    /// Without one, giving a privileged role raises an alert.
    #[serde(default)]
    pub change: Option<String>,
}

/// A user.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UserView {
    /// Unique in the cluster.
    pub login: String,
    /// The person's name.
    pub person: String,
    /// The name of the user's tenant; none: the platform.
    pub tenant: Option<String>,
    /// What the user may do.
    pub grants: Vec<Grant>,
    /// Whether logins need a one-time code.
    pub mfa: bool,
}

/// A user that was created.
#[derive(Clone, Serialize, ToSchema)]
pub struct CreatedUser {
    /// The user.
    #[serde(flatten)]
    pub user: UserView,
    /// `otpauth://` address for users that need a one-time code: shown once.
    pub totp_uri: Option<String>,
}

/// Users.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UserList {
    /// In order of their logins.
    pub users: Vec<UserView>,
}

/// Creates a tenant.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Unique in the cluster.
    pub name: String,
    /// Names of the regions its data may be in; empty: all.
    #[serde(default)]
    pub allowed_regions: Vec<String>,
    /// 0 (real time) to 3 (supporting).
    #[serde(default)]
    pub continuity_class: u8,
}

/// A tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TenantView {
    /// Opaque, never reused.
    pub id: u64,
    /// Unique in the cluster.
    pub name: String,
    /// Names of the regions its data may be in.
    pub allowed_regions: Vec<String>,
    /// 0 (real time) to 3 (supporting).
    pub continuity_class: u8,
}

/// Tenants.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TenantList {
    /// In order of their names.
    pub tenants: Vec<TenantView>,
}

/// Creates a table.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTable {
    /// Unique in the tenant.
    pub name: String,
    /// Its fields.
    pub fields: Vec<FieldSpec>,
}

/// A field of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldSpec {
    /// Unique in the table.
    pub name: String,
    /// `bool`, `int`, `float`, `text`, `bytes` or `time`.
    #[schema(value_type = String, example = "text")]
    pub kind: FieldKind,
    /// `lww`, `counter`, `max` or `min`.
    #[serde(default)]
    #[schema(value_type = String, example = "lww")]
    pub merge: Merge,
}

/// A table.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TableView {
    /// Opaque, never reused in the tenant.
    pub id: u32,
    /// Unique in the tenant.
    pub name: String,
    /// Raised by every change.
    pub version: u32,
    /// Its fields.
    pub fields: Vec<FieldSpec>,
}

/// Tables.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TableList {
    /// In order of their names.
    pub tables: Vec<TableView>,
}
