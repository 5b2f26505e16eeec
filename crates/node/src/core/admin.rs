//! Tenants, users and tables: the control plane's objects.

use super::wait::failed;
use crate::machine::control::{ControlCommand, ControlOutcome};
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{
    Caller, CreatedUser, FieldSpec, Grant as GrantView, NewTable, NewTenant, NewUser, TableList, TableView, TenantList,
    TenantView, UserList, UserView,
};
use identity::totp::TotpSecret;
use identity::{Account, Action, Grant, Login, Role, Session};
use model::{FieldId, Table, TableId, Tenant, TenantId, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of a change request's name.
const CHANGE_BYTES_MAX: usize = 64;

impl Node {
    /// Creates a tenant.
    pub(crate) async fn create_tenant(
        &self,
        caller: &Caller,
        session: &Session,
        request: NewTenant,
    ) -> Answer<TenantView> {
        let resource = format!("tenants/{}", request.name);
        self.permit(caller, session, Action::TenantManage, TenantId::PLATFORM, &resource).await?;
        let allowed_regions = if request.allowed_regions.is_empty() {
            self.cluster.regions.iter().map(|region| region.id).collect()
        } else {
            let region = |name: &String| self.cluster.region_named(name).map(|region| region.id);
            let found: Option<BTreeSet<_>> = request.allowed_regions.iter().map(region).collect();
            let known =
                || self.cluster.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
            found
                .ok_or_else(|| Problem::invalid("allowed_regions", format!("the cluster has {}", known())))?
                .into_iter()
                .collect()
        };
        let values = serde_json::json!({"name": request.name, "allowed_regions": request.allowed_regions, "continuity_class": request.continuity_class});
        let note = created(self.note(caller, session, "tenant.create"), resource, &values);
        let command = ControlCommand::CreateTenant {
            name: request.name,
            allowed_regions,
            continuity_class: request.continuity_class,
            note,
        };
        match self.command(&command, "tenant").await? {
            ControlOutcome::Tenant(tenant) => Ok(self.tenant_view(&tenant)),
            other => Err(super::wait::internal("a tenant came to something else", &format!("{other:?}"))),
        }
    }

    /// Carries out a control command; what the control plane refuses becomes a problem.
    async fn command(&self, command: &ControlCommand, what: &'static str) -> Answer<ControlOutcome> {
        match self.propose_control(command).await.map_err(failed)? {
            ControlOutcome::Exists => Err(Problem::conflict(format!("a {what} of this name exists"))),
            ControlOutcome::Missing => Err(Problem::not_found("tenant")),
            ControlOutcome::Invalid(reason) => Err(Problem::invalid(what, reason)),
            done => Ok(done),
        }
    }

    fn tenant_view(&self, tenant: &Tenant) -> TenantView {
        TenantView {
            id: tenant.id.get(),
            name: tenant.name.clone(),
            allowed_regions: tenant.allowed_regions.iter().map(|region| self.region_name(*region)).collect(),
            continuity_class: tenant.continuity_class,
        }
    }

    /// The tenants a session may see.
    pub(crate) async fn tenants(&self, caller: &Caller, session: &Session) -> Answer<TenantList> {
        let capability = self.capability(session);
        let control = self.control();
        let seen = |tenant: &&Arc<Tenant>| capability.permits(Action::TenantRead, tenant.id).is_ok();
        let mut tenants: Vec<_> =
            control.tenants.values().filter(seen).map(|tenant| self.tenant_view(tenant)).collect();
        tenants.sort_by(|one, other| one.name.cmp(&other.name));
        self.viewed(caller, session, "tenants").await?;
        Ok(TenantList { tenants })
    }

    /// One tenant.
    pub(crate) async fn tenant(&self, caller: &Caller, session: &Session, name: &str) -> Answer<TenantView> {
        let found = self.control().tenant(name).cloned();
        let capability = self.capability(session);
        match found.filter(|tenant| capability.permits(Action::TenantRead, tenant.id).is_ok()) {
            Some(tenant) => {
                self.viewed(caller, session, &format!("tenants/{}", tenant.name)).await?;
                Ok(self.tenant_view(&tenant))
            }
            None => {
                let resource =
                    format!("tenants/{}", name.chars().take(model::limit::NAME_BYTES_MAX).collect::<String>());
                Err(self.deny(caller, session, resource, "no such tenant", Problem::not_found("tenant")).await)
            }
        }
    }

    /// Records that something other than records was seen.
    pub(crate) async fn viewed(&self, caller: &Caller, session: &Session, resource: &str) -> Answer<()> {
        let note = Note { resource: Some(resource.to_owned()), ..self.note(caller, session, "view") };
        self.record(session.tenant(), note).await
    }

    /// Creates a user.
    pub(crate) async fn create_user(
        &self,
        caller: &Caller,
        session: &Session,
        request: NewUser,
    ) -> Answer<CreatedUser> {
        let tenant = match &request.tenant {
            None => TenantId::PLATFORM,
            Some(name) => self.control().tenant(name).map(|tenant| tenant.id).ok_or(Problem::not_found("tenant"))?,
        };
        let resource = format!("users/{}", request.login);
        self.permit(caller, session, Action::UserManage, tenant, &resource).await?;
        let resource = match &request.change {
            Some(change) => format!("changes/{}/{resource}", change_name(change)?),
            None => resource,
        };
        let login = Login::parse(&request.login).map_err(|error| Problem::invalid("login", error.to_string()))?;
        let grants = self.grants(tenant, &request.grants)?;
        let values = serde_json::json!({"person": request.person, "tenant": request.tenant, "grants": request.grants});
        let password = self.hash_password(request.password, login.as_str(), "password").await?;
        let needs_code = grants.iter().any(|grant| grant.role.needs_second_factor());
        let totp = needs_code.then(|| TotpSecret::generate(&*self.world.entropy));
        let totp_uri =
            totp.as_ref().map(|secret| secret.uri(login.as_str(), &format!("Holdfast {}", self.cluster.name)));
        let account = Account {
            id: UserId::new(0),
            login,
            person: request.person,
            tenant,
            grants,
            password,
            totp,
            totp_last: None,
            must_change: true,
            disabled: false,
            epoch: 1,
        };
        let note = created(self.note(caller, session, "user.create"), resource, &values);
        self.command(&ControlCommand::CreateUser { account: account.clone(), note }, "user").await?;
        Ok(CreatedUser { user: self.user_view(&account), totp_uri })
    }

    /// Grants by names become grants by ids, which never widen when a name comes back.
    fn grants(&self, tenant: TenantId, grants: &[GrantView]) -> Answer<Vec<Grant>> {
        let control = self.control();
        let tables = control.tenants.get(&tenant);
        let mut result = Vec::with_capacity(grants.len());
        for (index, grant) in grants.iter().enumerate() {
            let at = format!("grants[{index}]");
            let known = || Role::ALL.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ");
            let role = Role::parse(&grant.role).ok_or_else(|| {
                Problem::invalid(format!("{at}.role"), format!("no such role; there are {}", known()))
            })?;
            let Some(narrowed) = &grant.tables else {
                result.push(Grant::whole(role));
                continue;
            };
            let mut named: BTreeMap<TableId, Option<BTreeSet<FieldId>>> = BTreeMap::new();
            for (name, fields) in narrowed {
                let table = tables.and_then(|tenant| tenant.table(name));
                let table = table.ok_or_else(|| Problem::invalid(format!("{at}.tables.{name}"), "no such table"))?;
                let field = |name: &String| table.field(name).map(|field| field.id);
                let ids = match fields {
                    None => None,
                    Some(names) => Some(
                        names
                            .iter()
                            .map(field)
                            .collect::<Option<BTreeSet<_>>>()
                            .ok_or_else(|| Problem::invalid(format!("{at}.tables.{name}"), "no such field"))?,
                    ),
                };
                named.insert(table.id, ids);
            }
            result.push(Grant { role, tables: Some(named) });
        }
        Ok(result)
    }

    pub(crate) fn user_view(&self, account: &Account) -> UserView {
        let control = self.control();
        let tenant = control.tenants.get(&account.tenant);
        let table = |id: TableId| tenant.and_then(|tenant| tenant.tables.iter().find(|table| table.id == id));
        let narrowed = |tables: &BTreeMap<TableId, Option<BTreeSet<FieldId>>>| {
            let named = tables.iter().filter_map(|(id, fields)| {
                let table = table(*id)?;
                let name = |id: &FieldId| Some(table.field_by_id(*id)?.name.clone());
                Some((table.name.clone(), fields.as_ref().map(|fields| fields.iter().filter_map(name).collect())))
            });
            named.collect()
        };
        let grant =
            |grant: &Grant| GrantView { role: grant.role.name().into(), tables: grant.tables.as_ref().map(narrowed) };
        UserView {
            login: account.login.as_str().into(),
            person: account.person.clone(),
            tenant: tenant.filter(|tenant| tenant.id != TenantId::PLATFORM).map(|tenant| tenant.name.clone()),
            grants: account.grants.iter().map(grant).collect(),
            mfa: account.totp.is_some(),
        }
    }

    /// The users a session may see.
    pub(crate) async fn users(&self, caller: &Caller, session: &Session) -> Answer<UserList> {
        let capability = self.capability(session);
        let control = self.control();
        let seen = |account: &&Arc<Account>| capability.permits(Action::UserManage, account.tenant).is_ok();
        let mut users: Vec<_> = control.users.values().filter(seen).map(|account| self.user_view(account)).collect();
        users.sort_by(|one, other| one.login.cmp(&other.login));
        self.viewed(caller, session, "users").await?;
        Ok(UserList { users })
    }

    /// Creates a table.
    pub(crate) async fn create_table(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        request: NewTable,
    ) -> Answer<TableView> {
        let owner = self.own_tenant(caller, session, tenant).await?;
        let resource = format!("tenants/{tenant}/tables/{}", request.name);
        self.permit(caller, session, Action::TableManage, owner.id, &resource).await?;
        let values = serde_json::json!({"fields": request.fields});
        let note = created(self.note(caller, session, "table.create"), resource, &values);
        let fields = request.fields.into_iter().map(|field| (field.name, field.kind, field.merge)).collect();
        let command = ControlCommand::CreateTable { tenant: owner.id, name: request.name, fields, note };
        match self.command(&command, "table").await? {
            ControlOutcome::Table(table) => Ok(table_view(&table)),
            other => Err(super::wait::internal("a table came to something else", &format!("{other:?}"))),
        }
    }

    /// The tables of a session's tenant, each as the session knows it.
    pub(crate) async fn tables(&self, caller: &Caller, session: &Session, tenant: &str) -> Answer<TableList> {
        let owner = self.own_tenant(caller, session, tenant).await?;
        let capability = self.capability(session);
        let known = |table: &Table| {
            capability.allows(Action::TableRead, table.id).ok().map(|mask| table_view(&mask.table(table)))
        };
        let mut tables: Vec<TableView> = owner.tables.iter().filter_map(known).collect();
        tables.sort_by(|one, other| one.name.cmp(&other.name));
        self.viewed(caller, session, &format!("tenants/{tenant}/tables")).await?;
        Ok(TableList { tables })
    }

    /// One table.
    pub(crate) async fn table(
        &self,
        caller: &Caller,
        session: &Session,
        tenant: &str,
        table: &str,
    ) -> Answer<TableView> {
        let target = self.target(caller, session, Action::TableRead, tenant, table).await?;
        self.viewed(caller, session, &format!("tenants/{tenant}/tables/{table}")).await?;
        Ok(table_view(&target.table))
    }
}

fn table_view(table: &Table) -> TableView {
    let field = |field: &model::Field| FieldSpec { name: field.name.clone(), kind: field.kind, merge: field.merge };
    TableView {
        id: table.id.get(),
        name: table.name.clone(),
        version: table.version,
        fields: table.fields.iter().map(field).collect(),
    }
}

/// The name of a change request, as it may stand in the name of a resource.
fn change_name(name: &str) -> Answer<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=CHANGE_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(name);
    }
    Err(Problem::invalid(
        "change",
        format!("letters, digits, -, _ and ., at most {CHANGE_BYTES_MAX}, such as CHG-1042"),
    ))
}

fn created(note: Note, resource: String, values: &serde_json::Value) -> Note {
    Note { resource: Some(resource), values: Some((None, Some(values.to_string()))), ..note }
}
