//! Traces, metrics and log lines: the only files that know OpenTelemetry and prometheus-client.
//!
//! The rest of the node holds a [`Telemetry`] and the [`Span`]s and [`Metrics`] it gives out. Nothing in here
//! is on the way of a request: a collector that is missing, slow or stalled costs a bounded queue of memory,
//! and what is lost is counted. Without a collector trace ids are still minted and carried on. No key and no
//! value of a user enters a span, a label or a line.

mod export;
mod gossip;
pub mod logs;
mod merkle;
pub mod metrics;
pub mod names;
pub mod propagation;
mod reap;
mod ring;
mod rpc;
mod salvage;
mod sampler;
pub mod settings;
mod span;
mod spans;
#[cfg(test)]
mod tests;
mod tracer;
mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use sibyl_core::id::NodeId;

pub use self::gossip::{ROUNDS_PER_SPAN, StateChange};
pub use self::metrics::{Metrics, ResolverResult};
pub use self::propagation::TraceId;
pub use self::rpc::Rpc;
pub use self::sampler::BadRatio;
pub use self::settings::{BadSettings, Collector, EXPORT_TIMEOUT};
pub use self::span::Span;
pub use self::spans::{QuorumEnd, ReplayEnd, ResolverEnd, SLOW_READ};
pub use self::tracer::{Builder, Name, Tracer};
pub use self::value::{Kind, LinkKind, MAX_LINKS, Value};

use self::sampler::Sampler;
use self::tracer::Shared;

/// What telemetry needs to know at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where spans go; `None` exports nothing. See [`Collector::read`].
    pub collector: Option<Collector>,
    /// This node: `service.instance.id`, and `sibyl.node.id` on every span.
    pub node_id: NodeId,
    /// The cluster: `sibyl.cluster.id` of the resource.
    pub cluster_id: String,
    /// `OTEL_SERVICE_NAME`, or `None` for `sibyl`.
    pub service_name: Option<String>,
    /// Share of requests that are recorded, from 0 to 1.
    pub ratio: f64,
    /// Whether the sampled flag of a client's `traceparent` is obeyed.
    pub trust_client_sampling: bool,
}

/// Telemetry that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ratio is no ratio.
    #[error(transparent)]
    Ratio(#[from] BadRatio),
    /// The exporter refused its settings.
    #[error("the OTLP exporter cannot be built: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The node's telemetry. Clones are one.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Starts spans.
    pub tracer: Tracer,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Telemetry {
    /// Starts it. With a gRPC collector this must run inside a tokio runtime. The collector is not
    /// contacted: it may come later, or never.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let sampler = Sampler::new(settings.ratio)?;
        let node_id = settings.node_id.as_str();
        let metrics = Arc::new(Metrics::new());
        let sdk = match &settings.collector {
            Some(collector) => {
                let service = settings.service_name;
                let resource = export::resource(node_id, &settings.cluster_id, service);
                let provider = export::provider(collector, resource, &metrics)?;
                let tracer = provider.tracer("sibyl");
                Some((provider, tracer))
            }
            None => None,
        };
        let tracer = Tracer::new(Shared {
            sdk,
            sampler,
            node_id: node_id.into(),
            trust_client_sampling: settings.trust_client_sampling,
            metrics: Arc::clone(&metrics),
            closed: AtomicBool::new(false),
        });
        Ok(Self { tracer, metrics })
    }

    /// Whether spans are sent anywhere.
    pub fn exports(&self) -> bool {
        self.tracer.shared().sdk.is_some()
    }

    /// The share of requests that are recorded, from 0 to 1.
    pub fn ratio(&self) -> f64 {
        self.tracer.shared().sampler.ratio()
    }

    /// Changes the share, for requests that come from now on.
    pub fn set_ratio(&self, ratio: f64) -> Result<(), BadRatio> {
        self.tracer.shared().sampler.set_ratio(ratio)
    }

    /// Sends what is queued and stops, waiting at most about `deadline`. Spans left then are dropped and
    /// counted. Works on a thread of its own, because the SDK blocks and the gRPC connection needs this
    /// runtime meanwhile. Later calls return at once.
    pub async fn shutdown(&self, deadline: Duration) {
        let shared = self.tracer.shared();
        let Some((provider, _)) = &shared.sdk else {
            return;
        };
        if shared.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let provider = provider.clone();
        let (done, finished) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = done.send(provider.shutdown_with_timeout(deadline));
        });
        match finished.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "some spans were not exported at shutdown"),
            Err(_) => tracing::warn!("the thread that exports the last spans died"),
        }
    }
}
