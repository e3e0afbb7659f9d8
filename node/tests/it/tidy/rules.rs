//! The rules, each a function from a file to what is wrong with it.
//!
//! Pure: a file comes in, sentences come out. A sentence begins with the place and ends with what to do.

use super::source::Source;
use super::tables::{
    CORE_LIBRARIES, DOORS, EMPTY_NAMES, EXCEPTIONS, FILE_LINES, FOR_TESTS, FUNCTION_LINES,
    HEADER_LINES, HOSTS, IMPURE, MACHINE_PATHS, ROOMS, TEST_FUNCTION_LINES,
};

type Rule = (&'static str, fn(&Source) -> Vec<String>);

const RULES: &[Rule] = &[
    ("door", doors),
    ("room", rooms),
    ("core", purity),
    ("size", size),
    ("function", functions),
    ("header", header),
    ("name", name),
    ("unfinished", unfinished),
    ("place", places),
];

/// Everything that is wrong with a file, but for what is excepted.
pub(super) fn check(source: &Source) -> Vec<String> {
    let excepted = |rule: &str| {
        EXCEPTIONS
            .iter()
            .any(|(name, path, ..)| *name == rule && *path == source.path)
    };
    let rules = RULES.iter().filter(|(name, _)| !excepted(name));
    rules.flat_map(|(_, rule)| rule(source)).collect()
}

/// Exceptions that nothing needs any more.
pub(super) fn exceptions(sources: &[Source]) -> Vec<String> {
    let idle = EXCEPTIONS.iter().filter(|(name, path, ..)| {
        let rule = RULES
            .iter()
            .find(|(rule, _)| rule == name)
            .map(|(_, rule)| rule);
        let source = sources.iter().find(|source| source.path == *path);
        !matches!((rule, source), (Some(rule), Some(source)) if !rule(source).is_empty())
    });
    idle.map(|(name, path, ..)| {
        format!("{path}: the exception from `{name}` is not needed: remove it")
    })
    .collect()
}

/// Dependencies without a row in the tables.
pub(super) fn dependencies(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for manifest in sources
        .iter()
        .filter(|source| source.path.ends_with("Cargo.toml"))
    {
        let mut table = "";
        for line in manifest.text.lines() {
            if line.starts_with('[') {
                table = line;
                continue;
            }
            let Some(name) = line
                .split(['=', '.', ' '])
                .next()
                .filter(|name| !name.is_empty() && !name.starts_with('#'))
            else {
                continue;
            };
            let name = name.replace('-', "_");
            let known = DOORS.iter().any(|(library, _)| *library == name)
                || FOR_TESTS.contains(&name.as_str());
            if table.ends_with("dependencies]") && !known {
                found.push(format!(
                    "{}: `{name}` has no door: give it a row in DOORS or remove it",
                    manifest.path
                ));
            }
        }
    }
    found
}

fn doors(source: &Source) -> Vec<String> {
    if source.is_test() {
        return Vec::new();
    }
    let ours = ours(source);
    let tests = test_module(source);
    let mut found = Vec::new();
    for (number, line) in lines(&source.code).take_while(|(number, _)| *number < tests) {
        for library in heads(line) {
            let row = DOORS.iter().find(|(name, _)| *name == library);
            let open = |paths: &[&str]| paths.iter().any(|path| source.path.starts_with(path));
            let place = format!("{}:{number}: `{library}`", source.path);
            if ours.contains(&library) {
                continue;
            }
            match row {
                Some((_, paths)) if !open(paths) => {
                    found.push(format!(
                        "{place} is used outside of its door ({})",
                        paths.join(", ")
                    ));
                }
                None if FOR_TESTS.contains(&library) => {
                    found.push(format!("{place} is for tests only"));
                }
                _ => {}
            }
        }
    }
    found
}

/// Names that this file takes from our own modules: `fjall` of `use super::fjall` is not the library.
fn ours(source: &Source) -> Vec<&str> {
    let mut ours = Vec::new();
    for keyword in ["use super::", "use crate::", "use self::", "mod "] {
        for (at, _) in source.code.match_indices(keyword) {
            let rest = &source.code[at + keyword.len()..];
            let statement = &rest[..rest.find([';', '\n']).unwrap_or(rest.len())];
            let whole = if statement.contains('{') {
                &rest[..rest.find(';').unwrap_or(rest.len())]
            } else {
                statement
            };
            ours.extend(whole.split(|letter: char| !letter.is_alphanumeric() && letter != '_'));
        }
    }
    ours
}

fn rooms(source: &Source) -> Vec<String> {
    let Some(inside) = source.path.strip_prefix("node/src/") else {
        return Vec::new();
    };
    if !source.is_rust() || source.is_test() {
        return Vec::new();
    }
    let room = inside.split(['/', '.']).next().unwrap_or(inside);
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{}: `{room}` is not in the table of rooms: who may import it, and whom may it?",
            source.path
        )];
    };
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("crate::") {
        let number = source.code[..at].lines().count().max(1);
        for target in targets(&source.code[at + "crate::".len()..]) {
            let known = ROOMS.iter().any(|(name, _)| *name == target);
            if known && target != room && !allowed.contains(&target) {
                found.push(format!(
                    "{}:{number}: `{room}` must not know `{target}`",
                    source.path
                ));
            }
        }
    }
    let is_task = room == "tasks" && inside.matches('/').count() == 1 && inside != "tasks/mod.rs";
    if is_task && source.code.contains("use super::") {
        found.push(format!(
            "{}: tasks do not import one another: let node.rs hand over what is needed",
            source.path
        ));
    }
    found
}

/// What `crate::` leads to: one name, or the first names inside of braces.
fn targets(rest: &str) -> Vec<&str> {
    let Some(list) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let mut depth = 0;
    let mut begins = vec![0];
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins.push(at + 1),
            _ => {}
        }
    }
    begins
        .into_iter()
        .map(|at| word(list[at..].trim_start()))
        .filter(|name| !name.is_empty())
        .collect()
}

fn purity(source: &Source) -> Vec<String> {
    if !source.path.starts_with("node/core/src/") || source.is_test() {
        return Vec::new();
    }
    let tests = test_module(source);
    let mut found = Vec::new();
    for (number, line) in lines(&source.code) {
        let words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        for word in words.filter(|word| IMPURE.contains(word)) {
            found.push(format!(
                "{}:{number}: the core has no `{word}`: let the shell hand it in",
                source.path
            ));
        }
        let known = |library: &&str| {
            DOORS.iter().any(|(name, _)| name == library) && !IMPURE.contains(library)
        };
        for library in heads(line)
            .into_iter()
            .filter(known)
            .filter(|library| !CORE_LIBRARIES.contains(library))
            .filter(|library| number < tests || !FOR_TESTS.contains(library))
        {
            found.push(format!(
                "{}:{number}: `{library}` is not a library of the core",
                source.path
            ));
        }
    }
    // One sentence for a word and its line is enough.
    found.dedup();
    found
}

fn size(source: &Source) -> Vec<String> {
    let count = source.text.lines().count();
    let long = source.is_rust() && count > FILE_LINES;
    let say = || {
        format!(
            "{}: {count} lines, {FILE_LINES} at most: find the second noun",
            source.path
        )
    };
    long.then(say).into_iter().collect()
}

fn functions(source: &Source) -> Vec<String> {
    let all: Vec<&str> = source.code.lines().map(str::trim_end).collect();
    let mut found = Vec::new();
    for (at, line) in all.iter().enumerate() {
        let Some(name) = function(line).filter(|_| !line.ends_with(['}', ';'])) else {
            continue;
        };
        // By rustfmt's layout: a body ends with a brace below its `fn`, a signature alone with `);` or `;`.
        let indent = &line[..line.len() - line.trim_start().len()];
        let ends = |line: &&str| match line.strip_prefix(indent) {
            Some(rest) => rest == "}" || (rest.starts_with(')') && rest.ends_with(';')),
            None => false,
        };
        let count = all[at..].iter().position(ends).map_or(1, |end| end + 1);
        let most = if source.is_test() {
            TEST_FUNCTION_LINES
        } else {
            FUNCTION_LINES
        };
        if count > most {
            let remedy = "keep the branches here, move the leaves out";
            found.push(format!(
                "{}:{}: `{name}` has {count} lines, {most} at most: {remedy}",
                source.path,
                at + 1
            ));
        }
    }
    found
}

/// The name of the function that begins on this line.
fn function(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        let first = rest.split_whitespace().next()?;
        if first == "fn" {
            return Some(word(rest["fn".len()..].trim_start()));
        }
        let before =
            first.starts_with("pub") || ["async", "const", "unsafe", "extern"].contains(&first);
        if !before {
            return None;
        }
        rest = rest[first.len()..].trim_start();
    }
}

fn header(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    let count = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .count();
    let least = if source.is_test() {
        1
    } else {
        *HEADER_LINES.start()
    };
    let most = *HEADER_LINES.end();
    let wrong = count < least || count > most;
    let say = || {
        format!(
            "{}: a header of {count} lines, {least} to {most}: what is it, what not, what does it keep?",
            source.path
        )
    };
    wrong.then(say).into_iter().collect()
}

fn name(source: &Source) -> Vec<String> {
    let empty = source
        .path
        .split(['/', '.'])
        .find(|part| EMPTY_NAMES.contains(part));
    let say = |part| {
        format!(
            "{}: the name `{part}` says nothing: name the noun",
            source.path
        )
    };
    empty.map(say).into_iter().collect()
}

fn unfinished(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in lines(&source.code) {
        for banned in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
            if line.contains(banned) {
                found.push(format!(
                    "{}:{number}: `{banned}` does not belong in what lands",
                    source.path
                ));
            }
        }
    }
    found
}

/// Registry hosts and paths of one machine, anywhere but in lock files.
fn places(source: &Source) -> Vec<String> {
    let begins = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "_.".contains(letter))
    };
    let mut found = Vec::new();
    for (number, line) in lines(&source.text) {
        if HOSTS.iter().any(|host| line.contains(host)) {
            found.push(format!(
                "{}:{number}: names a package registry's host: its client knows it",
                source.path
            ));
        }
        if MACHINE_PATHS
            .iter()
            .any(|path| line.match_indices(path).any(|(at, _)| begins(line, at)))
        {
            found.push(format!(
                "{}:{number}: names a path of one machine",
                source.path
            ));
        }
    }
    found
}

/// Lines with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

/// The first names of the paths in a line: `a` of `a::b::c` and of `::a::b`, never `b`.
fn heads(line: &str) -> Vec<&str> {
    let name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut heads = Vec::new();
    for (at, _) in line.match_indices("::") {
        let head = line[..at]
            .rsplit(|letter| !name(letter))
            .next()
            .unwrap_or("");
        let before = &line[..at - head.len()];
        let first = match before.strip_suffix("::") {
            Some(before) => !before.ends_with(|letter| name(letter) || letter == '>'),
            None => !before.ends_with('.'),
        };
        if !head.is_empty() && first {
            heads.push(head);
        }
    }
    heads
}

/// The word at the beginning.
fn word(rest: &str) -> &str {
    let end = rest
        .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .unwrap_or(rest.len());
    &rest[..end]
}

/// The line at which the file's own test module begins, which is its last part by custom.
fn test_module(source: &Source) -> usize {
    let mut before = "";
    for (number, line) in lines(&source.code) {
        if before == "#[cfg(test)]" && line.ends_with('{') {
            return number;
        }
        before = line.trim();
    }
    usize::MAX
}
