//! Incidents as they are read: lists, one of them, its timeline; and whose notifications rest.

use crate::extract::{Json, NoQuery, Path, Query, Who};
use crate::guard::Api;
use crate::headers::ReadHead;
use crate::page::Seal;
use crate::problem::Problem;
use crate::routes::list::{bounded, entity, page, seal_next};
use crate::routes::records::quoted;
use crate::routes::{empty, json, raw};
use crate::types::{
    Etag, IncidentFilter, IncidentList, IncidentSort, IncidentStatus, IncidentView, MuteList, MuteView, NewMute,
    Precondition, Priority, Severity, Timeline,
};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use http::header::ETAG;
use model::limit::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(incidents))
        .routes(routes!(incident))
        .routes(routes!(incident_timeline))
        .routes(routes!(mutes, mute))
        .routes(routes!(unmute))
}

/// Which incidents.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncidentQuery {
    /// Only with one of these, separated by commas: `new`, `in_progress`, `on_hold`, `resolved`, `closed`; `open` is
    /// all but `closed`.
    status: Option<String>,
    /// Only so grave or graver.
    #[param(inline)]
    severity: Option<Severity>,
    /// Only so urgent or more.
    #[param(inline)]
    priority: Option<Priority>,
    /// Only of this login; of nobody where it is empty.
    assignee: Option<String>,
    /// Only of this tenant.
    tenant: Option<String>,
    /// Only those that concern this entity: kind and name, such as `user:ann`.
    entity: Option<String>,
    /// Only those with this in their id, title, entities, rules or comments.
    text: Option<String>,
    /// What comes first: `newest` when not given.
    #[param(inline)]
    sort: Option<IncidentSort>,
    /// Incidents of a page: 1 to 500, 100 when not given.
    limit: Option<usize>,
    /// `next_page_token` of the page before; the other parameters must be the same.
    page_token: Option<String>,
}

fn statuses(text: &str) -> Result<BTreeSet<IncidentStatus>, Problem> {
    let mut statuses = BTreeSet::new();
    for name in text.split(',') {
        match IncidentStatus::ALL.into_iter().find(|status| status.name() == name) {
            Some(status) => drop(statuses.insert(status)),
            None if name == "open" => {
                statuses.extend(IncidentStatus::ALL.into_iter().filter(|status| *status != IncidentStatus::Closed));
            }
            None => {
                let known = IncidentStatus::ALL.map(IncidentStatus::name).join(", ");
                return Err(Problem::invalid("status", format!("{known} or open, separated by commas")));
            }
        }
    }
    Ok(statuses)
}

impl IncidentQuery {
    fn filter(self, seal: &Seal) -> Result<IncidentFilter, Problem> {
        bounded([("assignee", &self.assignee), ("entity", &self.entity), ("text", &self.text)])?;
        if self.tenant.as_ref().is_some_and(|tenant| tenant.len() > NAME_BYTES_MAX) {
            return Err(Problem::not_found("tenant"));
        }
        Ok(IncidentFilter {
            statuses: self.status.as_deref().map(statuses).transpose()?.unwrap_or_default(),
            severity: self.severity,
            priority: self.priority,
            assignee: self.assignee,
            tenant: self.tenant,
            entity: self.entity.as_deref().map(entity).transpose()?,
            text: self.text,
            sort: self.sort.unwrap_or_default(),
            page: page(seal, self.limit, self.page_token.as_deref())?,
        })
    }
}

/// List incidents
///
/// Those that went up in others are under the others. The `ETag` is of the answer: a client that polls says
/// `If-None-Match` and hears 304 while nothing has changed.
#[utoipa::path(get, path = "/v1/incidents", tag = "incidents", security(("session" = [])), params(IncidentQuery),
    responses((status = 200, body = IncidentList, headers(("ETag" = String))), (status = 304)))]
async fn incidents(
    State(api): State<Api>,
    who: Who,
    Query(query): Query<IncidentQuery>,
    head: ReadHead,
) -> Result<Response, Problem> {
    let severity = query.severity.map(|severity| format!("{severity:?}"));
    let priority = query.priority.map(|priority| format!("{priority:?}"));
    let sort = query.sort.map(|sort| format!("{sort:?}"));
    let [status, assignee, tenant, entity, text] =
        [&query.status, &query.assignee, &query.tenant, &query.entity, &query.text].map(|text| text.clone());
    let parameters = [status, assignee, tenant, entity, text, severity, priority, sort];
    let parameters: Vec<Option<&str>> = parameters.iter().map(Option::as_deref).collect();
    let seal = Seal::new(&*api.core, &who.session, "incidents", &parameters);
    let mut list = api.core.incidents(&who.caller, &who.session, &query.filter(&seal)?).await?;
    seal_next(&seal, &mut list.next);
    tagged(&list, None, &head.precondition)
}

/// An answer with its tag, or 304 where the client has it. Without a tag of its own, it is tagged by its bytes.
pub(crate) fn tagged(value: &impl Serialize, etag: Option<&Etag>, known: &Precondition) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer could not be serialised");
        Problem::Internal
    })?;
    let of_bytes = Etag::new(blake3::hash(&bytes).to_hex()[..32].to_owned());
    let etag = etag.cloned().or(of_bytes).ok_or(Problem::Internal)?;
    let is_known = matches!(known, Precondition::Differs(tags) if tags.contains(&etag));
    let mut response = match is_known {
        true => empty(StatusCode::NOT_MODIFIED),
        false => raw(StatusCode::OK, "application/json", bytes.into()),
    };
    response.headers_mut().insert(ETAG, quoted(&etag)?);
    Ok(response)
}

/// The id in the path of an incident, a mute or a ticket: hexadecimal in truth, but bounded here only.
pub(crate) struct Id(pub(crate) String);

impl axum::extract::FromRequestParts<Api> for Id {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut http::request::Parts, api: &Api) -> Result<Self, Problem> {
        let Path(id) = Path::<String>::from_request_parts(parts, api).await?;
        let fits =
            id.len() <= NAME_BYTES_MAX && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits { Ok(Self(id)) } else { Err(Problem::not_found("object")) }
    }
}

/// Get an incident
///
/// With its alerts, events, entity graph, risk, ATT&CK techniques, clocks and history. The `ETag` changes with what
/// is done and with its alerts, not while its risk fades or a burst goes on.
#[utoipa::path(get, path = "/v1/incidents/{id}", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = IncidentView, headers(("ETag" = String))), (status = 304)))]
async fn incident(State(api): State<Api>, who: Who, id: Id, _: NoQuery, head: ReadHead) -> Result<Response, Problem> {
    let view = api.core.incident(&who.caller, &who.session, &id.0).await?;
    tagged(&view, Some(&view.etag), &head.precondition)
}

/// Get the timeline of an incident: events, alerts and acts in the order of time
#[utoipa::path(get, path = "/v1/incidents/{id}/timeline", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Timeline, headers(("ETag" = String))), (status = 304)))]
async fn incident_timeline(
    State(api): State<Api>,
    who: Who,
    id: Id,
    _: NoQuery,
    head: ReadHead,
) -> Result<Response, Problem> {
    let timeline = api.core.incident_timeline(&who.caller, &who.session, &id.0).await?;
    tagged(&timeline, None, &head.precondition)
}

/// List the entities and rules whose notifications rest
#[utoipa::path(get, path = "/v1/mutes", tag = "incidents", security(("session" = [])),
    responses((status = 200, body = MuteList)))]
async fn mutes(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.mutes(&who.caller, &who.session).await?)
}

/// Let notifications about an entity or a rule rest for a while
///
/// Its alerts still open and join incidents, and the risk still counts: only nobody is called.
#[utoipa::path(post, path = "/v1/mutes", tag = "incidents", security(("session" = [])), request_body = NewMute,
    responses((status = 201, body = MuteView)))]
async fn mute(State(api): State<Api>, who: Who, _: NoQuery, request: Json<NewMute>) -> Result<Response, Problem> {
    json(StatusCode::CREATED, &api.core.mute(&who.caller, &who.session, request.value).await?)
}

/// Call people about an entity or a rule again
#[utoipa::path(delete, path = "/v1/mutes/{id}", tag = "incidents", security(("session" = [])),
    params(("id" = String, Path)), responses((status = 204)))]
async fn unmute(State(api): State<Api>, who: Who, id: Id, _: NoQuery) -> Result<Response, Problem> {
    api.core.unmute(&who.caller, &who.session, &id.0).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
