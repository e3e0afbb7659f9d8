//! What a module or component imports and exports, against the contract.
//!
//! Linkers name only the first thing they miss, and not in words of the author's toolchain; so every import
//! is read here, before wrapping and linking. An interface of types only needs nothing from the host and is
//! not an import. Versions match on the semver track: any 0.1.x is ours.

use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::types::Types;
use wasmparser::{Parser, Payload};

use super::call::bounded;
use super::refusal::{Import, Refusal};
use super::virtual_wasi;

/// The contract this node speaks.
pub(super) const SPOKEN: &str = "sibyl:resolver@0.1.x";

const PACKAGE: &str = "sibyl:resolver/";

/// Export names that a refusal lists.
const FOUND_MAX: usize = 16;

/// How a name of an interface relates to the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// An interface of 0.1.x, without package and version.
    Ours(&'a str),
    /// Our package in another version, or without one.
    OtherVersion,
    /// Somebody else's.
    Foreign,
}

impl<'a> Name<'a> {
    pub(super) fn of(name: &'a str) -> Self {
        let Some(rest) = name.strip_prefix(PACKAGE) else {
            return Self::Foreign;
        };
        match rest.split_once('@') {
            Some((interface, version)) if is_patch_of_ours(version) => Self::Ours(interface),
            _ => Self::OtherVersion,
        }
    }
}

fn is_patch_of_ours(version: &str) -> bool {
    version
        .strip_prefix("0.1.")
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Refuses a component whose outside is not that of a resolver.
pub(super) fn component(binary: &[u8], types: &Types) -> Result<(), Refusal> {
    let outside = Outside::of(binary);
    let unwanted = outside
        .imports
        .iter()
        .filter(|name| needs_host(name, types));
    refuse_imports(unwanted.map(|name| (name.clone(), name.clone())))?;
    if outside
        .exports
        .iter()
        .any(|name| Name::of(name) == Name::Ours("merge"))
    {
        return Ok(());
    }
    Err(no_merge(outside.exports.iter().map(String::as_str)))
}

/// Names imported and exported by the outermost component.
#[derive(Default)]
struct Outside {
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Outside {
    fn of(binary: &[u8]) -> Self {
        let mut outside = Self::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(binary).map_while(Result::ok) {
            match payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    let names = section
                        .into_iter()
                        .flatten()
                        .map(|import| import.name.name.to_owned());
                    outside.imports.extend(names);
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    let names = section
                        .into_iter()
                        .flatten()
                        .map(|export| export.name.name.to_owned());
                    outside.exports.extend(names);
                }
                _ => {}
            }
        }
        outside
    }
}

/// Whether the host would have to provide something for this import that it does not.
fn needs_host(name: &str, types: &Types) -> bool {
    let Some(item) = types.component_item_for_import(name) else {
        return true;
    };
    match item.ty {
        ComponentEntityType::Type { created, .. } => is_resource(created),
        ComponentEntityType::Instance(id) => {
            types[id]
                .exports
                .iter()
                .any(|(function, item)| match item.ty {
                    ComponentEntityType::Type { created, .. } => is_resource(created),
                    ComponentEntityType::Func(_) => {
                        !(Name::of(name) == Name::Ours("logging") && function == "log")
                    }
                    _ => true,
                })
        }
        _ => true,
    }
}

fn is_resource(id: ComponentAnyTypeId) -> bool {
    matches!(id, ComponentAnyTypeId::Resource(_))
}

/// What a core module imports and exports, by name.
pub(super) struct Core {
    /// Module and field.
    pub(super) imports: Vec<(String, String)>,
    pub(super) exports: Vec<String>,
    /// Whether a toolchain left the world it was built for in a custom section.
    pub(super) embedded: bool,
}

impl Core {
    pub(super) fn of(binary: &[u8]) -> Self {
        let mut core = Self {
            imports: Vec::new(),
            exports: Vec::new(),
            embedded: false,
        };
        for payload in Parser::new(0).parse_all(binary).map_while(Result::ok) {
            match payload {
                Payload::ImportSection(section) => {
                    let names = section.into_imports().flatten();
                    core.imports.extend(
                        names.map(|import| (import.module.to_owned(), import.name.to_owned())),
                    );
                }
                Payload::ExportSection(section) => {
                    core.exports.extend(
                        section
                            .into_iter()
                            .flatten()
                            .map(|export| export.name.to_owned()),
                    );
                }
                Payload::CustomSection(section) => {
                    core.embedded |= section.name().starts_with("component-type");
                }
                _ => {}
            }
        }
        core
    }

    /// Refuses what no wrapping makes a resolver.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.check_async()?;
        let unwanted = self
            .imports
            .iter()
            .filter(|(module, field)| !is_offered(module, field));
        refuse_imports(
            unwanted.map(|(module, field)| (module.clone(), format!("{module}.{field}"))),
        )?;
        // The encoder reads the world of an embedded one, and the component it makes is inspected.
        if self.embedded || self.exports.iter().any(|name| is_resolve(name)) {
            return Ok(());
        }
        Err(no_merge(self.exports.iter().map(String::as_str)))
    }

    fn check_async(&self) -> Result<(), Refusal> {
        let fields = self.imports.iter().map(|(_, field)| field);
        let sign = self.exports.iter().chain(fields).find(|name| {
            ["[async-lift", "[async-lower", "[callback]", "[task-return]"]
                .iter()
                .any(|mark| name.starts_with(mark))
        });
        match sign {
            Some(name) => Err(Refusal::Async {
                detail: format!("`{}`", bounded(name)),
            }),
            None => Ok(()),
        }
    }
}

fn is_offered(module: &str, field: &str) -> bool {
    (Name::of(module) == Name::Ours("logging") && field == "log")
        || module.starts_with("[export]")
        || virtual_wasi::offers(module, field)
}

fn is_resolve(export: &str) -> bool {
    export == "resolve"
        || export.split_once('#').is_some_and(|(interface, function)| {
            Name::of(interface) == Name::Ours("merge") && function == "resolve"
        })
}

/// Each import is its interface or module, and the whole name that is shown.
fn refuse_imports(unwanted: impl Iterator<Item = (String, String)>) -> Result<(), Refusal> {
    let unwanted: Vec<_> = unwanted.take(Import::LISTED_MAX).collect();
    if let Some((_, name)) = unwanted
        .iter()
        .find(|(interface, _)| Name::of(interface) == Name::OtherVersion)
    {
        return Err(version(name));
    }
    if unwanted.is_empty() {
        return Ok(());
    }
    Err(Refusal::Imports(
        unwanted
            .iter()
            .map(|(_, name)| Import {
                name: bounded(name),
            })
            .collect(),
    ))
}

/// Why there is no `merge`: most often its version, else it is another world.
fn no_merge<'a>(exports: impl Iterator<Item = &'a str> + Clone) -> Refusal {
    let other = exports
        .clone()
        .find(|name| Name::of(name) == Name::OtherVersion);
    match other {
        Some(name) => version(name),
        None => Refusal::NoMerge {
            found: exports.take(FOUND_MAX).map(bounded).collect(),
        },
    }
}

fn version(found: &str) -> Refusal {
    Refusal::Version {
        found: bounded(found),
        spoken: SPOKEN.to_owned(),
    }
}
