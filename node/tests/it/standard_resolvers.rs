//! The shipped modules do what their sources do: the node's platform runs each of them on the cases that the
//! resolvers' own tests run natively.
//!
//! The modules are those of `resolvers/prebuilt`, or, when `SIBYL_REBUILT_RESOLVERS` names a folder, those a
//! rebuild put there. The checksums are compared in any case.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sibyl::resolver::{Call, Failure, Input, Limits, Platform, Resolution, Settings};
use sibyl_core::id::Digest;
use sibyl_resolver_cases::{Cases, SiblingCase, expect_refusal, load};
use sibyl_resolver_kit as kit;

/// Names the folder with rebuilt modules.
const REBUILT: &str = "SIBYL_REBUILT_RESOLVERS";
/// Compiling the largest takes half a minute in a debug build on a busy machine.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);

fn prebuilt() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../resolvers/prebuilt")
}

/// The modules' names with their checksums.
fn checksums() -> BTreeMap<String, String> {
    let path = prebuilt().join("SHA256SUMS");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let line = |line: &str| {
        let (sum, file) = line.split_once("  ").expect("lines of sha256sum");
        (
            file.strip_suffix(".wasm").expect("a module").to_owned(),
            format!("sha256:{sum}"),
        )
    };
    text.lines().map(line).collect()
}

#[test]
fn shipped_modules_have_their_checksums() {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(prebuilt()).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            let name = path
                .file_stem()
                .expect("it has one")
                .to_string_lossy()
                .into_owned();
            let digest = Digest::of(&std::fs::read(&path).expect("it can be read"));
            found.insert(name, digest.to_string());
        }
    }
    assert_eq!(found, checksums());
    assert_eq!(found.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shipped_modules_do_what_the_cases_say() {
    let folder = std::env::var_os(REBUILT).map_or_else(prebuilt, PathBuf::from);
    println!("the modules of {}", folder.display());
    let cache = tempfile::tempdir().expect("a temporary directory");
    let mut settings = Settings::new(cache.path(), env!("CARGO_BIN_EXE_sibyl"));
    settings.compile_timeout = COMPILE_TIMEOUT;
    let platform = Platform::open(settings).expect("the platform starts");
    for name in checksums().into_keys() {
        let path = folder.join(format!("{name}.wasm"));
        let module =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let admitted = platform.admit(Bytes::from(module)).await;
        let admitted = admitted.unwrap_or_else(|error| panic!("{name}: {error}"));
        let described = admitted
            .description
            .as_ref()
            .map(|description| description.name.as_str());
        assert_eq!(described, Some(name.as_str()));
        check(&platform, admitted.digest, &load(&name)).await;
    }
}

/// Runs all cases of one module.
async fn check(platform: &Platform, digest: Digest, cases: &Cases) {
    assert!(!cases.resolve.is_empty());
    for case in &cases.resolve {
        let siblings = case.siblings.iter().map(input).collect();
        let report = platform
            .resolve(digest, call(case.config.clone(), siblings))
            .await;
        case.expect
            .check(&case.name, &report.outcome.map(resolution).map_err(failure));
    }
    for case in &cases.check_config {
        let found = platform.check_config(digest, case.config.clone()).await;
        expect_refusal(
            &case.name,
            &case.refused,
            &found.expect("the check itself works"),
        );
    }
    for case in &cases.check_value {
        let sibling = Input {
            value: Some(case.bytes().into()),
            modified_at: 0,
            attributes: Vec::new(),
        };
        let found = platform
            .check_value(digest, call(case.config.clone(), vec![sibling]))
            .await;
        expect_refusal(
            &case.name,
            &case.refused,
            &found.expect("the check itself works"),
        );
    }
}

fn call(config: Option<String>, siblings: Vec<Input>) -> Call {
    // What the native tests see.
    let kit::Context {
        bucket,
        key,
        config,
        attributes: _,
    } = sibyl_resolver_cases::context(config);
    Call {
        bucket,
        key: key.into(),
        config,
        siblings,
        limits: Limits::default(),
    }
}

fn input(case: &SiblingCase) -> Input {
    Input {
        value: case.bytes().map(Bytes::from),
        modified_at: case.modified_at,
        attributes: Vec::new(),
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("few siblings")
}

fn resolution(resolution: Resolution) -> kit::Resolution {
    match resolution {
        Resolution::Merged(value) => kit::Resolution::Merged(value.to_vec()),
        Resolution::Pick(at) => kit::Resolution::Pick(index(at)),
        Resolution::Keep(kept) => kit::Resolution::Keep(kept.into_iter().map(index).collect()),
        Resolution::Delete => kit::Resolution::Delete,
    }
}

fn failure(failure: Failure) -> kit::Failure {
    match failure {
        Failure::Malformed { index: at, message } => kit::Failure::Malformed(kit::BadSibling {
            index: index(at),
            message,
        }),
        Failure::BadConfig(message) => kit::Failure::BadConfig(message),
        Failure::Declined(message) => kit::Failure::Declined(message),
        Failure::Other(message) => kit::Failure::Other(message),
        failed => panic!("the module failed: {failed}"),
    }
}
