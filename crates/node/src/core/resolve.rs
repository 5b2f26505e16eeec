//! From names in a request to what a session may reach: the one gate before any data.

use crate::machine::command::Command;
use crate::machine::note::Note;
use crate::node::Node;
use api::core::Answer;
use api::problem::{Problem, Unauthenticated};
use api::types::Caller;
use identity::{Action, Capability, FieldMask, ScopeError, Session};
use model::{FieldId, Table, Tenant, TenantId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A table as the session knows it, inside the session's own tenant.
pub(crate) struct Target {
    pub tenant: Arc<Tenant>,
    pub table: Table,
    pub mask: FieldMask,
}

impl Target {
    /// The fields an entity tag is made from; none where all are known.
    pub fn seen(&self) -> Option<BTreeSet<FieldId>> {
        (!self.mask.is_whole()).then(|| self.table.fields.iter().map(|field| field.id).collect())
    }
    /// Names of the fields, for the audit log.
    pub fn names(&self) -> BTreeMap<FieldId, String> {
        self.table.fields.iter().map(|field| (field.id, field.name.clone())).collect()
    }
    /// What the audit log calls a record.
    pub fn resource(&self, key: &str) -> String {
        format!("tenants/{}/tables/{}/records/{key}", self.tenant.name, self.table.name)
    }
}

impl Node {
    /// An audit note of this caller, by now known.
    pub(crate) fn note(&self, caller: &Caller, session: &Session, action: &str) -> Note {
        let account = session.account();
        let tenant = self.control().tenants.get(&account.tenant).map(|tenant| tenant.name.clone());
        Note {
            action: action.into(),
            tenant,
            user: Some(account.login.as_str().to_owned()),
            session: Some(session.id()),
            address: Some(caller.address.to_canonical().to_string()),
            request_id: Some(format!("{:032x}", caller.request)),
            node: self.place.id,
            ..Note::default()
        }
    }

    /// Writes a note into the audit log of a tenant's group.
    pub(crate) async fn record(&self, tenant: TenantId, note: Note) -> Answer<()> {
        let group = self.cluster.group(tenant);
        self.propose(group, &Command::Note(note)).await.map(|_| ()).map_err(super::wait::failed)
    }

    /// Refuses, and records that it did.
    pub(crate) async fn deny(
        &self,
        caller: &Caller,
        session: &Session,
        resource: String,
        why: &str,
        problem: Problem,
    ) -> Problem {
        let note = Note { resource: Some(resource), refused: Some(why.into()), ..self.note(caller, session, "denied") };
        match self.record(session.tenant(), note).await {
            Ok(()) => problem,
            // A refusal that cannot be recorded is still a refusal, but says that the platform is unwell.
            Err(unrecorded) => unrecorded,
        }
    }

    /// The session's own tenant by the name in the request; any other does not exist for it.
    pub(crate) async fn own_tenant(&self, caller: &Caller, session: &Session, name: &str) -> Answer<Arc<Tenant>> {
        let resource = || format!("tenants/{}", name.chars().take(model::limit::NAME_BYTES_MAX).collect::<String>());
        let Some(tenant) = self.control().tenant(name).cloned() else {
            return Err(self.deny(caller, session, resource(), "no such tenant", Problem::not_found("tenant")).await);
        };
        match session.scope(tenant.id) {
            Ok(_) => Ok(tenant),
            Err(ScopeError::OtherTenant) => {
                Err(self.deny(caller, session, resource(), "another tenant", Problem::not_found("tenant")).await)
            }
            Err(ScopeError::SecondFactorNeeded) => Err(Problem::Unauthenticated(Unauthenticated::MfaRequired)),
            Err(ScopeError::MustChange) => Err(Problem::MustChangePassword),
        }
    }

    /// Refuses where a tenant's data may not be in this region.
    pub(crate) fn resident(&self, tenant: &Tenant) -> Answer<()> {
        if tenant.allows(self.region.id) {
            return Ok(());
        }
        let allowed: Vec<String> = tenant.allowed_regions.iter().map(|region| self.region_name(*region)).collect();
        let detail = format!("this tenant's data is not in region {}; use {}", self.region.name, allowed.join(", "));
        Err(Problem::forbidden(detail))
    }

    /// A table for an action, as the session knows it.
    pub(crate) async fn target(
        &self,
        caller: &Caller,
        session: &Session,
        action: Action,
        tenant: &str,
        table: &str,
    ) -> Answer<Target> {
        let tenant = self.own_tenant(caller, session, tenant).await?;
        self.resident(&tenant)?;
        let Some(found) = tenant.table(table).cloned() else { return Err(Problem::not_found("table")) };
        let capability = self.capability(session);
        match capability.allows(action, found.id) {
            Ok(mask) => {
                let table = mask.table(&found).into_owned();
                Ok(Target { tenant, table, mask })
            }
            Err(denied) => {
                let resource = format!("tenants/{}/tables/{}", tenant.name, found.name);
                // A table of which nothing is granted is, for this session, not there.
                let hidden = capability.allows(Action::TableRead, found.id).is_err();
                let problem = if hidden { Problem::not_found("table") } else { Problem::forbidden(denied.to_string()) };
                Err(self.deny(caller, session, resource, &denied.to_string(), problem).await)
            }
        }
    }

    /// An action on a tenant or on the platform as a whole.
    pub(crate) async fn permit(
        &self,
        caller: &Caller,
        session: &Session,
        action: Action,
        tenant: TenantId,
        resource: &str,
    ) -> Answer<Arc<Capability>> {
        if session.account().must_change {
            return Err(Problem::MustChangePassword);
        }
        let capability = self.capability(session);
        match capability.permits(action, tenant) {
            Ok(()) => Ok(capability),
            Err(denied) if denied.needs_second_factor() => Err(Problem::Unauthenticated(Unauthenticated::MfaRequired)),
            Err(denied) => {
                let why = denied.to_string();
                Err(self.deny(caller, session, resource.to_owned(), &why, Problem::forbidden(why.clone())).await)
            }
        }
    }
}
