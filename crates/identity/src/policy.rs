//! Policy decisions by Cedar: default deny, permissions only by role, and fences that no role can pass.
//!
//! The texts are in `policy/`. A policy that names a person, a tenant or a table is refused: it may name roles and
//! actions only. An error while a policy is evaluated denies.

use crate::role::{Action, Cover, Grant, Role};
use crate::{Account, FieldMask};
use cedar_policy::{
    Authorizer, Context, Decision as CedarDecision, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicyId, PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use model::{TableId, TenantId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The schema, in Cedar's syntax.
pub const SCHEMA: &str = include_str!("../policy/schema.cedarschema");
/// What each role may do.
pub const ROLES: &str = include_str!("../policy/roles.cedar");
/// What no role can permit.
pub const FENCES: &str = include_str!("../policy/fences.cedar");

/// The fence that asks for a second factor.
pub const FENCE_SECOND_FACTOR: &str = "fence-second-factor";
/// The fence that asks for a new password.
pub const FENCE_MUST_CHANGE: &str = "fence-must-change";

/// Most bytes of a policy's text.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;
/// Most brackets inside each other: Cedar's parser takes stack for each.
pub const NESTING_MAX: usize = 64;

/// Why a policy's text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than [`POLICY_BYTES_MAX`].
    #[error("a policy has at most {POLICY_BYTES_MAX} bytes")]
    TooLarge,
    /// Nested deeper than [`NESTING_MAX`].
    #[error("a policy nests at most {NESTING_MAX} brackets")]
    TooDeep,
    /// Not Cedar.
    #[error("line {line}: {reason}")]
    Syntax {
        /// Where, counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A template, an unnamed policy, or two with one name.
    #[error("policy '{policy}': each needs its own @id, and templates are not allowed")]
    Unnamed {
        /// The name, or Cedar's number.
        policy: String,
    },
    /// It names a person, a tenant or a table.
    #[error("policy '{policy}' names {literal}: permissions belong to roles")]
    Literal {
        /// The policy's name.
        policy: String,
        /// What it names.
        literal: String,
    },
    /// It does not fit the schema.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
}

/// What an action is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A tenant, or the platform.
    Tenant(TenantId),
    /// A table of a tenant.
    Table(TenantId, TableId),
}

/// Who asks: an account, and whether the session began with a second factor.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub(crate) account: &'a Account,
    pub(crate) second_factor: bool,
}

impl<'a> Subject<'a> {
    /// The subject of an account. It proves nothing; requests are judged on [`crate::Session::subject`].
    pub const fn new(account: &'a Account, second_factor: bool) -> Self {
        Self { account, second_factor }
    }
}

/// Why an action is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{action}' is not allowed")]
pub struct Denied {
    /// The action.
    pub action: Action,
    /// The fences that forbid it, by name; none means that no role permits it.
    pub fences: BTreeSet<String>,
}

impl Denied {
    /// Whether a second factor would help.
    pub fn needs_second_factor(&self) -> bool {
        self.fences.contains(FENCE_SECOND_FACTOR)
    }
    /// Whether the password must be changed first.
    pub fn needs_password_change(&self) -> bool {
        self.fences.contains(FENCE_MUST_CHANGE)
    }
}

/// Allowed, with the fields that the allowing grants show (all, for a tenant), or denied.
pub type Decision = Result<FieldMask, Denied>;

/// What Cedar said about one grant: allowed, or the fences that forbid.
pub(crate) type Verdict = Result<(), BTreeSet<String>>;

/// Everything around a question that its action and grant do not change: building it costs more than the question.
pub(crate) struct Scene<'a> {
    subject: Subject<'a>,
    user: EntityUid,
    asked: EntityUid,
    is_table: bool,
    entities: Entities,
}

/// A checked set of policies, ready to decide.
pub struct Policy {
    set: PolicySet,
    schema: Schema,
    authorizer: Authorizer,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Policy({} policies)", self.set.num_of_policies())
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::builtin()
    }
}

/// How deep brackets stand inside each other, outside texts and comments.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut bytes) = (0_usize, 0, text.bytes().peekable());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                    if byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            b'/' if bytes.peek() == Some(&b'/') => drop(bytes.find(|byte| *byte == b'\n')),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Checks a policy's text without using it: syntax, names, literals, schema.
pub fn check_policy_text(text: &str) -> Result<(), PolicyError> {
    Policy::parse(text).map(|_| ())
}

impl Policy {
    /// The platform's own policies.
    pub fn builtin() -> Self {
        Self::parse(&[ROLES, FENCES].concat()).expect("the built-in policies are checked by tests")
    }

    /// Reads and checks a whole set of policies. The caller decides which texts make it up.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLarge);
        }
        if nesting(text) > NESTING_MAX {
            return Err(PolicyError::TooDeep);
        }
        let parsed: PolicySet = text.parse().map_err(|errors| syntax_error(text, &errors))?;
        if let Some(template) = parsed.templates().next() {
            return Err(PolicyError::Unnamed { policy: template.id().to_string() });
        }
        let mut set = PolicySet::new();
        for policy in parsed.policies() {
            let unnamed = || PolicyError::Unnamed { policy: policy.id().to_string() };
            let name = policy.annotation("id").filter(|name| !name.is_empty()).ok_or_else(unnamed)?.to_owned();
            for literal in policy.entity_literals() {
                if !matches!(literal.type_name().basename(), "Role" | "Action") {
                    return Err(PolicyError::Literal { policy: name, literal: literal.to_string() });
                }
            }
            let policy = policy.new_id(PolicyId::new(&name));
            set.add(policy).map_err(|_| PolicyError::Unnamed { policy: name })?;
        }
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).expect("the schema is checked by tests");
        let validator = Validator::new(schema);
        let outcome = validator.validate(&set, ValidationMode::Strict);
        if let Some(error) = outcome.validation_errors().next() {
            return Err(PolicyError::Invalid { reason: error.to_string() });
        }
        let schema = validator.schema().clone();
        Ok(Self { set, schema, authorizer: Authorizer::new() })
    }

    /// Decides one request, asking Cedar about each of the subject's grants. Tens of microseconds a grant: the data
    /// path asks [`crate::Capability`] instead, which remembers these decisions.
    pub fn decide(&self, subject: Subject<'_>, action: Action, resource: Resource) -> Decision {
        let mut shown: Option<FieldMask> = None;
        let mut fences = BTreeSet::new();
        let Some(scene) = self.scene(subject, resource) else {
            return Err(Denied { action, fences });
        };
        for grant in &subject.account.grants {
            let (cover, mask) = match resource {
                Resource::Tenant(_) => (Cover::Whole, FieldMask::whole()),
                Resource::Table(_, table) => (grant.cover(table), grant.mask(table)),
            };
            match self.judge(&scene, grant, cover, action) {
                Ok(()) => shown = Some(shown.map_or(mask.clone(), |shown| shown.union(mask))),
                Err(by) => fences.extend(by),
            }
        }
        shown.ok_or(Denied { action, fences })
    }

    /// Asks Cedar about one grant.
    pub(crate) fn judge(&self, scene: &Scene<'_>, grant: &Grant, cover: Cover, action: Action) -> Verdict {
        if action.is_of_table() != scene.is_table {
            return Err(BTreeSet::new());
        }
        let Some(request) = self.request(scene, grant.role, cover, action) else {
            return Err(BTreeSet::new());
        };
        let answer = self.authorizer.is_authorized(&request, &self.set, &scene.entities);
        let is_clean = answer.diagnostics().errors().next().is_none();
        if answer.decision() == CedarDecision::Allow && is_clean {
            return Ok(());
        }
        let forbids = |id: &&PolicyId| self.set.policy(id).is_some_and(|policy| policy.effect() == Effect::Forbid);
        Err(answer.diagnostics().reason().filter(forbids).map(ToString::to_string).collect())
    }

    /// Sets the scene of a subject before a resource; `None` if it does not fit the schema, which denies.
    pub(crate) fn scene<'a>(&self, subject: Subject<'a>, resource: Resource) -> Option<Scene<'a>> {
        let account = subject.account;
        let (tenant, asked, is_table) = match resource {
            Resource::Tenant(tenant) => (tenant, tenant_uid(tenant), false),
            Resource::Table(tenant, table) => (tenant, uid("Table", &format!("{tenant}/{table}")), true),
        };
        let user = uid("User", &account.id.to_string());
        let roles = account.roles();
        let home = RestrictedExpression::new_entity_uid(tenant_uid(account.tenant));
        let held = roles.iter().copied().map(role_uid).collect();
        let mut entities = vec![
            Entity::new(user.clone(), HashMap::from([("tenant".to_owned(), home)]), held).ok()?,
            tenant_entity(account.tenant)?,
        ];
        if tenant != account.tenant {
            entities.push(tenant_entity(tenant)?);
        }
        if is_table {
            entities.push(Entity::new_no_attrs(asked.clone(), HashSet::from([tenant_uid(tenant)])));
        }
        entities.extend(roles.into_iter().map(|role| Entity::new_no_attrs(role_uid(role), HashSet::new())));
        let entities = Entities::from_entities(entities, Some(&self.schema)).ok()?;
        Some(Scene { subject, user, asked, is_table, entities })
    }

    /// `None` if the request does not fit the schema, which denies.
    fn request(&self, scene: &Scene<'_>, role: Role, cover: Cover, action: Action) -> Option<Request> {
        let cover = match cover {
            Cover::None => "none",
            Cover::Masked => "masked",
            Cover::Whole => "whole",
        };
        let context = Context::from_pairs([
            ("second_factor".to_owned(), RestrictedExpression::new_bool(scene.subject.second_factor)),
            ("must_change".to_owned(), RestrictedExpression::new_bool(scene.subject.account.must_change)),
            ("role".to_owned(), RestrictedExpression::new_entity_uid(role_uid(role))),
            ("cover".to_owned(), RestrictedExpression::new_string(cover.to_owned())),
        ])
        .ok()?;
        let action = uid("Action", action.name());
        Request::new(scene.user.clone(), action, scene.asked.clone(), context, Some(&self.schema)).ok()
    }
}

fn uid(kind: &str, id: &str) -> EntityUid {
    let kind: EntityTypeName = kind.parse().expect("kinds are constants of this file");
    EntityUid::from_type_name_and_id(kind, EntityId::new(id))
}
fn role_uid(role: Role) -> EntityUid {
    uid("Role", role.name())
}
fn tenant_uid(tenant: TenantId) -> EntityUid {
    uid("Tenant", &tenant.to_string())
}
fn tenant_entity(tenant: TenantId) -> Option<Entity> {
    let platform = RestrictedExpression::new_bool(tenant == TenantId::PLATFORM);
    Entity::new(tenant_uid(tenant), HashMap::from([("platform".to_owned(), platform)]), HashSet::new()).ok()
}

fn syntax_error(text: &str, errors: &cedar_policy::ParseErrors) -> PolicyError {
    let error = errors.iter().next();
    let offset = error.and_then(|error| {
        use miette::Diagnostic as _;
        error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset())
    });
    let before = offset.and_then(|offset| text.get(..offset)).unwrap_or(text);
    let reason = error.map_or_else(|| errors.to_string(), ToString::to_string);
    PolicyError::Syntax { line: before.matches('\n').count() + 1, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_policies_fit_the_schema() {
        assert!(Schema::from_cedarschema_str(SCHEMA).unwrap().1.next().is_none());
        Policy::parse(&[ROLES, FENCES].concat()).unwrap();
    }
}
