//! The node behind the API: one [`Exchange`] per request, with its span and its metrics.
//!
//! Translates and forwards, nothing more: keys and buckets to the coordinator, resolvers to the platform,
//! the rest to what the parts of the node say of themselves. `backend/admin` has what operators ask.

mod admin;
mod backups;
mod failures;
mod owners;
mod recover;
mod trial;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sibyl_core::context::Context;
use sibyl_core::id::{Digest, Incarnation, NodeId};
use sibyl_core::registry::Bucket;
use tokio::sync::Semaphore;

use super::api::{
    AdminError, Api, Arrival, BucketChanged, BucketRefused, Buckets, Call, CheckWish,
    ContextRefused, DeleteBucket, Departure, Health, Keys, Module, Operation, OwnerWish, Pending,
    Pieces, PutBucket, Resolvers, Trial, Tried, Upload, Uploaded,
};
use super::certificates::{CheckView, Checked};
use super::cluster::{AntiEntropyView, ClusterView, RegistryView, RingView};
use super::handoff::{HandoffView, SyncView};
use super::owners::OwnersChanged;
use super::recover::Recovered;
use super::resolver_shapes::ResolverView;
use crate::backup;
use crate::config::Config;
use crate::coordinator::{
    ConflictPage, Coordinator, DEFAULT_TIMEOUT, Emptiness, Explained, GetError, GetRequest, Got,
    GuestLog, ListError, ListRequest, Listed, MAX_TIMEOUT, PutError, PutRequest, Stored,
};
use crate::door::{Pass, Shed};
use crate::telemetry::metrics::{Direction, Op, Outcome, Readings, Request, ShedReason};
use crate::telemetry::{Span, Telemetry, logs};
use failures::{no_bucket, no_resolver, refused};

/// The node, as HTTP sees it. Clones are one.
#[derive(Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

struct Shared {
    coordinator: Coordinator,
    telemetry: Telemetry,
    /// What this node was told about itself, for `GET /v1/cluster`.
    listen: String,
    insecure: bool,
    /// Bytes from and to each peer that `/metrics` has counted so far.
    counted: Mutex<BTreeMap<NodeId, (u64, u64)>>,
    /// What backups are taken from, and the right to take one.
    backups: backup::Source,
    backing_up: Arc<Semaphore>,
}

impl Backend {
    /// The API of a node.
    pub fn new(
        coordinator: Coordinator,
        telemetry: Telemetry,
        config: &Config,
        backups: backup::Source,
    ) -> Self {
        let (listen, insecure) = (config.advertise.clone(), config.insecure);
        let shared = Arc::new(Shared {
            coordinator,
            telemetry,
            listen,
            insecure,
            counted: Mutex::default(),
            backups,
            backing_up: Arc::new(Semaphore::new(1)),
        });
        let source = Arc::downgrade(&shared);
        let folder = config.data_dir.clone();
        shared
            .telemetry
            .metrics
            .on_scrape(move || match source.upgrade() {
                Some(shared) => shared.readings(&folder),
                None => Readings::default(),
            });
        Self { shared }
    }
}

impl Api for Backend {
    fn begin(&self, arrival: Arrival<'_>) -> Arc<dyn Call> {
        let Arrival {
            method,
            route,
            query,
            traceparent,
            request_bytes,
        } = arrival;
        let telemetry = &self.shared.telemetry;
        let span = telemetry.tracer.request(method, route, traceparent);
        let count = telemetry.metrics.request(op_of(method, route, query));
        count.bytes(
            Direction::In,
            usize::try_from(request_bytes).unwrap_or(usize::MAX),
        );
        Arc::new(Exchange {
            shared: Arc::clone(&self.shared),
            span,
            count: Mutex::new(Some(count)),
            bad_context: AtomicBool::new(false),
            shed: AtomicBool::new(false),
        })
    }
}

fn op_of(method: &str, route: &str, query: Option<&str>) -> Op {
    let asks = |pair| query.is_some_and(|query| query.split('&').any(|given| given == pair));
    match (method, route) {
        (_, route) if route.ends_with("/batch") => Op::Batch,
        (_, route) if route.ends_with("/conflicts") => Op::Conflicts,
        (_, "/v1/buckets/{bucket}/keys") => Op::List,
        ("GET" | "HEAD", route) if route.contains("key}") => match () {
            () if asks("siblings=true") => Op::Siblings,
            () if asks("explain=true") => Op::Explain,
            () => Op::Get,
        },
        ("DELETE", route) if route.contains("key}") => Op::Delete,
        ("PUT", route) if route.contains("key}") => Op::Put,
        ("POST", "/key") => Op::Put,
        (_, route) if route.starts_with("/v1/buckets") => Op::Bucket,
        (_, route) if route.starts_with("/v1/resolvers") || route == "/v1/wit" => Op::Resolver,
        _ => Op::Cluster,
    }
}

/// One request under way.
struct Exchange {
    shared: Arc<Shared>,
    span: Span,
    count: Mutex<Option<Request>>,
    bad_context: AtomicBool,
    shed: AtomicBool,
}

impl Exchange {
    fn coordinator(&self) -> &Coordinator {
        &self.shared.coordinator
    }

    /// Waits for its turn. A batch does for each of its operations, so a large one is no larger than many small.
    async fn enter(&self, op: Op, timeout: Option<Duration>) -> Result<Pass, Shed> {
        let patience = timeout.unwrap_or(DEFAULT_TIMEOUT).min(MAX_TIMEOUT);
        let entered = self.coordinator().door().enter(patience).await;
        entered.inspect_err(|shed| {
            self.shed.store(true, Ordering::Relaxed);
            let why = match shed {
                Shed::Full => ShedReason::Full,
                Shed::Waited => ShedReason::Waited,
            };
            self.shared.telemetry.metrics.request_shed(op, why);
        })
    }

    fn outcome(&self, status: u16) -> Outcome {
        match status {
            503 if self.shed.load(Ordering::Relaxed) => Outcome::Error,
            300 | 409 | 412 => Outcome::Conflict,
            400 if self.bad_context.load(Ordering::Relaxed) => Outcome::BadContext,
            404 => Outcome::NotFound,
            413 | 414 | 431 => Outcome::TooLarge,
            503 => Outcome::NoQuorum,
            status if status < 400 => Outcome::Ok,
            _ => Outcome::Error,
        }
    }

    fn about(&self, bucket: &str, key: &[u8]) {
        if !self.span.is_recording() {
            return;
        }
        let view = self.coordinator().registry().view();
        if let Some(known) = view.bucket(bucket) {
            let hash = sibyl_core::ring::position(known.incarnation, key);
            let partition = view.ring().partition(known.incarnation, key);
            self.span.about_key(bucket, hash, partition.0);
        }
    }
}

impl Call for Exchange {
    fn trace_id(&self) -> [u8; 16] {
        self.span.context().trace_id()
    }

    fn end(&self, departure: Departure) {
        let Departure {
            status,
            response_bytes,
        } = departure;
        self.span.answered(status);
        let count = self
            .count
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(count) = count {
            count.bytes(
                Direction::Out,
                usize::try_from(response_bytes).unwrap_or(usize::MAX),
            );
            count.end(self.outcome(status), &self.span);
        }
    }
}

impl Keys for Exchange {
    fn max_value_bytes(&self, bucket: &str) -> Result<usize, BucketRefused> {
        let view = self
            .coordinator()
            .serving()
            .map_err(BucketRefused::NotServing)?;
        let known = view
            .bucket(bucket)
            .ok_or_else(|| BucketRefused::NoBucket(bucket.to_owned()))?;
        Ok(usize::try_from(known.config.max_value_bytes).unwrap_or(usize::MAX))
    }

    fn open(&self, bucket: &str, key: &[u8], sealed: &[u8]) -> Result<Context, ContextRefused> {
        let view = self
            .coordinator()
            .serving()
            .map_err(BucketRefused::NotServing)?;
        let known = view
            .bucket(bucket)
            .ok_or_else(|| BucketRefused::NoBucket(bucket.to_owned()))?;
        match self.coordinator().open(known.incarnation, key, sealed) {
            Ok(opened) => Ok(opened.context),
            Err(forged) => {
                self.bad_context.store(true, Ordering::Relaxed);
                Err(ContextRefused::Forged(forged))
            }
        }
    }

    fn seal(&self, bucket: Incarnation, key: &[u8], context: &Context) -> Vec<u8> {
        self.coordinator().seal(bucket, key, context)
    }

    fn get(&self, request: GetRequest) -> Pending<'_, Result<Got, GetError>> {
        self.about(&request.bucket, &request.key);
        Box::pin(async move {
            let _pass = self.enter(Op::Get, request.timeout).await?;
            self.coordinator().get(&self.span, request).await
        })
    }

    fn put(&self, request: PutRequest) -> Pending<'_, Result<Stored, PutError>> {
        self.about(&request.bucket, &request.key);
        let op = match request.value {
            Some(_) => Op::Put,
            None => Op::Delete,
        };
        Box::pin(async move {
            let _pass = self.enter(op, request.timeout).await?;
            self.coordinator().put(&self.span, request).await
        })
    }

    fn list(&self, request: ListRequest) -> Pending<'_, Result<Listed, ListError>> {
        self.span.about_bucket(&request.bucket);
        Box::pin(async move {
            let _pass = self.enter(Op::List, None).await?;
            self.coordinator().list(&self.span, request).await
        })
    }

    fn explain(&self, request: GetRequest) -> Pending<'_, Result<Explained, GetError>> {
        self.about(&request.bucket, &request.key);
        Box::pin(async move {
            let _pass = self.enter(Op::Explain, request.timeout).await?;
            self.coordinator().explain(&self.span, request).await
        })
    }

    fn conflicts(&self, request: ListRequest) -> Pending<'_, Result<ConflictPage, ListError>> {
        self.span.about_bucket(&request.bucket);
        Box::pin(async move {
            let _pass = self.enter(Op::Conflicts, None).await?;
            self.coordinator().conflicts(&self.span, request).await
        })
    }
}

impl Buckets for Exchange {
    fn buckets(&self) -> Result<BTreeMap<String, Bucket>, AdminError> {
        let view = self
            .coordinator()
            .serving()
            .map_err(AdminError::NotServing)?;
        Ok(view.document().buckets.clone())
    }

    fn bucket(&self, name: &str) -> Result<Bucket, AdminError> {
        let view = self
            .coordinator()
            .serving()
            .map_err(AdminError::NotServing)?;
        view.bucket(name).cloned().ok_or_else(|| no_bucket(name))
    }

    fn put_bucket(&self, change: PutBucket) -> Pending<'_, Result<BucketChanged, AdminError>> {
        Box::pin(async move {
            let PutBucket {
                name,
                mut config,
                keep_n,
                expect,
            } = change;
            let before = self
                .coordinator()
                .serving()
                .map_err(AdminError::NotServing)?;
            let known = before.bucket(&name);
            if let (true, Some(known)) = (keep_n, known) {
                config.n = known.config.n;
            }
            self.span.about_bucket(&name);
            let view = self
                .coordinator()
                .put_bucket(&self.span, &name, config, expect)
                .await
                .map_err(refused)?;
            let bucket = view
                .bucket(&name)
                .cloned()
                .ok_or_else(|| no_bucket(&name))?;
            let created = known.is_none_or(|known| known.incarnation != bucket.incarnation);
            Ok(BucketChanged { bucket, created })
        })
    }

    fn delete_bucket(&self, change: DeleteBucket) -> Pending<'_, Result<(), AdminError>> {
        Box::pin(async move {
            let DeleteBucket {
                name,
                purge,
                expect,
            } = change;
            self.coordinator()
                .serving()
                .map_err(AdminError::NotServing)?;
            self.span.about_bucket(&name);
            let emptiness = if purge {
                Emptiness::Purge
            } else {
                Emptiness::Required
            };
            self.coordinator()
                .delete_bucket(&self.span, &name, emptiness, expect)
                .await
                .map_err(refused)
        })
    }
}

impl Resolvers for Exchange {
    fn upload(&self, upload: Upload) -> Pending<'_, Result<Uploaded, AdminError>> {
        Box::pin(self.take_upload(upload))
    }

    fn resolvers(&self) -> Pending<'_, Result<Vec<ResolverView>, AdminError>> {
        Box::pin(self.resolver_views(None))
    }

    fn resolver(&self, name: &str) -> Pending<'_, Result<ResolverView, AdminError>> {
        let name = name.to_owned();
        Box::pin(async move {
            let mut found = self.resolver_views(Some(&name)).await?;
            found.pop().ok_or_else(|| no_resolver(&name))
        })
    }

    fn module(&self, name: &str, version: Digest) -> Pending<'_, Result<Module, AdminError>> {
        let name = name.to_owned();
        Box::pin(async move { self.module_of(&name, version).await })
    }

    fn delete_version(&self, name: &str, version: Digest) -> Pending<'_, Result<(), AdminError>> {
        let name = name.to_owned();
        Box::pin(async move { self.remove_version(&name, version).await })
    }

    fn check(&self, wish: CheckWish) -> Pending<'_, Result<Checked, AdminError>> {
        Box::pin(self.check_laws(wish))
    }

    fn checking(&self, name: &str, version: Digest) -> Result<Option<CheckView>, AdminError> {
        self.check_view(name, version)
    }

    fn guest_log(&self, name: &str) -> Result<GuestLog, AdminError> {
        self.log_of(name)
    }

    fn try_resolver(&self, trial: Trial) -> Pending<'_, Result<Tried, AdminError>> {
        Box::pin(self.try_out(trial))
    }
}

impl Operation for Exchange {
    fn node_id(&self) -> NodeId {
        self.coordinator().me().clone()
    }

    fn cluster(&self) -> ClusterView {
        self.shared.cluster()
    }

    fn ring(&self) -> Result<RingView, AdminError> {
        self.shared.ring()
    }

    fn anti_entropy(&self) -> AntiEntropyView {
        self.shared.anti_entropy()
    }

    fn start_anti_entropy(&self) -> Result<AntiEntropyView, AdminError> {
        self.shared.start_anti_entropy()
    }

    fn registry(&self) -> RegistryView {
        self.shared.registry()
    }

    fn change_owners(
        &self,
        wish: OwnerWish,
        plan: bool,
    ) -> Pending<'_, Result<OwnersChanged, AdminError>> {
        Box::pin(self.owners_changed(wish, plan))
    }

    fn recover(&self, plan: bool, accept_loss: bool) -> Pending<'_, Result<Recovered, AdminError>> {
        Box::pin(self.recovered(plan, accept_loss))
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    fn metrics(&self, openmetrics: bool) -> String {
        let accept = openmetrics.then_some("application/openmetrics-text");
        self.shared.count_bytes();
        self.shared.telemetry.metrics.page(accept).body
    }

    fn trace_ratio(&self) -> f64 {
        self.shared.telemetry.ratio()
    }

    fn set_trace_ratio(&self, ratio: f64) {
        if let Err(error) = self.shared.telemetry.set_ratio(ratio) {
            tracing::warn!(%error, "the trace ratio stays");
        }
    }

    fn log_filter(&self) -> String {
        logs::current()
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), String> {
        logs::change(filter).map_err(|error| error.to_string())?;
        // Whoever reads the lines is to know why there are more or fewer from here on.
        tracing::warn!(%filter, "the log filter was changed");
        Ok(())
    }

    fn handoff(&self) -> HandoffView {
        self.shared.handoff()
    }

    fn backup(&self) -> Result<Pieces, AdminError> {
        self.shared.backup()
    }

    fn sync_handoff(&self, patience: Duration) -> Pending<'_, SyncView> {
        Box::pin(self.shared.sync_handoff(patience))
    }

    fn cut(&self, peer: &NodeId, cut: bool) -> Result<(), AdminError> {
        self.coordinator()
            .net()
            .cut(peer, cut)
            .map_err(|error| AdminError::NotFound {
                code: "no_peer",
                detail: error.to_string(),
            })
    }
}
