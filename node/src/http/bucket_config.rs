//! A bucket's configuration as JSON.
//!
//! Every field is optional in a request and present in an answer. Bounds are the core's; here a field that
//! does not exist yet (`journal`, a binding's `shadow`, `laws` other than `off`) is refused by its name, and
//! any other unknown field too.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sibyl_core::id::Digest;
use sibyl_core::quorum::Level;
use sibyl_core::registry::{Binding, BucketConfig, Deletes, Durability, Laws, Limits, MAX_N, Mode};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::path;
use super::problem::Problem;

/// How many replicas: `one`, `quorum`, `all` or a number.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "r and w are one, quorum, all, or a number from 1"
)]
enum LevelJson {
    Word(LevelWord),
    Count(u8),
}

impl PartialSchema for LevelJson {
    fn schema() -> RefOr<Schema> {
        let word = ObjectBuilder::new().schema_type(Type::String);
        let count = ObjectBuilder::new().schema_type(Type::Integer);
        OneOfBuilder::new()
            .item(word.enum_values(Some(["one", "quorum", "all"])))
            .item(count.minimum(Some(1)).maximum(Some(MAX_N)))
            .description(Some("How many replicas."))
            .into()
    }
}

impl ToSchema for LevelJson {}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum LevelWord {
    One,
    Quorum,
    All,
}

impl From<Level> for LevelJson {
    fn from(level: Level) -> Self {
        match level {
            Level::One => Self::Word(LevelWord::One),
            Level::Quorum => Self::Word(LevelWord::Quorum),
            Level::All => Self::Word(LevelWord::All),
            Level::Count(count) => Self::Count(count),
        }
    }
}

impl From<LevelJson> for Level {
    fn from(level: LevelJson) -> Self {
        match level {
            LevelJson::Word(LevelWord::One) => Self::One,
            LevelJson::Word(LevelWord::Quorum) => Self::Quorum,
            LevelJson::Word(LevelWord::All) => Self::All,
            LevelJson::Count(count) => Self::Count(count),
        }
    }
}

/// When a copy counts towards W.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DurabilityJson {
    /// Once it is on disk.
    Synced,
    /// Once it is handed to the operating system.
    Buffered,
}

/// What a view does when a tombstone meets a live sibling.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DeletesJson {
    /// What was written beside a delete lives.
    WriteWins,
    /// Deleted.
    DeleteWins,
    /// The resolver sees a sibling without a value.
    Resolver,
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

/// What one call of a resolver may use.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LimitsJson {
    /// WebAssembly instructions, about.
    #[schema(required = false, minimum = 10_000, maximum = 100_000_000_000_u64)]
    fuel: Option<u64>,
    /// Linear memory.
    #[schema(required = false, minimum = 65_536, maximum = 67_108_864)]
    memory_bytes: Option<u64>,
    /// The size of its answer.
    #[schema(required = false, minimum = 1, maximum = 16_777_216)]
    output_bytes: Option<u64>,
}

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
    /// Which certificate it must have. Only `off`, the default, until certificates exist.
    #[schema(pattern = "^off$")]
    laws: Option<String>,
    limits: Option<LimitsJson>,
    /// Refused by name.
    #[schema(ignore)]
    #[serde(default)]
    shadow: Unsupported,
}

/// A configuration: what is left out has its default.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigBody {
    /// Must be the name in the path; answers carry it.
    name: Option<String>,
    /// Copies of each key; fixed at creation.
    #[schema(minimum = 1, maximum = 15)]
    n: Option<u8>,
    r: Option<LevelJson>,
    w: Option<LevelJson>,
    /// Whether nodes that stand in for an owner count. Stored; not yet in effect.
    sloppy: Option<bool>,
    durability: Option<DurabilityJson>,
    deletes: Option<DeletesJson>,
    /// Live siblings above which a blind write is refused.
    #[schema(minimum = 1, maximum = 1000)]
    max_siblings: Option<u32>,
    #[schema(minimum = 1, maximum = 16_777_216)]
    max_value_bytes: Option<u64>,
    #[schema(minimum = 1, maximum = 67_108_864)]
    max_object_bytes: Option<u64>,
    /// Who merges siblings; null or left out: nobody.
    resolver: Option<BindingBody>,
    /// Refused by name.
    #[schema(ignore)]
    #[serde(default)]
    journal: Unsupported,
}

/// A field of the design that does not work yet: any value of it is remembered, to be refused.
#[derive(Default)]
struct Unsupported(bool);

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

impl Unsupported {
    fn refuse(&self, field: &str, until: &str) -> Result<(), Problem> {
        if self.0 {
            let detail = format!("the field {field} is not supported yet ({until}): leave it out");
            return Err(Problem::bad("unsupported_field", detail).with("field", field));
        }
        Ok(())
    }
}

/// What a request asks for: a configuration that still lacks the version to bind.
pub(super) struct Wanted {
    /// The configuration, without its resolver.
    pub(super) config: BucketConfig,
    /// The client named no `n`.
    pub(super) keep_n: bool,
    /// The resolver to bind; without a version: the one uploaded last.
    pub(super) resolver: Option<WantedBinding>,
}

/// A binding that may still lack its version.
pub(super) struct WantedBinding {
    /// The resolver.
    pub(super) name: String,
    /// The version, if the client named one.
    pub(super) version: Option<Digest>,
    config: String,
    mode: Mode,
    limits: Limits,
}

impl WantedBinding {
    /// With its version.
    pub(super) fn bound(self, version: Digest) -> Binding {
        let Self {
            name,
            config,
            mode,
            limits,
            ..
        } = self;
        Binding {
            name,
            version,
            config,
            mode,
            laws: Laws::Off,
            limits,
        }
    }
}

impl ConfigBody {
    /// Checks what JSON alone shows; bounds are checked once everything is known.
    pub(super) fn wanted(self, bucket: &str) -> Result<Wanted, Problem> {
        self.journal.refuse("journal", "it comes with folding")?;
        if let Some(name) = self.name.filter(|name| name != bucket) {
            return Err(Problem::bad(
                "bad_config",
                format!("name is {name:?}, but the path says {bucket:?}"),
            ));
        }
        let resolver = self.resolver.map(BindingBody::wanted).transpose()?;
        let mut config = BucketConfig::default();
        let keep_n = self.n.is_none();
        set(&mut config.n, self.n);
        set(&mut config.r, self.r.map(Level::from));
        set(&mut config.w, self.w.map(Level::from));
        set(&mut config.sloppy, self.sloppy);
        set(
            &mut config.durability,
            self.durability.map(|choice| match choice {
                DurabilityJson::Synced => Durability::Synced,
                DurabilityJson::Buffered => Durability::Buffered,
            }),
        );
        set(
            &mut config.deletes,
            self.deletes.map(|choice| match choice {
                DeletesJson::WriteWins => Deletes::WriteWins,
                DeletesJson::DeleteWins => Deletes::DeleteWins,
                DeletesJson::Resolver => Deletes::Resolver,
            }),
        );
        set(&mut config.max_siblings, self.max_siblings);
        set(&mut config.max_value_bytes, self.max_value_bytes);
        set(&mut config.max_object_bytes, self.max_object_bytes);
        // A bucket for larger values than the default object holds wants room for at least one of them.
        if self.max_object_bytes.is_none() {
            config.max_object_bytes = config.max_object_bytes.max(config.max_value_bytes);
        }
        Ok(Wanted {
            config,
            keep_n,
            resolver,
        })
    }
}

impl BindingBody {
    fn wanted(self) -> Result<WantedBinding, Problem> {
        self.shadow
            .refuse("resolver.shadow", "it comes with certificates")?;
        if let Some(laws) = self.laws.filter(|laws| laws != "off") {
            let detail = format!(
                "resolver.laws is {laws:?}, but only \"off\" exists until there are certificates"
            );
            return Err(Problem::bad("unsupported_field", detail).with("field", "resolver.laws"));
        }
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
            set(&mut limits.fuel, body.fuel);
            set(&mut limits.memory_bytes, body.memory_bytes);
            set(&mut limits.output_bytes, body.output_bytes);
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
            limits,
        })
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// A bucket: its name and its configuration with every default filled in. Can be sent back as it is.
#[derive(Serialize, ToSchema)]
pub(super) struct BucketJson {
    name: String,
    n: u8,
    r: LevelJson,
    w: LevelJson,
    sloppy: bool,
    durability: DurabilityJson,
    deletes: DeletesJson,
    max_siblings: u32,
    max_value_bytes: u64,
    max_object_bytes: u64,
    resolver: Option<BindingJson>,
}

/// A bound resolver.
#[derive(Serialize, ToSchema)]
struct BindingJson {
    name: String,
    version: String,
    config: Value,
    mode: ModeJson,
    #[schema(pattern = "^off$")]
    laws: &'static str,
    limits: LimitsJson,
}

impl BucketJson {
    /// As answers show it.
    pub(super) fn new(name: &str, config: &BucketConfig) -> Self {
        Self {
            name: name.to_owned(),
            n: config.n,
            r: config.r.into(),
            w: config.w.into(),
            sloppy: config.sloppy,
            durability: match config.durability {
                Durability::Synced => DurabilityJson::Synced,
                Durability::Buffered => DurabilityJson::Buffered,
            },
            deletes: match config.deletes {
                Deletes::WriteWins => DeletesJson::WriteWins,
                Deletes::DeleteWins => DeletesJson::DeleteWins,
                Deletes::Resolver => DeletesJson::Resolver,
            },
            max_siblings: config.max_siblings,
            max_value_bytes: config.max_value_bytes,
            max_object_bytes: config.max_object_bytes,
            resolver: config.resolver.as_ref().map(BindingJson::new),
        }
    }
}

impl BindingJson {
    fn new(binding: &Binding) -> Self {
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
                Laws::Off => "off",
            },
            limits: LimitsJson {
                fuel: Some(fuel),
                memory_bytes: Some(memory_bytes),
                output_bytes: Some(output_bytes),
            },
        }
    }
}
