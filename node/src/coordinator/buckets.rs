//! Changes of buckets: what has to be true beyond what the registry itself checks.
//!
//! A binding is two steps: every node that can be reached has the version compiled and its config checked,
//! then the registry names it. A bucket is deleted only if it is empty, or with its keys; what a deleted
//! bucket leaves on disk is erased in the background, and refused from the moment the registry says so.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use sibyl_core::id::{Incarnation, NodeId};
use sibyl_core::registry::{Binding, BucketConfig, Certificate, Change, Expect, Tier};
use tokio::time::Instant;

use super::Coordinator;
use super::certify::CheckFailed;
use super::modules::ModuleFailed;
use super::request::{ListError, ListRequest};
use crate::outside;
use crate::replica::Swept;
use crate::resolver::Failure;
use crate::tasks::registry::{ChangeFailed, View};
use crate::telemetry::Span;

/// Whether a bucket may be deleted with what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptiness {
    /// It must hold no living key.
    Required,
    /// Its keys go with it.
    Purge,
}

/// Why a bucket was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BucketFailed {
    /// The registry did not change.
    #[error(transparent)]
    Registry(#[from] ChangeFailed),
    /// The resolver to bind is not ready.
    #[error(transparent)]
    Module(#[from] ModuleFailed),
    /// The resolver does not accept its config.
    #[error("the resolver refuses the config: {0}")]
    Config(String),
    /// The check of the config itself failed.
    #[error("the resolver cannot check the config: {0}")]
    Check(Failure),
    /// What the resolver may be trusted with could not be found out.
    #[error("its laws could not be checked, and resolver.laws is not off: {0}")]
    Laws(CheckFailed),
    /// It breaks laws that the binding asks for.
    #[error(
        "the resolver is {}, and resolver.laws asks for {} or better", tier.name(), least.name()
    )]
    Tier {
        /// What it is.
        tier: Tier,
        /// What is asked for.
        least: Tier,
        /// What was found.
        certificate: Box<Certificate>,
    },
    /// It holds keys.
    #[error("the bucket holds keys: delete them first, or delete it with ?purge=true")]
    NotEmpty,
    /// A node may hold a write that nobody else has.
    #[error(
        "{node} cannot be asked to take no more writes ({why}), and may hold one: try again, or delete the bucket with ?purge=true"
    )]
    NotClosed {
        /// Which node.
        node: NodeId,
        /// Why not.
        why: String,
    },
    /// Looking for keys took too long for writes to be kept out.
    #[error("looking for keys took too long: try again, or delete the bucket with ?purge=true")]
    TooSlow,
    /// Whether it holds keys is not known.
    #[error(transparent)]
    List(ListError),
}

/// How many keys are looked for at a time when a bucket must be empty: a full page, since what is in the way
/// of the first living key may be very many deleted ones.
const LOOK_AHEAD: usize = 1000;

impl Coordinator {
    /// Creates a bucket or changes its configuration.
    ///
    /// # Errors
    /// [`BucketFailed`].
    pub async fn put_bucket(
        &self,
        span: &Span,
        name: &str,
        config: BucketConfig,
        expect: Expect,
    ) -> Result<Arc<View>, BucketFailed> {
        if let Some(binding) = &config.resolver {
            self.bindable(span, binding).await?;
        }
        self.certified(span, name, &config).await?;
        let change = Change::PutBucket {
            name: name.to_owned(),
            config: Box::new(config),
            expect,
        };
        Ok(self.change(span, change).await?)
    }

    async fn bindable(&self, span: &Span, binding: &Binding) -> Result<(), BucketFailed> {
        let view = self.registry().view();
        let resolver = view.document().resolvers.get(&binding.name);
        if !resolver.is_some_and(|resolver| resolver.versions.contains_key(&binding.version)) {
            // The registry says so in its own words.
            return Ok(());
        }
        self.ready_everywhere(span, binding.version).await?;
        match self
            .platform()
            .check_config(binding.version, binding.config.clone())
            .await
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(BucketFailed::Config(message)),
            Err(failure) => Err(BucketFailed::Check(failure)),
        }
    }

    /// Deletes a bucket.
    ///
    /// # Errors
    /// [`BucketFailed`].
    pub async fn delete_bucket(
        &self,
        span: &Span,
        name: &str,
        emptiness: Emptiness,
        expect: Expect,
    ) -> Result<(), BucketFailed> {
        let change = Change::DeleteBucket {
            name: name.to_owned(),
            expect,
        };
        let bucket = self.registry().view().bucket(name).cloned();
        let Some(bucket) = bucket.filter(|_| emptiness == Emptiness::Required) else {
            self.change(span, change).await?;
            return Ok(());
        };
        let work = async {
            let began = Instant::now();
            let empty = self.is_empty(span, name).await;
            if !empty.map_err(BucketFailed::List)? {
                return Err(BucketFailed::NotEmpty);
            }
            if !Self::is_still_closed(began) {
                return Err(BucketFailed::TooSlow);
            }
            self.change(span, change).await?;
            Ok(())
        };
        self.while_closed(span, bucket.incarnation, work).await
    }

    /// Whether a bucket holds no living key. Ends because every page begins behind the one before.
    async fn is_empty(&self, span: &Span, name: &str) -> Result<bool, ListError> {
        let mut after = None;
        loop {
            let page = ListRequest {
                bucket: name.to_owned(),
                prefix: Bytes::new(),
                after,
                limit: LOOK_AHEAD,
                all: true,
            };
            let listed = self.list(span, page).await?;
            if !listed.keys.is_empty() || listed.next.is_none() {
                return Ok(listed.keys.is_empty());
            }
            after = listed.next;
        }
    }

    /// Follows the registry and erases what deleted buckets left here. Ends with the registry's task.
    pub async fn sweep_up(self) {
        let mut registry = self.registry().watch();
        let mut swept: BTreeSet<Incarnation> = BTreeSet::new();
        loop {
            let view = Arc::clone(&registry.borrow_and_update());
            let known: BTreeSet<Incarnation> = view
                .document()
                .buckets
                .values()
                .map(|bucket| bucket.incarnation)
                .collect();
            // The first round looks for what an earlier run left half done.
            if !view.forming() && (swept.is_empty() || !swept.is_subset(&known)) {
                let (replica, kept) = (self.replica().clone(), known.clone());
                let (partitions, number) = (view.ring().partitions(), view.number());
                let erased = outside::aside(move || replica.sweep(partitions, &kept, number)).await;
                self.inner.feed.forget_others(&known);
                match erased {
                    Ok(Ok(done)) => {
                        report(&done);
                        // What could not be read is tried again with the next document.
                        if done.unread == 0 {
                            swept = known;
                        }
                    }
                    // The next document tries again.
                    Ok(Err(failure)) => {
                        tracing::warn!(%failure, "deleted buckets are not erased yet");
                    }
                    Err(error) => tracing::warn!(%error, "deleted buckets are not erased yet"),
                }
            } else if !view.forming() {
                // Those that are new go the same way one day.
                swept = known;
            }
            if registry.changed().await.is_err() {
                return;
            }
        }
    }
}

fn report(swept: &Swept) {
    let (records, damaged) = (swept.erased, swept.damaged);
    if records > 0 {
        tracing::info!(records, "erased what deleted buckets left");
    }
    if damaged > 0 {
        tracing::warn!(damaged, "damaged records were among them: examine the disk");
    }
    if let Some(why) = &swept.why {
        let partitions = swept.unread;
        tracing::warn!(partitions, %why, "deleted buckets are not erased yet where the store cannot be read");
    }
}
