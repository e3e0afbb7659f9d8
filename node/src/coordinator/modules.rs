//! Keeps resolvers on every node: uploads are pushed to all, missing bytes are fetched by digest, bound
//! versions are compiled before they are needed.
//!
//! Bytes are replicated, compiled code never is. A version exists once the registry names it. A node that
//! learns of a version it does not hold fetches it from whoever has it and verifies its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sibyl_core::id::{Digest, NodeId};
use sibyl_core::message::{Failure, Reply, Request};
use sibyl_core::registry::{Change, Kind, Version};
use tokio::time::Instant;

use super::{Coordinator, now_ms};
use crate::outside;
use crate::resolver::{self, Admitted, ModuleState, PrepareError, Refusal};
use crate::tasks::registry::{ChangeFailed, View};
use crate::telemetry::{self, Rpc, Span, names};

/// How long a peer may take to receive and compile a module: the compile limit and the way there.
pub(super) const PREPARE_TIMEOUT: Duration = Duration::from_secs(210);
/// How long a fetch of a module's bytes may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a node that lacks a module looks for it again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// An uploaded version.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// What it is.
    pub admitted: Admitted,
    /// The registry's entry.
    pub version: Version,
    /// Whether it is new.
    pub created: bool,
}

/// Why a module could not be taken or used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModuleFailed {
    /// It is not a resolver, or not one this node takes.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The registry did not change.
    #[error(transparent)]
    Registry(#[from] ChangeFailed),
    /// A node that can be reached has not compiled it.
    #[error("{node} has not compiled it: {why}")]
    NotReady {
        /// Which node.
        node: NodeId,
        /// Why not.
        why: String,
    },
    /// Not ready: forming, or stopping.
    #[error("{0}")]
    NotServing(String),
}

impl Coordinator {
    /// Takes an upload: validates and compiles it here, sends it to every node that can be reached, and
    /// names it in the registry.
    ///
    /// # Errors
    /// [`ModuleFailed`]; a version that the registry does not name does not exist.
    pub async fn upload(
        &self,
        span: &Span,
        name: &str,
        bytes: Bytes,
    ) -> Result<Uploaded, ModuleFailed> {
        let view = self.serving().map_err(ModuleFailed::NotServing)?;
        let admitted = self.platform().admit(bytes.clone()).await?;
        self.inner.ground.metrics.compiled(admitted.compile);
        let digest = admitted.digest;
        if let Some(known) = version_of(&view, name, &digest) {
            return Ok(Uploaded {
                admitted,
                version: known.clone(),
                created: false,
            });
        }
        self.push(span, digest, &bytes).await;
        let version = Version {
            bytes: admitted.bytes,
            kind: match admitted.kind {
                resolver::Kind::Component => Kind::Component,
                resolver::Kind::Core => Kind::Core,
                resolver::Kind::Wat => Kind::Wat,
            },
            uploaded_at_ms: now_ms(),
            description: summary(&admitted),
            certificates: BTreeMap::new(),
        };
        let change = Change::AddVersion {
            name: name.to_owned(),
            digest,
            version: version.clone(),
        };
        let view = self.change(span, change).await?;
        let version = version_of(&view, name, &digest).cloned().unwrap_or(version);
        Ok(Uploaded {
            admitted,
            version,
            created: true,
        })
    }

    /// Sends a module to every peer that can be reached. Who misses it fetches it once the registry names it.
    async fn push(&self, span: &Span, digest: Digest, bytes: &Bytes) {
        let question = Request::Prepare { digest };
        let peers = self.net().peers().into_iter().filter(|peer| peer.reachable);
        let sent = peers.map(|peer| {
            let rpc = span.rpc_client(Rpc::ResolverStore, &peer.node_id);
            let to = &peer.node_id;
            let answer = self.ask(
                rpc,
                Rpc::ResolverStore,
                to,
                &question,
                bytes.clone(),
                PREPARE_TIMEOUT,
            );
            async move { (peer.node_id.clone(), answer.await) }
        });
        let mut sent: FuturesUnordered<_> = sent.collect();
        while let Some((node, answer)) = sent.next().await {
            if !matches!(answer, Ok((Reply::Readiness(Ok(())), _))) {
                tracing::warn!(%node, %digest, "a peer did not take the module; it will fetch it");
            }
        }
    }

    /// Asks every node that can be reached to have this version compiled.
    ///
    /// # Errors
    /// [`ModuleFailed::NotReady`] names the first that has not.
    pub async fn ready_everywhere(&self, span: &Span, digest: Digest) -> Result<(), ModuleFailed> {
        let me = self.me().clone();
        self.prepare(digest)
            .await
            .map_err(|why| ModuleFailed::NotReady { node: me, why })?;
        for (node, answer) in self.readiness(span, digest).await {
            answer.map_err(|why| ModuleFailed::NotReady { node, why })?;
        }
        Ok(())
    }

    /// What each reachable peer says about a version.
    pub async fn readiness(
        &self,
        span: &Span,
        digest: Digest,
    ) -> Vec<(NodeId, Result<(), String>)> {
        let question = Request::Readiness { digest };
        let peers = self.net().peers().into_iter().filter(|peer| peer.reachable);
        let asked = peers.map(|peer| {
            let rpc = span.rpc_client(Rpc::NodeStatus, &peer.node_id);
            let answer = self.ask(
                rpc,
                Rpc::NodeStatus,
                &peer.node_id,
                &question,
                Bytes::new(),
                PREPARE_TIMEOUT,
            );
            async move {
                let said = match answer.await {
                    Ok((Reply::Readiness(said), _)) => said,
                    Ok(_) => Err("its answer makes no sense".to_owned()),
                    Err(error) => Err(error.to_string()),
                };
                (peer.node_id.clone(), said)
            }
        });
        asked.collect::<FuturesUnordered<_>>().collect().await
    }

    /// Has a version compiled on this node, fetching its bytes first if they are missing.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn prepare(&self, digest: Digest) -> Result<(), String> {
        match self.compile(digest).await {
            Ok(()) => return Ok(()),
            Err(PrepareError::Absent) => self.fetch(digest).await?,
            Err(PrepareError::Refused(refusal)) => return Err(refusal.to_string()),
        }
        self.compile(digest)
            .await
            .map_err(|error| error.to_string())
    }

    /// Makes a module that is here ready, and counts the time if it had to be compiled for that.
    async fn compile(&self, digest: Digest) -> Result<(), PrepareError> {
        let (before, began) = (self.platform().compilations(), Instant::now());
        let was_ready = self.platform().state(&digest) == ModuleState::Ready;
        let result = self.platform().prepare(digest).await;
        if !was_ready && self.platform().compilations() > before {
            self.inner.ground.metrics.compiled(began.elapsed());
        }
        result
    }

    /// Keeps and compiles a module that a peer sent.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn take_module(&self, digest: Digest, bytes: Bytes) -> Result<(), String> {
        if Digest::of(&bytes) != digest {
            return Err("the bytes do not have that digest".into());
        }
        self.keep(digest, bytes).await?;
        self.compile(digest)
            .await
            .map_err(|error| error.to_string())
    }

    async fn keep(&self, digest: Digest, bytes: Bytes) -> Result<(), String> {
        let platform = self.platform().clone();
        let kept = outside::aside(move || platform.keep(digest, &bytes)).await;
        kept.map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }

    /// The bytes of a module this node holds.
    ///
    /// # Errors
    /// [`Failure::NoModule`] if it does not.
    pub async fn module(&self, digest: Digest) -> Result<Bytes, Failure> {
        let platform = self.platform().clone();
        let read = outside::aside(move || platform.bytes(&digest)).await;
        match read {
            Ok(Ok(Some(bytes))) => Ok(bytes),
            Ok(Ok(None)) => Err(Failure::NoModule),
            Ok(Err(error)) => Err(Failure::Unreadable(error.to_string())),
            Err(error) => Err(Failure::Unreadable(error.to_string())),
        }
    }

    async fn fetch(&self, digest: Digest) -> Result<(), String> {
        let span = self
            .registry()
            .tracer()
            .root(names::span::RESOLVER_FETCH, telemetry::Kind::Internal)
            .start();
        let question = Request::Module { digest };
        for peer in self.net().peers().into_iter().filter(|peer| peer.reachable) {
            let rpc = span.rpc_client(Rpc::ResolverFetch, &peer.node_id);
            let answer = self
                .ask(
                    rpc,
                    Rpc::ResolverFetch,
                    &peer.node_id,
                    &question,
                    Bytes::new(),
                    FETCH_TIMEOUT,
                )
                .await;
            if let Ok((Reply::Module, bytes)) = answer
                && Digest::of(&bytes) == digest
            {
                return self.keep(digest, Bytes::copy_from_slice(&bytes)).await;
            }
        }
        Err("no node that can be reached holds its bytes".into())
    }

    /// A read needed a module that is not compiled here: have it, so that the next one finds it.
    /// However many reads need it, it is fetched once at a time.
    pub(super) fn fetch_soon(&self, digest: Digest) {
        if !self
            .inner
            .fetching
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(digest)
        {
            return;
        }
        let coordinator = self.clone();
        tokio::spawn(async move {
            if let Err(why) = coordinator.prepare(digest).await {
                tracing::warn!(%digest, why, "a resolver that is needed here cannot be had yet");
            }
            coordinator
                .inner
                .fetching
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&digest);
        });
    }

    /// Follows the registry: fetches versions that are missing here and compiles those that are bound.
    /// Ends with the registry's task.
    pub async fn keep_up(self) {
        let mut registry = self.registry().watch();
        loop {
            let view = Arc::clone(&registry.borrow_and_update());
            self.forget_pace(&view);
            let known = &view.document().resolvers;
            self.inner.guest_logs.keep(|name| known.contains_key(name));
            let complete = self.have_modules(&view).await;
            let changed = if complete {
                registry.changed().await
            } else {
                tokio::select! {
                    changed = registry.changed() => changed,
                    () = tokio::time::sleep(RETRY_AFTER) => Ok(()),
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn have_modules(&self, view: &View) -> bool {
        let resolvers = view.document().resolvers.values();
        let all: BTreeSet<Digest> = resolvers
            .flat_map(|resolver| resolver.versions.keys().copied())
            .collect();
        let buckets = view.document().buckets.values();
        let bound: BTreeSet<Digest> = buckets
            .filter_map(|bucket| bucket.config.resolver.as_ref())
            .map(|binding| binding.version)
            .collect();
        let mut complete = true;
        for digest in all {
            let state = self.platform().state(&digest);
            let had = match state {
                ModuleState::Absent => self.prepare(digest).await.is_ok(),
                ModuleState::Kept if bound.contains(&digest) => self.prepare(digest).await.is_ok(),
                // A module that cannot be compiled here will not be by trying again.
                ModuleState::Kept
                | ModuleState::Compiling
                | ModuleState::Ready
                | ModuleState::Failed(_) => true,
            };
            complete &= had;
        }
        complete
    }
}

fn version_of<'a>(view: &'a View, name: &str, digest: &Digest) -> Option<&'a Version> {
    view.document().resolvers.get(name)?.versions.get(digest)
}

fn summary(admitted: &Admitted) -> String {
    let summary = admitted
        .description
        .as_ref()
        .map_or("", |description| description.summary.as_str());
    let end = summary.floor_char_boundary(sibyl_core::registry::MAX_DESCRIPTION_BYTES);
    summary[..end].to_owned()
}
