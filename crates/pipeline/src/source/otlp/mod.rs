//! OpenTelemetry logs: OTLP 1.x over gRPC, and over HTTP as protobuf or JSON, each on a port of its own.
//!
//! A request is answered with success only once all of it is durable; a client whose answer got lost sends it again,
//! and its records are known again by their content. What cannot be taken is counted in the answer, record by
//! record. Only so many requests are read at once, and each only so far, compressed or not.

mod http;
mod record;

use super::counters::add;
use super::handover::{Handover, send};
use super::net::{Listener, Stream};
use super::{Batch, Counters, Source, Surroundings};
use crate::resource::{Invalid, OpenError, Resource};
use crate::tls::ServerTls;
use detection::SourceKind;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use model::time::Clock;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service as _;

/// Most bytes of one request after decompression, unless the description says otherwise.
pub const BODY_SIZE_BYTES: usize = 4 * 1024 * 1024;
/// The most a description may allow.
pub const BODY_SIZE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most requests that are read or wait to be durable; further ones wait for their turn.
pub const REQUESTS_MAX: usize = 32;
/// Records of one request have at most so many times the bytes that a request may have: each carries its resource.
const EXPANSION_MAX: usize = 4;
/// A request waits no longer for its turn, and is then told to come again.
const TURN_TIME_MAX: Duration = Duration::from_secs(5);
/// A request is read in this time.
const READ_TIME_MAX: Duration = Duration::from_secs(20);
/// A request is durable in this time, or its client is told to send it again.
const DURABLE_TIME_MAX: Duration = Duration::from_secs(30);
/// Most requests at once of one HTTP/2 connection.
const STREAMS_MAX: u32 = 16;
/// A connection on which no request begins for so long is closed.
const IDLE_TIME_MAX: Duration = Duration::from_secs(120);
/// An HTTP/2 peer answers a ping in this time.
const PING_TIME_MAX: Duration = Duration::from_secs(20);

/// An OTLP listener as the topology file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where it listens for gRPC; by custom port 4317.
    #[serde(default)]
    pub grpc: Option<SocketAddr>,
    /// Where it listens for HTTP, path `/v1/logs`; by custom port 4318.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// Its certificate; without it both are in the clear.
    #[serde(default)]
    pub tls: Option<ServerTls>,
    /// Most bytes of one request after decompression.
    #[serde(default = "body_size_bytes_max")]
    pub body_size_bytes_max: usize,
}

fn body_size_bytes_max() -> usize {
    BODY_SIZE_BYTES
}

impl OtlpConfig {
    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems = Vec::new();
        if self.grpc.is_none() && self.http.is_none() {
            problems.push(Invalid::new("grpc", "name an address for `grpc`, for `http`, or for both"));
        }
        if !(1024..=BODY_SIZE_BYTES_MAX).contains(&self.body_size_bytes_max) {
            let advice = format!("write a number from 1024 to {BODY_SIZE_BYTES_MAX}");
            problems.push(Invalid::new("body_size_bytes_max", advice));
        }
        problems
    }

    /// What it claims.
    pub fn resources(&self) -> Vec<Resource> {
        self.grpc.iter().chain(&self.http).map(|address| Resource::Tcp(*address)).collect()
    }

    /// Binds its addresses.
    pub(super) async fn open(&self, name: &str, around: &Surroundings) -> Result<Box<dyn Source>, OpenError> {
        let counters = Arc::<Counters>::default();
        let bind = async |address: Option<SocketAddr>, protocols| match address {
            None => Ok(None),
            Some(address) => {
                let (clock, counters) = (Arc::clone(&around.clock), Arc::clone(&counters));
                Listener::bind(address, self.tls.as_ref(), protocols, clock, counters).await.map(Some)
            }
        };
        Ok(Box::new(Otlp {
            name: name.to_owned(),
            grpc: bind(self.grpc, &[b"h2"]).await?,
            http: bind(self.http, &[b"h2", b"http/1.1"]).await?,
            body_size_bytes_max: self.body_size_bytes_max,
            clock: Arc::clone(&around.clock),
            counters,
        }))
    }
}

/// OTLP listeners.
struct Otlp {
    name: String,
    grpc: Option<Listener>,
    http: Option<Listener>,
    body_size_bytes_max: usize,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl Source for Otlp {
    fn name(&self) -> &str {
        &self.name
    }
    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
    fn addresses(&self) -> Vec<SocketAddr> {
        self.grpc.iter().chain(&self.http).map(|listener| listener.address).collect()
    }
    fn run(self: Box<Self>, out: Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let Self { grpc: grpc_listener, http: http_listener, body_size_bytes_max, clock, counters, .. } = *self;
            let handover = Handover::unnumbered(SourceKind::Otlp, clock, counters, out.clone());
            let turns = Arc::new(Semaphore::new(REQUESTS_MAX));
            let intake = Intake { handover, body_size_bytes_max, turns };
            let (grpc, http) = (intake.clone(), intake);
            let until = || async { out.closed().await };
            let grpc = async {
                let Some(listener) = grpc_listener else { return };
                let serve = move |stream| {
                    let intake = grpc.clone();
                    let service = service_fn(move |request| answer_grpc(intake.clone(), request));
                    connection(auto::Builder::new(TokioExecutor::new()).http2_only(), stream, service)
                };
                listener.run(until(), serve).await;
            };
            let http = async {
                let Some(listener) = http_listener else { return };
                let serve = move |stream| {
                    let intake = http.clone();
                    let service = service_fn(move |request| http::answer(intake.clone(), request));
                    connection(auto::Builder::new(TokioExecutor::new()), stream, service)
                };
                listener.run(until(), serve).await;
            };
            tokio::join!(grpc, http);
            Ok(())
        })
    }
}

/// Serves the requests of one connection.
async fn connection<S, F>(mut builder: auto::Builder<TokioExecutor>, stream: Stream, service: S) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = F> + Send,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIME_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(IDLE_TIME_MAX)
        .keep_alive_timeout(PING_TIME_MAX)
        .max_concurrent_streams(STREAMS_MAX);
    builder.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

/// Where requests of both kinds go.
#[derive(Clone)]
struct Intake {
    handover: Handover,
    body_size_bytes_max: usize,
    turns: Arc<Semaphore>,
}

/// Why a request was not taken, though nothing is wrong with it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Unavailable {
    #[error("too many requests at once: send it again")]
    Busy,
    #[error("not durable in time: send it again")]
    NotDurable,
}

impl Intake {
    /// Leave to read a request.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Unavailable> {
        match tokio::time::timeout(TURN_TIME_MAX, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Unavailable::Busy),
        }
    }

    /// Hands records over and waits until they are durable; what could not be taken is in the answer.
    async fn take(&self, request: &ExportLogsServiceRequest) -> Result<ExportLogsServiceResponse, Unavailable> {
        let lines = record::lines(request, EXPANSION_MAX * self.body_size_bytes_max);
        let rejected = lines.iter().filter(|line| line.is_err()).count();
        let reason = lines.iter().find_map(|line| line.as_ref().err().map(ToString::to_string));
        let all = async {
            let mut waiting = Vec::new();
            for mut batch in self.handover.batches(lines) {
                let (done, durable) = oneshot::channel();
                batch.done = Some(done);
                send(&self.handover.out, &self.handover.counters, batch).await.map_err(|_| Unavailable::NotDurable)?;
                waiting.push(durable);
            }
            futures::future::try_join_all(waiting).await.map_err(|_| Unavailable::NotDurable)
        };
        match tokio::time::timeout(DURABLE_TIME_MAX, all).await {
            Ok(Ok(_)) => {}
            Ok(Err(unavailable)) => return Err(unavailable),
            Err(_) => return Err(Unavailable::NotDurable),
        }
        let partial_success = reason.map(|reason| ExportLogsPartialSuccess {
            rejected_log_records: rejected as i64,
            error_message: format!("the first of them: {reason}"),
        });
        Ok(ExportLogsServiceResponse { partial_success })
    }
}

#[tonic::async_trait]
impl LogsService for Intake {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        let answer = self.take(request.get_ref()).await;
        answer.map(tonic::Response::new).map_err(|unavailable| Status::unavailable(unavailable.to_string()))
    }
}

async fn answer_grpc(intake: Intake, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut service = LogsServiceServer::new(intake.clone())
        .max_decoding_message_size(intake.body_size_bytes_max)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = match intake.turn().await {
        Err(busy) => Status::unavailable(busy.to_string()).into_http(),
        Ok(_turn) => match tokio::time::timeout(READ_TIME_MAX + DURABLE_TIME_MAX, service.call(request)).await {
            Ok(Ok(answer)) => answer,
            Err(_) => Status::deadline_exceeded("the request was not read in time").into_http(),
        },
    };
    // Only refusals say their status before the body.
    if answer.headers().get("grpc-status").is_some_and(|status| status != "0") {
        add(&intake.handover.counters.refused, 1);
    }
    Ok(answer)
}
