//! Events over HTTP: `POST /v1/events` with one JSON object a line (NDJSON), as it is or compressed with gzip.
//!
//! Each line has its verdict: one bad line takes no other with it. Lines that are no objects become dead letters and
//! are named in the answer; the answer comes once all others are durable. A client whose answer got lost sends the
//! same again.

use super::counters::add;
use super::handover::{Framed, Handover, NotDurable, Spoiled};
use super::net::{Listener, Peer, peer_connections_max, peer_problem};
use super::web::{Broken, Budget, Versions, body_problem, body_size_bytes_max, connection, read};
use super::{Batch, Counters, Source, Surroundings};
use crate::resource::{self, Invalid, OpenError, secret};
use crate::tls::ServerTls;
use bytes::Bytes;
use detection::SourceKind;
use detection::source::ndjson::parse_ndjson;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use model::time::Clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tonic::body::Body;

/// Most bad lines that an answer names; how many there are is beside them.
pub const VERDICTS_MAX: usize = 1_000;
/// Fewest bytes of a token.
pub const TOKEN_SIZE_BYTES_MIN: usize = 16;
/// Requests that are read, or wait to be durable, take at most so many times what one body may have; a third of it
/// those of one peer.
const IN_FLIGHT_MAX: usize = 48;
/// What a line takes beside its bytes while it is on its way.
const LINE_BYTES: usize = 128;
/// The one path.
const PATH: &str = "/v1/events";
/// When a client that was refused for now comes again.
const RETRY_SECONDS: &str = "5";

/// A listener for NDJSON as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificate; with `client_ca` nobody without a certificate of that authority gets in.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// The file with the token that clients send as `Authorization: Bearer …`.
    #[serde(default)]
    pub token: Option<PathBuf>,
    /// Most bytes of one request after decompression.
    #[serde(default = "body_size_bytes_max")]
    pub body_size_bytes_max: usize,
    /// Most connections of one peer.
    #[serde(default = "peer_connections_max")]
    pub peer_connections_max: usize,
}

impl HttpConfig {
    /// Makes relative paths count from a folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.tls.iter_mut().for_each(|tls| tls.resolve(folder));
        self.token.iter_mut().for_each(|path| resource::resolve(path, folder));
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems = Vec::new();
        if self.token.is_some() && self.tls.is_none() && !self.address.ip().is_loopback() {
            let advice = "a token must not be sent in the clear: add tls, or listen on this machine only";
            problems.push(Invalid::new("token", advice));
        }
        problems.extend(body_problem(self.body_size_bytes_max));
        problems.extend(peer_problem(self.peer_connections_max));
        problems
    }

    /// Reads its secret and its certificates, and keeps nothing.
    pub(super) fn look(&self) -> Result<(), OpenError> {
        self.token()?;
        self.tls.iter().try_for_each(|tls| tls.load(&[]).map(drop))
    }

    fn token(&self) -> Result<Option<blake3::Hash>, OpenError> {
        let Some(path) = &self.token else { return Ok(None) };
        let token = secret(path)?;
        if token.len() < TOKEN_SIZE_BYTES_MIN {
            let advice = format!("the file holds {} bytes: write at least {TOKEN_SIZE_BYTES_MIN}", token.len());
            return Err(Invalid::new("token", advice).into());
        }
        Ok(Some(blake3::hash(token.as_bytes())))
    }

    /// Reads its secret and binds its address.
    pub(super) async fn open(&self, around: &Surroundings) -> Result<Box<dyn Source>, OpenError> {
        let (clock, counters) = (Arc::clone(&around.clock), Arc::clone(&around.counters));
        let protocols: &[&[u8]] = &[b"h2", b"http/1.1"];
        let token = self.token()?;
        let bound = Listener::bind(self.address, self.tls.as_ref(), protocols, Arc::clone(&clock), counters.clone());
        let mut listener = bound.await?;
        listener.peer_connections_max(self.peer_connections_max);
        Ok(Box::new(Http { listener, token, limit: self.body_size_bytes_max, clock, counters }))
    }
}

/// A listener for NDJSON.
struct Http {
    listener: Listener,
    token: Option<blake3::Hash>,
    limit: usize,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl Source for Http {
    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.listener.address]
    }
    fn run(self: Box<Self>, out: Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let Self { listener, token, limit, clock, counters } = *self;
            let handover = Handover::unnumbered(SourceKind::Ndjson, clock, counters, out.clone());
            let intake = Intake { handover, token, limit, budget: Budget::new(IN_FLIGHT_MAX * limit) };
            let serve = move |stream, peer| {
                let intake = intake.clone();
                let service = service_fn(move |request| answer(intake.clone(), peer, request));
                connection(Versions::Both, stream, service)
            };
            listener.run(out.closed(), serve).await;
            Ok(())
        })
    }
}

/// Why a request was refused as a whole.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("only {PATH}")]
    Path,
    #[error("only POST")]
    Method,
    #[error("Authorization: Bearer with this source's token is needed")]
    Token,
    #[error("only application/x-ndjson")]
    Form,
    #[error("only gzip and identity")]
    Encoding,
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Form | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Broken(Broken::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken(Broken::Slow) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(Broken::BrokeOff | Broken::NotGzip) => StatusCode::BAD_REQUEST,
            Self::Broken(Broken::Busy) | Self::NotDurable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Where requests go.
#[derive(Clone)]
struct Intake {
    handover: Handover,
    token: Option<blake3::Hash>,
    limit: usize,
    budget: Arc<Budget>,
}

/// What became of a body's lines.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Verdicts {
    /// Lines that are durable.
    taken: usize,
    /// Lines that became dead letters.
    rejected: usize,
    /// The first of those, by their numbers in the body.
    lines: Vec<Verdict>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    line: u64,
    reason: String,
}

async fn answer(intake: Intake, peer: Peer, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match taken(&intake, peer, request).await {
        Ok(verdicts) => written(StatusCode::OK, "application/json", &verdicts),
        Err(refusal) => {
            add(&intake.handover.counters.refused, 1);
            let status = refusal.status();
            let problem = json!({ "type": "about:blank", "status": status.as_u16(), "title": refusal.to_string() });
            let mut answer = written(status, "application/problem+json", &problem);
            let headers = answer.headers_mut();
            match status {
                StatusCode::METHOD_NOT_ALLOWED => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
                StatusCode::UNAUTHORIZED => {
                    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                StatusCode::SERVICE_UNAVAILABLE => {
                    headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
                }
                _ => {}
            }
            answer
        }
    })
}

fn written(status: StatusCode, kind: &'static str, body: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Whether a request has the token; the time it takes to find out says nothing of how much of it fits.
fn is_let_in(token: Option<&blake3::Hash>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let sent = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    sent.is_some_and(|sent| blake3::hash(sent) == *token)
}

async fn taken(intake: &Intake, peer: Peer, request: Request<Incoming>) -> Result<Verdicts, Refusal> {
    let headers = request.headers();
    // Before all else: who has no token learns nothing more.
    if !is_let_in(intake.token.as_ref(), headers) {
        return Err(Refusal::Token);
    }
    if request.uri().path() != PATH {
        return Err(Refusal::Path);
    }
    if request.method() != Method::POST {
        return Err(Refusal::Method);
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !matches!(kind.split(';').next().map(str::trim), Some("application/x-ndjson" | "application/ndjson")) {
        return Err(Refusal::Form);
    }
    let is_gzip = match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => return Err(Refusal::Encoding),
    };
    let share = Arc::new(Mutex::new(intake.budget.share(peer).map_err(Broken::from)?));
    let body = read(request.into_body(), is_gzip, intake.limit, &share).await?;
    let (frames, verdicts) = judged(&body, intake.handover.clock.wall_ms());
    share.lock().grow(frames.len() * LINE_BYTES).map_err(Broken::from)?;
    intake.handover.give_durably(intake.handover.batches(frames)).await?;
    Ok(verdicts)
}

/// A body's lines, each as it is or with what is wrong with it.
fn judged(body: &Bytes, received_ms: u64) -> (Vec<Framed>, Verdicts) {
    // Numbered by their lines, from 1; as events they are known by their content.
    let lines: Arc<str> = "lines".into();
    let (events, rejects) = parse_ndjson(body, received_ms, Some(&lines), 1);
    let mut verdicts = Verdicts { taken: events.len(), rejected: rejects.len(), lines: Vec::new() };
    let mut frames: Vec<Framed> = events.into_iter().map(|raw| Ok(raw.bytes)).collect();
    for reject in rejects {
        if verdicts.lines.len() < VERDICTS_MAX {
            let line = reject.position.map_or(0, |position| position.sequence);
            verdicts.lines.push(Verdict { line, reason: reject.reason.to_string() });
        }
        frames.push(Err(Spoiled::of(reject.reason, &reject.sample)));
    }
    (frames, verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_line_has_its_verdict_and_the_dead_ones_their_beginning() {
        let body = Bytes::from_static(b"{\"n\":1}\r\n\nno json\n[7]\n{\"n\":2}");
        let (frames, verdicts) = judged(&body, 5);
        assert_eq!((verdicts.taken, verdicts.rejected), (2, 2));
        assert_eq!(verdicts.lines.iter().map(|verdict| verdict.line).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(verdicts.lines[1].reason, "not a JSON object");
        assert_eq!(frames.iter().flatten().count(), 2);
        let spoiled = frames[2].clone().unwrap_err();
        assert_eq!(spoiled, Spoiled::of(spoiled.reason.clone(), &Bytes::from_static(b"no json")));
    }

    #[test]
    fn only_the_whole_token_lets_in() {
        let token = blake3::hash(b"sixteen bytes or more");
        let sent = |text: &'static str| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(text))]);
        assert!(is_let_in(Some(&token), &sent("Bearer sixteen bytes or more")));
        for wrong in ["Bearer sixteen bytes or mor", "Bearer ", "sixteen bytes or more", "Basic sixteen bytes or more"]
        {
            assert!(!is_let_in(Some(&token), &sent(wrong)), "{wrong}");
        }
        assert!(!is_let_in(Some(&token), &HeaderMap::new()) && is_let_in(None, &HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn no_line_is_lost_whatever_the_bytes(body in "([a-z{}\":, 0-9]{0,9}\n){0,20}", other: Vec<u8>) {
            let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
            let (frames, verdicts) = judged(&body.into(), 5);
            prop_assert_eq!((frames.len(), verdicts.taken + verdicts.rejected), (lines, lines));
            judged(&other.into(), 5);
        }
    }
}
