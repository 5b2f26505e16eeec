//! Events on their way through the node that answers, and those that it could not deal with.

use crate::extract::{Json, NoQuery, Query, Who};
use crate::guard::Api;
use crate::page::Seal;
use crate::problem::Problem;
use crate::routes::json;
use crate::routes::list::{named, page, seal_next};
use crate::types::{ChosenLetters, DeadLetterFilter, DeadLetterList, LettersDone, PipelineStatus};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Names of one request.
const IDS_MAX: usize = 500;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(pipeline))
        .routes(routes!(dead_letters))
        .routes(routes!(replay_letters))
        .routes(routes!(drop_letters))
}

/// Which dead letters.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadLetterQuery {
    /// Only of this component.
    component: Option<String>,
    /// Only for this reason, by its short word.
    code: Option<String>,
    /// Letters of a page: 1 to 500, 100 when not given.
    limit: Option<usize>,
    /// `next_page_token` of the page before; the other parameters must be the same.
    page_token: Option<String>,
}

/// What the pipeline of the node that answers does
#[utoipa::path(get, path = "/v1/pipeline", tag = "pipeline", security(("session" = [])),
    responses((status = 200, body = PipelineStatus)))]
async fn pipeline(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.pipeline(&who.caller, &who.session).await?)
}

/// List events that the node that answers could not deal with, the oldest first
#[utoipa::path(get, path = "/v1/pipeline/dead-letters", tag = "pipeline", security(("session" = [])),
    params(DeadLetterQuery), responses((status = 200, body = DeadLetterList)))]
async fn dead_letters(
    State(api): State<Api>,
    who: Who,
    Query(query): Query<DeadLetterQuery>,
) -> Result<Response, Problem> {
    named("component", query.component.as_deref())?;
    named("code", query.code.as_deref())?;
    let about = [query.component.as_deref(), query.code.as_deref()];
    let seal = Seal::new(&*api.core, &who.session, "pipeline/dead-letters", &about);
    let page = page(&seal, query.limit, query.page_token.as_deref())?;
    let filter = DeadLetterFilter { component: query.component, code: query.code, page };
    let mut list = api.core.dead_letters(&who.caller, &who.session, &filter).await?;
    seal_next(&seal, &mut list.next);
    json(StatusCode::OK, &list)
}

/// Have dead letters dealt with again, by the component that could not
#[utoipa::path(post, path = "/v1/pipeline/dead-letters/replay", tag = "pipeline", security(("session" = [])),
    request_body = ChosenLetters, responses((status = 200, body = LettersDone)))]
async fn replay_letters(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<ChosenLetters>,
) -> Result<Response, Problem> {
    check_chosen(&request.value)?;
    json(StatusCode::OK, &api.core.replay_letters(&who.caller, &who.session, request.value).await?)
}

/// Drop dead letters
#[utoipa::path(post, path = "/v1/pipeline/dead-letters/drop", tag = "pipeline", security(("session" = [])),
    request_body = ChosenLetters, responses((status = 200, body = LettersDone)))]
async fn drop_letters(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<ChosenLetters>,
) -> Result<Response, Problem> {
    check_chosen(&request.value)?;
    json(StatusCode::OK, &api.core.drop_letters(&who.caller, &who.session, request.value).await?)
}

fn check_chosen(chosen: &ChosenLetters) -> Result<(), Problem> {
    named("node", Some(&chosen.node))?;
    named("component", chosen.component.as_deref())?;
    named("code", chosen.code.as_deref())?;
    if let Some(ids) = &chosen.ids {
        if ids.is_empty() || ids.len() > IDS_MAX {
            return Err(Problem::invalid("ids", format!("1 to {IDS_MAX} names")));
        }
        ids.iter().try_for_each(|id| named("ids", Some(id)))?;
    }
    let is_narrowed = chosen.ids.is_some() || chosen.component.is_some() || chosen.code.is_some();
    match is_narrowed != chosen.all {
        true => Ok(()),
        false => Err(Problem::invalid("all", "either `all`, or which: `ids`, `component`, `code`")),
    }
}
