//! Makes views: shows a read's siblings through the bucket's resolver, and remembers what it made.
//!
//! What a view is made from and what an outcome inherits is `sibyl-core`'s. A resolver is called once with
//! all siblings in canonical order. Whatever goes wrong leaves the siblings: 300, never an error, never a
//! silently chosen winner. Views are cached by what they are a function of, failures that would come again
//! included, so a broken resolver runs once per set of siblings.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use sibyl_core::flow::get::Outcome;
use sibyl_core::id::{Digest, Trace};
use sibyl_core::message::Conflict;
use sibyl_core::object::{Content, Sibling};
use sibyl_core::registry::{self, Binding, Bucket, Deletes, Mode};
use sibyl_core::view::{self, Faces, Resolution, View};

use super::guest_logs::GuestLine;
use super::request::{Acks, GetRequest, Got, PutError, PutRequest, Resolved, ResolverNote};
use super::{Coordinator, now_ms};
use crate::resolver::{Call, Failure, Input, Limits, LogLine, ModuleState};
use crate::telemetry::metrics::{self, CacheResult};
use crate::telemetry::{ResolverEnd, ResolverResult, Span};

/// Bytes of values that the view cache may hold.
const CACHE_BYTES: u64 = 64 << 20;
/// About how many views that is, at 1 KiB each.
const CACHE_VIEWS: usize = 65_536;
/// Lines of a guest that stand on its span; the node keeps more.
const LINES_TRACED: usize = 8;
/// What an entry costs beside its values.
const ENTRY_BYTES: u64 = 256;

/// Views by what they are a function of; limits too, because a failure is one of them.
pub(super) struct Cache(quick_cache::sync::Cache<Origin, Arc<Made>, Weight>);

/// What a view is a function of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Origin {
    /// The view's ETag: object, resolver, config and delete policy.
    view: Digest,
    fuel: u64,
    memory_bytes: u64,
    output_bytes: u64,
}

impl Origin {
    fn of(object: Digest, binding: &Binding, bucket: &Bucket) -> Self {
        let registry::Limits {
            fuel,
            memory_bytes,
            output_bytes,
        } = binding.limits;
        Self {
            view: view_key(object, binding, bucket),
            fuel,
            memory_bytes,
            output_bytes,
        }
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Origin, Arc<Made>> for Weight {
    fn weight(&self, _: &Origin, made: &Arc<Made>) -> u64 {
        let bytes = |content: &Content| content.value.as_ref().map_or(0, Bytes::len) as u64;
        ENTRY_BYTES
            + match &made.view {
                View::Gone => 0,
                View::One(content) => bytes(content),
                View::Siblings(siblings) => {
                    siblings.iter().map(|sibling| bytes(&sibling.content)).sum()
                }
            }
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        Self(quick_cache::sync::Cache::with_weighter(
            CACHE_VIEWS,
            CACHE_BYTES,
            Weight,
        ))
    }
}

/// What a resolver made of a set of siblings.
struct Made {
    view: View,
    outcome: Resolved,
    failure: Option<String>,
}

impl Made {
    /// The same, in memory of its own: a value that came from a peer is a slice of its read buffer, and the
    /// cache would hold all of that.
    fn compact(&self) -> Self {
        let own = |content: &Content| Content {
            value: content
                .value
                .as_ref()
                .map(|value| Bytes::copy_from_slice(value)),
            ..content.clone()
        };
        let view = match &self.view {
            View::Gone => View::Gone,
            View::One(content) => View::One(own(content)),
            View::Siblings(siblings) => {
                let own = |sibling: &Sibling| Sibling {
                    content: own(&sibling.content),
                    ..sibling.clone()
                };
                View::Siblings(siblings.iter().map(own).collect())
            }
        };
        Self {
            view,
            outcome: self.outcome,
            failure: self.failure.clone(),
        }
    }
}

impl Coordinator {
    /// What a read shows.
    pub(super) async fn show(
        &self,
        span: &Span,
        request: &GetRequest,
        bucket: &Bucket,
        outcome: Outcome,
    ) -> Got {
        let object = &outcome.object;
        let live = object.live().count();
        let reconcile = span.siblings_reconcile();
        reconcile.siblings_merged(object.siblings().len(), live, object.context().len());
        self.inner
            .ground
            .metrics
            .object(live, object.context().len());
        let faces = view::faces(object, bucket.config.deletes);
        let (view, resolver, etag) = match &faces {
            Faces::Gone => (View::Gone, None, outcome.digest),
            Faces::One(one) => (View::One(one.content.clone()), None, outcome.digest),
            Faces::Several(several) => {
                self.conflict(&reconcile, request, bucket, outcome.digest, several)
                    .await
            }
        };
        self.feed(span, request, bucket, &outcome, &view, resolver.as_ref());
        let met = outcome.met;
        let acks = Acks {
            owners: outcome.replies - outcome.fallbacks,
            fallbacks: outcome.fallbacks,
        };
        let receipts = outcome.object.receipts().to_vec();
        let (context, mut siblings) = outcome.object.into_parts();
        siblings.sort_by_key(|sibling| (sibling.content.modified_at, sibling.dot()));
        Got {
            view,
            siblings,
            live,
            context,
            receipts,
            bucket: bucket.incarnation,
            etag: etag_of(&etag),
            resolver,
            acks,
            met,
        }
    }

    async fn conflict(
        &self,
        span: &Span,
        request: &GetRequest,
        bucket: &Bucket,
        object: Digest,
        several: &[&Sibling],
    ) -> (View, Option<ResolverNote>, Digest) {
        let active = bucket
            .config
            .resolver
            .as_ref()
            .filter(|binding| binding.mode == Mode::Active);
        let counts = &self.inner.ground.metrics;
        match active.filter(|_| request.resolve) {
            Some(binding) => {
                let origin = Origin::of(object, binding, bucket);
                let deletes = bucket.config.deletes;
                let made = self.made(span, request, (binding, deletes), origin, several);
                let made = made.await;
                let resolution = match made.outcome {
                    Resolved::Failed => metrics::Resolution::Failed,
                    Resolved::Kept => metrics::Resolution::Kept,
                    _ => metrics::Resolution::View,
                };
                counts.conflict(&request.bucket, resolution);
                let note = ResolverNote {
                    name: binding.name.clone(),
                    version: binding.version,
                    outcome: made.outcome,
                    failure: made.failure.clone(),
                };
                // A failure shows the siblings as they are. With the view's tag, a client that holds them
                // would be told that nothing changed once the resolver works.
                let tag = if made.outcome == Resolved::Failed {
                    object
                } else {
                    origin.view
                };
                (made.view.clone(), Some(note), tag)
            }
            None => {
                counts.conflict(&request.bucket, metrics::Resolution::Kept);
                let view = match view::unanimous(several) {
                    Some(one) => View::One(one.content.clone()),
                    None => all(several),
                };
                (view, None, object)
            }
        }
    }

    /// What the resolver makes of these siblings, from the cache if it made it before.
    async fn made(
        &self,
        span: &Span,
        request: &GetRequest,
        (binding, deletes): (&Binding, Deletes),
        origin: Origin,
        several: &[&Sibling],
    ) -> Arc<Made> {
        let counts = &self.inner.ground.metrics;
        if let Some(made) = self.inner.views.0.get(&origin) {
            counts.view_cache(CacheResult::Hit);
            return made;
        }
        counts.view_cache(CacheResult::Miss);
        let writers = several.iter().filter_map(|sibling| sibling.content.trace);
        let span = span.resolver_resolve(
            &binding.name,
            &binding.version,
            writers.collect::<Vec<Trace>>(),
        );
        let asked = call(request, binding, several);
        let report = self.platform().resolve(binding.version, asked).await;
        let result = report
            .outcome
            .as_ref()
            .map_or_else(result_of, |_| ResolverResult::Ok);
        let reason = report.outcome.as_ref().err().map(Failure::kind);
        span.resolver_ended(
            ResolverEnd {
                outcome: result,
                fuel: report.fuel,
                memory_bytes: report.memory_bytes,
            },
            reason,
        );
        self.keep_log(&span, request, binding, &report.log);
        let (fuel, took) = (report.fuel, report.duration);
        counts.resolver(
            &binding.name,
            result,
            reason.unwrap_or(""),
            fuel,
            took,
            &span,
        );
        if report.outcome.is_ok() {
            let empty = || call(request, binding, &[]);
            self.recheck(&span, binding, deletes, several, origin.view, empty);
        }
        drop(span);
        let transient = report.outcome.as_ref().is_err_and(Failure::is_transient);
        if matches!(report.outcome, Err(Failure::MissingModule)) {
            self.fetch_soon(binding.version);
        }
        let made = made_of(several, report.outcome);
        if !transient {
            self.inner.views.0.insert(origin, Arc::new(made.compact()));
        }
        Arc::new(made)
    }

    /// What the guest logged: on the span, and for whoever asks this node.
    fn keep_log(&self, span: &Span, request: &GetRequest, binding: &Binding, log: &[LogLine]) {
        for line in log.iter().take(LINES_TRACED) {
            span.resolver_logged(line.level.as_str(), &line.message);
        }
        let (at_ms, trace_id) = (now_ms(), span.context().trace_id());
        let lines = log.iter().map(|line| GuestLine {
            at_ms,
            version: binding.version,
            bucket: request.bucket.clone(),
            level: line.level,
            message: line.message.clone(),
            trace_id,
        });
        self.inner.guest_logs.note(&binding.name, lines);
    }

    fn feed(
        &self,
        span: &Span,
        request: &GetRequest,
        bucket: &Bucket,
        outcome: &Outcome,
        view: &View,
        note: Option<&ResolverNote>,
    ) {
        if !request.resolve {
            return;
        }
        let failed = note.is_some_and(|note| note.outcome == Resolved::Failed);
        let unresolved = note.is_none() && matches!(view, View::Siblings(_));
        if !failed && !unresolved {
            self.inner.feed.clear(bucket.incarnation, &request.key);
            return;
        }
        let bound = bucket.config.resolver.as_ref();
        let reason = match note.and_then(|note| note.failure.clone()) {
            Some(failure) => failure,
            None if bound.is_some() => "the resolver is paused".to_owned(),
            None => "no resolver is bound to the bucket".to_owned(),
        };
        let conflict = Conflict {
            key: request.key.clone(),
            reason,
            resolver: bound.map(|binding| (binding.name.clone(), binding.version)),
            siblings: u32::try_from(outcome.object.live().count()).unwrap_or(u32::MAX),
            since_ms: now_ms(),
            trace_id: span.context().trace_id(),
        };
        self.inner
            .feed
            .note(bucket.incarnation, outcome.digest, conflict);
    }

    /// Whether the bucket's resolver takes a value. A failure of the check itself accepts the write.
    pub(super) async fn accepts(
        &self,
        request: &PutRequest,
        bucket: &Bucket,
        value: &Bytes,
    ) -> Result<(), PutError> {
        let Some(binding) = bucket
            .config
            .resolver
            .as_ref()
            .filter(|binding| binding.mode == Mode::Active)
        else {
            return Ok(());
        };
        if self.platform().state(&binding.version) != ModuleState::Ready {
            return Ok(());
        }
        let call = Call {
            bucket: request.bucket.clone(),
            key: request.key.clone(),
            config: Some(binding.config.clone()),
            siblings: vec![Input {
                value: Some(value.clone()),
                modified_at: 0,
                attributes: Vec::new(),
            }],
            limits: limits(binding),
        };
        match self.platform().check_value(binding.version, call).await {
            Ok(Err(message)) => Err(PutError::Rejected(message)),
            Ok(Ok(())) => Ok(()),
            Err(failure) => {
                tracing::warn!(resolver = binding.name, %failure, "check-value failed; the write is accepted");
                Ok(())
            }
        }
    }
}

fn view_key(object: Digest, binding: &Binding, bucket: &Bucket) -> Digest {
    let config = Digest::of(binding.config.as_bytes());
    let policy = [bucket.config.deletes as u8];
    Digest::of(&[&object.0[..], &binding.version.0, &config.0, &policy].concat())
}

/// A quoted entity tag.
fn etag_of(digest: &Digest) -> String {
    let text = digest.to_string();
    format!("\"{}\"", text.strip_prefix("sha256:").unwrap_or(&text))
}

fn limits(binding: &Binding) -> Limits {
    let set = &binding.limits;
    Limits {
        fuel: set.fuel,
        memory_bytes: set.memory_bytes,
        output_bytes: set.output_bytes,
    }
}

fn call(request: &GetRequest, binding: &Binding, several: &[&Sibling]) -> Call {
    Call {
        bucket: request.bucket.clone(),
        key: request.key.clone(),
        config: Some(binding.config.clone()),
        siblings: several
            .iter()
            .map(|sibling| Input::from(&sibling.content))
            .collect(),
        limits: limits(binding),
    }
}

fn all(several: &[&Sibling]) -> View {
    View::Siblings(several.iter().map(|sibling| (*sibling).clone()).collect())
}

fn made_of(several: &[&Sibling], outcome: Result<Resolution, Failure>) -> Made {
    let failed = |failure: String| Made {
        view: all(several),
        outcome: Resolved::Failed,
        failure: Some(failure),
    };
    let resolution = match outcome {
        Ok(resolution) => resolution,
        Err(failure) => return failed(failure.to_string()),
    };
    let outcome = match &resolution {
        Resolution::Merged(_) => Resolved::Merged,
        Resolution::Pick(_) => Resolved::Picked,
        Resolution::Keep(_) => Resolved::Kept,
        Resolution::Delete => Resolved::Deleted,
    };
    match view::resolved(several, &resolution) {
        Ok(view) => Made {
            view,
            outcome,
            failure: None,
        },
        Err(invalid) => failed(invalid.to_string()),
    }
}

fn result_of(failure: &Failure) -> ResolverResult {
    match failure {
        Failure::Fuel { .. } => ResolverResult::Fuel,
        Failure::Trap(_) | Failure::StackOverflow { .. } => ResolverResult::Trap,
        _ => ResolverResult::Invalid,
    }
}
