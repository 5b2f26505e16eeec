//! OpenTelemetry logs: OTLP 1.x over gRPC, and over HTTP as protobuf or JSON, each on a port of its own.
//!
//! A request is answered with success only once all of it is durable; a client whose answer got lost sends it again,
//! and its records are known again by their content. What cannot be taken is counted in the answer, record by
//! record. A request takes memory out of its peer's share: as it is read, and for what decoding makes of it before it
//! is decoded.

mod grpc;
mod http;
mod measure;
mod record;

use super::handover::{Framed, Handover, NotDurable};
use super::net::{Listener, peer_connections_max, peer_problem};
use super::web::{Broken, Budget, Share, Versions, body_problem, body_size_bytes_max, connection};
use super::{Batch, Counters, Source, Surroundings};
use crate::resource::{Invalid, OpenError, Resource};
use crate::tls::ServerTls;
use bytes::Bytes;
use detection::SourceKind;
use futures::future::BoxFuture;
use hyper::service::service_fn;
use model::time::Clock;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use parking_lot::Mutex;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;

/// Most records of one request.
pub const RECORDS_MAX: usize = 64 * 1024;
/// Requests that are read, or wait to be durable, take at most so many times what one body may have; a third of it
/// those of one peer.
const IN_FLIGHT_MAX: usize = 96;
/// Records of one request have at most so many times the bytes that a request may have: each carries its resource.
const EXPANSION_MAX: usize = 4;

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
    /// Most connections of one peer to each of the two.
    #[serde(default = "peer_connections_max")]
    pub peer_connections_max: usize,
}

impl OtlpConfig {
    /// What is wrong with it.
    pub fn problems(&self) -> Vec<Invalid> {
        let mut problems = Vec::new();
        if self.grpc.is_none() && self.http.is_none() {
            problems.push(Invalid::new("grpc", "name an address for `grpc`, for `http`, or for both"));
        }
        problems.extend(body_problem(self.body_size_bytes_max));
        problems.extend(peer_problem(self.peer_connections_max));
        problems
    }

    /// What it claims.
    pub fn resources(&self) -> Vec<Resource> {
        self.grpc.iter().chain(&self.http).map(|address| Resource::Tcp(*address)).collect()
    }

    /// Binds its addresses.
    pub(super) async fn open(&self, around: &Surroundings) -> Result<Box<dyn Source>, OpenError> {
        let counters = Arc::clone(&around.counters);
        let bind = async |address: Option<SocketAddr>, protocols| match address {
            None => Ok::<_, OpenError>(None),
            Some(address) => {
                let (clock, counters) = (Arc::clone(&around.clock), Arc::clone(&counters));
                let mut listener = Listener::bind(address, self.tls.as_ref(), protocols, clock, counters).await?;
                listener.peer_connections_max(self.peer_connections_max);
                Ok(Some(listener))
            }
        };
        Ok(Box::new(Otlp {
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
    grpc: Option<Listener>,
    http: Option<Listener>,
    body_size_bytes_max: usize,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl Source for Otlp {
    fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
    fn addresses(&self) -> Vec<SocketAddr> {
        self.grpc.iter().chain(&self.http).map(|listener| listener.address).collect()
    }
    fn run(self: Box<Self>, out: Sender<Batch>) -> BoxFuture<'static, io::Result<()>> {
        Box::pin(async move {
            let Self { grpc: grpc_listener, http: http_listener, body_size_bytes_max, clock, counters } = *self;
            let handover = Handover::unnumbered(SourceKind::Otlp, clock, counters, out.clone());
            let budget = Budget::new(IN_FLIGHT_MAX * body_size_bytes_max);
            let intake = Intake { handover, body_size_bytes_max, budget };
            let (grpc, http) = (intake.clone(), intake);
            let until = || async { out.closed().await };
            let grpc = async {
                let Some(listener) = grpc_listener else { return };
                let serve = move |stream, peer| {
                    let intake = grpc.clone();
                    let service = service_fn(move |request| grpc::answer(intake.clone(), peer, request));
                    connection(Versions::Http2, stream, service)
                };
                listener.run(until(), serve).await;
            };
            let http = async {
                let Some(listener) = http_listener else { return };
                let serve = move |stream, peer| {
                    let intake = http.clone();
                    let service = service_fn(move |request| http::answer(intake.clone(), peer, request));
                    connection(Versions::Both, stream, service)
                };
                listener.run(until(), serve).await;
            };
            tokio::join!(grpc, http);
            Ok(())
        })
    }
}

/// How a request and its answer are written.
#[derive(Clone, Copy)]
enum Form {
    Protobuf,
    Json,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("only {}", http::PATH)]
    Path,
    #[error("only POST")]
    Method,
    #[error("only application/x-protobuf and application/json")]
    Form,
    #[error("only gzip and identity")]
    Encoding,
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("not an export request")]
    Malformed,
    #[error("it would take {0} bytes of memory: send fewer records at once")]
    TooMuch(usize),
    #[error("{0} records: send at most {RECORDS_MAX} at once")]
    TooMany(usize),
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
}

impl Refusal {
    /// gRPC's number for it.
    const fn code(&self) -> i32 {
        match self {
            Self::Path | Self::Method => 12,
            Self::TooMuch(_) | Self::TooMany(_) | Self::Broken(Broken::TooLarge(_)) => 8,
            Self::Broken(Broken::Slow) => 4,
            Self::Broken(Broken::Busy) | Self::NotDurable(_) => 14,
            _ => 3,
        }
    }
}

/// Where requests of both kinds go.
#[derive(Clone)]
struct Intake {
    handover: Handover,
    body_size_bytes_max: usize,
    budget: Arc<Budget>,
}

impl Intake {
    /// Takes a body that was read: hands its records over and waits until they are durable. What could not be taken is
    /// in the answer.
    async fn take(&self, form: Form, body: Bytes, share: &Mutex<Share>) -> Result<ExportLogsServiceResponse, Refusal> {
        let lines = self.lines(form, body, share)?;
        let rejected = lines.iter().filter(|line| line.is_err()).count();
        let reason = lines.iter().find_map(|line| line.as_ref().err().map(|spoiled| spoiled.reason.to_string()));
        self.handover.give_durably(self.handover.batches(lines)).await?;
        let partial_success = reason.map(|reason| ExportLogsPartialSuccess {
            rejected_log_records: rejected as i64,
            error_message: format!("the first of them: {reason}"),
        });
        Ok(ExportLogsServiceResponse { partial_success })
    }

    /// The records of a body as lines; what is not needed any more is given back to the peer's share.
    fn lines(&self, form: Form, body: Bytes, share: &Mutex<Share>) -> Result<Vec<Framed>, Refusal> {
        let weight = match form {
            Form::Protobuf => measure::protobuf(&body).ok_or(Refusal::Malformed)?,
            Form::Json => measure::json(&body),
        };
        if weight > share.lock().most() / 2 {
            return Err(Refusal::TooMuch(weight));
        }
        share.lock().grow(weight).map_err(Broken::from)?;
        let request = decoded(form, &body)?;
        let groups = request.resource_logs.iter().flat_map(|group| &group.scope_logs);
        let count: usize = groups.map(|group| group.log_records.len()).sum();
        if count > RECORDS_MAX {
            return Err(Refusal::TooMany(count));
        }
        let lines = record::lines(&request, EXPANSION_MAX * self.body_size_bytes_max);
        share.lock().shrink_to(lines.iter().flatten().map(Bytes::len).sum());
        Ok(lines)
    }
}

fn decoded(form: Form, body: &[u8]) -> Result<ExportLogsServiceRequest, Refusal> {
    match form {
        Form::Protobuf => ExportLogsServiceRequest::decode(body).map_err(|_| Refusal::Malformed),
        Form::Json => serde_json::from_slice(body).map_err(|_| Refusal::Malformed),
    }
}

#[cfg(fuzzing)]
pub(super) fn fuzz(body: &[u8]) {
    let whole = body.len();
    for (form, weight) in [(Form::Protobuf, measure::protobuf(body)), (Form::Json, Some(measure::json(body)))] {
        // What is not weighed is refused before it is decoded.
        let (Some(weight), Ok(request)) = (weight, decoded(form, body)) else { continue };
        let groups = request.resource_logs.iter().flat_map(|group| &group.scope_logs);
        let count: usize = groups.map(|group| group.log_records.len()).sum();
        let records_bytes = count * size_of::<opentelemetry_proto::tonic::logs::v1::LogRecord>();
        assert!(weight >= whole + records_bytes, "{weight} for {count} records");
        assert_eq!(record::lines(&request, EXPANSION_MAX * super::BODY_SIZE_BYTES).len(), count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = (decoded(Form::Json, &bytes).is_ok(), decoded(Form::Protobuf, &bytes).is_ok());
        }
    }
}
