//! Traces: a request's spans here, and what follows from its write in other regions (W3C trace context).
//!
//! Spans are at level `debug`, so that without a collector they cost nothing.

use api::types::TraceParent;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use replication::Trace;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

fn context(trace: u128, span: u64, sampled: bool) -> Context {
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let remote = SpanContext::new(
        TraceId::from_bytes(trace.to_be_bytes()),
        SpanId::from_bytes(span.to_be_bytes()),
        flags,
        true,
        TraceState::default(),
    );
    Context::new().with_remote_span_context(remote)
}

/// A request's span goes on with the trace that the client began.
pub fn continued(span: Span, parent: Option<TraceParent>) -> Span {
    if let Some(parent) = parent {
        // Without a collector there is nothing to continue.
        let _ = span.set_parent(context(parent.trace, parent.span, parent.sampled));
    }
    span
}

/// Where the running span stands, if it is followed: what a change takes along.
pub fn current() -> Option<Trace> {
    let context = Span::current().context();
    let span = context.span();
    let here = span.span_context();
    (here.is_valid() && here.is_sampled()).then(|| Trace {
        trace: u128::from_be_bytes(here.trace_id().to_bytes()),
        span: u64::from_be_bytes(here.span_id().to_bytes()),
    })
}

/// A span of what follows from a change of another region.
pub fn followed(span: Span, trace: Trace) -> Span {
    let _ = span.set_parent(context(trace.trace, trace.span, true));
    span
}
