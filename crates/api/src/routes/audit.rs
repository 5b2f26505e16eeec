//! The audit log: entries, the files of its Merkle logs, and whether they hold.

use crate::extract::{NoQuery, Path, Query, Who};
use crate::guard::Api;
use crate::page::Seal;
use crate::problem::Problem;
use crate::routes::list::{page, seal_next};
use crate::routes::{json, raw};
use crate::types::{AuditFilter, AuditList, AuditLogs, AuditVerification, LogFile};
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use model::limit::{KEY_BYTES_MAX, NAME_BYTES_MAX};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(entries))
        .routes(routes!(logs))
        .routes(routes!(checkpoint))
        .routes(routes!(tile))
        .routes(routes!(verify))
}

/// Which entries.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryQuery {
    /// Only of this tenant.
    tenant: Option<String>,
    /// Only by this login.
    actor: Option<String>,
    /// Only this kind of act.
    action: Option<String>,
    /// Only about this table.
    table: Option<String>,
    /// Only about this record.
    key: Option<String>,
    /// Only of this log: `{region}-{group}`.
    log: Option<String>,
    /// Not before: milliseconds since 1970.
    from_ms: Option<u64>,
    /// Before: milliseconds since 1970.
    to_ms: Option<u64>,
    /// Entries of a page: 1 to 500, 100 when not given.
    limit: Option<usize>,
    /// `next_page_token` of the page before; the other parameters must be the same.
    page_token: Option<String>,
}

/// List entries, newest first
#[utoipa::path(get, path = "/v1/audit/entries", tag = "audit", security(("session" = [])), params(EntryQuery),
    responses((status = 200, body = AuditList)))]
async fn entries(State(api): State<Api>, who: Who, Query(query): Query<EntryQuery>) -> Result<Response, Problem> {
    let (from, to) = (query.from_ms.map(|ms| ms.to_string()), query.to_ms.map(|ms| ms.to_string()));
    let parameters = [&query.tenant, &query.actor, &query.action, &query.table, &query.key, &query.log, &from, &to];
    let parameters = parameters.map(Option::as_deref);
    if parameters.iter().flatten().any(|value| value.len() > NAME_BYTES_MAX.max(KEY_BYTES_MAX)) {
        return Err(Problem::invalid("query", format!("a parameter has more than {KEY_BYTES_MAX} bytes")));
    }
    let seal = Seal::new(&*api.core, &who.session, "audit", &parameters);
    let page = page(&seal, query.limit, query.page_token.as_deref())?;
    let filter = AuditFilter {
        tenant: query.tenant,
        actor: query.actor,
        action: query.action,
        table: query.table,
        key: query.key,
        log: query.log,
        from_ms: query.from_ms,
        to_ms: query.to_ms,
        page,
    };
    let mut list = api.core.audit_entries(&who.caller, &who.session, &filter).await?;
    seal_next(&seal, &mut list.next);
    json(StatusCode::OK, &list)
}

/// List this region's logs
#[utoipa::path(get, path = "/v1/audit/logs", tag = "audit", security(("session" = [])),
    responses((status = 200, body = AuditLogs)))]
async fn logs(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.audit_logs(&who.caller, &who.session).await?)
}

/// Get a log's latest checkpoint
///
/// A signed note (C2SP tlog-checkpoint).
#[utoipa::path(get, path = "/v1/audit/logs/{log}/checkpoint", tag = "audit", security(("session" = [])),
    params(("log" = String, Path, description = "`{region}-{group}`")),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn checkpoint(
    State(api): State<Api>,
    who: Who,
    Path(log): Path<String>,
    _: NoQuery,
) -> Result<Response, Problem> {
    file(&api, &who, &log, LogFile::Checkpoint, "text/plain; charset=utf-8").await
}

/// Get a tile of a log
///
/// Of hashes (`{level}/{index}`) or of entries (`entries/{index}`), partial ones with `.p/{width}`: C2SP tlog-tiles.
#[utoipa::path(get, path = "/v1/audit/logs/{log}/tile/{*path}", tag = "audit", security(("session" = [])),
    params(("log" = String, Path, description = "`{region}-{group}`"), ("path" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream")))]
async fn tile(
    State(api): State<Api>,
    who: Who,
    Path((log, path)): Path<(String, String)>,
    _: NoQuery,
) -> Result<Response, Problem> {
    let tile = format!("tile/{path}").parse::<audit::Tile>().map_err(|_| Problem::not_found("tile"))?;
    file(&api, &who, &log, LogFile::Tile(tile), "application/octet-stream").await
}

async fn file(api: &Api, who: &Who, log: &str, file: LogFile, kind: &'static str) -> Result<Response, Problem> {
    model::schema::check_name(log).map_err(|_| Problem::not_found("log"))?;
    let bytes = api.core.audit_log_file(&who.caller, &who.session, log, file).await?;
    Ok(raw(StatusCode::OK, kind, bytes))
}

/// Verify this region's logs
#[utoipa::path(get, path = "/v1/audit/verification", tag = "audit", security(("session" = [])),
    responses((status = 200, body = AuditVerification)))]
async fn verify(State(api): State<Api>, who: Who, _: NoQuery) -> Result<Response, Problem> {
    json(StatusCode::OK, &api.core.audit_verify(&who.caller, &who.session).await?)
}
