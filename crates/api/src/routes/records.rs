//! Records: one at a time, and ranges of keys.

use crate::extract::{At, InTable, Json, NoQuery, Query, Who, check_key, page_limit};
use crate::guard::Api;
use crate::headers::{PreconditionDoc, REPLAYED, ReadHead, ReadHeaderDoc, SESSION, WriteHead, WriteHeaderDoc};
use crate::page::Seal;
use crate::problem::Problem;
use crate::routes::{empty, header, json};
use crate::types::{
    Change, Durable, Etag, KeyRange, Level, Patch, Precondition, PutBody, ReadOptions, RecordAt, RecordView, Written,
};
use axum::extract::State;
use axum::response::Response;
use http::header::{ETAG, LOCATION};
use http::{HeaderValue, StatusCode};
use model::limit::{FIELDS_MAX, NAME_BYTES_MAX};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(get_record, put_record, patch_record, delete_record))
        .routes(routes!(query_records))
}

/// How to read one record.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadQuery {
    /// How fresh: `local`, `linearizable` (default) or `session` (with `Holdfast-Session`).
    #[param(inline)]
    level: Option<Level>,
    /// Names of the fields to answer, separated by commas; all when not given.
    fields: Option<String>,
}

/// Which records, and how to read them.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RangeQuery {
    /// How fresh: `local`, `linearizable` (default) or `session` (with `Holdfast-Session`).
    #[param(inline)]
    level: Option<Level>,
    /// Names of the fields to answer, separated by commas; all when not given.
    fields: Option<String>,
    /// The first key, inclusive.
    from: Option<String>,
    /// The first key beyond, exclusive.
    to: Option<String>,
    /// Only keys that begin so.
    prefix: Option<String>,
    /// Records of a page: 1 to 500, 100 when not given.
    limit: Option<usize>,
    /// `next_page_token` of the page before; the other parameters but `limit` must be the same.
    page_token: Option<String>,
}

/// A page of records.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecordList {
    /// In order of their keys.
    records: Vec<RecordView>,
    /// Give as `page_token` for the next page.
    next_page_token: Option<String>,
}

/// A change that is durable.
#[derive(Serialize, ToSchema)]
pub(crate) struct WriteView {
    /// The record's new entity tag; none after a deletion.
    etag: Option<Etag>,
    /// `as_asked`, or `locally` when other regions did not confirm in time: poll, do not repeat.
    durable: Durable,
}

fn read_options(level: Option<Level>, fields: Option<&str>, token: Option<String>) -> Result<ReadOptions, Problem> {
    let level = level.unwrap_or_default();
    if level == Level::Session && token.is_none() {
        return Err(Problem::invalid("Holdfast-Session", "level=session needs the token of an answer before"));
    }
    let fields = fields.map(|names| {
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        let fits = names.len() <= FIELDS_MAX && names.iter().all(|n| !n.is_empty() && n.len() <= NAME_BYTES_MAX);
        fits.then_some(names).ok_or_else(|| Problem::invalid("fields", "names of fields, separated by commas"))
    });
    Ok(ReadOptions { level, fields: fields.transpose()?, token })
}

pub(crate) fn quoted(etag: &Etag) -> Result<HeaderValue, Problem> {
    header(&format!("\"{}\"", etag.as_str()))
}

/// Get a record
///
/// The view is recorded in the audit log before the answer leaves.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/tables/{table}/records/{key}", tag = "records",
    security(("session" = [])),
    params(("tenant" = String, Path), ("table" = String, Path), ("key" = String, Path), ReadQuery, ReadHeaderDoc),
    responses((status = 200, body = RecordView,
        headers(("ETag" = String), ("Holdfast-Session" = String))), (status = 304)))]
async fn get_record(
    State(api): State<Api>,
    who: Who,
    At(at): At,
    Query(query): Query<ReadQuery>,
    head: ReadHead,
) -> Result<Response, Problem> {
    let options = read_options(query.level, query.fields.as_deref(), head.token)?;
    let read = api.core.get_record(&who.caller, &who.session, &at, &options).await?;
    let etag = &read.value.etag;
    let mut response = match &head.precondition {
        Precondition::Absent => empty(StatusCode::NOT_MODIFIED),
        Precondition::Differs(tags) if tags.contains(etag) => empty(StatusCode::NOT_MODIFIED),
        Precondition::Matches(tags) if !tags.contains(etag) => {
            return Err(Problem::PreconditionFailed { operation: None });
        }
        _ => json(StatusCode::OK, &read.value)?,
    };
    response.headers_mut().insert(ETAG, quoted(etag)?);
    response.headers_mut().insert(SESSION, header(&read.token)?);
    Ok(response)
}

/// Create or replace a record
///
/// Without a precondition it only creates: replacing what exists needs `If-Match`.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/tables/{table}/records/{key}", tag = "records",
    request_body = PutBody, security(("session" = [])),
    params(("tenant" = String, Path), ("table" = String, Path), ("key" = String, Path), PreconditionDoc,
        WriteHeaderDoc),
    responses((status = 200, body = WriteView), (status = 201, body = WriteView),
        (status = 202, description = "Durable in this region only, so far", body = WriteView)))]
async fn put_record(
    State(api): State<Api>,
    who: Who,
    At(at): At,
    _: NoQuery,
    head: WriteHead,
    body: Json<PutBody>,
) -> Result<Response, Problem> {
    write(&api, &who, &at, "PUT", Change::Put(body.value.fields), head, &body.bytes).await
}

/// Change fields of a record, or add to its counters
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/tables/{table}/records/{key}", tag = "records",
    request_body = Patch, security(("session" = [])),
    params(("tenant" = String, Path), ("table" = String, Path), ("key" = String, Path), PreconditionDoc,
        WriteHeaderDoc),
    responses((status = 200, body = WriteView),
        (status = 202, description = "Durable in this region only, so far", body = WriteView)))]
async fn patch_record(
    State(api): State<Api>,
    who: Who,
    At(at): At,
    _: NoQuery,
    head: WriteHead,
    body: Json<Patch>,
) -> Result<Response, Problem> {
    stated(&head)?;
    check_patch("body", &body.value)?;
    write(&api, &who, &at, "PATCH", Change::Patch(body.value), head, &body.bytes).await
}

/// Delete a record
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/tables/{table}/records/{key}", tag = "records",
    security(("session" = [])),
    params(("tenant" = String, Path), ("table" = String, Path), ("key" = String, Path), PreconditionDoc,
        WriteHeaderDoc),
    responses((status = 204), (status = 202, description = "Durable in this region only, so far", body = WriteView)))]
async fn delete_record(
    State(api): State<Api>,
    who: Who,
    At(at): At,
    _: NoQuery,
    head: WriteHead,
) -> Result<Response, Problem> {
    stated(&head)?;
    write(&api, &who, &at, "DELETE", Change::Delete, head, &[]).await
}

/// Changing what exists without saying what one has seen is how updates get lost.
fn stated(head: &WriteHead) -> Result<(), Problem> {
    match head.precondition {
        Precondition::Unstated => Err(Problem::PreconditionRequired),
        Precondition::Absent => Err(Problem::invalid("If-None-Match", "only a PUT creates")),
        _ => Ok(()),
    }
}

/// A patch changes something, and no field twice.
pub(crate) fn check_patch(at: &str, patch: &Patch) -> Result<(), Problem> {
    if patch.set.is_empty() && patch.increment.is_empty() {
        return Err(Problem::invalid(at, "'set' or 'increment' must name a field"));
    }
    match patch.increment.keys().find(|name| patch.set.contains_key(*name)) {
        Some(name) => Err(Problem::invalid(at, format!("'{name}' is both set and incremented"))),
        None => Ok(()),
    }
}

async fn write(
    api: &Api,
    who: &Who,
    at: &RecordAt,
    method: &'static str,
    change: Change,
    head: WriteHead,
    body: &[u8],
) -> Result<Response, Problem> {
    let options = head.headers.options(method, &[&at.tenant, &at.table, &at.key], &head.precondition, body);
    let deleted = change == Change::Delete;
    let written = api.core.write_record(&who.caller, &who.session, at, change, head.precondition, &options).await?;
    written_response(&at.tenant, written, deleted)
}

fn written_response(tenant: &str, written: Written, deleted: bool) -> Result<Response, Problem> {
    let status = match written.durable {
        Durable::Locally => StatusCode::ACCEPTED,
        Durable::AsAsked if deleted => StatusCode::NO_CONTENT,
        Durable::AsAsked if written.created => StatusCode::CREATED,
        Durable::AsAsked => StatusCode::OK,
    };
    let mut response = match status {
        StatusCode::NO_CONTENT => empty(status),
        _ => json(status, &WriteView { etag: written.etag.clone(), durable: written.durable })?,
    };
    if let Some(etag) = &written.etag {
        response.headers_mut().insert(ETAG, quoted(etag)?);
    }
    seen(&mut response, tenant, written.durable, &written.token, written.replayed)?;
    Ok(response)
}

/// Adds what follows every write: the token, where to poll, and whether it is an answer of before.
pub(crate) fn seen(
    response: &mut Response,
    tenant: &str,
    durable: Durable,
    token: &str,
    replayed: bool,
) -> Result<(), Problem> {
    let headers = response.headers_mut();
    headers.insert(SESSION, header(token)?);
    if durable == Durable::Locally {
        // The token goes in `Holdfast-Session`, not into an address that proxies log.
        headers.insert(LOCATION, header(&format!("/v1/tenants/{tenant}/durability"))?);
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(())
}

/// List records in order of their keys
#[utoipa::path(get, path = "/v1/tenants/{tenant}/tables/{table}/records", tag = "records",
    security(("session" = [])),
    params(("tenant" = String, Path), ("table" = String, Path), RangeQuery, ReadHeaderDoc),
    responses((status = 200, body = RecordList, headers(("Holdfast-Session" = String)))))]
async fn query_records(
    State(api): State<Api>,
    who: Who,
    at: InTable,
    Query(query): Query<RangeQuery>,
    head: ReadHead,
) -> Result<Response, Problem> {
    for (name, bound) in [("from", &query.from), ("to", &query.to), ("prefix", &query.prefix)] {
        bound.as_deref().map_or(Ok(()), |bound| check_key(name, bound))?;
    }
    let options = read_options(query.level, query.fields.as_deref(), head.token)?;
    let parameters = [Some(at.tenant.as_str()), Some(&at.table), query.from.as_deref(), query.to.as_deref()];
    let parameters = [&parameters[..], &[query.prefix.as_deref(), query.fields.as_deref()]].concat();
    let seal = Seal::new(&*api.core, &who.session, "records", &parameters);
    let range = KeyRange {
        after: seal.open(query.page_token.as_deref())?,
        limit: page_limit(query.limit)?,
        from: query.from,
        to: query.to,
        prefix: query.prefix,
    };
    let read = api.core.query(&who.caller, &who.session, &at.tenant, &at.table, &range, &options).await?;
    let next_page_token = read.value.more.map(|after| seal.seal(&after));
    let mut response = json(StatusCode::OK, &RecordList { records: read.value.records, next_page_token })?;
    response.headers_mut().insert(SESSION, header(&read.token)?);
    Ok(response)
}
