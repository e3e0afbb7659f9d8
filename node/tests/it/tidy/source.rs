//! Files of the repository, as the rules read them.
//!
//! A small reader, no parser: it blanks comments and the insides of strings, so that what remains is code,
//! line by line where it was. That is enough for paths and for functions as rustfmt lays them out.

use std::fs;
use std::path::{Path, PathBuf};

/// One file.
pub(super) struct Source {
    /// Its path from the repository's top, with `/`.
    pub(super) path: String,
    /// All of it.
    pub(super) text: String,
    /// The text without comments and without what stands in strings; as many lines as `text`.
    pub(super) code: String,
}

impl Source {
    /// A file of that path and text.
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") {
            code(text)
        } else {
            String::new()
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
        }
    }

    /// Whether it is Rust.
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is about tests only: then it may use what tests use.
    pub(super) fn is_test(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or(&self.path);
        let folder = |name: &str| self.path.contains(&format!("/{name}/"));
        folder("tests")
            || folder("benches")
            || folder("examples")
            || file == "tests.rs"
            || file.ends_with("_tests.rs")
    }
}

/// Every text file under version control, near enough: no build output, no data, nothing generated.
pub(super) fn all() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the node lies one folder below the top");
    let mut sources = Vec::new();
    walk(top, top, &mut sources);
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}

fn walk(top: &Path, folder: &Path, sources: &mut Vec<Source>) {
    let skipped = [
        ".git",
        ".hypothesis",
        ".schemathesis",
        "target",
        "sibyl-data",
        "prebuilt",
        "node_modules",
        "__pycache__",
        "Cargo.lock",
        "LICENSE",
    ];
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path: PathBuf = entry.expect("the folder was just opened").path();
        let name = path
            .file_name()
            .expect("an entry has a name")
            .to_string_lossy()
            .into_owned();
        if skipped.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(top, &path, sources);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(top).expect("the walk began at the top");
            sources.push(Source::new(
                &path.to_string_lossy().replace('\\', "/"),
                &text,
            ));
        }
    }
}

/// Blanks comments and the insides of strings and characters. Lines stay where they are.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let before = code
            .chars()
            .next_back()
            .is_some_and(|last| last.is_alphanumeric() || last == '_');
        let hidden = hidden(rest, before);
        if hidden == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..hidden].chars().filter(|letter| *letter == '\n'));
            rest = &rest[hidden..];
        }
    }
    code
}

/// How many bytes at the beginning are a comment or a literal. `in_word`: the letter before belongs to a word.
fn hidden(rest: &str, in_word: bool) -> usize {
    let to_end_of = |close: &str, from: usize| {
        rest[from..]
            .find(close)
            .map_or(rest.len(), |at| from + at + close.len())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return to_end_of("*/", 2);
    }
    if rest.starts_with('"') {
        return quoted(rest);
    }
    let raw = rest
        .strip_prefix("br")
        .or_else(|| rest.strip_prefix('r'))
        .filter(|_| !in_word);
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let open = rest.len() - raw.len() + hashes + 1;
            return to_end_of(&format!("\"{}", "#".repeat(hashes)), open);
        }
    }
    // A character, not a lifetime: one letter or an escape, then the closing mark.
    if let Some(inside) = rest.strip_prefix('\'') {
        if inside.starts_with('\\') {
            return to_end_of("'", 3);
        }
        let width = inside.chars().next().map_or(0, char::len_utf8);
        if inside[width..].starts_with('\'') {
            return width + 2;
        }
    }
    0
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}
