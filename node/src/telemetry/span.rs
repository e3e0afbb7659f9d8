//! The span the rest of the node holds, and the tracer that starts it.
//!
//! A [`Span`] always has a context (so `Sibyl-Trace-Id` is always valid) but only a recorded one has data
//! behind it. A child of an unrecorded span is a copy of 26 bytes: nothing is allocated and no attribute is
//! built. Spans are `Send + Sync` and changed through `&self`, because replies arrive on several tasks at
//! once; they end when dropped. What the spans are called and carry stands in `spans.rs`.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use sibyl_core::id::Trace;

use super::metrics::Metrics;
use super::names::attribute;
use super::propagation::{self, TraceId};
use super::sampler::{Question, Sampler};

/// Links kept on one span; the SDK drops more. Siblings are capped at 100, so a resolver span fits.
pub const MAX_LINKS: usize = 128;

/// Which side of what a span stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work inside this node.
    Internal,
    /// Answering someone.
    Server,
    /// Asking another node.
    Client,
}

/// What a link means: the value of `sibyl.link.kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// To a write whose sibling a resolver merged.
    ConflictingWrite,
    /// To the read that found stale copies.
    RepairedRead,
}

impl LinkKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConflictingWrite => "conflicting_write",
            Self::RepairedRead => "repaired_read",
        }
    }
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A number; larger ones than `i64::MAX` are cut off there.
    Int(i64),
    /// Text of few different values, unless `names.rs` says otherwise.
    Text(Cow<'static, str>),
}

macro_rules! value_from_integer {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Value {
            fn from(number: $integer) -> Self {
                Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}
value_from_integer!(u8, u16, u32, u64, usize, i64);

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned().into())
    }
}

fn key_value(name: &'static str, value: Value) -> KeyValue {
    match value {
        Value::Bool(yes) => KeyValue::new(name, yes),
        Value::Int(number) => KeyValue::new(name, number),
        Value::Text(text) => KeyValue::new(name, text),
    }
}

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
        let sampled = self.0.sampler.keeps(Question::default(), rand::random);
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
            Some((_, sdk)) if shared.sampler.keeps(question, rand::random) => {
                let sdk = sdk.clone();
                self.record(&sdk)
            }
            _ => Span {
                context: self.parent.map_or_else(fresh, |p| p.context),
                live: None,
                tracer: self.tracer.clone(),
            },
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
            .with_kind(match self.kind {
                Kind::Internal => SpanKind::Internal,
                Kind::Server => SpanKind::Server,
                Kind::Client => SpanKind::Client,
            })
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
            return Span {
                context,
                live: None,
                tracer: self.tracer.clone(),
            };
        }
        Span {
            context: propagation::from_sdk(span.span_context()),
            live: Some(Box::new(Live {
                span: Mutex::new(span),
                settled: Arc::default(),
                parent_settled: self.parent.and_then(|p| p.settled),
            })),
            tracer: self.tracer.clone(),
        }
    }
}

/// A new, unsampled context: nobody records it, but it names the request in answers and logs.
fn fresh() -> Trace {
    let (id, span): (u128, u64) = (rand::random(), rand::random());
    propagation::trace(id.max(1).to_be_bytes(), span.max(1).to_be_bytes(), 0)
}

struct Live {
    span: Mutex<opentelemetry_sdk::trace::Span>,
    /// Set when this span ends or its quorum is settled.
    settled: Arc<AtomicBool>,
    /// The same of the quorum span above, where lateness matters.
    parent_settled: Option<Arc<AtomicBool>>,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, opentelemetry_sdk::trace::Span> {
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work in progress. Ends when dropped.
pub struct Span {
    context: Trace,
    live: Option<Box<Live>>,
    tracer: Tracer,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recording = if self.live.is_some() {
            "recording"
        } else {
            "not recording"
        };
        write!(f, "Span({}, {recording})", self.trace_id())
    }
}

impl Span {
    /// The context that travels to other nodes and rests in siblings; always valid.
    pub fn context(&self) -> Trace {
        self.context
    }

    /// The trace id, for `Sibyl-Trace-Id`, problem documents and logs; never all zero.
    pub fn trace_id(&self) -> TraceId {
        TraceId(self.context.trace_id())
    }

    /// The context as a `traceparent` header.
    pub fn traceparent(&self) -> String {
        propagation::to_traceparent(&self.context)
    }

    /// Whether anything set on this span will be seen. Ask before computing an expensive value.
    pub fn is_recording(&self) -> bool {
        self.live.is_some()
    }

    /// The tracer that started this span.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// A span below this one.
    pub fn child<'a>(&'a self, name: impl Into<Name<'a>>, kind: Kind) -> Builder<'a> {
        let parent = Parent {
            context: self.context,
            remote: false,
            settled: None,
        };
        Builder::new(&self.tracer, Some(parent), name.into(), kind)
    }

    /// A child that marks itself `sibyl.quorum.late` if it ends after this span was [settled](Self::settle)
    /// or ended.
    pub fn contender<'a>(&'a self, name: impl Into<Name<'a>>, kind: Kind) -> Builder<'a> {
        let mut builder = self.child(name, kind);
        if let (Some(parent), Some(live)) = (&mut builder.parent, &self.live) {
            parent.settled = Some(Arc::clone(&live.settled));
        }
        builder
    }

    /// From now on, contenders below this span are late.
    pub fn settle(&self) {
        if let Some(live) = &self.live {
            live.settled.store(true, Ordering::Relaxed);
        }
    }

    /// Sets an attribute; the value is converted only when recording.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(live) = &self.live {
            live.lock().set_attribute(key_value(name, value.into()));
        }
    }

    /// Sets a text attribute from anything that prints; printed only when recording.
    pub fn show(&self, name: &'static str, value: impl fmt::Display) {
        if let Some(live) = &self.live {
            live.lock()
                .set_attribute(KeyValue::new(name, value.to_string()));
        }
    }

    /// Notes that something happened now. The one helper for events: span events are moving to the log
    /// signal upstream, and this is where they would move with us.
    pub fn event<const N: usize>(
        &self,
        name: &'static str,
        attributes: impl FnOnce() -> [(&'static str, Value); N],
    ) {
        if let Some(live) = &self.live {
            let attributes = attributes().map(|(name, value)| key_value(name, value));
            live.lock().add_event(name, attributes.into());
        }
    }

    /// Marks the span failed. `error_type` is a stable word to search for, `message` is for people and must
    /// not contain keys or values of users.
    pub fn fail(&self, error_type: impl Into<Value>, message: impl fmt::Display) {
        if let Some(live) = &self.live {
            let mut span = live.lock();
            span.set_attribute(key_value(attribute::ERROR_TYPE, error_type.into()));
            span.set_status(Status::error(message.to_string()));
        }
    }

    /// Ends the span now instead of at the end of its scope.
    pub fn end(self) {}
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(live) = self.live.take() else { return };
        live.settled.store(true, Ordering::Relaxed);
        let mut span = live.lock();
        if live
            .parent_settled
            .as_ref()
            .is_some_and(|settled| settled.load(Ordering::Relaxed))
        {
            span.set_attribute(KeyValue::new(attribute::QUORUM_LATE, true));
        }
        if self.tracer.0.closed.load(Ordering::Relaxed) {
            self.tracer.0.metrics.spans_dropped("shutdown", 1);
        }
        span.end();
    }
}
