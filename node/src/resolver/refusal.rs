//! Why an upload is not taken, in words its author can act on.
//!
//! Each refusal says what was found, which toolchain setting usually causes it, and what to do. The compile
//! child makes most of them and sends them to the node as data; the words are put together here only.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::admission::Kind;

/// Why an upload is not taken. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No bytes at all.
    #[error("the upload is empty: send a WebAssembly component, a core module, or WAT text")]
    Empty,
    /// More bytes than an upload may have.
    #[error(
        "the upload is {bytes} bytes, at most {limit} are taken: build for size (opt-level \"s\", lto) and strip debug information"
    )]
    TooLarge {
        /// What was sent.
        bytes: u64,
        /// What is taken.
        limit: u64,
    },
    /// Neither a WebAssembly binary nor WAT.
    #[error(
        "this is not WebAssembly; both forms were tried. As a binary: {binary}. As WAT text: {text}"
    )]
    NotWasm {
        /// Why it is no binary.
        binary: String,
        /// Why it is no text, with line and caret.
        text: String,
    },
    /// WAT with a mistake.
    #[error("the WAT text does not parse: {0}")]
    Wat(
        /// The mistake, with line and caret.
        String,
    ),
    /// A binary that ends too early.
    #[error(
        "the {kind} is cut off at byte {offset}: upload the whole file (binary mode, no newline conversion)"
    )]
    Truncated {
        /// What it is the beginning of.
        kind: Kind,
        /// Where it ends.
        offset: u64,
    },
    /// A binary that breaks the rules of WebAssembly.
    #[error(
        "the {kind} is not valid WebAssembly: {detail}; rebuild it, and check it with `wasm-tools validate`"
    )]
    Invalid {
        /// What it claims to be.
        kind: Kind,
        /// The first rule it breaks.
        detail: String,
    },
    /// A proposal that this node has switched off.
    #[error(
        "it needs a WebAssembly feature that resolvers do not have: {detail}; switch it off in the compiler (threads, shared memory, relaxed SIMD, memory64, GC and exceptions are off because every node must give the same answer)"
    )]
    Feature {
        /// What asks for it.
        detail: String,
    },
    /// Built with the asynchronous ABI.
    #[error(
        "it uses the asynchronous component ABI ({detail}): resolvers are plain synchronous functions; build without async (componentize-qjs: --sync; wit-bindgen: no `async` option)"
    )]
    Async {
        /// Where it shows.
        detail: String,
    },
    /// Imports the node does not offer.
    #[error("it imports what a resolver does not get; the only import is sibyl:resolver/logging@0.1.0. {}", Listed(.0))]
    Imports(
        /// Each of them with its cause and remedy.
        Vec<Import>,
    ),
    /// No `merge` export.
    #[error("it exports no sibyl:resolver/merge@0.1.0{}: a component exports that interface with the function `resolve`, a core module exports `sibyl:resolver/merge@0.1.0#resolve` or plainly `resolve`; GET /v1/wit has the contract", Found(.found))]
    NoMerge {
        /// What it exports instead, the first few.
        found: Vec<String>,
    },
    /// The contract in a version this node does not speak.
    #[error(
        "it is built for {found}, this node speaks {spoken}: build against the WIT of GET /v1/wit, or upgrade the cluster"
    )]
    Version {
        /// What was found.
        found: String,
        /// What the node speaks.
        spoken: String,
    },
    /// An export of the contract with other types.
    #[error(
        "an export has another signature than the contract says: {detail}; a core `resolve` takes eleven i32 and returns one, see GET /v1/wit"
    )]
    Signature {
        /// What differs.
        detail: String,
    },
    /// A core module that cannot become a component.
    #[error(
        "the core module cannot be made a component: {detail}; it needs the exports `memory`, `cabi_realloc` (i32 i32 i32 i32) -> i32 and `resolve`"
    )]
    Wrap {
        /// The encoder's words.
        detail: String,
    },
    /// More memories, tables, instances or initial memory than a place in the pool has.
    #[error(
        "it needs more than a resolver has: {0}; reduce it in the linker (--initial-memory, --max-table-size), a resolver may have 256 MiB, 4 memories and 16 tables"
    )]
    Resources(
        /// The engine's words.
        String,
    ),
    /// It does not start, or cannot describe itself.
    #[error("a trial run failed: {0}")]
    Trial(
        /// What happened.
        String,
    ),
    /// The compiler does not take it.
    #[error("the compiler does not take this module: {0}; make its largest function smaller")]
    Compile(
        /// The compiler's words.
        String,
    ),
    /// Compiling takes too long.
    #[error(
        "compiling took longer than {limit_ms} ms: make the module smaller (fewer or smaller functions, opt-level \"s\")"
    )]
    CompileTime {
        /// The limit, wall clock or processor.
        limit_ms: u64,
    },
    /// Compiling takes too much memory.
    #[error(
        "compiling needed more than {limit_bytes} bytes of memory: make the module smaller, above all its largest function"
    )]
    CompileMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The compiler crashed on it.
    #[error(
        "the compiler crashed on this module, the node is unharmed: {0}; rebuild with another optimisation level"
    )]
    CompilerCrashed(
        /// How.
        String,
    ),
    /// Too many modules wait for the compiler.
    #[error("{waiting} modules already wait for the compiler of this node: try again later")]
    Busy {
        /// How many.
        waiting: u64,
    },
    /// The node could not start or hear its compiler, or not write to its disk.
    #[error("this node cannot compile or store modules now: {0}")]
    Unavailable(
        /// The operating system's words.
        String,
    ),
}

impl Refusal {
    /// The stable code of a problem document.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "resolver_empty",
            Self::TooLarge { .. } => "resolver_too_large",
            Self::NotWasm { .. } | Self::Wat(_) => "not_wasm",
            Self::Truncated { .. } => "resolver_truncated",
            Self::Invalid { .. } => "resolver_invalid",
            Self::Feature { .. } => "resolver_feature",
            Self::Async { .. } => "resolver_async",
            Self::Imports(_) => "resolver_imports",
            Self::NoMerge { .. } => "resolver_no_merge",
            Self::Version { .. } => "resolver_contract_version",
            Self::Signature { .. } => "resolver_signature",
            Self::Wrap { .. } => "resolver_wrap",
            Self::Resources(_) => "resolver_resources",
            Self::Trial(_) => "resolver_trial",
            Self::Compile(_) => "resolver_compile",
            Self::CompileTime { .. } => "resolver_compile_time",
            Self::CompileMemory { .. } => "resolver_compile_memory",
            Self::CompilerCrashed(_) => "resolver_compiler_crashed",
            Self::Busy { .. } => "resolver_compiler_busy",
            Self::Unavailable(_) => "resolver_compiler_unavailable",
        }
    }

    /// Whether the node, not the module, is the reason: the same bytes may be taken later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unavailable(_))
    }
}

/// An import the node does not offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Its full name: interface and function of a component, module and field of a core module.
    pub name: String,
}

impl Import {
    /// Names in one refusal; a Python build without stubs has 18.
    pub const LISTED_MAX: usize = 32;

    /// What usually causes it and what to do.
    pub fn remedy(&self) -> &'static str {
        let name = self.name.as_str();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if starts(&["wasi_snapshot_preview1.sock_"]) {
            "a resolver cannot reach the network: all it knows are the siblings"
        } else if starts(&["wasi_snapshot_preview1", "wasi_unstable"]) {
            "a resolver has no files (of WASI preview 1 it gets arguments, environment, clock, randomness and streams, \
             as constants): leave out what opens them, or build for wasm32-unknown-unknown (Rust), \
             -target wasm32-freestanding (Zig, C)"
        } else if starts(&["wasi:sockets", "wasi:http"]) {
            "a resolver cannot reach the network: all it knows are the siblings"
        } else if starts(&["wasi:clocks", "wasi:random"]) {
            "a resolver has no clock and no randomness, since every node must give the same answer: use \
             modified-at; build with --stub-wasi (componentize-qjs, componentize-py) if the toolchain adds it"
        } else if starts(&["wasi:"]) {
            "a resolver has no files, environment or streams: build with --stub-wasi (componentize-qjs, \
             componentize-py), with all features disabled (componentize-js), or for wasm32-unknown-unknown (Rust)"
        } else if starts(&["env.abort", "env.seed", "env.trace"]) {
            "AssemblyScript: build with --use abort= and without Math.random or trace"
        } else if starts(&["env.", "env:"]) {
            "the linker left a symbol undefined (--allow-undefined, --import-memory): define it or link its library"
        } else if starts(&["__wbindgen", "wbg", "./"]) {
            "wasm-bindgen: build with plain cargo and wit-bindgen instead of wasm-pack"
        } else if starts(&["gojs", "go."]) {
            "GOOS=js: build with GOOS=wasip1 -buildmode=c-shared"
        } else if starts(&["sibyl:resolver/"]) {
            "not in the contract this node speaks: build against the WIT of GET /v1/wit"
        } else {
            "remove it"
        }
    }
}

struct Listed<'a>(&'a [Import]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut imports = self.0.iter().peekable();
        while let Some(import) = imports.next() {
            write!(f, "`{}`", import.name)?;
            match imports.peek() {
                Some(next) if next.remedy() == import.remedy() => f.write_str(", ")?,
                next => write!(
                    f,
                    ": {}{}",
                    import.remedy(),
                    if next.is_some() { ". " } else { "" }
                )?,
            }
        }
        Ok(())
    }
}

struct Found<'a>(&'a [String]);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str(" (it exports nothing)")
        } else {
            write!(f, " (found: {})", self.0.join(", "))
        }
    }
}
