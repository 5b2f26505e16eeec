//! Alerts as they are read.

use crate::extract::{NoQuery, Path, Query, Who};
use crate::guard::Api;
use crate::page::Seal;
use crate::problem::Problem;
use crate::routes::json;
use crate::routes::list::{bounded, entity, page, seal_next};
use crate::types::{AlertDetail, AlertFilter, AlertList, Severity};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(alerts)).routes(routes!(alert))
}

/// Which alerts.
#[derive(Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlertQuery {
    /// Only of the rule with this id.
    rule: Option<String>,
    /// Only so grave or graver.
    #[param(inline)]
    severity: Option<Severity>,
    /// Only of this tenant.
    tenant: Option<String>,
    /// Only those that concern this entity: kind and name, such as `user:ann`.
    entity: Option<String>,
    /// Only those completed at this time or later: milliseconds since 1970.
    from_ms: Option<u64>,
    /// Only those completed before this time.
    to_ms: Option<u64>,
    /// Whether those that no longer stand, because a late event changed them, are wanted too.
    superseded: Option<bool>,
    /// Alerts of a page: 1 to 500, 100 when not given.
    #[serde(skip_serializing)]
    limit: Option<usize>,
    /// `next_page_token` of the page before; the other parameters must be the same.
    #[serde(skip_serializing)]
    page_token: Option<String>,
}

impl AlertQuery {
    /// What a page token is bound to: everything that decides which alerts are in the list.
    fn sealed(&self) -> Result<String, Problem> {
        serde_json::to_string(self).map_err(|_| Problem::Internal)
    }

    fn filter(self, seal: &Seal) -> Result<AlertFilter, Problem> {
        bounded([("rule", &self.rule), ("tenant", &self.tenant), ("entity", &self.entity)])?;
        Ok(AlertFilter {
            rule: self.rule,
            severity: self.severity,
            tenant: self.tenant,
            entity: self.entity.as_deref().map(entity).transpose()?,
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            superseded: self.superseded.unwrap_or(false),
            page: page(seal, self.limit, self.page_token.as_deref())?,
        })
    }
}

/// List alerts, newest first
#[utoipa::path(get, path = "/v1/alerts", tag = "detection", security(("session" = [])), params(AlertQuery),
    responses((status = 200, body = AlertList)))]
async fn alerts(State(api): State<Api>, who: Who, Query(query): Query<AlertQuery>) -> Result<Response, Problem> {
    let sealed = query.sealed()?;
    let seal = Seal::new(&*api.core, &who.session, "alerts", &[Some(&sealed)]);
    let mut list = api.core.alerts(&who.caller, &who.session, &query.filter(&seal)?).await?;
    seal_next(&seal, &mut list.next);
    json(StatusCode::OK, &list)
}

/// Read an alert with its events
#[utoipa::path(get, path = "/v1/alerts/{id}", tag = "detection", security(("session" = [])),
    params(("id" = String, Path, description = "The alert's id.")),
    responses((status = 200, body = AlertDetail)))]
async fn alert(State(api): State<Api>, who: Who, Path(id): Path<String>, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.alert(&who.caller, &who.session, &id).await?)
}
