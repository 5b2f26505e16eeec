//! The cluster: health, where it answers, what runs and whether regions agree.

use crate::extract::{NoQuery, Who};
use crate::guard::Api;
use crate::problem::Problem;
use crate::routes::{json, raw};
use crate::types::{ClusterStatus, Convergence, Endpoints, Health};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(document))
        .routes(routes!(endpoints))
        .routes(routes!(status))
        .routes(routes!(convergence))
}

/// Whether this node works
#[utoipa::path(get, path = "/healthz", tag = "cluster", security(()), responses((status = 200, body = Health)))]
async fn health(State(api): State<Api>) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.health().await?)
}

/// Whether this node should get traffic
#[utoipa::path(get, path = "/readyz", tag = "cluster", security(()), responses((status = 200, body = Health)))]
async fn ready(State(api): State<Api>) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.ready().await?)
}

/// This document
#[utoipa::path(get, path = "/v1/openapi.json", tag = "cluster", security(()),
    responses((status = 200, content_type = "application/json", body = Object)))]
async fn document(State(api): State<Api>, _: NoQuery) -> Result<Response, Problem> {
    Ok(raw(StatusCode::OK, "application/json", api.document))
}

/// Where the cluster answers
///
/// For clients that fail over to another region.
#[utoipa::path(get, path = "/v1/endpoints", tag = "cluster", security(()),
    responses((status = 200, body = Endpoints)))]
async fn endpoints(State(api): State<Api>, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.endpoints().await?)
}

/// What runs, what is stuck, and why
#[utoipa::path(get, path = "/v1/cluster/status", tag = "cluster", security(("session" = [])),
    responses((status = 200, body = ClusterStatus)))]
async fn status(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.cluster_status(&who.caller, &who.session).await?)
}

/// Hash and version vector of each partition
///
/// Regions with equal vectors must have equal hashes.
#[utoipa::path(get, path = "/v1/cluster/convergence", tag = "cluster", security(("session" = [])),
    responses((status = 200, body = Convergence)))]
async fn convergence(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.convergence(&who.caller, &who.session).await?)
}
