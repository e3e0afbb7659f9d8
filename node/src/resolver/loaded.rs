//! A compiled resolver in memory: linked once, instantiated for every call.
//!
//! Loading includes a trial instantiation, since linking accepts exports with wrong types. Nothing of a call
//! survives it. The guest's answer is checked before anyone else sees it: indices, sizes, lengths of texts.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use wasmtime::component::{
    Component, ComponentExportIndex, Instance, InstancePre, Linker, TypedFunc,
};
use wasmtime::{Engine, Store};

use super::admission::Kind;
use super::bindings::exports::sibyl::resolver::{
    check_config, check_value, describe, merge, sampling,
};
use super::bindings::sibyl::resolver::types::Attribute;
use super::call::{
    BadIndex, Call, Description, Failure, Input, Limits, Report, Resolution, bounded,
};
use super::child::Artifact;
use super::refusal::Refusal;
use super::sandbox::{Budget, Guest, Run, run};

/// Media types kept of a description.
const MEDIA_TYPES_MAX: usize = 32;

/// A description with its JSON schema.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;

/// Small enough to try on the calling thread: copying it takes a few microseconds.
const INLINE_INPUT_BYTES: u64 = 64 << 10;

/// Fuel of a try on the calling thread: about a millisecond at worst.
const INLINE_FUEL: u64 = 2_000_000;

/// The contract's `resolve`, as the bindings have it.
type Resolve<'a> = TypedFunc<
    (merge::Context<'a>, &'a [merge::Sibling<'a>]),
    (Result<merge::Resolution, merge::Failure>,),
>;

/// One resolver, ready to be called.
pub(super) struct Loaded {
    pub(super) kind: Kind,
    /// The optional interfaces it exports.
    pub(super) optional: Vec<&'static str>,
    /// What it says of itself; a failure is one of `describe`.
    pub(super) description: Result<Option<Description>, Failure>,
    /// Bytes of its machine code.
    pub(super) code_bytes: u64,
    /// When it was last called, in turns of the platform.
    pub(super) used: AtomicU64,
    engine: Engine,
    instances: InstancePre<Guest>,
    merge: merge::GuestIndices,
    /// `resolve` of `merge`, by itself: its types are compared once, when it is loaded, and not at every call.
    resolve: ComponentExportIndex,
    check_config: Option<check_config::GuestIndices>,
    check_value: Option<check_value::GuestIndices>,
    describe: Option<describe::GuestIndices>,
    sampling: Option<sampling::GuestIndices>,
    /// Inputs of this size and more have run out of the fuel of a try on the calling thread.
    inline_below: AtomicU64,
}

/// Takes compiled code for what it is. Bytes from anywhere else would run as native code, unchecked.
#[allow(
    unsafe_code,
    reason = "wasmtime can only be told that these bytes are its own: they come from this node's compile child, or from its cache under a MAC"
)]
fn trusted(engine: &Engine, artifact: &Artifact) -> wasmtime::Result<Component> {
    // SAFETY: an `Artifact` is only made by `child::compile` of this build and by `Disk::authentic`.
    unsafe { Component::deserialize(engine, &artifact.code) }
}

impl Loaded {
    /// Links the code, instantiates it once and asks it to describe itself.
    pub(super) fn load(
        engine: &Engine,
        linker: &Linker<Guest>,
        artifact: &Artifact,
    ) -> Result<Self, Refusal> {
        // The code is authentic, so all that can be wrong with it is that no place of the pool fits it.
        let component = trusted(engine, artifact)
            .map_err(|error| Refusal::Resources(bounded(&format!("{error:#}"))))?;
        let signature = |error: wasmtime::Error| Refusal::Signature {
            detail: bounded(&format!("{error:#}")),
        };
        let instances = linker.instantiate_pre(&component).map_err(signature)?;
        let mut loaded = Self {
            kind: artifact.kind,
            optional: Vec::new(),
            description: Ok(None),
            code_bytes: artifact.code.len() as u64,
            used: AtomicU64::new(0),
            engine: engine.clone(),
            merge: merge::GuestIndices::new(&instances).map_err(signature)?,
            resolve: resolve_of(&component).ok_or_else(|| Refusal::Signature {
                detail: "merge exports no resolve".to_owned(),
            })?,
            check_config: None,
            check_value: None,
            describe: None,
            sampling: None,
            inline_below: AtomicU64::new(INLINE_INPUT_BYTES),
            instances,
        };
        loaded.probe().map_err(signature)?;
        // The first conflict shall not pay for this.
        component
            .initialize_copy_on_write_image()
            .map_err(|error| Refusal::Unavailable(error.to_string()))?;
        loaded.try_instantiation()?;
        loaded.description = loaded.ask_description();
        Ok(loaded)
    }

    /// Finds the optional interfaces.
    fn probe(&mut self) -> wasmtime::Result<()> {
        let exports = |interface: &'static str| {
            let name = format!("sibyl:resolver/{interface}@0.1.0");
            self.instances
                .component()
                .get_export_index(None, &name)
                .is_some()
        };
        let present = ["describe", "check-config", "check-value", "sampling"];
        self.optional = present
            .into_iter()
            .filter(|interface| exports(interface))
            .collect();
        for interface in &self.optional {
            match *interface {
                "describe" => {
                    self.describe = Some(describe::GuestIndices::new(&self.instances)?);
                }
                "check-config" => {
                    self.check_config = Some(check_config::GuestIndices::new(&self.instances)?);
                }
                "check-value" => {
                    self.check_value = Some(check_value::GuestIndices::new(&self.instances)?);
                }
                _ => self.sampling = Some(sampling::GuestIndices::new(&self.instances)?),
            }
        }
        Ok(())
    }

    /// Starts it once: wrong signatures and start functions that crash show only here.
    fn try_instantiation(&self) -> Result<(), Refusal> {
        let limits = Limits {
            memory_bytes: Limits::MEMORY_MAX,
            ..Limits::default()
        };
        let run = run(&self.engine, Budget::of(&limits, 0), |store| {
            let instance = self.instances.instantiate(&mut *store)?;
            Ok(self
                .check_types(store, &instance)
                .map_err(|error| bounded(&format!("{error:#}"))))
        });
        match run.result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(detail)) => Err(Refusal::Signature { detail }),
            Err(Failure::Overload) => Err(Refusal::Unavailable(Failure::Overload.to_string())),
            Err(failure) => Err(Refusal::Trial(failure.to_string())),
        }
    }

    /// Compares the types of every export of the contract with the contract's.
    fn check_types(&self, store: &mut Store<Guest>, instance: &Instance) -> wasmtime::Result<()> {
        self.merge.load(&mut *store, instance)?;
        if let Some(check) = &self.check_config {
            check.load(&mut *store, instance)?;
        }
        if let Some(check) = &self.check_value {
            check.load(&mut *store, instance)?;
        }
        if let Some(describe) = &self.describe {
            describe.load(&mut *store, instance)?;
        }
        if let Some(sampling) = &self.sampling {
            sampling.load(&mut *store, instance)?;
        }
        Ok(())
    }

    fn ask_description(&self) -> Result<Option<Description>, Failure> {
        let Some(describe) = &self.describe else {
            return Ok(None);
        };
        let limits = Limits {
            output_bytes: DESCRIPTION_BYTES_MAX,
            ..Limits::default()
        };
        let run = run(&self.engine, Budget::of(&limits, 0), |store| {
            let instance = self.instances.instantiate(&mut *store)?;
            describe.load(&mut *store, &instance)?.call_describe(store)
        });
        run.result.map(|described| Some(description(described)))
    }

    /// Calls `resolve` with everything the call allows.
    pub(super) fn resolve(&self, call: &Call) -> Report {
        match checked_input(call) {
            Ok(input_bytes) => self.resolve_within(call, Budget::of(&call.limits, input_bytes)),
            Err(failure) => Report::refused(failure),
        }
    }

    /// Calls `resolve` if it is likely to be over in a moment; none if it was not, or is not.
    ///
    /// A fresh instance with more fuel repeats the same steps, so a try that runs out leaves no trace.
    pub(super) fn resolve_inline(&self, call: &Call) -> Option<Report> {
        let input_bytes = call.input_bytes();
        if input_bytes >= self.inline_below.load(Ordering::Relaxed) {
            return None;
        }
        let full = Budget::of(&call.limits, input_bytes);
        let budget = Budget {
            fuel: full.fuel.min(INLINE_FUEL),
            ..full
        };
        let report = self.resolve_within(call, budget);
        let ran_out =
            matches!(report.outcome, Err(Failure::Fuel { .. })) && budget.fuel < full.fuel;
        if ran_out {
            self.inline_below.fetch_min(input_bytes, Ordering::Relaxed);
            return None;
        }
        Some(report)
    }

    fn resolve_within(&self, call: &Call, budget: Budget) -> Report {
        let run = run(&self.engine, budget, |store| self.call_resolve(store, call));
        let outcome = run.result.and_then(|answer| match answer {
            Ok(resolution) => checked(resolution, call),
            Err(failure) => Err(own_failure(failure, call.siblings.len())),
        });
        Report {
            outcome,
            fuel: run.fuel,
            memory_bytes: run.memory_bytes,
            duration: run.duration,
            log: run.log,
        }
    }

    fn call_resolve(
        &self,
        store: &mut Store<Guest>,
        call: &Call,
    ) -> wasmtime::Result<Result<merge::Resolution, merge::Failure>> {
        let attributes: Vec<Vec<Attribute<'_>>> = call.siblings.iter().map(attributes).collect();
        let siblings = call.siblings.iter().zip(&attributes);
        let siblings: Vec<merge::Sibling<'_>> = siblings
            .map(|(input, attributes)| merge::Sibling {
                value: input.value.as_deref(),
                modified_at: input.modified_at,
                attributes,
            })
            .collect();
        let context = merge::Context {
            bucket: &call.bucket,
            key: &call.key,
            config: call.config.as_deref(),
            attributes: &[],
        };
        let instance = self.instances.instantiate(&mut *store)?;
        self.typed_resolve(store, &instance)?
            .call(store, (context, &siblings))
            .map(|(answer,)| answer)
    }

    /// `resolve` of an instance, without comparing its types again.
    #[allow(
        unsafe_code,
        reason = "wasmtime compares the types anew for each instance, and that takes as long as a small merge"
    )]
    fn typed_resolve<'a>(
        &self,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> wasmtime::Result<Resolve<'a>> {
        let resolve = instance
            .get_func(store, self.resolve)
            .ok_or_else(|| wasmtime::Error::msg("merge exports no resolve"))?;
        // SAFETY: `check_types` compared the types of this very export of this very component, with
        // `GuestIndices::load`; a component that fails there is never loaded. Instances share them.
        Ok(unsafe { TypedFunc::new_unchecked(resolve) })
    }

    /// Asks whether a bucket's configuration is good; one that does not check takes all.
    pub(super) fn check_config(&self, config: &str) -> Result<Result<(), String>, Failure> {
        let Some(check) = &self.check_config else {
            return Ok(Ok(()));
        };
        let budget = Budget::of(&Limits::default(), config.len() as u64);
        let run = run(&self.engine, budget, |store| {
            let instance = self.instances.instantiate(&mut *store)?;
            check
                .load(&mut *store, &instance)?
                .call_check(store, config)
        });
        verdict(run)
    }

    /// A value made of these bytes; `None` if it makes none.
    pub(super) fn sample(&self, entropy: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let Some(sampling) = &self.sampling else {
            return Ok(None);
        };
        let budget = Budget::of(&Limits::default(), entropy.len() as u64);
        let run = run(&self.engine, budget, |store| {
            let instance = self.instances.instantiate(&mut *store)?;
            sampling
                .load(&mut *store, &instance)?
                .call_sample(store, entropy)
        });
        run.result.map(Some)
    }

    /// Asks whether the only sibling of `call` is a good value; one that does not check takes all.
    pub(super) fn check_value(&self, call: &Call) -> Result<Result<(), String>, Failure> {
        let (Some(check), Some(value)) = (
            &self.check_value,
            call.siblings
                .first()
                .and_then(|sibling| sibling.value.as_deref()),
        ) else {
            return Ok(Ok(()));
        };
        let budget = Budget::of(&call.limits, checked_input(call)?);
        let attributes = call.siblings.first().map(attributes).unwrap_or_default();
        let context = check_value::Context {
            bucket: &call.bucket,
            key: &call.key,
            config: call.config.as_deref(),
            attributes: &attributes,
        };
        let run = run(&self.engine, budget, |store| {
            let instance = self.instances.instantiate(&mut *store)?;
            check
                .load(&mut *store, &instance)?
                .call_check(store, context, value)
        });
        verdict(run)
    }
}

fn resolve_of(component: &Component) -> Option<ComponentExportIndex> {
    let merge = component.get_export_index(None, "sibyl:resolver/merge@0.1.0")?;
    component.get_export_index(Some(&merge), "resolve")
}

fn attributes(input: &Input) -> Vec<Attribute<'_>> {
    input
        .attributes
        .iter()
        .map(|(name, value)| Attribute { name, value })
        .collect()
}

fn checked_input(call: &Call) -> Result<u64, Failure> {
    let bytes = call.input_bytes();
    let limit_bytes = Limits::INPUT_BYTES_MAX;
    if bytes > limit_bytes {
        Err(Failure::InputTooLarge { bytes, limit_bytes })
    } else {
        Ok(bytes)
    }
}

fn checked(resolution: merge::Resolution, call: &Call) -> Result<Resolution, Failure> {
    let siblings = call.siblings.len();
    match resolution {
        merge::Resolution::Merged(value) if value.len() as u64 > call.limits.output_bytes => {
            Err(Failure::Output {
                limit_bytes: call.limits.output_bytes,
            })
        }
        merge::Resolution::Merged(value) => Ok(Resolution::Merged(Bytes::from(value))),
        merge::Resolution::Pick(index) => Ok(Resolution::Pick(in_range(index, siblings)?)),
        merge::Resolution::Keep(indices) => Ok(Resolution::Keep(distinct(&indices, siblings)?)),
        merge::Resolution::Delete => Ok(Resolution::Delete),
    }
}

fn in_range(index: u32, siblings: usize) -> Result<usize, Failure> {
    let position = index as usize;
    if position < siblings {
        Ok(position)
    } else {
        Err(Failure::InvalidIndex(BadIndex::OutOfRange {
            index,
            siblings,
        }))
    }
}

fn distinct(indices: &[u32], siblings: usize) -> Result<Vec<usize>, Failure> {
    if indices.is_empty() {
        return Err(Failure::InvalidIndex(BadIndex::None));
    }
    let mut seen = vec![false; siblings];
    indices
        .iter()
        .map(|index| {
            let position = in_range(*index, siblings)?;
            if std::mem::replace(&mut seen[position], true) {
                return Err(Failure::InvalidIndex(BadIndex::Twice { index: *index }));
            }
            Ok(position)
        })
        .collect()
}

/// A failure the resolver itself reports, with bounded words.
fn own_failure(failure: merge::Failure, siblings: usize) -> Failure {
    match failure {
        merge::Failure::Malformed(bad) => match in_range(bad.index, siblings) {
            Ok(index) => Failure::Malformed {
                index,
                message: bounded(&bad.message),
            },
            Err(failure) => failure,
        },
        merge::Failure::BadConfig(text) => Failure::BadConfig(bounded(&text)),
        merge::Failure::Declined(text) => Failure::Declined(bounded(&text)),
        merge::Failure::Other(text) => Failure::Other(bounded(&text)),
    }
}

fn verdict(run: Run<Result<(), String>>) -> Result<Result<(), String>, Failure> {
    run.result
        .map(|verdict| verdict.map_err(|text| bounded(&text)))
}

fn description(described: describe::Description) -> Description {
    Description {
        name: bounded(&described.name),
        version: bounded(&described.version),
        summary: bounded(&described.summary),
        media_types: described
            .media_types
            .iter()
            .take(MEDIA_TYPES_MAX)
            .map(|text| bounded(text))
            .collect(),
        config_schema: described.config_schema,
    }
}
