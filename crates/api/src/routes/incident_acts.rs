//! What people do to incidents: one route for each act.
//!
//! Every act takes `If-Match`: with it, nothing is done to an incident that is not as the client saw it. Without it
//! nothing is lost either, for acts are added to the history and never overwrite it.

use crate::extract::{Json, NoQuery, Who};
use crate::guard::Api;
use crate::headers::ReadHead;
use crate::problem::Problem;
use crate::routes::incidents::{Id, tagged};
use crate::types::{
    Assign, Close, Comment, IncidentAction, IncidentView, MeetClock, Merge, Precondition, SetPriority, SetSeverity,
    SetStatus, Split, StartClock, StopClock, Suppress, Undo,
};
use axum::extract::State;
use axum::response::Response;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Bytes of a text somebody writes about an incident.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Incidents merged, or alerts split off, by one request.
const TOGETHER_MAX: usize = 256;

/// What must be true of an incident for an act, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only its description is used")]
pub(crate) struct IncidentHeaderDoc {
    /// The `ETag` of the incident as the client saw it: 412 if something was done since.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
}

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(acknowledge))
        .routes(routes!(assign))
        .routes(routes!(unassign))
        .routes(routes!(comment))
        .routes(routes!(set_status))
        .routes(routes!(set_severity))
        .routes(routes!(set_priority))
        .routes(routes!(post_mortem))
        .routes(routes!(close))
        .routes(routes!(merge))
        .routes(routes!(split))
        .routes(routes!(undo))
        .routes(routes!(suppress))
        .routes(routes!(unsuppress))
        .routes(routes!(start_clock))
        .routes(routes!(meet_clock))
        .routes(routes!(stop_clock))
}

async fn act(api: &Api, who: &Who, id: &Id, action: IncidentAction, head: ReadHead) -> Result<Response, Problem> {
    if matches!(head.precondition, Precondition::Absent | Precondition::Differs(_)) {
        return Err(Problem::invalid("If-None-Match", "acts take If-Match only"));
    }
    let view = api.core.act_on_incident(&who.caller, &who.session, &id.0, action, head.precondition).await?;
    tagged(&view, Some(&view.etag), &Precondition::Unstated)
}

/// A text somebody wrote is neither empty nor a book.
pub(crate) fn check_text(at: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(Problem::invalid(at, format!("1 to {TEXT_BYTES_MAX} bytes of text")));
    }
    Ok(())
}

fn check_why(why: Option<&str>) -> Result<(), Problem> {
    why.map_or(Ok(()), |why| check_text("why", why))
}

fn check_several(at: &str, items: &[String]) -> Result<(), Problem> {
    match items.len() {
        1..=TOGETHER_MAX => Ok(()),
        count => Err(Problem::invalid(at, format!("1 to {TOGETHER_MAX} of them, not {count}"))),
    }
}

/// Acknowledge an incident
///
/// Whoever is called about it is called no more, until it becomes graver or opens again.
#[utoipa::path(post, path = "/v1/incidents/{id}/acknowledge", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), responses((status = 200, body = IncidentView)))]
async fn acknowledge(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
) -> Result<Response, Problem> {
    act(&api, &who, &id, IncidentAction::Acknowledge, head).await
}

/// Give an incident to somebody
#[utoipa::path(post, path = "/v1/incidents/{id}/assign", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = Assign,
    responses((status = 200, body = IncidentView)))]
async fn assign(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<Assign>,
) -> Result<Response, Problem> {
    check_text("assignee", &request.value.assignee)?;
    act(&api, &who, &id, IncidentAction::Assign(request.value), head).await
}

/// Give an incident to nobody
#[utoipa::path(post, path = "/v1/incidents/{id}/unassign", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), responses((status = 200, body = IncidentView)))]
async fn unassign(State(api): State<Api>, who: Who, id: Id, _: NoQuery, head: ReadHead) -> Result<Response, Problem> {
    act(&api, &who, &id, IncidentAction::Unassign, head).await
}

/// Comment on an incident
#[utoipa::path(post, path = "/v1/incidents/{id}/comments", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = Comment,
    responses((status = 200, body = IncidentView)))]
async fn comment(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<Comment>,
) -> Result<Response, Problem> {
    check_text("text", &request.value.text)?;
    act(&api, &who, &id, IncidentAction::Comment(request.value), head).await
}

/// Move an incident in its life
///
/// To `in_progress`, `on_hold` or `resolved`; it is closed by its own route, and opening it again needs a reason.
#[utoipa::path(post, path = "/v1/incidents/{id}/status", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = SetStatus,
    responses((status = 200, body = IncidentView)))]
async fn set_status(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<SetStatus>,
) -> Result<Response, Problem> {
    check_why(request.value.why.as_deref())?;
    act(&api, &who, &id, IncidentAction::SetStatus(request.value), head).await
}

/// Say how grave an incident is
#[utoipa::path(post, path = "/v1/incidents/{id}/severity", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = SetSeverity,
    responses((status = 200, body = IncidentView)))]
async fn set_severity(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<SetSeverity>,
) -> Result<Response, Problem> {
    check_why(request.value.why.as_deref())?;
    act(&api, &who, &id, IncidentAction::SetSeverity(request.value), head).await
}

/// Say how urgent an incident is
#[utoipa::path(post, path = "/v1/incidents/{id}/priority", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = SetPriority,
    responses((status = 200, body = IncidentView)))]
async fn set_priority(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<SetPriority>,
) -> Result<Response, Problem> {
    check_why(request.value.why.as_deref())?;
    act(&api, &who, &id, IncidentAction::SetPriority(request.value), head).await
}

/// Write the post-mortem of an incident
///
/// A later one replaces it; the history keeps both.
#[utoipa::path(post, path = "/v1/incidents/{id}/post-mortem", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = Comment,
    responses((status = 200, body = IncidentView)))]
async fn post_mortem(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<Comment>,
) -> Result<Response, Problem> {
    check_text("text", &request.value.text)?;
    act(&api, &who, &id, IncidentAction::PostMortem(request.value), head).await
}

/// Close an incident
///
/// Not without its cause and what was done, which are added to its post-mortem, unless one was written before; not while
/// a duty to report is open.
#[utoipa::path(post, path = "/v1/incidents/{id}/close", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = Close,
    responses((status = 200, body = IncidentView)))]
async fn close(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<Close>,
) -> Result<Response, Problem> {
    match (&request.value.cause, &request.value.actions) {
        (Some(cause), Some(actions)) => {
            check_text("cause", cause)?;
            check_text("actions", actions)?;
        }
        (None, None) => {}
        _ => {
            return Err(Problem::invalid(
                "cause",
                "say both cause and actions, or neither where it is written already",
            ));
        }
    }
    act(&api, &who, &id, IncidentAction::Close(request.value), head).await
}

/// Make several incidents one
///
/// The others go up in this one. Each merge is a change of its own, which can be undone. If one of them is refused,
/// those before it stand.
#[utoipa::path(post, path = "/v1/incidents/{id}/merge", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = Merge,
    responses((status = 200, body = IncidentView)))]
async fn merge(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<Merge>,
) -> Result<Response, Problem> {
    check_several("incidents", &request.value.incidents)?;
    check_why(request.value.why.as_deref())?;
    act(&api, &who, &id, IncidentAction::Merge(request.value), head).await
}

/// Make another incident of some of the alerts
#[utoipa::path(post, path = "/v1/incidents/{id}/split", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = Split,
    responses((status = 200, body = IncidentView)))]
async fn split(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<Split>,
) -> Result<Response, Problem> {
    check_several("alerts", &request.value.alerts)?;
    check_why(request.value.why.as_deref())?;
    act(&api, &who, &id, IncidentAction::Split(request.value), head).await
}

/// Undo a merge, a split, or an undoing
#[utoipa::path(post, path = "/v1/incidents/{id}/undo", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = Undo,
    responses((status = 200, body = IncidentView)))]
async fn undo(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<Undo>,
) -> Result<Response, Problem> {
    check_text("why", &request.value.why)?;
    act(&api, &who, &id, IncidentAction::Undo(request.value), head).await
}

/// Let the notifications of an incident rest for a while
///
/// Its risk goes on, and what becomes graver breaks through.
#[utoipa::path(post, path = "/v1/incidents/{id}/suppress", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = Suppress,
    responses((status = 200, body = IncidentView)))]
async fn suppress(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<Suppress>,
) -> Result<Response, Problem> {
    check_text("why", &request.value.why)?;
    act(&api, &who, &id, IncidentAction::Suppress(request.value), head).await
}

/// Let the notifications of an incident come again
#[utoipa::path(post, path = "/v1/incidents/{id}/unsuppress", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), responses((status = 200, body = IncidentView)))]
async fn unsuppress(State(api): State<Api>, who: Who, id: Id, _: NoQuery, head: ReadHead) -> Result<Response, Problem> {
    act(&api, &who, &id, IncidentAction::Unsuppress, head).await
}

/// Start a duty to report
///
/// It runs from the moment the matter became known. An incident is not closed while one is open.
#[utoipa::path(post, path = "/v1/incidents/{id}/clocks", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = StartClock,
    responses((status = 200, body = IncidentView)))]
async fn start_clock(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<StartClock>,
) -> Result<Response, Problem> {
    check_text("subject", &request.value.subject)?;
    check_why(request.value.why.as_deref())?;
    act(&api, &who, &id, IncidentAction::StartClock(request.value), head).await
}

/// Say that a duty to report was met
#[utoipa::path(post, path = "/v1/incidents/{id}/clocks/met", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = MeetClock,
    responses((status = 200, body = IncidentView)))]
async fn meet_clock(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<MeetClock>,
) -> Result<Response, Problem> {
    check_text("subject", &request.value.subject)?;
    check_text("reference", &request.value.reference)?;
    act(&api, &who, &id, IncidentAction::MeetClock(request.value), head).await
}

/// Say that a duty to report does not exist after all
#[utoipa::path(post, path = "/v1/incidents/{id}/clocks/stopped", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = StopClock,
    responses((status = 200, body = IncidentView)))]
async fn stop_clock(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<StopClock>,
) -> Result<Response, Problem> {
    check_text("subject", &request.value.subject)?;
    check_text("why", &request.value.why)?;
    act(&api, &who, &id, IncidentAction::StopClock(request.value), head).await
}
