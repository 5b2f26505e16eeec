//! Sessions: login, logout, who one is, and one's password.

use crate::extract::{Anyone, Json, NoQuery, Who};
use crate::guard::Api;
use crate::problem::Problem;
use crate::routes::{empty, json};
use crate::types::{ChangePassword, LoggedIn, Login, Me};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(me))
        .routes(routes!(change_password))
}

/// Begin a session
///
/// Locked to the address of the connection, valid in every region.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", request_body = Login, security(()),
    responses((status = 201, body = LoggedIn)))]
async fn login(
    State(api): State<Api>,
    Anyone(caller): Anyone,
    _: NoQuery,
    request: Json<Login>,
) -> Result<Response, Problem> {
    json(StatusCode::CREATED, &api.core.login(&caller, request.value).await?)
}

/// End the session, in every region
#[utoipa::path(delete, path = "/v1/sessions/current", tag = "sessions", security(("session" = [])),
    responses((status = 204)))]
async fn logout(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    api.core.logout(&who.caller, &who.session).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Who the session is
#[utoipa::path(get, path = "/v1/me", tag = "sessions", security(("session" = [])),
    responses((status = 200, body = Me)))]
async fn me(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.me(&who.caller, &who.session).await?)
}

/// Change one's own password
///
/// Ends all sessions of the user, this one too.
#[utoipa::path(put, path = "/v1/me/password", tag = "sessions", request_body = ChangePassword,
    security(("session" = [])), responses((status = 204)))]
async fn change_password(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<ChangePassword>,
) -> Result<Response, Problem> {
    api.core.change_password(&who.caller, &who.session, request.value).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
