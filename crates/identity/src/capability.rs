//! Capabilities: the decisions Cedar made about a subject, remembered so that a request costs a map look-up.
//!
//! Cedar decides; the capability only remembers. Policies cannot tell one table from another, except by how much of
//! it a grant covers, nor one customer from another, except for the subject's own: so a few questions stand for all.
//! It is of one (account, epoch, second factor) and must never serve another: derive it again when the account
//! changes. Deriving asks dozens of questions for each grant: callers keep the result, in a bounded cache.

use crate::policy::{Denied, Policy, Resource, Subject, Verdict};
use crate::role::{Action, Cover, Grant};
use crate::{Decision, FieldMask};
use model::{TableId, TenantId};
use std::collections::{BTreeMap, BTreeSet};

/// What a subject may do, in its own tenant and beyond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    tenant: TenantId,
    grants: Vec<Grant>,
    /// One verdict per action, kind of tenant, cover and grant.
    verdicts: BTreeMap<(Action, Place, Cover), Vec<Verdict>>,
}

/// The kinds of tenant that policies can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Own,
    Platform,
    Customer,
}

impl Place {
    fn of(own: TenantId, tenant: TenantId) -> Self {
        match tenant {
            tenant if tenant == own => Self::Own,
            TenantId::PLATFORM => Self::Platform,
            _ => Self::Customer,
        }
    }
}

impl Capability {
    /// Asks Cedar every question that could come up.
    pub fn derive(policy: &Policy, subject: Subject<'_>) -> Self {
        let own = subject.account.tenant;
        // Some customer that is not the subject's own.
        let customer = TenantId::new(if own.get() == u64::MAX { 1 } else { u64::MAX });
        let places = [(Place::Own, own), (Place::Platform, TenantId::PLATFORM), (Place::Customer, customer)];
        let mut verdicts = BTreeMap::new();
        for (place, tenant) in places {
            if Place::of(own, tenant) != place {
                continue;
            }
            let table = policy.scene(subject, Resource::Table(tenant, TableId::new(0)));
            let whole = policy.scene(subject, Resource::Tenant(tenant));
            for action in Action::ALL.iter().copied() {
                let (scene, covers) =
                    if action.is_of_table() { (&table, &Cover::ALL[..]) } else { (&whole, &[Cover::Whole][..]) };
                // Without a scene nothing is remembered, which denies.
                let Some(scene) = scene else { continue };
                for cover in covers.iter().copied() {
                    let grants = subject.account.grants.iter();
                    let judged = grants.map(|grant| policy.judge(scene, grant, cover, action)).collect();
                    verdicts.insert((action, place, cover), judged);
                }
            }
        }
        Self { tenant: own, grants: subject.account.grants.clone(), verdicts }
    }

    /// The tenant whose data it reaches.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Whether `action` is allowed on a table of the subject's tenant, and which of its fields it reaches.
    pub fn allows(&self, action: Action, table: TableId) -> Decision {
        self.decide(action, Resource::Table(self.tenant, table))
    }

    /// Whether `action` is allowed on a tenant, or on the platform.
    pub fn permits(&self, action: Action, tenant: TenantId) -> Result<(), Denied> {
        self.decide(action, Resource::Tenant(tenant)).map(|_| ())
    }

    /// What [`Policy::decide`] would say.
    pub fn decide(&self, action: Action, resource: Resource) -> Decision {
        let (tenant, table) = match resource {
            Resource::Tenant(tenant) => (tenant, None),
            Resource::Table(tenant, table) => (tenant, Some(table)),
        };
        let place = Place::of(self.tenant, tenant);
        let mut shown: Option<FieldMask> = None;
        let mut denied = Denied { action, fences: BTreeSet::new() };
        if action.is_of_table() != table.is_some() {
            return Err(denied);
        }
        for (index, grant) in self.grants.iter().enumerate() {
            let (cover, mask) = match table {
                None => (Cover::Whole, FieldMask::whole()),
                Some(table) => (grant.cover(table), grant.mask(table)),
            };
            match self.verdicts.get(&(action, place, cover)).and_then(|verdicts| verdicts.get(index)) {
                Some(Ok(())) => shown = Some(shown.map_or(mask.clone(), |shown| shown.union(mask))),
                Some(Err(fences)) => denied.fences.extend(fences.iter().cloned()),
                None => {}
            }
        }
        shown.ok_or(denied)
    }
}
