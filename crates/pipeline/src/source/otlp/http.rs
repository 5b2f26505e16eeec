//! OTLP over HTTP: `POST /v1/logs`, protobuf or JSON, as they are or compressed with gzip.
//!
//! Statuses are those of the specification: a client sends 503 again and never what was 4xx.

use super::super::counters::add;
use super::super::net::Peer;
use super::super::web::{Broken, read};
use super::{Form, Intake, Refusal};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use prost::Message;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use tonic::body::Body;

/// The one path.
pub(super) const PATH: &str = "/v1/logs";
/// When a client that was refused for now comes again.
const RETRY_SECONDS: &str = "5";

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Form | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMuch(_) | Self::TooMany(_) | Self::Broken(Broken::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken(Broken::Slow) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(Broken::BrokeOff | Broken::NotGzip) | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Broken(Broken::Busy) | Self::NotDurable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// `google.rpc.Status`, as refusals are to be told.
#[derive(Clone, PartialEq, Message, Serialize)]
struct Refused {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// Answers a request.
pub(super) async fn answer(
    intake: Intake,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let form = form(&request);
    let answer = match taken(&intake, peer, request, form).await {
        Ok(answer) => answer,
        Err(refusal) => {
            add(&intake.handover.counters.refused, 1);
            let refused = Refused { code: refusal.code(), message: refusal.to_string() };
            let mut answer = written(form.unwrap_or(Form::Json), &refused);
            *answer.status_mut() = refusal.status();
            let mut say =
                |name: HeaderName, value| answer.headers_mut().insert(name, http::HeaderValue::from_static(value));
            match refusal.status() {
                StatusCode::METHOD_NOT_ALLOWED => drop(say(ALLOW, "POST")),
                StatusCode::SERVICE_UNAVAILABLE => drop(say(RETRY_AFTER, RETRY_SECONDS)),
                _ => {}
            }
            answer
        }
    };
    Ok(answer)
}

fn form(request: &Request<Incoming>) -> Option<Form> {
    let kind = request.headers().get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    match kind {
        "application/x-protobuf" => Some(Form::Protobuf),
        "application/json" => Some(Form::Json),
        _ => None,
    }
}

async fn taken(
    intake: &Intake,
    peer: Peer,
    request: Request<Incoming>,
    form: Option<Form>,
) -> Result<Response<Body>, Refusal> {
    if request.uri().path() != PATH {
        return Err(Refusal::Path);
    }
    if request.method() != Method::POST {
        return Err(Refusal::Method);
    }
    let form = form.ok_or(Refusal::Form)?;
    let is_gzip = match request.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => return Err(Refusal::Encoding),
    };
    let share = intake.budget.share(peer).map_err(Broken::from)?;
    let share = Arc::new(Mutex::new(share));
    let body = read(request.into_body(), is_gzip, intake.body_size_bytes_max, &share).await?;
    Ok(written(form, &intake.take(form, body, &share).await?))
}

fn written(form: Form, answer: &(impl Message + Serialize)) -> Response<Body> {
    let (kind, body) = match form {
        Form::Protobuf => ("application/x-protobuf", answer.encode_to_vec()),
        Form::Json => ("application/json", serde_json::to_vec(answer).unwrap_or_default()),
    };
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body))));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
