//! Resolvers behind the API: uploads, versions and trials.
//!
//! It translates between the shapes of the API and the words of the coordinator and the platform. A trial stores
//! nothing, and runs with the limits that a bucket would give it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sibyl_core::id::Digest;
use sibyl_core::registry::{self, Change, Version};
use sibyl_core::view::Resolution;

use super::Exchange;
use super::failures::{no_resolver, not_checked, not_taken, unchanged};
use crate::coordinator::{CheckFailed, GuestLog, ModuleFailed, Wish};
use crate::http::api::{
    AdminError, Check, CheckWish, Form, LogLine, Module, Trial, TrialSibling, Tried, TriedOutcome,
    Upload, Uploaded,
};
use crate::http::certificates::{Certificate, CheckView, Checked, CostJson, SettingCertificate};
use crate::http::moment;
use crate::http::resolver_shapes::{ModuleKind, Readiness, ResolverView, VersionView};
use crate::resolver::{Call, Input, Limits, ModuleState, Report};
use crate::tasks::registry::View;

impl Exchange {
    pub(super) async fn take_upload(&self, upload: Upload) -> Result<Uploaded, AdminError> {
        let Upload {
            name,
            form: _,
            bytes,
            check,
        } = upload;
        let taken = self
            .coordinator()
            .upload(&self.span, &name, bytes)
            .await
            .map_err(not_taken)?;
        let digest = taken.admitted.digest;
        let reason = match check {
            Check::Off => None,
            Check::Thorough => {
                self.coordinator()
                    .start_check(Wish::thorough(&name, digest));
                None
            }
            Check::Quick => self.quickly(&name, digest, &taken.version).await?,
        };
        let view = self.coordinator().registry().view();
        let nodes = self.nodes(&view, digest).await;
        let known = self.known(&name, digest).unwrap_or(taken.version);
        let mut version = version_view(&view, &name, digest, &known, nodes);
        version.certificate.reason = reason;
        Ok(Uploaded {
            version,
            created: taken.created,
        })
    }

    /// Checks a version that was not checked yet. That nothing can be found out is no failure of the upload: why not.
    async fn quickly(
        &self,
        name: &str,
        digest: Digest,
        version: &Version,
    ) -> Result<Option<String>, AdminError> {
        let wish = Wish::quick(name, digest);
        if version.certificates.contains_key(&wish.setting()) {
            return Ok(None);
        }
        let checked = self.coordinator().certify(&self.span, wish, Arc::default());
        match checked.await {
            Ok(_) => Ok(None),
            Err(CheckFailed::Registry(failed)) => Err(unchanged(failed)),
            Err(failed) => Ok(Some(failed.to_string())),
        }
    }

    pub(super) async fn check_laws(&self, wish: CheckWish) -> Result<Checked, AdminError> {
        let version = self.wanted(&wish.name, wish.version).await?;
        let quick = Wish::quick(&wish.name, version);
        let cases = wish.cases.unwrap_or(quick.cases);
        let wish = Wish {
            config: wish.config.unwrap_or(quick.config),
            deletes: wish.deletes,
            cases,
            seed: wish.seed,
            samples: wish.samples,
            media_type: wish.media_type,
            ..quick
        };
        let found = self.coordinator().certify(&self.span, wish, Arc::default());
        let found = found.await.map_err(|failed| {
            let detail = failed.to_string();
            not_checked(failed, detail)
        })?;
        let costs = found.costs.iter().map(|cost| CostJson {
            input_bytes: cost.input_bytes,
            output_bytes: cost.output_bytes,
            fuel: cost.fuel,
            memory_bytes: cost.memory_bytes,
        });
        Ok(Checked {
            digest: version.to_string(),
            certificate: (&found.kept()).into(),
            costs: costs.collect(),
        })
    }

    pub(super) fn check_view(
        &self,
        name: &str,
        digest: Digest,
    ) -> Result<Option<CheckView>, AdminError> {
        self.known(name, digest)?;
        let job = self.coordinator().check_of(&digest);
        Ok(job.map(|job| {
            let (law, cases) = job.progress.now();
            let (state, detail) = match job.end() {
                None => ("running", None),
                Some(Ok(())) => ("done", None),
                Some(Err(why)) => ("failed", Some(why)),
            };
            CheckView {
                state,
                law: law.name(),
                cases: cases.into(),
                of: job.cases.into(),
                detail,
            }
        }))
    }

    pub(super) fn log_of(&self, name: &str) -> Result<GuestLog, AdminError> {
        let view = self.coordinator().serving();
        let view = view.map_err(AdminError::NotServing)?;
        if !view.document().resolvers.contains_key(name) {
            return Err(no_resolver(name));
        }
        Ok(self.coordinator().guest_log(name))
    }

    /// The version that is meant: the one uploaded last if none is named.
    async fn wanted(&self, name: &str, version: Option<Digest>) -> Result<Digest, AdminError> {
        let version = match version {
            Some(version) => version,
            None => {
                let mut views = self.resolver_views(Some(name)).await?;
                let newest = views
                    .pop()
                    .and_then(|view| view.versions.last().map(|last| last.digest.clone()));
                newest
                    .and_then(|digest| digest.parse().ok())
                    .ok_or_else(|| no_resolver(name))?
            }
        };
        self.known(name, version)?;
        Ok(version)
    }

    /// Every resolver, or the one of this name; in the order of names, versions in the order of upload.
    pub(super) async fn resolver_views(
        &self,
        only: Option<&str>,
    ) -> Result<Vec<ResolverView>, AdminError> {
        let view = self
            .coordinator()
            .serving()
            .map_err(AdminError::NotServing)?;
        let mut views = Vec::new();
        for (name, resolver) in &view.document().resolvers {
            if only.is_some_and(|only| only != name) {
                continue;
            }
            let mut versions = Vec::new();
            for (digest, version) in &resolver.versions {
                let nodes = match only {
                    Some(_) => self.nodes(&view, *digest).await,
                    None => self.own_state(*digest),
                };
                versions.push((
                    version.uploaded_at_ms,
                    version_view(&view, name, *digest, version, nodes),
                ));
            }
            versions.sort_by_key(|(at, _)| *at);
            let versions = versions.into_iter().map(|(_, version)| version).collect();
            views.push(ResolverView {
                name: name.clone(),
                versions,
            });
        }
        Ok(views)
    }

    fn own_state(&self, digest: Digest) -> BTreeMap<String, Readiness> {
        let state = match self.coordinator().platform().state(&digest) {
            ModuleState::Ready => Readiness::Ready,
            ModuleState::Compiling | ModuleState::Kept => Readiness::Compiling,
            ModuleState::Absent | ModuleState::Failed(_) => Readiness::Missing,
        };
        BTreeMap::from([(self.coordinator().me().to_string(), state)])
    }

    /// Which nodes hold a version compiled. Asking makes those that do not hold it begin.
    async fn nodes(&self, view: &View, digest: Digest) -> BTreeMap<String, Readiness> {
        let members = view.document().layout.members.keys();
        let mut nodes: BTreeMap<String, Readiness> = members
            .map(|node| (node.to_string(), Readiness::Unreachable))
            .collect();
        for (node, said) in self.coordinator().readiness(&self.span, digest).await {
            let state = if said.is_ok() {
                Readiness::Ready
            } else {
                Readiness::Missing
            };
            nodes.insert(node.to_string(), state);
        }
        nodes.extend(self.own_state(digest));
        nodes
    }

    fn known(&self, name: &str, digest: Digest) -> Result<Version, AdminError> {
        let view = self
            .coordinator()
            .serving()
            .map_err(AdminError::NotServing)?;
        let resolver = view
            .document()
            .resolvers
            .get(name)
            .ok_or_else(|| no_resolver(name))?;
        resolver
            .versions
            .get(&digest)
            .cloned()
            .ok_or_else(|| AdminError::NotFound {
                code: "no_version",
                detail: format!("the resolver {name:?} has no version {digest}"),
            })
    }

    pub(super) async fn module_of(&self, name: &str, digest: Digest) -> Result<Module, AdminError> {
        let version = self.known(name, digest)?;
        let unavailable = |why: String| {
            not_taken(ModuleFailed::NotReady {
                node: self.coordinator().me().clone(),
                why,
            })
        };
        self.coordinator()
            .prepare(digest)
            .await
            .map_err(unavailable)?;
        let bytes = self
            .coordinator()
            .module(digest)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let form = if version.kind == registry::Kind::Wat {
            Form::Wat
        } else {
            Form::Wasm
        };
        Ok(Module { form, bytes })
    }

    pub(super) async fn remove_version(
        &self,
        name: &str,
        digest: Digest,
    ) -> Result<(), AdminError> {
        self.known(name, digest)?;
        let change = Change::RemoveVersion {
            name: name.to_owned(),
            digest,
        };
        self.coordinator()
            .change(&self.span, change)
            .await
            .map_err(unchanged)?;
        Ok(())
    }

    pub(super) async fn try_out(&self, trial: Trial) -> Result<Tried, AdminError> {
        let version = self.wanted(&trial.name, trial.version).await?;
        let me = self.coordinator().me().clone();
        let ready = self.coordinator().prepare(version).await;
        ready.map_err(|why| not_taken(ModuleFailed::NotReady { node: me, why }))?;
        let order = canonical(&trial.siblings);
        let call = Call {
            bucket: "try".to_owned(),
            key: trial.key,
            config: trial.config,
            siblings: order.iter().map(|at| input(&trial.siblings[*at])).collect(),
            limits: Limits::default(),
        };
        let report = self.coordinator().platform().resolve(version, call).await;
        Ok(tried(report, &order))
    }
}

/// The order in which the host shows siblings: as a view does, and by place where that says nothing.
fn canonical(siblings: &[TrialSibling]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..siblings.len()).collect();
    order.sort_by_cached_key(|at| {
        let TrialSibling {
            value,
            modified_at,
            content_type,
            attributes,
        } = &siblings[*at];
        let payload = value.as_ref().map(|value: &Bytes| Digest::of(value));
        (
            *modified_at,
            payload,
            content_type.clone(),
            attributes.clone(),
            *at,
        )
    });
    order
}

fn input(sibling: &TrialSibling) -> Input {
    let media_type = ("content-type".to_owned(), sibling.content_type.clone());
    let attributes = sibling
        .attributes
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    Input {
        value: sibling.value.clone(),
        modified_at: sibling.modified_at,
        attributes: std::iter::once(media_type).chain(attributes).collect(),
    }
}

/// A report in the caller's own indices.
fn tried(report: Report, order: &[usize]) -> Tried {
    let outcome = match report.outcome {
        Ok(Resolution::Merged(value)) => TriedOutcome::Merged(value),
        Ok(Resolution::Pick(at)) => TriedOutcome::Picked(order[at]),
        Ok(Resolution::Keep(kept)) => {
            let mut kept: Vec<usize> = kept.into_iter().map(|at| order[at]).collect();
            kept.sort_unstable();
            TriedOutcome::Kept(kept)
        }
        Ok(Resolution::Delete) => TriedOutcome::Deleted,
        Err(failure) => TriedOutcome::Failed {
            kind: failure.kind().to_owned(),
            message: failure.to_string(),
        },
    };
    let lines = report.log.into_iter();
    let log = lines.map(|line| LogLine {
        level: line.level.as_str().to_owned(),
        message: line.message,
    });
    Tried {
        outcome,
        fuel: report.fuel,
        memory_bytes: report.memory_bytes,
        duration: report.duration,
        log: log.collect(),
    }
}

fn version_view(
    view: &View,
    name: &str,
    digest: Digest,
    version: &Version,
    nodes: BTreeMap<String, Readiness>,
) -> VersionView {
    let binds = |bucket: &registry::Bucket| {
        let binding = bucket.config.resolver.as_ref();
        binding.is_some_and(|binding| binding.name == name && binding.version == digest)
    };
    let buckets = view
        .document()
        .buckets
        .iter()
        .filter(|(_, bucket)| binds(bucket));
    let known = &version.certificates;
    let plain = known.get(&Wish::quick(name, digest).setting());
    VersionView {
        digest: digest.to_string(),
        bytes: version.bytes,
        uploaded_at: moment::rfc3339(version.uploaded_at_ms),
        kind: match version.kind {
            registry::Kind::Component => ModuleKind::Component,
            registry::Kind::Core => ModuleKind::Core,
            registry::Kind::Wat => ModuleKind::Wat,
        },
        certificate: plain.map_or_else(Certificate::unchecked, Certificate::from),
        settings: known
            .iter()
            .map(|(setting, found)| SettingCertificate::new(setting, found))
            .collect(),
        bound: buckets.map(|(name, _)| name.clone()).collect(),
        nodes,
    }
}
