//! Who is called when: the policy, who is on call, and what runs.

use crate::extract::{Json, NoQuery, Query, Who};
use crate::guard::Api;
use crate::headers::{PreconditionDoc, ReadHead};
use crate::problem::Problem;
use crate::routes::incidents::tagged;
use crate::routes::json;
use crate::types::{ApplyPolicy, EscalationList, OnCallList, PolicyView, Precondition};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Bytes of a policy document: it is stored in one field.
const POLICY_BYTES_MAX: usize = 48 * 1024;
/// Bytes of a reason.
const WHY_BYTES_MAX: usize = 2 * 1024;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(policy, apply_policy)).routes(routes!(on_call)).routes(routes!(escalations))
}

/// Get the escalation policy as it was last applied
#[utoipa::path(get, path = "/v1/escalation/policy", tag = "escalation", security(("session" = [])),
    responses((status = 200, body = PolicyView, headers(("ETag" = String))), (status = 304)))]
async fn policy(State(api): State<Api>, who: Who, _: NoQuery, head: ReadHead) -> Result<Response, Problem> {
    let view = api.core.escalation_policy(&who.caller, &who.session).await?;
    tagged(&view, Some(&view.etag), &head.precondition)
}

/// Replace the escalation policy
///
/// The document is checked whole: one with a fault is not taken, and every fault is told with its line. An existing
/// policy is replaced only with `If-Match`; earlier revisions are kept.
#[utoipa::path(put, path = "/v1/escalation/policy", tag = "escalation", security(("session" = [])),
    params(PreconditionDoc), request_body = ApplyPolicy,
    responses((status = 200, body = PolicyView, headers(("ETag" = String)))))]
async fn apply_policy(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    head: ReadHead,
    request: Json<ApplyPolicy>,
) -> Result<Response, Problem> {
    let ApplyPolicy { text, why } = &request.value;
    if text.trim().is_empty() || text.len() > POLICY_BYTES_MAX {
        return Err(Problem::invalid("text", format!("1 to {POLICY_BYTES_MAX} bytes of TOML")));
    }
    if why.as_ref().is_some_and(|why| why.len() > WHY_BYTES_MAX) {
        return Err(Problem::invalid("why", format!("at most {WHY_BYTES_MAX} bytes")));
    }
    let (caller, session) = (&who.caller, &who.session);
    let view = api.core.apply_escalation_policy(caller, session, request.value, head.precondition).await?;
    tagged(&view, Some(&view.etag), &Precondition::Unstated)
}

/// When.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnCallQuery {
    /// Milliseconds since 1970; now when not given.
    at_ms: Option<u64>,
}

/// Say who is on call
#[utoipa::path(get, path = "/v1/escalation/on-call", tag = "escalation", security(("session" = [])),
    params(OnCallQuery), responses((status = 200, body = OnCallList)))]
async fn on_call(State(api): State<Api>, who: Who, Query(query): Query<OnCallQuery>) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.on_call(&who.caller, &who.session, query.at_ms).await?)
}

/// Say who is being called about what
#[utoipa::path(get, path = "/v1/escalations", tag = "escalation", security(("session" = [])),
    responses((status = 200, body = EscalationList)))]
async fn escalations(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.escalations(&who.caller, &who.session).await?)
}
