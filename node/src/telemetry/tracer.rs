//! Starting spans: roots, children of other nodes' spans, children of our own.
//!
//! A [`Builder`] knows the parent and the links before anything is allocated, asks the sampler, and only then
//! bothers the SDK. Whatever the answer, the span that starts has a valid context, even after the exporter
//! was shut down.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use opentelemetry::trace::{Link, Span as _, SpanBuilder, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use rand::RngExt as _;
use sibyl_core::id::Trace;

use super::metrics::Metrics;
use super::names::attribute;
use super::propagation;
use super::sampler::{Question, Sampler};
use super::span::{Live, Span};
use super::value::{Kind, LinkKind, MAX_LINKS};
use crate::outside;

/// Starts spans. Cheap to clone; all clones are one tracer.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

pub(super) struct Shared {
    /// `None` without a collector: contexts still travel, nothing is recorded.
    pub(super) sdk: Option<(SdkTracerProvider, SdkTracer)>,
    pub(super) sampler: Sampler,
    pub(super) node_id: Arc<str>,
    /// Whether a client's sampled flag is obeyed.
    pub(super) trust_client_sampling: bool,
    pub(super) metrics: Arc<Metrics>,
    /// Set when the exporter stopped: spans that end later are lost, and counted.
    pub(super) closed: AtomicBool,
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { sdk, sampler, .. } = &*self.0;
        f.debug_struct("Tracer")
            .field("exports", &sdk.is_some())
            .field("ratio", &sampler.ratio())
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    /// The SDK flushes, blocking, where its last handle is dropped: never let that be a runtime's thread.
    fn drop(&mut self) {
        if let Some((provider, _)) = self.sdk.take()
            && !self.closed.load(Ordering::Relaxed)
        {
            std::thread::spawn(move || provider.shutdown_with_timeout(super::EXPORT_TIMEOUT));
        }
    }
}

impl Tracer {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// Begins a trace of its own.
    pub fn root<'a>(&'a self, name: impl Into<Name<'a>>, kind: Kind) -> Builder<'a> {
        Builder::new(self, None, name.into(), kind)
    }

    /// Continues a trace that began on another node; without a valid context, begins one.
    pub fn remote<'a>(
        &'a self,
        name: impl Into<Name<'a>>,
        kind: Kind,
        parent: Option<Trace>,
    ) -> Builder<'a> {
        let parent = parent.filter(propagation::is_valid).map(|context| Parent {
            context,
            remote: true,
            settled: None,
        });
        Builder::new(self, parent, name.into(), kind)
    }

    /// The context of a `traceparent` header with this node's decision in it: a stranger's sampled flag
    /// counts only where the operator said so, else anyone could switch on full tracing.
    pub(super) fn edge(&self, traceparent: Option<&str>) -> Option<Trace> {
        let context = traceparent.and_then(propagation::from_traceparent)?;
        if self.0.trust_client_sampling {
            return Some(context);
        }
        let sampled = self
            .0
            .sampler
            .keeps(Question::default(), || outside::rng().random());
        Some(propagation::with_sampled(context, sampled))
    }
}

/// A span's name, put together only when the span is recorded.
#[derive(Clone, Copy, Debug)]
pub enum Name<'a> {
    /// One of `names::span` or of [`Rpc`](super::Rpc).
    Fixed(&'static str),
    /// An HTTP request: method and route template.
    Request(&'a str, &'a str),
}

impl From<&'static str> for Name<'_> {
    fn from(name: &'static str) -> Self {
        Self::Fixed(name)
    }
}

impl Name<'_> {
    fn into_cow(self) -> Cow<'static, str> {
        match self {
            Self::Fixed(name) => name.into(),
            Self::Request(method, route) => format!("{method} {route}").into(),
        }
    }
}

struct Parent {
    context: Trace,
    remote: bool,
    /// The parent's `settled` flag, if this span should notice that it came too late.
    settled: Option<Arc<AtomicBool>>,
}

/// A span about to start.
#[must_use = "a span starts with `start`"]
pub struct Builder<'a> {
    tracer: &'a Tracer,
    parent: Option<Parent>,
    name: Name<'a>,
    kind: Kind,
    links: Vec<Link>,
    forced: bool,
    started: Option<SystemTime>,
}

impl<'a> Builder<'a> {
    /// A span below one of this node, which hands in its `settled` flag if lateness matters.
    pub(super) fn below(
        tracer: &'a Tracer,
        context: Trace,
        settled: Option<Arc<AtomicBool>>,
        name: Name<'a>,
        kind: Kind,
    ) -> Self {
        let parent = Parent {
            context,
            remote: false,
            settled,
        };
        Self::new(tracer, Some(parent), name, kind)
    }

    fn new(tracer: &'a Tracer, parent: Option<Parent>, name: Name<'a>, kind: Kind) -> Self {
        Self {
            tracer,
            parent,
            name,
            kind,
            links: Vec::new(),
            forced: false,
            started: None,
        }
    }

    /// Keeps the span whatever the ratio and the parent say.
    pub fn forced(mut self) -> Self {
        self.forced = true;
        self
    }

    /// Says when the work really began, for spans worth recording only in hindsight.
    pub fn started(mut self, at: SystemTime) -> Self {
        self.started = Some(at);
        self
    }

    /// Links to the spans that caused this one; invalid contexts are skipped, and at most [`MAX_LINKS`] are
    /// kept. A root is recorded when any of them was.
    pub fn links(mut self, kind: LinkKind, to: impl IntoIterator<Item = Trace>) -> Self {
        let ignored = self.tracer.0.sdk.is_none()
            || !self.forced
                && self
                    .parent
                    .as_ref()
                    .is_some_and(|p| !propagation::is_sampled(&p.context));
        if ignored {
            return self;
        }
        let room = MAX_LINKS - self.links.len().min(MAX_LINKS);
        let links = to
            .into_iter()
            .filter(propagation::is_valid)
            .take(room)
            .map(|context| {
                let attributes = vec![KeyValue::new(attribute::LINK_KIND, kind.as_str())];
                Link::new(propagation::to_sdk(&context, true), attributes, 0)
            });
        self.links.extend(links);
        self
    }

    /// Starts the span.
    pub fn start(self) -> Span {
        let shared = &self.tracer.0;
        let question = Question {
            parent: self
                .parent
                .as_ref()
                .map(|p| propagation::is_sampled(&p.context)),
            link_sampled: self.links.iter().any(|link| link.span_context.is_sampled()),
            forced: self.forced,
        };
        match &shared.sdk {
            Some((_, sdk)) if shared.sampler.keeps(question, || outside::rng().random()) => {
                let sdk = sdk.clone();
                self.record(&sdk)
            }
            _ => {
                let context = self.parent.map_or_else(fresh, |p| p.context);
                Span::new(context, None, self.tracer)
            }
        }
    }

    fn record(self, sdk: &SdkTracer) -> Span {
        let mut attributes = Vec::with_capacity(8);
        attributes.push(KeyValue::new(
            attribute::NODE_ID,
            Arc::clone(&self.tracer.0.node_id),
        ));
        if self.forced {
            attributes.push(KeyValue::new(attribute::TRACE_FORCE, true));
        }
        let mut builder = SpanBuilder::from_name(self.name.into_cow())
            .with_kind(self.kind.into())
            .with_attributes(attributes)
            .with_links(self.links);
        builder.start_time = self.started;
        let parent = match &self.parent {
            Some(p) => {
                Context::new().with_remote_span_context(propagation::to_sdk(&p.context, p.remote))
            }
            None => Context::new(),
        };
        let span = sdk.build_with_context(builder, &parent);
        if !span.is_recording() {
            // The SDK was shut down in between: keep the trace id valid all the same.
            let context = self.parent.map_or_else(fresh, |p| p.context);
            return Span::new(context, None, self.tracer);
        }
        let context = propagation::from_sdk(span.span_context());
        let live = Live::new(span, self.parent.and_then(|p| p.settled));
        Span::new(context, Some(live), self.tracer)
    }
}

/// A new, unsampled context: nobody records it, but it names the request in answers and logs.
fn fresh() -> Trace {
    let (id, span): (u128, u64) = (outside::rng().random(), outside::rng().random());
    propagation::trace(id.max(1).to_be_bytes(), span.max(1).to_be_bytes(), 0)
}
