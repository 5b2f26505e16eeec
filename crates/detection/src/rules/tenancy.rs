//! Which tenant's events meet which rules, how many alerts they may raise, and what alerts carry of them.
//!
//! Rules are compiled once for all tenants; what a tenant sees of them is a set of places. A rule for tenants never
//! sees an event that is of no tenant.

use super::RuleSet;
use super::bitmap::Bitmap;
use crate::sigma::Audience;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The field that says whose event it is: the platform's own events say it themselves, and for others the source they
/// came through does.
pub const TENANT_FIELD: &str = "metadata.tenant_uid";

/// What one tenant sees.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Of the rules for tenants, those its events meet.
    pub(crate) rules: Bitmap,
    /// Rules and correlations that raise no alerts of its events.
    pub(crate) silent: BTreeSet<Arc<str>>,
    /// Most alerts of one rule in one hour.
    pub(crate) alerts_max: u32,
    /// Most rules of its own, of which those beyond were refused when they were read.
    pub(crate) rules_max: usize,
    /// Whether alerts carry text of its events, or only the tuples that matched.
    pub(crate) shows_text: bool,
}

/// What tenants see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenancy {
    pub(crate) named: BTreeMap<Arc<str>, View>,
    /// What tenants see that are not named; none where rules are for the platform only.
    pub(crate) others: Option<View>,
}

impl Tenancy {
    pub(crate) fn view(&self, tenant: &str) -> Option<&View> {
        self.named.get(tenant).or(self.others.as_ref())
    }

    /// The same for those rules that are marked.
    pub(super) fn only(&self, marks: &[bool]) -> Self {
        let part = |view: &View| View { rules: view.rules.only(marks), ..view.clone() };
        Self {
            named: self.named.iter().map(|(name, view)| (name.clone(), part(view))).collect(),
            others: self.others.as_ref().map(part),
        }
    }
}

impl RuleSet {
    /// Whose alert it is when that rule matches an event of that tenant: nobody's where it is not for them to see.
    pub(crate) fn owner(&self, rule: usize, platform: &Arc<str>, tenant: Option<&str>) -> Option<Arc<str>> {
        if self.rules[rule].header.audience == Audience::Platform {
            return Some(platform.clone());
        }
        let tenant = tenant.filter(|tenant| !tenant.is_empty())?;
        self.tenancy.view(tenant).filter(|view| view.rules.has(rule)).map(|_| tenant.into())
    }

    /// Whether alerts carry text of that tenant's events: never where nothing says that they may, since alerts travel
    /// to every region. The platform's own events name no tenant here.
    pub(crate) fn shows_text(&self, tenant: Option<&str>) -> bool {
        tenant.is_none_or(|tenant| self.tenancy.view(tenant).is_some_and(|view| view.shows_text))
    }

    /// How many of the rules for tenants a tenant's events meet.
    pub fn rules_of_tenant(&self, tenant: &str) -> usize {
        self.tenancy.view(tenant).map_or(0, |view| view.rules.len())
    }

    /// Whether a tenant's events meet that rule, given as its place in [`Self::rules`].
    pub fn is_for_tenant(&self, rule: usize, tenant: &str) -> bool {
        self.tenancy.view(tenant).is_some_and(|view| view.rules.has(rule))
    }
}

impl Audience {
    /// Whose alerts a correlation raises, and whose state it keeps, for a group key: nobody's where that tenant's
    /// events are not for it to see. The group key of a correlation for tenants begins with the tenant.
    pub(crate) fn owner(&self, platform: &Arc<str>, group: &[String]) -> Option<Arc<str>> {
        match (self, group.first()) {
            (Self::Platform, _) => Some(platform.clone()),
            (Self::Tenants, Some(tenant)) if !tenant.is_empty() => Some(tenant.as_str().into()),
            (Self::Tenant(only), Some(tenant)) if **only == **tenant => Some(only.clone()),
            (Self::Tenants | Self::Tenant(_), _) => None,
        }
    }
}
