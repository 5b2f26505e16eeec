//! OTLP over HTTP: `POST /v1/logs`, protobuf or JSON, as they are or compressed with gzip.
//!
//! Statuses are those of the specification: a client sends 503 again and never what was 4xx.

use super::super::counters::add;
use super::{Intake, READ_TIME_MAX};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use serde::Serialize;
use std::convert::Infallible;
use std::io::Read;
use tonic::body::Body;

/// The one path.
const PATH: &str = "/v1/logs";
/// When a client that was refused for now comes again.
const RETRY_SECONDS: &str = "5";

/// How a request and its answer are written.
#[derive(Clone, Copy)]
enum Form {
    Protobuf,
    Json,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("only {PATH}")]
    Path,
    #[error("only POST")]
    Method,
    #[error("only application/x-protobuf and application/json")]
    Form,
    #[error("only gzip and identity")]
    Encoding,
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    #[error("not read in time")]
    Slow,
    #[error("the body broke off")]
    BrokeOff,
    #[error("not gzip")]
    NotGzip,
    #[error("not an export request")]
    Malformed,
    #[error(transparent)]
    Unavailable(#[from] super::Unavailable),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Form | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::BrokeOff | Self::NotGzip | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
    /// gRPC's number for it.
    fn code(&self) -> i32 {
        match self {
            Self::Path | Self::Method => 12,
            Self::TooLarge(_) => 8,
            Self::Slow => 4,
            Self::Unavailable(_) => 14,
            _ => 3,
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
pub(super) async fn answer(intake: Intake, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let form = form(&request);
    let answer = match taken(&intake, request, form).await {
        Ok(answer) => answer,
        Err(refusal) => {
            add(&intake.handover.counters.refused, 1);
            let refused = Refused { code: refusal.code(), message: refusal.to_string() };
            let mut answer = written(form.unwrap_or(Form::Json), &refused);
            *answer.status_mut() = refusal.status();
            let mut say =
                |name: HeaderName, value| answer.headers_mut().insert(name, http::HeaderValue::from_static(value));
            match refusal {
                Refusal::Method => drop(say(ALLOW, "POST")),
                Refusal::Unavailable(_) => drop(say(RETRY_AFTER, RETRY_SECONDS)),
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

async fn taken(intake: &Intake, request: Request<Incoming>, form: Option<Form>) -> Result<Response<Body>, Refusal> {
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
    let limit = intake.body_size_bytes_max;
    if request.body().size_hint().lower() > limit as u64 {
        return Err(Refusal::TooLarge(limit));
    }
    let _turn = intake.turn().await?;
    let body = tokio::time::timeout(READ_TIME_MAX, Limited::new(request.into_body(), limit).collect()).await;
    let body =
        body.map_err(|_| Refusal::Slow)?.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => Refusal::TooLarge(limit),
            false => Refusal::BrokeOff,
        })?;
    let body = if is_gzip { unzipped(&body.to_bytes(), limit)?.into() } else { body.to_bytes() };
    let answer = intake.take(&decoded(form, &body)?).await?;
    Ok(written(form, &answer))
}

/// What was compressed, within bounds.
fn unzipped(body: &[u8], limit: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(body).take(limit as u64 + 1);
    reader.read_to_end(&mut bytes).map_err(|_| Refusal::NotGzip)?;
    if bytes.len() > limit { Err(Refusal::TooLarge(limit)) } else { Ok(bytes) }
}

fn decoded(form: Form, body: &[u8]) -> Result<ExportLogsServiceRequest, Refusal> {
    match form {
        Form::Protobuf => ExportLogsServiceRequest::decode(body).map_err(|_| Refusal::Malformed),
        Form::Json => serde_json::from_slice(body).map_err(|_| Refusal::Malformed),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert!(matches!(unzipped(&bomb, 1 << 20), Err(Refusal::TooLarge(_))));
        assert_eq!(unzipped(&gzip(b"small"), 5).unwrap(), b"small");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = unzipped(&bytes, 1 << 16);
            let _ = unzipped(&[gzip(&bytes), bytes.clone()].concat(), 1 << 16);
            let _ = (decoded(Form::Json, &bytes).is_ok(), decoded(Form::Protobuf, &bytes).is_ok());
        }
    }
}
