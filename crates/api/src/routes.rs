//! The routes: each takes a request apart, asks [`crate::Core`] once, and puts the answer together.

pub(crate) mod admin;
pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod detection;
pub(crate) mod escalation;
pub(crate) mod incident_acts;
pub(crate) mod incidents;
pub(crate) mod list;
pub(crate) mod notices;
pub(crate) mod pipeline;
pub(crate) mod records;
pub(crate) mod search;
pub(crate) mod session;
pub(crate) mod tickets;
pub(crate) mod transactions;

use crate::problem::Problem;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

/// An answer as JSON: serialised once, into the bytes that are sent.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer could not be serialised");
        Problem::Internal
    })?;
    Ok(raw(status, "application/json", bytes.into()))
}

/// An answer of bytes.
pub(crate) fn raw(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A header's value that came from the platform itself.
pub(crate) fn header(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|_| {
        tracing::error!("a header of an answer is not visible ASCII");
        Problem::Internal
    })
}
