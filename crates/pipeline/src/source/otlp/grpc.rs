//! OTLP over gRPC: one method, whose message is looked at before it is decoded.

use super::super::counters::add;
use super::super::net::Peer;
use super::super::web::{Broken, Metered, Share};
use super::{Form, Intake, Refusal};
use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Request, Response};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use parking_lot::Mutex;
use prost::Message as _;
use std::convert::Infallible;
use std::sync::Arc;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};

/// The one method.
const PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// What stands around a message: its length, and what a compressed one may be longer.
const FRAME_BYTES_MAX: usize = 64 * 1024;

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(Code::from_i32(refusal.code()), refusal.to_string())
    }
}

/// Answers a request.
pub(super) async fn answer(
    intake: Intake,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let counters = Arc::clone(&intake.handover.counters);
    let answer = match request.uri().path() {
        PATH => match share(&intake, peer, &request) {
            Ok(share) => export(intake, share, request).await,
            Err(refusal) => Status::from(refusal).into_http(),
        },
        _ => Status::unimplemented(format!("only {PATH}")).into_http(),
    };
    // Only refusals say their status before the body.
    if answer.headers().get("grpc-status").is_some_and(|status| status != "0") {
        add(&counters.refused, 1);
    }
    Ok(answer)
}

/// A compressed message pays for what it may become before it is read: what it has become is not seen until all of it
/// is there.
fn share(intake: &Intake, peer: Peer, request: &Request<Incoming>) -> Result<Share, Refusal> {
    let busy = |_| Refusal::Broken(Broken::Busy);
    let mut share = intake.budget.share(peer).map_err(busy)?;
    if request.headers().get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
        share.grow(intake.body_size_bytes_max).map_err(busy)?;
    }
    Ok(share)
}

async fn export(intake: Intake, share: Share, request: Request<Incoming>) -> Response<Body> {
    let limit = intake.body_size_bytes_max;
    let share = Arc::new(Mutex::new(share));
    let request = request.map(|body| {
        let metered = Metered::new(body, limit + FRAME_BYTES_MAX, &share);
        metered.map_err(|broken| Status::from(Refusal::Broken(broken)))
    });
    let mut grpc = Grpc::new(Plain).max_decoding_message_size(limit).accept_compressed(CompressionEncoding::Gzip);
    grpc.unary(Export { intake, share }, request).await
}

struct Export {
    intake: Intake,
    share: Arc<Mutex<Share>>,
}

impl UnaryService<Bytes> for Export {
    type Response = ExportLogsServiceResponse;
    type Future = BoxFuture<'static, Result<tonic::Response<ExportLogsServiceResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (intake, share) = (self.intake.clone(), Arc::clone(&self.share));
        Box::pin(async move {
            let answer = intake.take(Form::Protobuf, request.into_inner(), &share).await?;
            Ok(tonic::Response::new(answer))
        })
    }
}

/// Messages come as their bytes.
struct Plain;

impl Codec for Plain {
    type Encode = ExportLogsServiceResponse;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = ExportLogsServiceResponse;
    type Error = Status;
    fn encode(&mut self, answer: ExportLogsServiceResponse, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        answer.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
