//! The control plane: tenants, users and tables.

use crate::extract::{InTable, InTenant, Json, NoQuery, Who};
use crate::guard::Api;
use crate::problem::Problem;
use crate::routes::json;
use crate::types::{CreatedUser, NewTable, NewTenant, NewUser, TableList, TableView, TenantList, TenantView, UserList};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create_tenant, tenants))
        .routes(routes!(tenant))
        .routes(routes!(create_user, users))
        .routes(routes!(create_table, tables))
        .routes(routes!(table))
}

/// Create a tenant
#[utoipa::path(post, path = "/v1/tenants", tag = "tenants", request_body = NewTenant, security(("session" = [])),
    responses((status = 201, body = TenantView)))]
async fn create_tenant(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<NewTenant>,
) -> Result<Response, Problem> {
    json(StatusCode::CREATED, &api.core.create_tenant(&who.caller, &who.session, request.value).await?)
}

/// List the tenants the session may see
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", security(("session" = [])),
    responses((status = 200, body = TenantList)))]
async fn tenants(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.tenants(&who.caller, &who.session).await?)
}

/// Get a tenant
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants", security(("session" = [])),
    params(("tenant" = String, Path)), responses((status = 200, body = TenantView)))]
async fn tenant(State(api): State<Api>, who: Who, InTenant(tenant): InTenant, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.tenant(&who.caller, &who.session, &tenant).await?)
}

/// Create a user
///
/// The answer has the enrolment of the second factor, this once. The password must be changed at the first login.
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = NewUser, security(("session" = [])),
    responses((status = 201, body = CreatedUser)))]
async fn create_user(
    State(api): State<Api>,
    who: Who,
    _: NoQuery,
    request: Json<NewUser>,
) -> Result<Response, Problem> {
    json(StatusCode::CREATED, &api.core.create_user(&who.caller, &who.session, request.value).await?)
}

/// List the users the session may see
#[utoipa::path(get, path = "/v1/users", tag = "users", security(("session" = [])),
    responses((status = 200, body = UserList)))]
async fn users(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.users(&who.caller, &who.session).await?)
}

/// Create a table
#[utoipa::path(post, path = "/v1/tenants/{tenant}/tables", tag = "tables", request_body = NewTable,
    security(("session" = [])), params(("tenant" = String, Path)), responses((status = 201, body = TableView)))]
async fn create_table(
    State(api): State<Api>,
    who: Who,
    InTenant(tenant): InTenant,
    _: NoQuery,
    request: Json<NewTable>,
) -> Result<Response, Problem> {
    json(StatusCode::CREATED, &api.core.create_table(&who.caller, &who.session, &tenant, request.value).await?)
}

/// List the tables of a tenant
#[utoipa::path(get, path = "/v1/tenants/{tenant}/tables", tag = "tables", security(("session" = [])),
    params(("tenant" = String, Path)), responses((status = 200, body = TableList)))]
async fn tables(State(api): State<Api>, who: Who, InTenant(tenant): InTenant, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.tables(&who.caller, &who.session, &tenant).await?)
}

/// Get a table
#[utoipa::path(get, path = "/v1/tenants/{tenant}/tables/{table}", tag = "tables", security(("session" = [])),
    params(("tenant" = String, Path), ("table" = String, Path)), responses((status = 200, body = TableView)))]
async fn table(State(api): State<Api>, who: Who, at: InTable, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.table(&who.caller, &who.session, &at.tenant, &at.table).await?)
}
