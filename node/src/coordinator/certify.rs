//! Certificates: has the law check run on a version, and keeps in the registry what it found.
//!
//! A quick check runs with an upload, and with a binding whose configuration was never checked; a thorough one is a job
//! of this node with progress. Whatever is found is joined to what the registry knows, so every node goes by the same
//! tier and nothing that was found out is forgotten. Real conflicts are tried again in other groups, one in
//! [`RECHECK_ONE_IN`], beside the read that met them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sibyl_core::id::Digest;
use sibyl_core::object::{Content, Sibling};
use sibyl_core::registry::{
    Binding, BucketConfig, Certificate, Change, Deletes, Law, Setting, Tier, Version,
};

use super::Coordinator;
use super::buckets::BucketFailed;
use super::modules::ModuleFailed;
use crate::laws::{self, Inconclusive, Module, Plan, Progress};
use crate::outside;
use crate::resolver::{Call, Failure, Lane};
use crate::tasks::registry::{ChangeFailed, View};
use crate::telemetry::{self, Span, names};

/// The configuration of a bucket that sets none.
pub(super) const NO_CONFIG: &str = "{}";
/// What a client waits for a check at most, beside its turn.
pub(super) const QUICK_TIME: Duration = Duration::from_secs(10);
/// What a job may take.
pub(super) const THOROUGH_TIME: Duration = Duration::from_secs(600);
/// Jobs that a node remembers, those that are over too.
const MAX_JOBS: usize = 32;
/// One conflict of so many is tried again: a look is some thirty merges, so reads cost about twice the merging.
const RECHECK_ONE_IN: u8 = 16;
/// Siblings of more than this together are not tried again: they are copied for it.
const RECHECK_BYTES: usize = 1 << 20;

/// What to check, and how.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The resolver.
    pub name: String,
    /// The version.
    pub version: Digest,
    /// JSON text.
    pub config: String,
    /// Whether it is shown tombstones.
    pub deletes: bool,
    /// Cases of each law.
    pub cases: u32,
    /// Where drawing begins.
    pub seed: u64,
    /// Real values, to draw from.
    pub samples: Vec<Bytes>,
    /// What the values are; otherwise the first that the module describes.
    pub media_type: Option<String>,
    /// What the check may take.
    pub time: Duration,
}

impl Wish {
    /// The check of an upload.
    pub fn quick(name: &str, version: Digest) -> Self {
        Self {
            name: name.to_owned(),
            version,
            config: NO_CONFIG.to_owned(),
            deletes: false,
            cases: laws::QUICK_CASES,
            seed: 0,
            samples: Vec::new(),
            media_type: None,
            time: QUICK_TIME,
        }
    }

    /// The check of a job.
    pub fn thorough(name: &str, version: Digest) -> Self {
        Self {
            cases: laws::THOROUGH_CASES,
            time: THOROUGH_TIME,
            ..Self::quick(name, version)
        }
    }

    /// What its result is found by.
    pub fn setting(&self) -> Setting {
        Setting {
            config: Digest::of(self.config.as_bytes()),
            deletes: self.deletes,
        }
    }

    fn lane(&self) -> Lane {
        if self.time > QUICK_TIME {
            Lane::Long
        } else {
            Lane::Short
        }
    }
}

/// Why nothing was found out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckFailed {
    /// The module is not ready here.
    #[error(transparent)]
    Module(#[from] ModuleFailed),
    /// The registry did not change.
    #[error(transparent)]
    Registry(#[from] ChangeFailed),
    /// The resolver does not accept the configuration.
    #[error("the resolver refuses the config: {0}")]
    Config(String),
    /// Its own check of the configuration failed.
    #[error("the resolver cannot check the config: {0}")]
    CheckConfig(Failure),
    /// Too few cases could be tried.
    #[error(transparent)]
    Inconclusive(#[from] Inconclusive),
    /// Its `sampling` failed.
    #[error("the module's sampling fails: {0}")]
    Sampling(String),
    /// So many checks wait already.
    #[error("too many law checks wait on this node: try again later")]
    Busy,
}

/// A check that goes on when its client has left.
#[derive(Debug)]
pub struct Job {
    /// The cases that each law is to have.
    pub cases: u32,
    /// How far it is.
    pub progress: Arc<Progress>,
    end: Mutex<Option<Result<(), String>>>,
}

impl Job {
    /// How it ended; `None` while it runs or waits.
    pub fn end(&self) -> Option<Result<(), String>> {
        self.end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The jobs of a node, by the version that they check.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<BTreeMap<Digest, Arc<Job>>>);

impl Coordinator {
    /// Checks a version and keeps in the registry what is found.
    ///
    /// # Errors
    /// [`CheckFailed`]; then nothing was found out, and nothing has changed.
    pub async fn certify(
        &self,
        span: &Span,
        wish: Wish,
        progress: Arc<Progress>,
    ) -> Result<laws::Certificate, CheckFailed> {
        let span = span
            .child(names::span::RESOLVER_CHECK, telemetry::Kind::Internal)
            .start();
        span.resolver_checks(&wish.name, &wish.version);
        let me = self.me().clone();
        let ready = self.prepare(wish.version).await;
        ready.map_err(|why| ModuleFailed::NotReady { node: me, why })?;
        let verdict = self
            .platform()
            .check_config(wish.version, wish.config.clone());
        match verdict.await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(CheckFailed::Config(why)),
            Err(failure) => return Err(CheckFailed::CheckConfig(failure)),
        }
        let checker = self.platform().checker(&wish.version, wish.lane()).await;
        let module = Module::new(checker.map_err(|_| CheckFailed::Busy)?, &wish.config);
        let values = module.values(wish.media_type.as_deref(), wish.samples.clone());
        let plan = Plan {
            cases: wish.cases,
            seed: wish.seed,
            deletes: wish.deletes,
            until: Some(Instant::now() + wish.time),
        };
        let checked = outside::aside(move || {
            let found = laws::check(&module, &values, plan, &progress);
            (found, module.broken_sampling())
        });
        let (found, broken_sampling) = match checked.await {
            Ok(checked) => checked,
            Err(error) => return Err(CheckFailed::Sampling(error.to_string())),
        };
        if let Some(why) = broken_sampling {
            return Err(CheckFailed::Sampling(why));
        }
        let found = found?;
        span.resolver_certified(found.tier.name());
        let (setting, kept) = (wish.setting(), found.kept());
        self.keep_certificate(&span, &wish.name, wish.version, setting, kept)
            .await?;
        Ok(found)
    }

    async fn keep_certificate(
        &self,
        span: &Span,
        name: &str,
        digest: Digest,
        setting: Setting,
        certificate: Certificate,
    ) -> Result<(), ChangeFailed> {
        let change = Change::Certify {
            name: name.to_owned(),
            digest,
            setting,
            certificate,
        };
        self.change(span, change).await.map(drop)
    }

    /// Begins a thorough check of a version, unless one runs here.
    pub fn start_check(&self, wish: Wish) -> Arc<Job> {
        let job = Arc::new(Job {
            cases: wish.cases,
            progress: Arc::default(),
            end: Mutex::default(),
        });
        {
            let mut jobs = self.inner.checks.0.lock();
            let jobs = jobs.as_mut().unwrap_or_else(|poisoned| poisoned.get_mut());
            if let Some(running) = jobs.get(&wish.version).filter(|job| job.end().is_none()) {
                return Arc::clone(running);
            }
            if jobs.len() >= MAX_JOBS {
                let over = jobs.iter().find(|(_, job)| job.end().is_some());
                let over = over.map(|(version, _)| *version);
                over.and_then(|version| jobs.remove(&version));
            }
            jobs.insert(wish.version, Arc::clone(&job));
        }
        let (coordinator, handle) = (self.clone(), Arc::clone(&job));
        tokio::spawn(async move {
            let tracer = coordinator.registry().tracer().clone();
            let span = tracer
                .root(names::span::RESOLVER_CHECK, telemetry::Kind::Internal)
                .start();
            let (name, version) = (wish.name.clone(), wish.version);
            let progress = Arc::clone(&handle.progress);
            let ended = coordinator.certify(&span, wish, progress).await;
            match &ended {
                Ok(found) => {
                    let tier = found.tier.name();
                    tracing::info!(name, %version, tier, "a thorough law check is done");
                }
                Err(why) => tracing::warn!(name, %version, %why, "a thorough law check failed"),
            }
            let ended = ended.map(drop).map_err(|why| why.to_string());
            *handle.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        });
        job
    }

    /// The last thorough check of a version on this node.
    pub fn check_of(&self, version: &Digest) -> Option<Arc<Job>> {
        let jobs = self.inner.checks.0.lock();
        let jobs = jobs.unwrap_or_else(PoisonError::into_inner);
        jobs.get(version).cloned()
    }

    /// Has a version that is to be bound checked, if that was never done with this configuration, and refuses one whose
    /// tier is too low, with its report.
    pub(super) async fn certified(
        &self,
        span: &Span,
        name: &str,
        config: &BucketConfig,
    ) -> Result<(), BucketFailed> {
        let Some(binding) = &config.resolver else {
            return Ok(());
        };
        let Some(least) = binding.laws.least() else {
            return Ok(());
        };
        let view = self.registry().view();
        let known = view.bucket(name).map(|bucket| &bucket.config);
        let is_bound = |known: &BucketConfig| {
            known.resolver == config.resolver && known.deletes == config.deletes
        };
        if known.is_some_and(is_bound) {
            return Ok(());
        }
        if certificate(&view, binding, config.deletes).is_none() {
            let wish = Wish {
                config: binding.config.clone(),
                deletes: config.deletes == Deletes::Resolver,
                ..Wish::quick(&binding.name, binding.version)
            };
            self.certify(span, wish, Arc::default())
                .await
                .map_err(BucketFailed::Laws)?;
        }
        let view = self.registry().view();
        let Some(certificate) = certificate(&view, binding, config.deletes) else {
            // The registry says so in its own words.
            return Ok(());
        };
        let tier = certificate.tier();
        if tier < least {
            return Err(BucketFailed::Tier {
                tier,
                least,
                certificate: Box::new(certificate.clone()),
            });
        }
        if tier < Tier::Foldable {
            let resolver = &binding.name;
            tracing::warn!(
                bucket = name,
                resolver,
                tier = tier.name(),
                "bound, but it breaks laws: its results are shown, and never stored"
            );
        }
        Ok(())
    }

    /// A read has merged these: now and then, tries whether the laws that the version is trusted with hold of them.
    pub(super) fn recheck(
        &self,
        span: &Span,
        binding: &Binding,
        deletes: Deletes,
        siblings: &[&Sibling],
        view: Digest,
        call: impl FnOnce() -> Call,
    ) {
        if !view.0[0].is_multiple_of(RECHECK_ONE_IN) {
            return;
        }
        let registry = self.registry().view();
        let Some(known) = certificate(&registry, binding, deletes) else {
            return;
        };
        let bytes = |sibling: &&Sibling| sibling.content.value.as_ref().map_or(0, Bytes::len);
        let large = siblings.iter().map(bytes).sum::<usize>() > RECHECK_BYTES;
        if large {
            return;
        }
        let trusted = known.laws().iter().filter(|tried| tried.broken.is_none());
        let trusted: Vec<Law> = trusted
            .map(|tried| tried.law)
            .filter(|law| *law != Law::Totality)
            .collect();
        // Another check runs: there will be other conflicts.
        let Ok(checker) = self.platform().checker_now(&binding.version) else {
            return;
        };
        let contents = siblings.iter().map(|sibling| sibling.content.clone());
        let contents: Vec<Content> = contents.collect();
        let module = Module::calling(checker, call());
        let tracer = self.registry().tracer().clone();
        let (cause, coordinator) = (span.context(), self.clone());
        let (name, digest) = (binding.name.clone(), binding.version);
        let setting = binding.setting(deletes);
        tokio::spawn(async move {
            let found = outside::aside(move || laws::recheck(&module, &contents, &trusted)).await;
            let found = found.unwrap_or_default();
            if found.is_empty() {
                return;
            }
            let span = tracer
                .root(names::span::RESOLVER_CHECK, telemetry::Kind::Internal)
                .links(telemetry::LinkKind::ConflictingWrite, [cause])
                .start();
            span.resolver_checks(&name, &digest);
            let kept = laws::kept(&found, 0);
            span.resolver_certified(kept.tier().name());
            for finding in &found {
                let law = finding.law.name();
                coordinator.inner.ground.metrics.law_violation(&name, law);
                tracing::warn!(name, %digest, law, "a resolver broke a law on a real conflict; its tier is lowered");
            }
            let lowered = coordinator.keep_certificate(&span, &name, digest, setting, kept);
            if let Err(error) = lowered.await {
                tracing::warn!(name, %digest, %error, "a broken law could not be told to the registry");
            }
        });
    }
}

fn certificate<'a>(view: &'a View, binding: &Binding, deletes: Deletes) -> Option<&'a Certificate> {
    let resolver = view.document().resolvers.get(&binding.name)?;
    let version: &Version = resolver.versions.get(&binding.version)?;
    version.certificate(binding, deletes)
}
