//! What handlers take from a request: each part checked, each refusal a [`Problem`].

use crate::guard::Api;
use crate::limit::{BODY_BYTES_MAX, PAGE_ITEMS_DEFAULT};
use crate::problem::Problem;
use crate::types::{Caller, RecordAt};
use axum::extract::{FromRequest, FromRequestParts, Path as AxumPath, Query as AxumQuery, Request};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use identity::Session;
use model::limit::{KEY_BYTES_MAX, PAGE_RECORDS_MAX};
use serde::de::DeserializeOwned;

/// A caller nobody verified: for logins.
pub(crate) struct Anyone(pub(crate) Caller);

/// A caller with a verified session: the only way to one in this crate.
pub(crate) struct Who {
    pub(crate) caller: Caller,
    pub(crate) session: Session,
}

/// The caller that the guard found; it is taken, not copied.
fn caller(parts: &mut Parts) -> Result<Caller, Problem> {
    parts.extensions.remove::<Caller>().ok_or(Problem::Internal)
}

impl FromRequestParts<Api> for Anyone {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        caller(parts).map(Self)
    }
}

impl FromRequestParts<Api> for Who {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let caller = caller(parts)?;
        if caller.bearer.is_none() {
            return Err(Problem::unauthenticated());
        }
        let session = api.core.authenticate(&caller).await?;
        Ok(Self { caller, session })
    }
}

/// No query parameters at all.
pub(crate) struct NoQuery;

impl FromRequestParts<Api> for NoQuery {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(_) => Err(Problem::invalid("query", "this takes no query parameters")),
        }
    }
}

/// Query parameters; unknown ones are refused by `T`.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let read = AxumQuery::<T>::try_from_uri(&parts.uri);
        read.map(|AxumQuery(value)| Self(value)).map_err(|error| Problem::invalid("query", error.body_text()))
    }
}

/// Parts of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Path<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let read = AxumPath::<T>::from_request_parts(parts, api).await;
        read.map(|AxumPath(value)| Self(value)).map_err(|error| Problem::malformed(error.body_text()))
    }
}

/// The name of a tenant in the path.
pub(crate) struct InTenant(pub(crate) String);

impl FromRequestParts<Api> for InTenant {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Path(tenant) = Path::<String>::from_request_parts(parts, api).await?;
        check_name("tenant", &tenant)?;
        Ok(Self(tenant))
    }
}

/// The names of a tenant and a table in the path.
pub(crate) struct InTable {
    pub(crate) tenant: String,
    pub(crate) table: String,
}

impl FromRequestParts<Api> for InTable {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Path((tenant, table)) = Path::<(String, String)>::from_request_parts(parts, api).await?;
        check_name("tenant", &tenant)?;
        check_name("table", &table)?;
        Ok(Self { tenant, table })
    }
}

/// The address of a record in the path.
pub(crate) struct At(pub(crate) RecordAt);

impl FromRequestParts<Api> for At {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Path((tenant, table, key)) = Path::<(String, String, String)>::from_request_parts(parts, api).await?;
        check_name("tenant", &tenant)?;
        check_name("table", &table)?;
        check_key("key", &key)?;
        Ok(Self(RecordAt { tenant, table, key }))
    }
}

/// A name nothing can have is the name of nothing.
fn check_name(what: &'static str, name: &str) -> Result<(), Problem> {
    model::schema::check_name(name).map_err(|_| Problem::not_found(what))
}

/// Checks the key of a record.
pub(crate) fn check_key(at: &str, key: &str) -> Result<(), Problem> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Problem::invalid(at, format!("a key has 1 to {KEY_BYTES_MAX} bytes, not {}", key.len())));
    }
    Ok(())
}

/// Checks the number of items of a page.
pub(crate) fn page_limit(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(PAGE_ITEMS_DEFAULT) {
        limit @ 1..=PAGE_RECORDS_MAX => Ok(limit),
        other => Err(Problem::invalid("limit", format!("1 to {PAGE_RECORDS_MAX}, not {other}"))),
    }
}

/// A body of one content type, within bounds.
pub(crate) async fn body(request: Request, expected: &'static str) -> Result<Bytes, Problem> {
    let headers = request.headers();
    let essence = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = essence.map(|value| value.split(';').next().unwrap_or_default().trim());
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case(expected)) || headers.contains_key(CONTENT_ENCODING)
    {
        return Err(Problem::UnsupportedMediaType { expected });
    }
    let too_large = Problem::TooLarge { max_bytes: BODY_BYTES_MAX as u64 };
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large);
    }
    match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large),
        Err(_) => Err(Problem::malformed("the body broke off")),
    }
}

/// A JSON body; unknown members are refused by `T`.
pub(crate) struct Json<T> {
    pub(crate) value: T,
    /// What came, for the fingerprint of an idempotent request.
    pub(crate) bytes: Bytes,
}

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        let bytes = body(request, "application/json").await?;
        let value = parse_json(&bytes)?;
        Ok(Self { value, bytes })
    }
}

/// Reads JSON: what is not JSON is 400, what is not this request's JSON is 422.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would read an array as the members of an object, in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::invalid("body", "expected an object, found an array"));
    }
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::invalid("body", error.to_string()),
        _ => Problem::malformed(format!("the body is not JSON: {error}")),
    })
}
