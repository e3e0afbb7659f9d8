//! The templates of `resolvers/templates`, as they are in this binary.
//!
//! A template is a project that works as it stands; the contract is not copied into each, it comes from `wit/`. A new
//! language is a folder there, a row here, and a line of the `languages` gate.

use clap::ValueEnum;

use crate::resolver::WIT;

/// The name of the resolver in every template.
pub(super) const PLACEHOLDER: &str = "my-resolver";

/// What a resolver can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// Small and fast; any crate that needs no system.
    Rust,
    /// With a C library, by Zig's compiler.
    C,
    /// The smallest.
    Zig,
    /// TypeScript's syntax, compiled ahead.
    #[value(name = "assemblyscript")]
    AssemblyScript,
    /// QuickJS inside: a megabyte.
    #[value(name = "js", alias = "javascript")]
    JavaScript,
    /// CPython inside: 18 megabytes.
    Python,
    /// The Go runtime inside.
    Go,
}

/// A file's path in a project, and its text.
type File = (&'static str, &'static str);

/// Files of one template: paths below its folder.
macro_rules! template {
    ($folder:literal: $($path:literal)*) => {
        &[$(($path, include_str!(concat!("../../../../resolvers/templates/", $folder, "/", $path)))),*]
    };
}

impl Language {
    /// As people write it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::C => "C",
            Self::Zig => "Zig",
            Self::AssemblyScript => "AssemblyScript",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
            Self::Go => "Go",
        }
    }

    fn own_files(self) -> &'static [File] {
        match self {
            Self::Rust => {
                template!("rust": "Cargo.toml" "README.md" "build.sh" "resolver.json" "src/lib.rs" "wit/world.wit")
            }
            Self::C => {
                template!("c": "README.md" "requirements.txt" "resolver.c" "resolver.json" "sibyl.c" "sibyl.h")
            }
            Self::Zig => {
                template!("zig": "README.md" "requirements.txt" "resolver.json" "resolver.zig" "sibyl.zig")
            }
            Self::AssemblyScript => {
                template!("assemblyscript": "README.md" "assembly/resolver.ts" "assembly/sibyl.ts" "package.json" "resolver.json")
            }
            Self::JavaScript => {
                template!("javascript": "README.md" "package.json" "resolver.js" "resolver.json" "sibyl.js" "wit/world.wit")
            }
            Self::Python => {
                template!("python": "README.md" "app.py" "requirements.txt" "resolver.json" "resolver.py" "wit/world.wit")
            }
            Self::Go => {
                template!("go": "README.md" "go.mod" "requirements.txt" "resolver.go" "resolver.json" "sibyl.go")
            }
        }
    }
}

/// Every file of a new project: the template's own, the contract, the cases that all of them pass.
pub(super) fn files(language: Language) -> impl Iterator<Item = File> {
    let shared = template!("": "cases/lines.json" ".gitignore");
    let contract = [("wit/resolver.wit", WIT)];
    language
        .own_files()
        .iter()
        .copied()
        .chain(shared.iter().copied())
        .chain(contract)
}
