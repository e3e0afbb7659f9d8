//! Sending spans: the OTLP exporter, a bounded queue in front of it, and the count of what was lost.
//!
//! The SDK's batch processor works on a thread of its own and drops spans in silence when its queue is
//! full. So a gate before it keeps the count: it never lets in more than the queue holds, counts what it
//! turns away, and a wrapper round the exporter counts what was sent and what failed. A collector that is
//! missing, slow or stalled costs memory up to the queue's bound and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{
    ExporterBuildError, RetryPolicy, SpanExporter as Otlp, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};

use super::metrics::Metrics;
use super::settings::{Collector, Protocol};
use super::value::MAX_LINKS;

/// A tracer provider of our own, never the global one. Must be built inside the runtime that will carry
/// the gRPC connection.
pub(super) fn provider(
    collector: &Collector,
    resource: Resource,
    metrics: &Arc<Metrics>,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let backlog = Arc::new(Backlog::default());
    let exporter = Counted {
        otlp: otlp(collector)?,
        backlog: Arc::clone(&backlog),
        metrics: Arc::clone(metrics),
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(collector.queue_spans)
        .with_scheduled_delay(collector.interval)
        .build();
    let gate = Gate {
        batch: BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build(),
        backlog,
        room: collector.queue_spans,
        metrics: Arc::clone(metrics),
    };
    let links = u32::try_from(MAX_LINKS).unwrap_or(u32::MAX);
    Ok(SdkTracerProvider::builder()
        .with_span_processor(gate)
        // `sampler.rs` has already decided when the SDK is asked.
        .with_sampler(Sampler::AlwaysOn)
        .with_max_links_per_span(links)
        .with_resource(resource)
        .build())
}

/// Who sends: `service.*` by the semantic conventions, and what `OTEL_RESOURCE_ATTRIBUTES` adds.
pub(super) fn resource(node_id: &str, cluster_id: &str, service: Option<String>) -> Resource {
    Resource::builder()
        .with_service_name(service.unwrap_or_else(|| "sibyl".to_owned()))
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node_id.to_owned()),
            KeyValue::new("sibyl.cluster.id", cluster_id.to_owned()),
        ])
        .build()
}

/// One retry inside the export timeout; the rest is the collector's to lose.
fn retries() -> RetryPolicy {
    RetryPolicy::recommended().with_max_retries(1)
}

fn otlp(collector: &Collector) -> Result<Otlp, ExporterBuildError> {
    let Collector {
        endpoint, timeout, ..
    } = collector;
    match collector.protocol {
        Protocol::Grpc => Otlp::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(*timeout)
            .with_retry_policy(retries())
            .build(),
        Protocol::Http => Otlp::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(*timeout)
            .with_retry_policy(retries())
            .build(),
    }
}

/// Spans let in whose export has not ended.
#[derive(Debug, Default)]
struct Backlog {
    /// Never less than what the SDK's queue holds, so that queue is never full.
    spans: AtomicUsize,
    /// Set when a shutdown counted the rest as lost: what a late export does to them is not counted again.
    written_off: AtomicBool,
}

/// Lets in as many spans as the queue holds and counts the rest.
#[derive(Debug)]
struct Gate {
    batch: BatchSpanProcessor,
    backlog: Arc<Backlog>,
    room: usize,
    metrics: Arc<Metrics>,
}

impl SpanProcessor for Gate {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batch.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.backlog.spans.fetch_add(1, Ordering::Relaxed) >= self.room {
            self.backlog.spans.fetch_sub(1, Ordering::Relaxed);
            self.metrics.spans_dropped("queue_full", 1);
            return;
        }
        self.batch.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batch.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let result = self.batch.shutdown_with_timeout(timeout);
        self.backlog.written_off.store(true, Ordering::Relaxed);
        let left = self.backlog.spans.swap(0, Ordering::Relaxed);
        self.metrics.spans_dropped("shutdown", left);
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batch.set_resource(resource);
    }
}

/// Counts batches and spans by how their export went.
#[derive(Debug)]
struct Counted {
    otlp: Otlp,
    backlog: Arc<Backlog>,
    metrics: Arc<Metrics>,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.otlp.export(batch).await;
        if !self.backlog.written_off.load(Ordering::Relaxed) {
            self.backlog.spans.fetch_sub(spans, Ordering::Relaxed);
            self.metrics.spans_exported(spans, result.is_ok());
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.otlp.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}
