//! Accounts: one person each, with credentials and grants, as the control plane keeps them.

use crate::password::PasswordHash;
use crate::role::{GRANTS_MAX, Grant, Role};
use crate::totp::{TotpSecret, TotpStep};
use model::{TenantId, UserId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Most bytes of a person's name.
pub const PERSON_BYTES_MAX: usize = 128;

/// Logins that name a function instead of a person, whatever digits and separators surround them.
const RESERVED: &[&str] = &[
    "admin",
    "administrator",
    "adm",
    "root",
    "superuser",
    "su",
    "sysadmin",
    "system",
    "support",
    "helpdesk",
    "service",
    "services",
    "servicedesk",
    "operator",
    "operators",
    "ops",
    "soc",
    "security",
    "info",
    "office",
    "sales",
    "team",
    "group",
    "shared",
    "common",
    "guest",
    "anonymous",
    "nobody",
    "everyone",
    "user",
    "users",
    "test",
    "tester",
    "default",
    "postmaster",
    "webmaster",
    "hostmaster",
    "abuse",
    "noreply",
    "mail",
    "backup",
    "audit",
    "auditor",
    "agent",
    "reader",
    "platform",
    "tenant",
    "holdfast",
    "api",
    "bot",
    "daemon",
    "oracle",
    "postgres",
];

/// The name a person logs in with: checked when it was made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Login(String);

/// Why a login is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Not a name.
    #[error(transparent)]
    Name(#[from] model::schema::SchemaError),
    /// It names a function: accounts belong to one person each.
    #[error("'{login}' names a function; an account belongs to one person")]
    Reserved {
        /// What came.
        login: String,
    },
}

impl Login {
    /// Checks a login: a name as the model has them, and not reserved.
    pub fn parse(login: &str) -> Result<Self, LoginError> {
        model::schema::check_name(login)?;
        let core = login.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '_');
        if RESERVED.contains(&core) {
            return Err(LoginError::Reserved { login: login.to_owned() });
        }
        Ok(Self(login.to_owned()))
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Login {
    type Error = LoginError;
    fn try_from(login: String) -> Result<Self, LoginError> {
        Self::parse(&login)
    }
}
impl From<Login> for String {
    fn from(login: Login) -> Self {
        login.0
    }
}
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An account. Failed logins are counted elsewhere, see [`crate::lockout`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Never reused.
    pub id: UserId,
    /// Unique in the cluster, also among the deleted.
    pub login: Login,
    /// The person it belongs to.
    pub person: String,
    /// The only tenant whose data it can reach.
    pub tenant: TenantId,
    /// What it may do; without any it cannot log in.
    pub grants: Vec<Grant>,
    /// Its password.
    pub password: PasswordHash,
    /// Its second factor, once enrolled.
    pub totp: Option<TotpSecret>,
    /// The step of the last code that opened, so that no code opens twice.
    pub totp_last: Option<TotpStep>,
    /// Someone else chose the password: nothing but changing it is allowed.
    pub must_change: bool,
    /// It cannot log in, and its sessions are void.
    pub disabled: bool,
    /// Raised when password, second factor, grants or `must_change` change: sessions begun before are void, and a
    /// remembered [`Capability`](crate::Capability) is of one epoch.
    pub epoch: u32,
}

/// Why an account cannot be as described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// No name, a long one, or control characters in it.
    #[error("a person's name has 1 to {PERSON_BYTES_MAX} bytes and no control characters")]
    Person,
    /// None, or more than [`GRANTS_MAX`].
    #[error("an account has 1 to {GRANTS_MAX} grants, not {count}")]
    GrantCount {
        /// What came.
        count: usize,
    },
    /// The platform is run from the platform's own tenant, so that its operators reach no customer's data.
    #[error("role '{role}' exists only in the platform's tenant")]
    RoleOfPlatform {
        /// The role.
        role: Role,
    },
}

impl Account {
    /// The roles it holds.
    pub fn roles(&self) -> BTreeSet<Role> {
        self.grants.iter().map(|grant| grant.role).collect()
    }
    /// Whether one of its roles needs a second factor.
    pub fn needs_second_factor(&self) -> bool {
        self.grants.iter().any(|grant| grant.role.needs_second_factor())
    }
    /// Checks what spans several fields; called when an account is created or changed.
    pub fn check(&self) -> Result<(), AccountError> {
        if self.person.trim().is_empty()
            || self.person.len() > PERSON_BYTES_MAX
            || self.person.chars().any(char::is_control)
        {
            return Err(AccountError::Person);
        }
        if self.grants.is_empty() || self.grants.len() > GRANTS_MAX {
            return Err(AccountError::GrantCount { count: self.grants.len() });
        }
        if self.tenant != TenantId::PLATFORM && self.roles().contains(&Role::PlatformAdmin) {
            return Err(AccountError::RoleOfPlatform { role: Role::PlatformAdmin });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_name_persons() {
        for good in ["carol", "carol2", "mary-ann", "badminton", "rooty", "soccer"] {
            assert_eq!(Login::parse(good).unwrap().as_str(), good);
        }
        for reserved in ["admin", "admin1", "root", "root_0", "support-2", "system", "test99", "info"] {
            assert_eq!(Login::parse(reserved), Err(LoginError::Reserved { login: reserved.into() }));
        }
        for malformed in ["", "Carol", "1carol", "carol@example", "cärol", &"c".repeat(65)] {
            assert!(matches!(Login::parse(malformed), Err(LoginError::Name(_))), "{malformed}");
        }
        assert!(serde_json::from_str::<Login>("\"root\"").is_err(), "stored logins are checked too");
    }

    #[test]
    fn an_account_has_a_person_and_grants_that_fit_its_tenant() {
        let account = |person: &str, tenant, grants: Vec<Grant>| Account {
            id: UserId::new(1),
            login: Login::parse("carol").unwrap(),
            person: person.into(),
            tenant: TenantId::new(tenant),
            grants,
            password: serde_json::from_str("\"\"").unwrap(),
            totp: None,
            totp_last: None,
            must_change: false,
            disabled: false,
            epoch: 0,
        };
        let check = |person: &str, tenant, roles: &[Role]| {
            account(person, tenant, roles.iter().copied().map(Grant::whole).collect()).check()
        };
        assert_eq!(check("Carol Ng", 5, &[Role::TenantAdmin, Role::Agent]), Ok(()));
        assert_eq!(check("Carol Ng", 0, &[Role::PlatformAdmin]), Ok(()));
        assert_eq!(check(" ", 5, &[Role::Agent]), Err(AccountError::Person));
        assert_eq!(check("Carol\nNg", 5, &[Role::Agent]), Err(AccountError::Person));
        assert_eq!(check("Carol Ng", 5, &[]), Err(AccountError::GrantCount { count: 0 }));
        assert_eq!(check("Carol Ng", 5, &[Role::Agent; 17]), Err(AccountError::GrantCount { count: 17 }));
        let role = Role::PlatformAdmin;
        assert_eq!(check("Carol Ng", 5, &[role]), Err(AccountError::RoleOfPlatform { role }));
    }
}
