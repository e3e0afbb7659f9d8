//! What goes into a resolver and what comes out of it, as the node speaks of it.
//!
//! Plain values without wasmtime: the coordinator builds a [`Call`], the platform answers a [`Report`].
//! A [`Failure`] of any kind means the same to data: the siblings stay. The kinds are kept apart because
//! a person must act on them differently.

use std::time::Duration;

use bytes::Bytes;
use sibyl_core::object::Content;

/// One merge to run: the siblings of a key in canonical order, and what surrounds them.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The bucket of the key.
    pub bucket: String,
    /// The key.
    pub key: Bytes,
    /// The JSON of the bucket's `resolver.config`, verbatim.
    pub config: Option<String>,
    /// The siblings, already sorted by the caller; the platform hands them on in this order.
    pub siblings: Vec<Input>,
    /// What this call may use.
    pub limits: Limits,
}

impl Call {
    /// The bytes that cross into the guest, without record overhead.
    pub fn input_bytes(&self) -> u64 {
        let inputs: usize = self.siblings.iter().map(Input::bytes).sum();
        let config = self.config.as_ref().map_or(0, String::len);
        (inputs + self.bucket.len() + self.key.len() + config) as u64
    }
}

/// One sibling, as a resolver sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// What a client wrote; none for a delete.
    pub value: Option<Bytes>,
    /// Milliseconds since the Unix epoch.
    pub modified_at: u64,
    /// `content-type` first, then what the client attached.
    pub attributes: Vec<(String, String)>,
}

impl From<&Content> for Input {
    fn from(content: &Content) -> Self {
        let media_type = ("content-type".to_owned(), content.content_type.clone());
        let attributes = content
            .attributes
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        Self {
            value: content.value.clone(),
            modified_at: content.modified_at,
            attributes: std::iter::once(media_type).chain(attributes).collect(),
        }
    }
}

impl Input {
    fn bytes(&self) -> usize {
        let attributes: usize = self
            .attributes
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.value.as_ref().map_or(0, Bytes::len) + attributes
    }
}

/// What one call may use, from the bucket's `resolver.limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Base fuel; [`Limits::FUEL_PER_INPUT_BYTE`] is added for every input byte, up to [`Limits::FUEL_MAX`].
    pub fuel: u64,
    /// Linear memory of all memories together, in bytes; at most [`Limits::MEMORY_MAX`] is granted.
    pub memory_bytes: u64,
    /// The largest value a resolver may answer, in bytes.
    pub output_bytes: u64,
}

impl Limits {
    /// A sorted union of large line sets in Rust takes about 590 per byte.
    pub const FUEL_PER_INPUT_BYTE: u64 = 1_000;
    /// A few seconds of one core; a base above it is taken as it is.
    pub const FUEL_MAX: u64 = 5_000_000_000;
    /// The address space of one pooled memory.
    pub const MEMORY_MAX: u64 = 256 << 20;
    /// The most input of one call: an object of 16 MiB, and 100 siblings' attributes and the config beside it.
    pub const INPUT_BYTES_MAX: u64 = 17 << 20;

    /// The fuel of a call with that much input.
    pub fn fuel_for(&self, input_bytes: u64) -> u64 {
        let shared = input_bytes.saturating_mul(Self::FUEL_PER_INPUT_BYTE);
        self.fuel
            .saturating_add(shared)
            .min(Self::FUEL_MAX.max(self.fuel))
    }
}

impl Default for Limits {
    /// 100 M fuel, 64 MiB of memory, 1 MiB of output.
    fn default() -> Self {
        Self {
            fuel: 100_000_000,
            memory_bytes: 64 << 20,
            output_bytes: 1 << 20,
        }
    }
}

/// What became of one call: the outcome and what it cost.
#[derive(Clone, Debug)]
pub struct Report {
    /// The resolution, or why there is none.
    pub outcome: Result<Resolution, Failure>,
    /// Fuel used; equal on every node of one build for equal input.
    pub fuel: u64,
    /// The most linear memory the guest held, in bytes.
    pub memory_bytes: u64,
    /// Wall-clock time of instantiation, call and drop.
    pub duration: Duration,
    /// What the guest logged, also when it trapped.
    pub log: Vec<LogLine>,
}

impl Report {
    /// A call that never reached a guest.
    pub(super) fn refused(failure: Failure) -> Self {
        Self {
            outcome: Err(failure),
            fuel: 0,
            memory_bytes: 0,
            duration: Duration::ZERO,
            log: Vec::new(),
        }
    }
}

pub use sibyl_core::view::Resolution;

/// Why there is no resolution. Stored siblings stay as they are, whatever the kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The resolver says that a person must decide.
    #[error("the resolver leaves it to a person: {0}")]
    Declined(String),
    /// The resolver does not understand one sibling.
    #[error("sibling {index} is not what the resolver understands: {message}")]
    Malformed {
        /// Which sibling, in the order of the call.
        index: usize,
        /// The resolver's words.
        message: String,
    },
    /// The resolver refuses the bucket's configuration.
    #[error("the bucket's resolver config is wrong: {0}")]
    BadConfig(String),
    /// The resolver failed for a reason of its own.
    #[error("the resolver failed: {0}")]
    Other(String),
    /// The guest crashed, or broke the rules of the component model.
    #[error("the resolver crashed: {0}")]
    Trap(String),
    /// The guest recursed too deeply.
    #[error("the resolver used up its call stack of {limit_bytes} bytes: it recurses too deeply")]
    StackOverflow {
        /// The stack a guest has.
        limit_bytes: u64,
    },
    /// The guest used up its budget.
    #[error(
        "the resolver used up its {limit} fuel: raise the bucket's resolver.limits.fuel or make it cheaper"
    )]
    Fuel {
        /// The budget of this call.
        limit: u64,
    },
    /// The guest wanted more memory.
    #[error(
        "the resolver wanted {wanted_bytes} bytes of memory and may have {limit_bytes}: raise resolver.limits.memory_bytes (up to 268435456)"
    )]
    Memory {
        /// What it would have held.
        wanted_bytes: u64,
        /// What it may hold.
        limit_bytes: u64,
    },
    /// The guest wanted more table elements.
    #[error("the resolver wanted {wanted} table elements and may have {limit}")]
    Table {
        /// What it would have held.
        wanted: u64,
        /// What it may hold.
        limit: u64,
    },
    /// The answer is too large.
    #[error(
        "the resolver's answer is larger than {limit_bytes} bytes: raise the bucket's resolver.limits.output_bytes"
    )]
    Output {
        /// The most a value may have.
        limit_bytes: u64,
    },
    /// The siblings together are more than a call may carry.
    #[error("the siblings are {bytes} bytes together, a resolver takes at most {limit_bytes}")]
    InputTooLarge {
        /// What they are.
        bytes: u64,
        /// What a call may carry.
        limit_bytes: u64,
    },
    /// All places for running resolvers are taken.
    #[error("this node runs as many resolvers as it can: try again")]
    Overload,
    /// This node has no compiled code for that digest (yet).
    #[error("this node does not have the resolver compiled yet")]
    MissingModule,
    /// The resolution names a sibling that is not there, names one twice, or keeps none.
    #[error("the resolver's answer names siblings wrongly: {0}")]
    InvalidIndex(BadIndex),
}

/// What is wrong with the indices of a resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIndex {
    /// There is no such sibling.
    #[error("index {index} of {siblings} siblings")]
    OutOfRange {
        /// What the resolver said.
        index: u32,
        /// How many there are.
        siblings: usize,
    },
    /// One is named twice.
    #[error("index {index} twice")]
    Twice {
        /// What the resolver said.
        index: u32,
    },
    /// `keep` of nothing.
    #[error("it keeps none (to delete the key, answer delete)")]
    None,
}

impl Failure {
    /// The stable name of the kind, as the API and the metrics spell it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Declined(_) => "declined",
            Self::Malformed { .. } => "malformed",
            Self::BadConfig(_) => "bad_config",
            Self::Other(_) => "other",
            Self::Trap(_) => "trap",
            Self::StackOverflow { .. } => "stack_overflow",
            Self::Fuel { .. } => "fuel",
            Self::Memory { .. } | Self::Table { .. } => "memory",
            Self::Output { .. } => "output",
            Self::InputTooLarge { .. } => "input_too_large",
            Self::Overload => "overload",
            Self::MissingModule => "missing_module",
            Self::InvalidIndex(_) => "invalid_index",
        }
    }

    /// Whether the same call may succeed on this node a moment later, without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Overload | Self::MissingModule)
    }
}

/// One line a guest logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How serious the guest thinks it is.
    pub level: Level,
    /// At most [`LogLine::MESSAGE_BYTES_MAX`] bytes; a cut line ends with [`LogLine::CUT`].
    pub message: String,
}

impl LogLine {
    /// Lines kept of one call; the next one says that more followed.
    pub const LINES_MAX: usize = 64;
    /// Bytes kept of one line, with the mark of a cut one.
    pub const MESSAGE_BYTES_MAX: usize = 1024;
    /// Ends a line that was longer.
    pub const CUT: &str = "… (cut)";
    /// The last line of a log that had more of them.
    pub const DROPPED: &str = "… (more lines were dropped)";
}

/// How serious a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For the author.
    Debug,
    /// For whoever looks.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

impl Level {
    /// The name as the contract spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What a resolver says of itself through its optional `describe`. The author's words, not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The resolver's own name.
    pub name: String,
    /// The resolver's own version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// What content types it understands.
    pub media_types: Vec<String>,
    /// JSON Schema of the bucket's config.
    pub config_schema: Option<String>,
}

/// Cuts text at a character boundary so that it has at most [`LogLine::MESSAGE_BYTES_MAX`] bytes, and says so.
pub(super) fn bounded(text: &str) -> String {
    if text.len() <= LogLine::MESSAGE_BYTES_MAX {
        return text.to_owned();
    }
    let kept = text.floor_char_boundary(LogLine::MESSAGE_BYTES_MAX - LogLine::CUT.len());
    format!("{}{}", &text[..kept], LogLine::CUT)
}
