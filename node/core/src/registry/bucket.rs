//! A bucket's configuration, typed, with its defaults and bounds.
//!
//! What `design/http-api.md` lists and what exists: `journal` and a binding's `shadow` come with folds
//! and are refused by the API until then. A resolver's `config` is JSON text that this
//! crate carries and never parses: the API has parsed it, and views hash it as it is.

use serde::{Deserialize, Serialize};

use super::certificate::{Setting, Tier};
use super::rules::check_name;
use crate::id::{Digest, Incarnation};
use crate::quorum::Level;

/// The most copies of a key.
pub const MAX_N: u8 = 15;
/// The highest `max_siblings`: a resolver gets them all in one call.
pub const MAX_SIBLINGS: u32 = 1000;
/// The highest `max_value_bytes`: 16 MiB.
pub const MAX_VALUE_BYTES: u64 = 16 << 20;
/// The highest `max_object_bytes`: 32 MiB, two of the largest values. A frame between nodes takes 34 MiB, and
/// what does not fit into one can be neither read nor repaired from another node.
pub const MAX_OBJECT_BYTES: u64 = 32 << 20;
/// The longest `config` of a resolver, in bytes: it is in every copy of the registry.
pub const MAX_RESOLVER_CONFIG_BYTES: usize = 64 << 10;
/// The most fuel of one call: about a minute of work.
pub const MAX_FUEL: u64 = 100_000_000_000;
/// The most memory of one call: what an instance slot of the pool has.
pub const MAX_RESOLVER_MEMORY_BYTES: u64 = 64 << 20;

/// A bucket: its configuration and what distinguishes it from others of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The number of the document that created it.
    pub incarnation: Incarnation,
    /// The number of the document that last changed it: what `If-Match` compares.
    pub revision: u64,
    /// Grows with every change of the binding, also when it is taken away.
    pub epoch: u64,
    /// What the operator set.
    pub config: BucketConfig,
}

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketConfig {
    /// Copies of each key; fixed at creation.
    pub n: u8,
    /// Replies a read needs.
    pub r: Level,
    /// Acknowledgements a write needs.
    pub w: Level,
    /// Whether fallbacks count, unless a request says otherwise.
    pub sloppy: bool,
    /// When a copy counts.
    pub durability: Durability,
    /// What a view shows when a tombstone meets a live sibling.
    pub deletes: Deletes,
    /// Live siblings above which a write is refused.
    pub max_siblings: u32,
    /// The largest value.
    pub max_value_bytes: u64,
    /// The largest object that a write may leave behind.
    pub max_object_bytes: u64,
    /// Who merges the siblings.
    pub resolver: Option<Binding>,
}

/// When a copy counts towards W.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Once it is on disk.
    Synced,
    /// Once it is handed to the operating system.
    Buffered,
}

/// What a view shows when a tombstone meets a live sibling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deletes {
    /// The live ones; a resolver does not see the tombstone.
    WriteWins,
    /// Nothing.
    DeleteWins,
    /// The resolver decides; it sees a sibling without a value.
    Resolver,
}

/// A resolver version bound to a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The resolver.
    pub name: String,
    /// The version.
    pub version: Digest,
    /// JSON text, verbatim.
    pub config: String,
    /// Whether it runs.
    pub mode: Mode,
    /// Which certificate it must have.
    pub laws: Laws,
    /// What one call may use.
    pub limits: Limits,
}

/// Whether a bound resolver runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// On every read that finds siblings.
    Active,
    /// Not until it is active again: readers get the siblings.
    Paused,
}

/// Which certificate a bound resolver must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Laws {
    /// None.
    Off,
    /// Tier `deterministic` or better.
    Warn,
    /// Tier `foldable` or better.
    Enforce,
}

impl Laws {
    /// The name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            Laws::Off => "off",
            Laws::Warn => "warn",
            Laws::Enforce => "enforce",
        }
    }

    /// The least tier that may be bound; `None` if no certificate is needed.
    pub fn least(self) -> Option<Tier> {
        match self {
            Laws::Off => None,
            Laws::Warn => Some(Tier::Deterministic),
            Laws::Enforce => Some(Tier::Foldable),
        }
    }
}

/// What one call of a resolver may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// WebAssembly instructions, about.
    pub fuel: u64,
    /// Linear memory.
    pub memory_bytes: u64,
    /// The size of its answer.
    pub output_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 100_000_000,
            memory_bytes: 64 << 20,
            output_bytes: 1 << 20,
        }
    }
}

impl Default for BucketConfig {
    fn default() -> Self {
        Self {
            n: 3,
            r: Level::Quorum,
            w: Level::Quorum,
            sloppy: true,
            durability: Durability::Synced,
            deletes: Deletes::WriteWins,
            max_siblings: 100,
            max_value_bytes: 1 << 20,
            max_object_bytes: 16 << 20,
            resolver: None,
        }
    }
}

/// A configuration that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// A number outside its bounds.
    #[error("{field} must be from {least} to {most}, not {value}")]
    Bounds {
        /// The field, as the API spells it.
        field: &'static str,
        /// What it was set to.
        value: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// More replies asked for than there are copies.
    #[error("{field} must be at most n, {n}, not {value}")]
    AboveN {
        /// `r` or `w`.
        field: &'static str,
        /// What it was set to.
        value: u8,
        /// Copies of each key.
        n: u8,
    },
    /// A resolver name that is not one.
    #[error("resolver.name {0:?} is not 1 to 64 of a-z 0-9 . _ - without _ in front")]
    ResolverName(String),
    /// `deletes` asks a resolver that the bucket does not have.
    #[error("deletes is resolver, but the bucket has no resolver: bind one in the same change")]
    NoResolver,
}

impl BucketConfig {
    /// Says whether every field keeps its bounds and they fit each other.
    pub fn check(&self) -> Result<(), BadConfig> {
        bounds("n", u64::from(self.n), 1, u64::from(MAX_N))?;
        check_level("r", self.r, self.n)?;
        check_level("w", self.w, self.n)?;
        bounds(
            "max_siblings",
            u64::from(self.max_siblings),
            1,
            u64::from(MAX_SIBLINGS),
        )?;
        bounds("max_value_bytes", self.max_value_bytes, 1, MAX_VALUE_BYTES)?;
        let least = self.max_value_bytes;
        bounds(
            "max_object_bytes",
            self.max_object_bytes,
            least,
            MAX_OBJECT_BYTES,
        )?;
        match &self.resolver {
            Some(binding) => binding.check(),
            None if self.deletes == Deletes::Resolver => Err(BadConfig::NoResolver),
            None => Ok(()),
        }
    }
}

impl Binding {
    /// What certificates of this binding are found by, in a bucket with this policy.
    pub fn setting(&self, deletes: Deletes) -> Setting {
        Setting {
            config: Digest::of(self.config.as_bytes()),
            deletes: deletes == Deletes::Resolver,
        }
    }

    fn check(&self) -> Result<(), BadConfig> {
        check_name("resolver", &self.name)
            .map_err(|_| BadConfig::ResolverName(self.name.clone()))?;
        let config = self.config.len() as u64;
        bounds(
            "resolver.config (bytes)",
            config,
            1,
            MAX_RESOLVER_CONFIG_BYTES as u64,
        )?;
        let Limits {
            fuel,
            memory_bytes,
            output_bytes,
        } = self.limits;
        bounds("resolver.limits.fuel", fuel, 10_000, MAX_FUEL)?;
        let memory = MAX_RESOLVER_MEMORY_BYTES;
        bounds(
            "resolver.limits.memory_bytes",
            memory_bytes,
            64 << 10,
            memory,
        )?;
        bounds(
            "resolver.limits.output_bytes",
            output_bytes,
            1,
            MAX_VALUE_BYTES,
        )
    }
}

fn check_level(field: &'static str, level: Level, n: u8) -> Result<(), BadConfig> {
    match level {
        Level::Count(0) => Err(BadConfig::Bounds {
            field,
            value: 0,
            least: 1,
            most: u64::from(n),
        }),
        Level::Count(value) if value > n => Err(BadConfig::AboveN { field, value, n }),
        _ => Ok(()),
    }
}

fn bounds(field: &'static str, value: u64, least: u64, most: u64) -> Result<(), BadConfig> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(BadConfig::Bounds {
            field,
            value,
            least,
            most,
        })
    }
}
