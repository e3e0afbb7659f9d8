//! The span the rest of the node holds.
//!
//! A [`Span`] always has a context (so `Sibyl-Trace-Id` is always valid) but only a recorded one has data
//! behind it. A child of an unrecorded span is a copy of 26 bytes: nothing is allocated and no attribute is
//! built. Spans are `Send + Sync` and changed through `&self`, because replies arrive on several tasks at
//! once; they end when dropped. What the spans are called and carry stands in `spans.rs`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Status};
use sibyl_core::id::Trace;

use super::names::attribute;
use super::propagation::{self, TraceId};
use super::tracer::{Builder, Name, Tracer};
use super::value::{Kind, Value, key_value};

/// What a recorded span has behind it.
pub(super) struct Live {
    span: Mutex<opentelemetry_sdk::trace::Span>,
    /// Set when this span ends or its quorum is settled.
    settled: Arc<AtomicBool>,
    /// The same of the quorum span above, where lateness matters.
    parent_settled: Option<Arc<AtomicBool>>,
}

impl Live {
    pub(super) fn new(
        span: opentelemetry_sdk::trace::Span,
        parent_settled: Option<Arc<AtomicBool>>,
    ) -> Self {
        Self {
            span: Mutex::new(span),
            settled: Arc::default(),
            parent_settled,
        }
    }

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
    pub(super) fn new(context: Trace, live: Option<Live>, tracer: &Tracer) -> Self {
        Self {
            context,
            live: live.map(Box::new),
            tracer: tracer.clone(),
        }
    }

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
        Builder::below(&self.tracer, self.context, None, name.into(), kind)
    }

    /// A child that marks itself `sibyl.quorum.late` if it ends after this span was [settled](Self::settle)
    /// or ended.
    pub fn contender<'a>(&'a self, name: impl Into<Name<'a>>, kind: Kind) -> Builder<'a> {
        let settled = self.live.as_ref().map(|live| Arc::clone(&live.settled));
        Builder::below(&self.tracer, self.context, settled, name.into(), kind)
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
        let late = |settled: &Arc<AtomicBool>| settled.load(Ordering::Relaxed);
        let mut span = live.lock();
        if live.parent_settled.as_ref().is_some_and(late) {
            span.set_attribute(KeyValue::new(attribute::QUORUM_LATE, true));
        }
        let shared = self.tracer.shared();
        if shared.closed.load(Ordering::Relaxed) {
            shared.metrics.spans_dropped("shutdown", 1);
        }
        span.end();
    }
}
