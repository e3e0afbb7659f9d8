//! A bucket's configuration as JSON.
//!
//! Every field is optional in a request and present in an answer. Bounds are the core's; here a field that
//! does not exist yet (`journal`, a binding's `shadow`, `laws` other than `off`) is refused by its name, and
//! any other unknown field too.

use serde::{Deserialize, Serialize};
use sibyl_core::quorum::Level;
use sibyl_core::registry::{BucketConfig, Deletes, Durability, MAX_N};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::binding_config::{BindingBody, BindingJson, Unsupported, WantedBinding, set};
use super::json::Whole;
use super::problem::Problem;

/// How many replicas: `one`, `quorum`, `all` or a number.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "r and w are one, quorum, all, or a number from 1"
)]
enum LevelJson {
    Word(LevelWord),
    Count(Whole<u8>),
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
            Level::Count(count) => Self::Count(Whole(count)),
        }
    }
}

impl From<LevelJson> for Level {
    fn from(level: LevelJson) -> Self {
        match level {
            LevelJson::Word(LevelWord::One) => Self::One,
            LevelJson::Word(LevelWord::Quorum) => Self::Quorum,
            LevelJson::Word(LevelWord::All) => Self::All,
            LevelJson::Count(Whole(count)) => Self::Count(count),
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

/// A configuration: what is left out has its default.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigBody {
    /// Must be the name in the path; answers carry it.
    name: Option<String>,
    /// Copies of each key; fixed at creation.
    #[schema(value_type = Option<u8>, minimum = 1, maximum = 15)]
    n: Option<Whole<u8>>,
    r: Option<LevelJson>,
    w: Option<LevelJson>,
    /// Whether other nodes may stand in for an owner that is away, and count.
    sloppy: Option<bool>,
    durability: Option<DurabilityJson>,
    deletes: Option<DeletesJson>,
    /// Live siblings above which a blind write is refused.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    max_siblings: Option<Whole<u32>>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 16_777_216)]
    max_value_bytes: Option<Whole<u64>>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 67_108_864)]
    max_object_bytes: Option<Whole<u64>>,
    /// Who merges siblings; null or left out: nobody.
    resolver: Option<BindingBody>,
    /// Refused by name.
    #[schema(ignore)]
    #[serde(default)]
    journal: Unsupported,
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
        set(&mut config.n, self.n.map(|number| number.0));
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
        set(
            &mut config.max_siblings,
            self.max_siblings.map(|number| number.0),
        );
        set(
            &mut config.max_value_bytes,
            self.max_value_bytes.map(|number| number.0),
        );
        set(
            &mut config.max_object_bytes,
            self.max_object_bytes.map(|number| number.0),
        );
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
