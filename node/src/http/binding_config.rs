//! A resolver's binding inside a bucket's configuration, as JSON.
//!
//! `shadow` does not exist yet and is refused by name. A binding without a version means the one uploaded last; which
//! one that is, the registry says.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sibyl_core::id::Digest;
use sibyl_core::registry::{Binding, Laws, Limits, Mode};
use utoipa::ToSchema;

use super::json::Whole;
use super::path;
use super::problem::Problem;

/// A resolver to bind.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingBody {
    #[schema(pattern = "^[a-z0-9.-][a-z0-9._-]{0,63}$")]
    name: String,
    /// Default: the version uploaded last.
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    version: Option<String>,
    /// Handed to the resolver as it is.
    config: Option<Value>,
    mode: Option<ModeJson>,
    /// Which certificate it must have; default `enforce`.
    laws: Option<LawsJson>,
    limits: Option<LimitsJson>,
    /// Refused by name.
    #[schema(ignore)]
    #[serde(default)]
    shadow: Unsupported,
}

/// A field of the design that does not work yet: any value of it is remembered, to be refused.
#[derive(Default)]
pub(super) struct Unsupported(bool);

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

impl Unsupported {
    /// Refuses the field if it was there.
    pub(super) fn refuse(&self, field: &str, until: &str) -> Result<(), Problem> {
        if self.0 {
            let detail = format!("the field {field} is not supported yet ({until}): leave it out");
            return Err(Problem::bad("unsupported_field", detail).with("field", field));
        }
        Ok(())
    }
}

/// A binding that may still lack its version.
pub(super) struct WantedBinding {
    /// The resolver.
    pub(super) name: String,
    /// The version, if the client named one.
    pub(super) version: Option<Digest>,
    config: String,
    mode: Mode,
    laws: Laws,
    limits: Limits,
}

impl WantedBinding {
    /// With its version.
    pub(super) fn bound(self, version: Digest) -> Binding {
        let Self {
            name,
            config,
            mode,
            laws,
            limits,
            ..
        } = self;
        Binding {
            name,
            version,
            config,
            mode,
            laws,
            limits,
        }
    }
}

/// Whether a bound resolver runs.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ModeJson {
    /// On every read that finds siblings.
    Active,
    /// Not until it is active again.
    Paused,
}

/// Which certificate a bound resolver must have.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum LawsJson {
    /// `foldable` or better.
    Enforce,
    /// `deterministic` or better.
    Warn,
    /// None.
    Off,
}

impl From<LawsJson> for Laws {
    fn from(laws: LawsJson) -> Self {
        match laws {
            LawsJson::Enforce => Self::Enforce,
            LawsJson::Warn => Self::Warn,
            LawsJson::Off => Self::Off,
        }
    }
}

/// What one call of a resolver may use.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LimitsJson {
    /// WebAssembly instructions, about.
    #[schema(value_type = Option<u64>, required = false, minimum = 10_000, maximum = 100_000_000_000_u64)]
    fuel: Option<Whole<u64>>,
    /// Linear memory.
    #[schema(value_type = Option<u64>, required = false, minimum = 65_536, maximum = 67_108_864)]
    memory_bytes: Option<Whole<u64>>,
    /// The size of its answer.
    #[schema(value_type = Option<u64>, required = false, minimum = 1, maximum = 16_777_216)]
    output_bytes: Option<Whole<u64>>,
}

impl BindingBody {
    /// Checks it, all but its bounds.
    pub(super) fn wanted(self) -> Result<WantedBinding, Problem> {
        self.shadow
            .refuse("resolver.shadow", "it comes with folds")?;
        if !path::is_name(&self.name) {
            let detail = format!(
                "resolver.name {:?} is not 1 to 64 of a-z 0-9 . _ - without _ in front",
                self.name
            );
            return Err(Problem::bad("bad_config", detail));
        }
        let parse = |text: String| {
            text.parse().map_err(|error: sibyl_core::id::BadDigest| {
                Problem::bad("bad_config", format!("resolver.version: {error}"))
            })
        };
        let mut limits = Limits::default();
        if let Some(body) = self.limits {
            set(&mut limits.fuel, body.fuel.map(|number| number.0));
            set(
                &mut limits.memory_bytes,
                body.memory_bytes.map(|number| number.0),
            );
            set(
                &mut limits.output_bytes,
                body.output_bytes.map(|number| number.0),
            );
        }
        let mode = match self.mode {
            Some(ModeJson::Paused) => Mode::Paused,
            Some(ModeJson::Active) | None => Mode::Active,
        };
        Ok(WantedBinding {
            name: self.name,
            version: self.version.map(parse).transpose()?,
            config: self
                .config
                .map_or_else(|| "{}".to_owned(), |config| config.to_string()),
            mode,
            laws: self.laws.map_or(Laws::Enforce, LawsJson::into),
            limits,
        })
    }
}

/// Sets what a request names.
pub(super) fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// A bound resolver.
#[derive(Serialize, ToSchema)]
pub(super) struct BindingJson {
    name: String,
    version: String,
    config: Value,
    mode: ModeJson,
    laws: LawsJson,
    limits: LimitsJson,
}

impl BindingJson {
    /// As answers show it.
    pub(super) fn new(binding: &Binding) -> Self {
        let Limits {
            fuel,
            memory_bytes,
            output_bytes,
        } = binding.limits;
        Self {
            name: binding.name.clone(),
            version: binding.version.to_string(),
            config: serde_json::from_str(&binding.config).unwrap_or_default(),
            mode: match binding.mode {
                Mode::Active => ModeJson::Active,
                Mode::Paused => ModeJson::Paused,
            },
            laws: match binding.laws {
                Laws::Off => LawsJson::Off,
                Laws::Warn => LawsJson::Warn,
                Laws::Enforce => LawsJson::Enforce,
            },
            limits: LimitsJson {
                fuel: Some(Whole(fuel)),
                memory_bytes: Some(Whole(memory_bytes)),
                output_bytes: Some(Whole(output_bytes)),
            },
        }
    }
}
