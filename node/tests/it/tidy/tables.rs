//! The architecture as tables: doors, rooms, limits, words, and the dated list of exceptions.
//!
//! A library that is not listed cannot be used, a room that is not listed cannot import. Whoever changes a
//! row says why in the commit; whoever removes an exception needs no reason.

/// Which files may name a library: `(crate, beginnings of paths)`. Test files may also use [`FOR_TESTS`].
pub(super) const DOORS: &[(&str, &[&str])] = &[
    (
        "anyhow",
        &["node/src/node", "node/src/main.rs", "node/sim/src/main.rs"],
    ),
    ("automerge", &["node/src/cli/demo/", "resolvers/automerge/"]),
    ("axum", &["node/src/http/"]),
    (
        "base64",
        &[
            "node/src/http/",
            "node/src/laws/",
            "node/src/cli/",
            "resolvers/cases/",
            "resolvers/automerge/examples/",
        ],
    ),
    ("clap", &["node/src/cli/", "node/sim/src/"]),
    ("comfy_table", &["node/src/cli/output.rs"]),
    (
        "crc32c",
        &["node/src/store/", "node/core/src/", "node/fuzz/targets/"],
    ),
    ("fjall", &["node/src/store/fjall.rs"]),
    (
        "futures_util",
        &["node/src/coordinator/", "node/src/http/", "node/src/peer/"],
    ),
    ("getrandom", &["resolvers/automerge/"]),
    (
        "hmac",
        &[
            "node/core/src/merkle/",
            "node/core/src/seal.rs",
            "node/src/resolver/disk.rs",
        ],
    ),
    ("http_body_util", &["node/src/http/", "node/src/cli/bench/"]),
    ("httpdate", &["node/src/http/moment.rs"]),
    (
        "humantime",
        &["node/src/config", "node/src/http/", "node/src/cli/"],
    ),
    ("hyper", &["node/src/http/", "node/src/cli/bench/"]),
    ("hyper_util", &["node/src/http/", "node/src/cli/bench/"]),
    ("indicatif", &["node/src/cli/output.rs"]),
    ("arbitrary", &["node/fuzz/smith/"]),
    ("libfuzzer_sys", &["node/fuzz/targets/"]),
    ("wasm_smith", &["node/fuzz/smith/"]),
    ("mimalloc", &["node/src/main.rs"]),
    ("opentelemetry", &["node/src/telemetry/"]),
    ("opentelemetry_otlp", &["node/src/telemetry/"]),
    ("opentelemetry_sdk", &["node/src/telemetry/"]),
    ("owo_colors", &["node/src/cli/"]),
    (
        "percent_encoding",
        &["node/src/cli/client.rs", "node/src/http/"],
    ),
    (
        "postcard",
        &["node/core/src/", "node/src/peer/", "node/src/resolver/"],
    ),
    ("prometheus_client", &["node/src/telemetry/metrics/"]),
    ("quick_cache", &["node/src/coordinator/resolve.rs"]),
    ("proptest", &["node/src/laws/"]),
    (
        "rand",
        &[
            "node/src/node",
            "node/src/coordinator/",
            "node/src/http/",
            "node/src/outside",
            "node/src/peer/",
            "node/src/tasks/",
            "node/src/telemetry/",
            "node/src/resolver/disk.rs",
            // A restored store draws its actor.
            "node/src/backup/",
            "node/sim/src/",
        ],
    ),
    ("rand_chacha", &["node/sim/src/"]),
    ("reqwest", &["node/src/cli/"]),
    (
        "rustix",
        &["node/src/cli/", "node/src/resolver/", "node/src/store/"],
    ),
    (
        "serde_json",
        &[
            "node/src/http/",
            "node/src/cli/",
            "node/src/laws/",
            "node/sim/src/regression.rs",
            "resolvers/",
        ],
    ),
    (
        "sha2",
        &[
            "node/core/src/",
            "node/fuzz/smith/",
            "node/src/resolver/",
            "resolvers/cases/",
        ],
    ),
    (
        "tempfile",
        &[
            "node/src/cli/author/local.rs",
            "node/src/cli/demo/",
            "node/src/cli/bench/",
        ],
    ),
    ("toml", &["node/src/config/"]),
    ("tower", &["node/src/http/"]),
    (
        "tokio",
        &[
            "node/src/answers",
            "node/src/cli/",
            "node/src/coordinator/",
            "node/src/door",
            "node/src/http/",
            "node/src/node",
            "node/src/outside",
            "node/src/peer/",
            "node/src/replica",
            "node/src/resolver/",
            "node/src/tasks/",
            "node/src/telemetry/",
        ],
    ),
    ("tracing", &["node/src/"]),
    ("tracing_subscriber", &["node/src/telemetry/logs.rs"]),
    ("utoipa", &["node/src/http/"]),
    ("utoipa_axum", &["node/src/http/"]),
    ("wasmparser", &["node/src/resolver/"]),
    ("wasmtime", &["node/src/resolver/"]),
    ("wat", &["node/fuzz/smith/", "node/src/resolver/"]),
    ("wit_bindgen", &["resolvers/"]),
    ("wit_component", &["node/src/resolver/"]),
    ("wit_parser", &["node/src/resolver/"]),
    // Everywhere: values, derive macros, errors.
    ("bytes", &["node/"]),
    ("serde", &["node/", "resolvers/"]),
    ("thiserror", &["node/", "resolvers/"]),
    ("sibyl_core", &["node/"]),
    // The simulator uses the store in memory, and nothing else of the node.
    // In the template it is what `wit-bindgen` calls the contract's package.
    (
        "sibyl",
        &[
            "node/src/main.rs",
            "node/sim/src/",
            "resolvers/templates/rust/",
        ],
    ),
    ("sibyl_resolver_cases", &[]),
    ("sibyl_resolver_kit", &["resolvers/"]),
];

/// What only tests, benches and examples use.
pub(super) const FOR_TESTS: &[&str] = &[
    "criterion",
    "fake_opentelemetry_collector",
    "opentelemetry_proto",
    "proptest",
    "prost",
    "turmoil",
];

/// What the core may depend on; its tests may also use [`FOR_TESTS`].
pub(super) const CORE_LIBRARIES: &[&str] = &[
    "bytes",
    "crc32c",
    "hmac",
    "postcard",
    "serde",
    "sha2",
    "thiserror",
];

/// Who may import whom inside of `node/src`: `(room, what it may name after crate::)`.
pub(super) const ROOMS: &[(&str, &[&str])] = &[
    ("main", &[]),
    ("lib", &[]),
    (
        "node",
        &[
            "answers",
            "backup",
            "config",
            "coordinator",
            "door",
            "http",
            "outside",
            "peer",
            "replica",
            "resolver",
            "store",
            "tasks",
            "telemetry",
        ],
    ),
    // Restoring and checking a backup is done without a node, and so is checking a resolver's laws.
    (
        "cli",
        &["backup", "config", "http", "laws", "node", "resolver"],
    ),
    ("laws", &["resolver"]),
    ("backup", &["resolver", "store", "tasks"]),
    (
        "http",
        &[
            "backup",
            "config",
            "coordinator",
            "door",
            "outside",
            "peer",
            "resolver",
            "store",
            "tasks",
            "telemetry",
        ],
    ),
    (
        "answers",
        &["coordinator", "peer", "replica", "tasks", "telemetry"],
    ),
    (
        "coordinator",
        &[
            "door",
            "laws",
            "outside",
            "peer",
            "replica",
            "resolver",
            "store",
            "tasks",
            "telemetry",
        ],
    ),
    (
        "tasks",
        &["door", "outside", "peer", "replica", "store", "telemetry"],
    ),
    ("door", &["replica"]),
    ("replica", &["outside", "store"]),
    ("outside", &[]),
    ("store", &[]),
    ("peer", &["outside"]),
    ("resolver", &["outside"]),
    ("telemetry", &["outside"]),
    ("config", &[]),
];

/// Words that the core has no use for: clocks, tasks, disks, sockets, and order that differs between runs.
pub(super) const IMPURE: &[&str] = &[
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "async",
    "fs",
    "net",
    "process",
    "rand",
    "thread",
    "tokio",
];

/// Names that say nothing about a file.
pub(super) const EMPTY_NAMES: &[&str] = &[
    "common", "helper", "helpers", "manager", "misc", "util", "utils",
];

/// Hosts of package registries, in pieces, since this file is read too: the registries' own clients know them.
pub(super) const HOSTS: &[&str] = &[
    concat!("//crates.", "io"),
    concat!("static.crates.", "io"),
    concat!("index.crates.", "io"),
    concat!("pypi.", "org"),
    concat!("pythonhosted.", "org"),
    concat!("registry.", "npmjs"),
    concat!("deb.debian.", "org"),
    concat!("static.rust-lang.", "org"),
];

/// Beginnings of paths that exist on one machine only.
pub(super) const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/st", "udio/"),
];

/// The most lines of a file, tests in it included.
pub(super) const FILE_LINES: usize = 600;
/// The most lines of a function, from its name to its closing brace.
pub(super) const FUNCTION_LINES: usize = 70;
/// The most lines of a function in tests, where a table of cases may be most of it.
pub(super) const TEST_FUNCTION_LINES: usize = 150;
/// How many lines a header has; in tests one is enough.
pub(super) const HEADER_LINES: std::ops::RangeInclusive<usize> = 3..=12;

/// `(rule, path, since, why)`: what does not hold yet. A row that nothing needs is a violation of its own.
pub(super) const EXCEPTIONS: &[(&str, &str, &str, &str)] = &[];
