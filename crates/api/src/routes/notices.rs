//! What could not be told outside: looked at, told again, dropped.

use crate::extract::{Json, NoQuery, Query, Who};
use crate::guard::Api;
use crate::page::Seal;
use crate::problem::Problem;
use crate::routes::json;
use crate::routes::list::{bounded, named, page, seal_next};
use crate::types::{ChosenNotices, NoticesDone, RefusedFilter, RefusedList};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Keys of one request.
const KEYS_MAX: usize = 500;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(refused)).routes(routes!(replay)).routes(routes!(drop_refused))
}

/// Which refused notices.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefusedQuery {
    /// Only of this sink.
    sink: Option<String>,
    /// Notices of a page: 1 to 500, 100 when not given.
    limit: Option<usize>,
    /// `next_page_token` of the page before; the other parameters must be the same.
    page_token: Option<String>,
}

/// List notices that a sink refused for good, the newest first
#[utoipa::path(get, path = "/v1/notices/refused", tag = "notices", security(("session" = [])), params(RefusedQuery),
    responses((status = 200, body = RefusedList)))]
async fn refused(State(api): State<Api>, who: Who, Query(query): Query<RefusedQuery>) -> Result<Response, Problem> {
    bounded([("sink", &query.sink)])?;
    let seal = Seal::new(&*api.core, &who.session, "notices/refused", &[query.sink.as_deref()]);
    let page = page(&seal, query.limit, query.page_token.as_deref())?;
    let filter = RefusedFilter { sink: query.sink, page };
    let mut list = api.core.refused_notices(&who.caller, &who.session, &filter).await?;
    seal_next(&seal, &mut list.next);
    json(StatusCode::OK, &list)
}

/// Have refused notices told again
///
/// Under the keys they had. A call to people that is not wanted any more is dropped instead.
#[utoipa::path(post, path = "/v1/notices/refused/replay", tag = "notices", security(("session" = [])),
    request_body = ChosenNotices, responses((status = 200, body = NoticesDone)))]
async fn replay(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<ChosenNotices>,
) -> Result<Response, Problem> {
    check(&request.value)?;
    json(StatusCode::OK, &api.core.replay_notices(&who.caller, &who.session, request.value).await?)
}

/// Drop refused notices
#[utoipa::path(post, path = "/v1/notices/refused/drop", tag = "notices", security(("session" = [])),
    request_body = ChosenNotices, responses((status = 200, body = NoticesDone)))]
async fn drop_refused(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<ChosenNotices>,
) -> Result<Response, Problem> {
    check(&request.value)?;
    json(StatusCode::OK, &api.core.drop_notices(&who.caller, &who.session, request.value).await?)
}

fn check(chosen: &ChosenNotices) -> Result<(), Problem> {
    named("sink", Some(&chosen.sink))?;
    let Some(keys) = &chosen.keys else { return Ok(()) };
    if keys.is_empty() || keys.len() > KEYS_MAX {
        return Err(Problem::invalid("keys", format!("1 to {KEYS_MAX} keys")));
    }
    keys.iter().try_for_each(|key| named("keys", Some(key)))
}
