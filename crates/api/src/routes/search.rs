//! Events of the past: searched, hunted through, and the jobs that do so.

use crate::extract::{Json, NoQuery, Path, Query, Who};
use crate::guard::Api;
use crate::problem::Problem;
use crate::routes::{empty, json};
use crate::types::{ArchiveView, EventHunt, EventSearch, JobList, JobState, JobView};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use model::limit::NAME_BYTES_MAX;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Bytes of a query.
const QUERY_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a hunt's rules.
const RULES_BYTES_MAX: usize = 1024 * 1024;
/// Pipelines that a hunt's rules are read through.
const PIPELINES_MAX: usize = 8;
/// Rules a hunt may name.
const ONLY_MAX: usize = 1000;
/// Rows of a page of an answer.
const PAGE_ROWS_MAX: usize = 1000;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(search_events))
        .routes(routes!(hunt_events))
        .routes(routes!(event_jobs))
        .routes(routes!(event_job, cancel_event_job))
        .routes(routes!(event_archive))
}

fn check(tenant: Option<&String>, texts: &[(&str, Option<&String>, usize)]) -> Result<(), Problem> {
    if tenant.is_some_and(|tenant| tenant.len() > NAME_BYTES_MAX) {
        return Err(Problem::not_found("tenant"));
    }
    let too_long = texts.iter().find(|(_, text, max)| text.is_some_and(|text| text.len() > *max));
    too_long.map_or(Ok(()), |(at, _, max)| Err(Problem::invalid(*at, format!("more than {max} bytes"))))
}

fn answer(view: &JobView) -> Result<Response, Problem> {
    let status = if view.state == JobState::Running { StatusCode::ACCEPTED } else { StatusCode::OK };
    json(status, view)
}

/// Search the events of the past
///
/// The answer comes at once when it is ready in time, with 200; otherwise with 202, and is to be had from the job.
#[utoipa::path(post, path = "/v1/events/search", tag = "events", security(("session" = [])),
    request_body = EventSearch, responses((status = 200, body = JobView), (status = 202, body = JobView)))]
async fn search_events(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<EventSearch>,
) -> Result<Response, Problem> {
    let request = request.value;
    let texts = [("query", request.query.as_ref(), QUERY_BYTES_MAX), ("sql", request.sql.as_ref(), QUERY_BYTES_MAX)];
    check(request.tenant.as_ref(), &texts)?;
    if request.query.is_some() == request.sql.is_some() {
        return Err(Problem::invalid("query", "either query or sql"));
    }
    answer(&api.core.search_events(&who.caller, &who.session, request).await?)
}

/// Run detection rules over the events of the past
#[utoipa::path(post, path = "/v1/events/hunt", tag = "events", security(("session" = [])),
    request_body = EventHunt, responses((status = 200, body = JobView), (status = 202, body = JobView)))]
async fn hunt_events(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<EventHunt>,
) -> Result<Response, Problem> {
    let request = request.value;
    check(request.tenant.as_ref(), &[("rules", request.rules.as_ref(), RULES_BYTES_MAX)])?;
    if request.only.len() > ONLY_MAX {
        return Err(Problem::invalid("only", format!("more than {ONLY_MAX} rules")));
    }
    let pipelines = &request.pipelines;
    if pipelines.len() > PIPELINES_MAX || pipelines.iter().map(String::len).sum::<usize>() > RULES_BYTES_MAX {
        let detail = format!("more than {PIPELINES_MAX} pipelines, or {RULES_BYTES_MAX} bytes of them");
        return Err(Problem::invalid("pipelines", detail));
    }
    if request.rules.is_none() && !pipelines.is_empty() {
        return Err(Problem::invalid("pipelines", "they are for rules that are sent: the node's own have theirs"));
    }
    answer(&api.core.hunt_events(&who.caller, &who.session, request).await?)
}

/// List searches and hunts that are running or ended within the hour
#[utoipa::path(get, path = "/v1/events/jobs", tag = "events", security(("session" = [])),
    responses((status = 200, body = JobList)))]
async fn event_jobs(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.event_jobs(&who.caller, &who.session).await?)
}

/// Which rows of a job.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobQuery {
    /// Rows after this many: `next` of the page before.
    after: Option<usize>,
    /// Rows of a page: 1 to 1000, 1000 when not given.
    limit: Option<usize>,
}

fn id(text: &str) -> Result<u128, Problem> {
    let known = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten();
    known.ok_or(Problem::not_found("job"))
}

/// Get a search or hunt: how far it is, and what it found
#[utoipa::path(get, path = "/v1/events/jobs/{id}", tag = "events", security(("session" = [])),
    params(("id" = String, Path), JobQuery), responses((status = 200, body = JobView)))]
async fn event_job(
    State(api): State<Api>,
    who: Who,
    Path(text): Path<String>,
    Query(query): Query<JobQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(PAGE_ROWS_MAX);
    if !(1..=PAGE_ROWS_MAX).contains(&limit) {
        return Err(Problem::invalid("limit", format!("1 to {PAGE_ROWS_MAX}")));
    }
    let view = api.core.event_job(&who.caller, &who.session, id(&text)?, query.after.unwrap_or(0), limit).await?;
    json(StatusCode::OK, &view)
}

/// Cancel a search or hunt, or forget one that has ended
#[utoipa::path(delete, path = "/v1/events/jobs/{id}", tag = "events", security(("session" = [])),
    params(("id" = String, Path)), responses((status = 204)))]
async fn cancel_event_job(
    State(api): State<Api>,
    who: Who,
    Path(text): Path<String>,
    _: NoQuery,
) -> Result<Response, Problem> {
    api.core.cancel_event_job(&who.caller, &who.session, id(&text)?).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Get what this node's archive holds
#[utoipa::path(get, path = "/v1/events/archive", tag = "events", security(("session" = [])),
    responses((status = 200, body = ArchiveView)))]
async fn event_archive(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.event_archive(&who.caller, &who.session).await?)
}
