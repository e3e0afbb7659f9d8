//! `sibyl resolver new`, `build` and `test` as processes, with WAT in place of a toolchain.
//!
//! The `languages` gate does the same with every language's own tools and a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::live::SIBYL;
use crate::resolver::fixture::{guest, log, pick};

/// A folder to work in, with a cache of its own.
struct Bench(TempDir);

/// How a command ended.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn resolver(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(SIBYL);
        command
            .arg("resolver")
            .args(args)
            .current_dir(self.0.path());
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command.env_remove("SIBYL_OUTPUT").stdin(Stdio::null());
        let output = command.output().expect("it runs");
        Ended {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ends with this code and says that on standard error.
    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, said: &str) {
        let ended = self.resolver(args);
        assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.err);
        assert!(
            ended.err.contains(said),
            "{args:?}: {:?} does not say {said:?}",
            ended.err
        );
    }

    /// It succeeds; what it printed as JSON.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let ended = self.resolver(&[args, &["--output", "json"]].concat());
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.err);
        serde_json::from_str(&ended.out).expect("it prints JSON")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// A project `p` that builds by these commands.
    fn project(&self, build: &[&str]) {
        let manifest = json!({
            "name": "p",
            "language": "WAT",
            "needs": [{ "tool": "cp", "check": "command -v cp", "get": "a system" }],
            "build": build,
            "output": "build/resolver.wat",
        });
        self.write("p/resolver.json", &manifest.to_string());
    }

    /// A built project `p` of this guest.
    fn built(&self, wat: &str) {
        self.write("p/source.wat", wat);
        self.project(&["mkdir -p build", "cp source.wat build/resolver.wat"]);
        let ended = self.resolver(&["build", "p"]);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
    }

    /// Cases of project `p`: two siblings and what comes out.
    fn case(&self, name: &str, expect: &Value) {
        let siblings = json!([{ "text": "a" }, { "modified_at": 1, "text": "b" }]);
        let cases =
            json!({ "resolve": [{ "name": name, "siblings": siblings, "expect": expect }] });
        self.write(&format!("p/cases/{name}.json"), &cases.to_string());
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn a_new_project_is_there_in_every_language() {
    let bench = Bench::new();
    for language in ["rust", "c", "zig", "assemblyscript", "js", "python", "go"] {
        let ended = bench.resolver(&["new", "--lang", language, "--name", "tags", language]);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        let read =
            |name: &str| fs::read_to_string(bench.path(language).join(name)).expect("a file");
        assert!(read("README.md").starts_with("# tags\n"), "{language}");
        let manifest: Value = serde_json::from_str(&read("resolver.json")).expect("JSON");
        assert_eq!(manifest["name"], "tags");
        assert_eq!(read("wit/resolver.wit"), sibyl::resolver::WIT);
        for file in files(&bench.path(language))
            .iter()
            .filter(|path| path.is_file())
        {
            let text = fs::read_to_string(file).expect("text");
            assert!(!text.contains("my-resolver"), "{}", file.display());
        }
    }
}

#[test]
fn nothing_is_overwritten_and_a_bad_name_is_refused() {
    let bench = Bench::new();
    bench.write("tags/mine.txt", "mine");
    bench.fails(&["new", "tags", "--lang", "c"], 2, "not empty");
    assert_eq!(files(&bench.path("tags")), [bench.path("tags/mine.txt")]);
    fs::create_dir(bench.path("empty")).expect("a folder");
    let ended = bench.resolver(&["new", "empty", "--lang", "c"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    for name in [
        "Tags",
        "_tags",
        "1tags",
        "tags-",
        "ta.gs",
        "..",
        &"t".repeat(65),
    ] {
        bench.fails(&["new", name, "--lang", "c"], 2, "is no name for a project");
    }
    bench.fails(&["new", "tags2", "--lang", "cobol"], 2, "assemblyscript");
    assert!(!bench.path("tags2").exists());
}

#[test]
fn a_build_says_what_came_of_it() {
    let bench = Bench::new();
    bench.built(&guest(&pick(1)));
    let said = bench.json(&["build", "p"]);
    assert_eq!(
        (&said["kind"], &said["interfaces"]),
        (&json!("wat"), &json!([]))
    );
    assert!(
        said["digest"]
            .as_str()
            .is_some_and(|digest| digest.starts_with("sha256:")),
        "{said}"
    );
    // Built, tested and checked, it was compiled once.
    bench.case("newest", &json!({ "outcome": "pick", "index": 1 }));
    bench.json(&["test", "p"]);
    bench.json(&["check", "p", "--cases", "1", "--at-least", "none"]);
    assert_eq!(
        files(&bench.path("cache/sibyl/resolvers/compiled")).len(),
        1
    );
}

#[test]
fn a_build_that_fails_says_why() {
    let bench = Bench::new();
    bench.fails(&["build", "p"], 2, "has no resolver.json");
    bench.write("p/resolver.json", r#"{"name":"p","langauge":"C"}"#);
    bench.fails(&["build", "p"], 2, "unknown field `langauge`");
    bench.project(&["echo to the author; false", "touch never"]);
    bench.fails(&["build", "p"], 1, "to the author");
    assert!(!bench.path("p/never").exists());
    bench.project(&["true"]);
    bench.fails(&["build", "p"], 1, "the build made no p/build/resolver.wat");
    bench.fails(
        &["test", "p"],
        1,
        "not built yet: run `sibyl resolver build p`",
    );
    bench.write("p/build/resolver.wat", "(module)");
    bench.fails(&["build", "p"], 1, "exports no sibyl:resolver/merge");
    let manifest = json!({
        "name": "p", "language": "WAT", "build": ["touch never"], "output": "o",
        "needs": [{ "tool": "no-such-tool", "check": "no-such-tool --version", "get": "make it yourself" }],
    });
    bench.write("p/resolver.json", &manifest.to_string());
    bench.fails(
        &["build", "p"],
        1,
        "no-such-tool; get it with: make it yourself",
    );
    assert!(!bench.path("p/never").exists());
}

#[test]
fn a_projects_own_tools_come_first() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    bench.write("p/source.wat", &guest(&pick(1)));
    bench.write(
        "p/.venv/bin/cp",
        "#!/bin/sh\necho own cp >&2\nmkdir -p build\nexec cat source.wat >build/resolver.wat\n",
    );
    let tool = bench.path("p/.venv/bin/cp");
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).expect("it is ours");
    bench.project(&["cp source.wat build/resolver.wat"]);
    let ended = bench.resolver(&["build", "p"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("own cp"), "{}", ended.err);
}

#[test]
fn cases_hold_or_show_what_differs() {
    let bench = Bench::new();
    bench.built(&guest(&format!("{} {}", log(3, 10), pick(1))));
    fs::create_dir(bench.path("p/cases")).expect("a folder");
    bench.fails(&["test", "p"], 1, "no case to run");
    bench.case("newest", &json!({ "outcome": "pick", "index": 1 }));
    let said = bench.json(&["test", "p"]);
    assert_eq!(said["cases"][0]["holds"], true, "{said}");
    bench.case("oldest", &json!({ "outcome": "pick", "index": 0 }));
    let ended = bench.resolver(&["test", "p"]);
    assert_eq!(ended.code, Some(1));
    for shown in [
        "1 of 2 cases hold",
        "oldest FAILED",
        "- pick 0\n+ pick 1",
        "log error: a sentence",
    ] {
        assert!(
            ended.out.contains(shown),
            "{:?} does not show {shown:?}",
            ended.out
        );
    }
    bench.write("p/cases/typo.json", r#"{"resovle": []}"#);
    bench.fails(
        &["test", "p"],
        2,
        "typo.json holds no cases: unknown field `resovle`",
    );
}

#[test]
fn a_crash_can_be_expected() {
    let bench = Bench::new();
    bench.built(&guest(&format!("{} unreachable", log(3, 10))));
    bench.case(
        "crashes",
        &json!({ "outcome": "crashed", "message": "a sentence" }),
    );
    bench.json(&["test", "p"]);
    bench.case(
        "crashes",
        &json!({ "outcome": "crashed", "message": "another" }),
    );
    assert_eq!(bench.resolver(&["test", "p"]).code, Some(1));
}

#[test]
fn the_shipped_resolvers_cases_are_understood() {
    let bench = Bench::new();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resolvers");
    for name in ["max", "cart", "json-merge", "lww"] {
        let module = top.join(format!("prebuilt/{name}.wasm"));
        let cases = top.join(format!("cases/{name}.json"));
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let said = bench.json(&["test", &path(&module), "--cases", &path(&cases)]);
        assert!(
            said["cases"]
                .as_array()
                .is_some_and(|cases| cases.len() > 3),
            "{name}"
        );
    }
}
