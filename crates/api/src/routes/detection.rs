//! Events in, alerts and incidents out.

use crate::extract::{Json, NoQuery, Path, Query, Who, body};
use crate::guard::Api;
use crate::limit::{EVENT_BYTES_MAX, EVENTS_MAX, VIOLATIONS_MAX};
use crate::page::Seal;
use crate::problem::{Problem, Violation};
use crate::routes::json;
use crate::routes::list::{ListQuery, page, seal_next};
use crate::types::{
    AlertList, Assign, Close, Comment, IncidentAction, IncidentFilter, IncidentList, IncidentStatus, IncidentView,
    Ingested,
};
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use model::limit::NAME_BYTES_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Bytes of a text somebody writes about an incident.
const TEXT_BYTES_MAX: usize = 8 * 1024;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(ingest))
        .routes(routes!(alerts))
        .routes(routes!(incidents))
        .routes(routes!(incident))
        .routes(routes!(acknowledge))
        .routes(routes!(assign))
        .routes(routes!(comment))
        .routes(routes!(close))
}

/// Where events come from.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceQuery {
    /// The source's name, for rules: `http` when not given.
    source: Option<String>,
}

/// Lines of JSON objects: all are well-formed, or none is taken.
pub(crate) struct Lines(Vec<Bytes>);

impl FromRequest<Api> for Lines {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        lines(&body(request, "application/x-ndjson").await?).map(Self)
    }
}

fn lines(bytes: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let mut events = Vec::new();
    let mut violations = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match check_line(line) {
            Ok(()) => events.push(bytes.slice_ref(line)),
            Err(message) => violations.push(Violation { at: format!("line {}", index + 1), message }),
        }
        if violations.len() >= VIOLATIONS_MAX {
            break;
        }
        if events.len() > EVENTS_MAX {
            return Err(Problem::invalid("body", format!("more than {EVENTS_MAX} events")));
        }
    }
    match (violations.is_empty(), events.is_empty()) {
        (false, _) => Err(Problem::Invalid { violations }),
        (true, true) => Err(Problem::invalid("body", "no events")),
        (true, false) => Ok(events),
    }
}

fn check_line(line: &[u8]) -> Result<(), String> {
    if line.len() > EVENT_BYTES_MAX {
        return Err(format!("{} bytes; {EVENT_BYTES_MAX} are allowed", line.len()));
    }
    if line[0] != b'{' {
        return Err("not a JSON object".into());
    }
    serde_json::from_slice::<&RawValue>(line).map(|_| ()).map_err(|error| format!("not JSON: {error}"))
}

/// Send events to the detection pipeline
///
/// One JSON object a line. The answer comes when they are durable; all are taken, or none.
#[utoipa::path(post, path = "/v1/events", tag = "detection", security(("session" = [])), params(SourceQuery),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 202, body = Ingested)))]
async fn ingest(
    State(api): State<Api>,
    who: Who,
    Query(query): Query<SourceQuery>,
    Lines(lines): Lines,
) -> Result<Response, Problem> {
    let source = query.source.as_deref().unwrap_or("http");
    model::schema::check_name(source).map_err(|error| Problem::invalid("source", error.to_string()))?;
    json(StatusCode::ACCEPTED, &api.core.ingest(&who.caller, &who.session, source, lines).await?)
}

/// List alerts, newest first
#[utoipa::path(get, path = "/v1/alerts", tag = "detection", security(("session" = [])), params(ListQuery),
    responses((status = 200, body = AlertList)))]
async fn alerts(State(api): State<Api>, who: Who, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let seal = Seal::new(&*api.core, &who.session, "alerts", &[]);
    let mut list = api.core.alerts(&who.caller, &who.session, &query.page(&seal)?).await?;
    seal_next(&seal, &mut list.next);
    json(StatusCode::OK, &list)
}

/// Which incidents.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncidentQuery {
    /// Only with this status.
    #[param(inline)]
    status: Option<IncidentStatus>,
    /// Only of this tenant.
    tenant: Option<String>,
    /// Incidents of a page: 1 to 500, 100 when not given.
    limit: Option<usize>,
    /// `next_page_token` of the page before; the other parameters must be the same.
    page_token: Option<String>,
}

/// List incidents, newest first
#[utoipa::path(get, path = "/v1/incidents", tag = "detection", security(("session" = [])), params(IncidentQuery),
    responses((status = 200, body = IncidentList)))]
async fn incidents(State(api): State<Api>, who: Who, Query(query): Query<IncidentQuery>) -> Result<Response, Problem> {
    if query.tenant.as_ref().is_some_and(|tenant| tenant.len() > NAME_BYTES_MAX) {
        return Err(Problem::not_found("tenant"));
    }
    let status = query.status.map(|status| format!("{status:?}"));
    let seal = Seal::new(&*api.core, &who.session, "incidents", &[status.as_deref(), query.tenant.as_deref()]);
    let page = page(&seal, query.limit, query.page_token.as_deref())?;
    let filter = IncidentFilter { status: query.status, tenant: query.tenant, page };
    let mut list = api.core.incidents(&who.caller, &who.session, &filter).await?;
    seal_next(&seal, &mut list.next);
    json(StatusCode::OK, &list)
}

/// The id of an incident in the path.
pub(crate) struct IncidentId(String);

impl axum::extract::FromRequestParts<Api> for IncidentId {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut http::request::Parts, api: &Api) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, api).await?;
        let fits =
            id.len() <= NAME_BYTES_MAX && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits { Ok(Self(id)) } else { Err(Problem::not_found("incident")) }
    }
}

async fn act(api: &Api, who: &Who, id: &str, action: IncidentAction) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.act_on_incident(&who.caller, &who.session, id, action).await?)
}

/// A text somebody wrote is neither empty nor a book.
fn check_text(at: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(Problem::invalid(at, format!("1 to {TEXT_BYTES_MAX} bytes of text")));
    }
    Ok(())
}

/// Get an incident with its alerts and events
#[utoipa::path(get, path = "/v1/incidents/{id}", tag = "detection", security(("session" = [])),
    params(("id" = String, Path)), responses((status = 200, body = IncidentView)))]
async fn incident(State(api): State<Api>, who: Who, id: IncidentId, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.incident(&who.caller, &who.session, &id.0).await?)
}

/// Acknowledge an incident
#[utoipa::path(post, path = "/v1/incidents/{id}/acknowledge", tag = "detection", security(("session" = [])),
    params(("id" = String, Path)), responses((status = 200, body = IncidentView)))]
async fn acknowledge(State(api): State<Api>, who: Who, id: IncidentId, _: NoQuery) -> Result<Response, Problem> {
    act(&api, &who, &id.0, IncidentAction::Acknowledge).await
}

/// Give an incident to somebody
#[utoipa::path(post, path = "/v1/incidents/{id}/assign", tag = "detection", security(("session" = [])),
    params(("id" = String, Path)), request_body = Assign, responses((status = 200, body = IncidentView)))]
async fn assign(
    State(api): State<Api>,
    who: Who,
    id: IncidentId,
    _: NoQuery,
    request: Json<Assign>,
) -> Result<Response, Problem> {
    check_text("assignee", &request.value.assignee)?;
    act(&api, &who, &id.0, IncidentAction::Assign(request.value)).await
}

/// Comment on an incident
#[utoipa::path(post, path = "/v1/incidents/{id}/comments", tag = "detection", security(("session" = [])),
    params(("id" = String, Path)), request_body = Comment, responses((status = 200, body = IncidentView)))]
async fn comment(
    State(api): State<Api>,
    who: Who,
    id: IncidentId,
    _: NoQuery,
    request: Json<Comment>,
) -> Result<Response, Problem> {
    check_text("text", &request.value.text)?;
    act(&api, &who, &id.0, IncidentAction::Comment(request.value)).await
}

/// Close an incident
///
/// Not without its cause and what was done.
#[utoipa::path(post, path = "/v1/incidents/{id}/close", tag = "detection", security(("session" = [])),
    params(("id" = String, Path)), request_body = Close, responses((status = 200, body = IncidentView)))]
async fn close(
    State(api): State<Api>,
    who: Who,
    id: IncidentId,
    _: NoQuery,
    request: Json<Close>,
) -> Result<Response, Problem> {
    check_text("cause", &request.value.cause)?;
    check_text("actions", &request.value.actions)?;
    act(&api, &who, &id.0, IncidentAction::Close(request.value)).await
}
