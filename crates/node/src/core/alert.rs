//! Alerts as people see them: the platform's SOC sees all, a tenant's own sees those of the tenant's rules.

use super::incident::{paged_by, resource, severity};
use crate::driver::book::{self, Stored};
use crate::machine::command::Select;
use crate::machine::control::platform;
use crate::node::Node;
use api::core::Answer;
use api::problem::Problem;
use api::types::{AlertDetail, AlertEvent, AlertFilter, AlertList, AlertView, Caller};
use detection::incident::entity;
use detection::{AlertId, EventSummary};
use identity::{Action, Session};
use model::TenantId;
use std::collections::BTreeSet;

impl Node {
    /// Alerts, newest first.
    pub(crate) async fn alerts(&self, caller: &Caller, session: &Session, filter: &AlertFilter) -> Answer<AlertList> {
        let own = self.may_see_alerts(caller, session, "alerts").await?;
        let of = filter.entity.as_ref().map(|(kind, name)| {
            entity::parse(kind, name).ok_or_else(|| Problem::invalid("entity", "kind and name, such as user:ann"))
        });
        let of = of.transpose()?;
        let mut found = book::stored_alerts(self, |stored| {
            let alert = &stored.alert;
            let is_of = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
            (filter.superseded || stored.superseded_by.is_none())
                && is_of(&own, &alert.tenant)
                && is_of(&filter.tenant, &alert.tenant)
                && is_of(&filter.rule, &alert.rule.id)
                && filter.severity.is_none_or(|least| severity(alert.severity) >= least)
                && filter.from_ms.is_none_or(|from_ms| alert.last_ms >= from_ms)
                && filter.to_ms.is_none_or(|to_ms| alert.last_ms < to_ms)
                && of.as_ref().is_none_or(|entity| alert.entities.contains(entity))
        })?;
        found.sort_by_cached_key(|stored| std::cmp::Reverse(place(stored)));
        let (found, next) = paged_by(found, &filter.page, place);
        let alerts = self.homes(&found).await?;
        Ok(AlertList { alerts, next })
    }

    /// One alert with its events.
    pub(crate) async fn alert(&self, caller: &Caller, session: &Session, id: &str) -> Answer<AlertDetail> {
        let own = self.may_see_alerts(caller, session, &resource("alerts", id)).await?;
        let id: AlertId = id.parse().map_err(|_| Problem::not_found("alert"))?;
        let found = self.platform_records(platform::ALERTS, &Select::Key(id.to_string()))?;
        let stored = found.records.first().and_then(|(_, record)| Stored::of(record));
        let is_own = |stored: &Stored| own.as_ref().is_none_or(|own| **own == *stored.alert.tenant);
        let stored = stored.filter(is_own).ok_or(Problem::not_found("alert"))?;
        let view = self.homes(std::slice::from_ref(&stored)).await?.pop().ok_or(Problem::Internal)?;
        Ok(detail(stored, view))
    }

    /// `None` where all are to be seen, else the tenant whose alerts are.
    pub(super) async fn may_see_alerts(
        &self,
        caller: &Caller,
        session: &Session,
        what: &str,
    ) -> Answer<Option<String>> {
        self.permit(caller, session, Action::IncidentRead, session.tenant(), what).await?;
        self.viewed(caller, session, what).await?;
        if session.tenant() == TenantId::PLATFORM {
            return Ok(None);
        }
        let own = self.control().tenants.get(&session.tenant()).map(|tenant| tenant.name.clone());
        own.map(Some).ok_or(Problem::not_found("tenant"))
    }

    /// Views, with the incident each is filed under.
    async fn homes(&self, found: &[Stored]) -> Answer<Vec<AlertView>> {
        let homes = book::look(self, |desk| {
            let home = |stored: &Stored| desk.board().home(stored.alert.id).map(|id| id.to_string());
            found.iter().map(home).collect::<Vec<Option<String>>>()
        });
        Ok(found.iter().zip(homes.await?).map(|(stored, incident)| view(stored, incident)).collect())
    }
}

/// Where an alert is in the list: it stays there, whatever comes before it meanwhile.
fn place(stored: &Stored) -> String {
    format!("{:020}-{}", stored.alert.last_ms, stored.alert.id)
}

fn view(stored: &Stored, incident: Option<String>) -> AlertView {
    AlertView {
        count: stored.count,
        superseded_by: stored.superseded_by.clone(),
        ..super::incident::alert_view(&stored.alert, incident)
    }
}

fn detail(stored: Stored, view: AlertView) -> AlertDetail {
    let Stored { alert, last_ms, .. } = stored;
    AlertDetail {
        alert: view,
        semantic_hash: alert.rule.semantic_hash.to_string(),
        tags: alert.rule.tags.iter().map(ToString::to_string).collect(),
        entities: texts(&alert.entities),
        first_ms: alert.first_ms,
        last_ms: last_ms.unwrap_or(alert.last_ms),
        late: alert.late,
        clamped: alert.clamped,
        events: alert.events.iter().map(|summary| event(summary)).collect(),
    }
}

fn event(summary: &EventSummary) -> AlertEvent {
    AlertEvent {
        id: summary.id.to_string(),
        time_ms: summary.time_ms,
        class_uid: summary.class_uid,
        activity_id: summary.activity_id,
        text: summary.text.clone(),
        entities: texts(&summary.entities),
    }
}

fn texts(entities: &BTreeSet<detection::Entity>) -> Vec<String> {
    entities.iter().map(entity::text).collect()
}
