//! What a node tells about itself: metrics, structured logs, traces.

pub mod metrics;
pub mod pipeline;
pub mod trace;

use crate::config::Telemetry;
use anyhow::Context;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Starts logs (JSON lines on standard error) and, where a collector is configured, traces.
pub fn start(config: &Telemetry, node: &str) -> anyhow::Result<Option<SdkTracerProvider>> {
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("telemetry.log = '{}'", config.log))?;
    let logs =
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_filter(filter);
    let provider = config.otlp.as_deref().map(|endpoint| provider(endpoint, config.trace_ratio, node)).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        // Only our own spans: a library's would follow every packet.
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("holdfast"))
            .with_filter(EnvFilter::new("off,node=debug"))
    });
    tracing_subscriber::registry().with(logs).with(traces).try_init().context("logs are started once")?;
    Ok(provider)
}

fn provider(endpoint: &str, ratio: f64, node: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.with_context(|| format!("telemetry.otlp = '{endpoint}'"))?;
    let resource = Resource::builder()
        .with_service_name("holdfast")
        .with_attribute(KeyValue::new("service.instance.id", node.to_owned()))
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_sampler(sampler).with_resource(resource).build())
}

/// Sends what is left of the traces.
pub fn stop(provider: Option<SdkTracerProvider>) {
    if let Some(provider) = provider
        && let Err(error) = provider.shutdown()
    {
        tracing::warn!(%error, "the last traces were not sent");
    }
}
