//! What surrounds every request: who calls, the time it may take, panics, problems, and the metric.
//!
//! One layer instead of five: the path of a record's write is hot.

use crate::core::Core;
use crate::limit::REQUEST_TIME_MAX;
use crate::problem::{Problem, Unavailable};
use crate::types::{Caller, TraceParent};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{AUTHORIZATION, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) core: Arc<dyn Core>,
    /// The OpenAPI document.
    pub(crate) document: Bytes,
}

/// The other end of the connection a request came by: set by the server, never from a header.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

const REQUEST_ID: HeaderName = HeaderName::from_static("holdfast-request");

/// Surrounds a request.
pub(crate) async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = api.core.monotonic();
    let id = api.core.request_id();
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match caller(&request, id) {
        Err(problem) => problem.into_response(),
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let work = AssertUnwindSafe(next.run(request)).catch_unwind();
            match tokio::time::timeout(REQUEST_TIME_MAX, work).await {
                Ok(Ok(response)) => response,
                Ok(Err(_)) => {
                    tracing::error!(request = %format_args!("{id:032x}"), "a handler panicked");
                    Problem::Internal.into_response()
                }
                Err(_) => Problem::unavailable(
                    Unavailable::Timeout,
                    "it took too long; whether a write happened is unknown: repeat it with the same Idempotency-Key",
                    Duration::from_secs(1),
                )
                .into_response(),
            }
        }
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        problem.write(&mut response, id);
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, hex(id));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let elapsed = api.core.monotonic().saturating_sub(started);
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    api.core.observe(method, route, response.status().as_u16(), elapsed);
    response
}

fn hex(id: u128) -> HeaderValue {
    HeaderValue::from_str(&format!("{id:032x}")).expect("hex digits are visible ASCII")
}

/// The method as a metric's label: unknown methods must not make new series.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("OTHER")
}

fn caller(request: &Request, id: u128) -> Result<Caller, Problem> {
    let Some(Peer(address)) = request.extensions().get::<Peer>().copied() else {
        tracing::error!("a request without a connection");
        return Err(Problem::Internal);
    };
    let headers = request.headers();
    let bearer = bearer(headers)?;
    let trace = headers.get("traceparent").and_then(|value| trace_parent(value.as_bytes()));
    Ok(Caller { address, request: id, trace, bearer })
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::malformed("Authorization is given twice"));
    }
    let text = value.to_str().map_err(|_| Problem::malformed("Authorization is not visible ASCII"))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned()))
}

/// Reads a `traceparent` of version 00; anything else starts a new trace.
pub(crate) fn trace_parent(value: &[u8]) -> Option<TraceParent> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower_hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    if version != "00" || parts.next().is_some() {
        return None;
    }
    if !lower_hex(trace, 32) || !lower_hex(span, 16) || !lower_hex(flags, 2) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    Some(TraceParent { trace, span, sampled })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_trace_parent_of_the_standard_is_read() {
        let read = trace_parent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let wanted = TraceParent { trace: 0x4bf92f3577b34da6a3ce929d0e0e4736, span: 0x00f067aa0ba902b7, sampled: true };
        assert_eq!(read, Some(wanted));
        assert_eq!(trace_parent(b"00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None);
        assert_eq!(trace_parent(b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"), None);
    }

    proptest! {
        #[test]
        fn any_trace_parent_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = trace_parent(&bytes);
        }
    }
}
