//! Tickets: opened from incidents, worked on, and told to other systems.

use crate::extract::{Json, NoQuery, Query, Who};
use crate::guard::Api;
use crate::headers::ReadHead;
use crate::page::Seal;
use crate::problem::Problem;
use crate::routes::incident_acts::IncidentHeaderDoc;
use crate::routes::incidents::{Id, tagged};
use crate::routes::json;
use crate::routes::list::{bounded, page, seal_next};
use crate::types::{ChangeTicket, NewTicket, Precondition, TicketFilter, TicketList, TicketState, TicketView};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(tickets, open_ticket)).routes(routes!(ticket, change_ticket))
}

/// Which tickets.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct TicketQuery {
    /// Only about this incident.
    incident: Option<String>,
    /// Only of this queue.
    queue: Option<String>,
    /// Only where the work stands so.
    #[param(inline)]
    state: Option<TicketState>,
    /// Tickets of a page: 1 to 500, 100 when not given.
    limit: Option<usize>,
    /// `next_page_token` of the page before; the other parameters must be the same.
    page_token: Option<String>,
}

/// List tickets, those that changed last first
#[utoipa::path(get, path = "/v1/tickets", tag = "tickets", security(("session" = [])), params(TicketQuery),
    responses((status = 200, body = TicketList)))]
async fn tickets(State(api): State<Api>, who: Who, Query(query): Query<TicketQuery>) -> Result<Response, Problem> {
    bounded([("incident", &query.incident), ("queue", &query.queue)])?;
    let state = query.state.map(|state| format!("{state:?}"));
    let parameters = [query.incident.as_deref(), query.queue.as_deref(), state.as_deref()];
    let seal = Seal::new(&*api.core, &who.session, "tickets", &parameters);
    let page = page(&seal, query.limit, query.page_token.as_deref())?;
    let filter = TicketFilter { incident: query.incident, queue: query.queue, state: query.state, page };
    let mut list = api.core.tickets(&who.caller, &who.session, &filter).await?;
    seal_next(&seal, &mut list.next);
    json(StatusCode::OK, &list)
}

/// Open a ticket about an incident
///
/// One in each queue. Sinks that care for tickets are told, each revision under one key.
#[utoipa::path(post, path = "/v1/tickets", tag = "tickets", security(("session" = [])), request_body = NewTicket,
    responses((status = 201, body = TicketView)))]
async fn open_ticket(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<NewTicket>,
) -> Result<Response, Problem> {
    json(StatusCode::CREATED, &api.core.open_ticket(&who.caller, &who.session, request.value).await?)
}

/// Get a ticket, and whether the other systems know of it
#[utoipa::path(get, path = "/v1/tickets/{id}", tag = "tickets", security(("session" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = TicketView, headers(("ETag" = String))), (status = 304)))]
async fn ticket(State(api): State<Api>, who: Who, id: Id, _: NoQuery, head: ReadHead) -> Result<Response, Problem> {
    let view = api.core.ticket(&who.caller, &who.session, &id.0).await?;
    tagged(&view, Some(&view.etag), &head.precondition)
}

/// Change a ticket
///
/// All that is asked for, or nothing.
#[utoipa::path(patch, path = "/v1/tickets/{id}", tag = "tickets", security(("session" = [])),
    params(("id" = String, Path), IncidentHeaderDoc), request_body = ChangeTicket,
    responses((status = 200, body = TicketView, headers(("ETag" = String)))))]
async fn change_ticket(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
    request: Json<ChangeTicket>,
) -> Result<Response, Problem> {
    if request.value == ChangeTicket::default() {
        return Err(Problem::invalid("body", "nothing to change"));
    }
    let (caller, session) = (&who.caller, &who.session);
    let view = api.core.change_ticket(caller, session, &id.0, request.value, head.precondition).await?;
    tagged(&view, Some(&view.etag), &Precondition::Unstated)
}
