//! Makes a component of a core module that exports the contract's functions.
//!
//! A module without component metadata gets it from its export names: only the optional interfaces that it
//! really exports come into its world. Not every language can write `:` and `#`, so plain names, and any
//! 0.1.x, are first renamed to the full ones of 0.1.0. A full name that is there already wins.

use std::borrow::Cow;
use std::collections::BTreeSet;

use wasmparser::{Encoding, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId, WorldItem};

use super::bindings::WIT;
use super::call::bounded;
use super::inspect::{Core, Name};
use super::refusal::Refusal;
use super::virtual_wasi;

/// Plain export names and what they stand for.
const PLAIN: [(&str, &str); 7] = [
    ("resolve", "sibyl:resolver/merge@0.1.0#resolve"),
    ("describe", "sibyl:resolver/describe@0.1.0#describe"),
    ("check-config", "sibyl:resolver/check-config@0.1.0#check"),
    ("check_config", "sibyl:resolver/check-config@0.1.0#check"),
    ("check-value", "sibyl:resolver/check-value@0.1.0#check"),
    ("check_value", "sibyl:resolver/check-value@0.1.0#check"),
    ("sample", "sibyl:resolver/sampling@0.1.0#sample"),
];

/// Stands before the name of a function that frees what another one returned.
const CLEANUP: &str = "cabi_post_";

/// The component of a valid core module.
pub(super) fn core(binary: &[u8]) -> Result<Vec<u8>, Refusal> {
    let core = Core::of(binary);
    core.check()?;
    let module = if core.embedded {
        binary.to_vec()
    } else {
        with_metadata(rename(binary, &core))?
    };
    let wants_wasi = core
        .imports
        .iter()
        .any(|(of, _)| of == virtual_wasi::MODULE);
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| match wants_wasi {
            true => encoder.adapter(virtual_wasi::MODULE, &virtual_wasi::adapter()),
            false => Ok(encoder),
        })
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| refusal(&format!("{error:#}")))
}

fn refusal(detail: &str) -> Refusal {
    let detail = bounded(detail);
    if detail.contains("mismatch") || detail.contains("signature") {
        Refusal::Signature { detail }
    } else {
        Refusal::Wrap { detail }
    }
}

fn with_metadata(mut module: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let exports = Core::of(&module).exports;
    let (mut resolve, base, full) = contract();
    let optional: Vec<_> = resolve.worlds[full]
        .exports
        .iter()
        .filter(|(key, item)| {
            let interface = format!("{}#", resolve.name_world_key(key));
            matches!(item, WorldItem::Interface { .. })
                && exports.iter().any(|name| name.starts_with(&interface))
        })
        .map(|(key, item)| (key.clone(), item.clone()))
        .collect();
    resolve.worlds[base].exports.extend(optional);
    embed_component_metadata(&mut module, &resolve, base, StringEncoding::UTF8)
        .map_err(|error| refusal(&format!("{error:#}")))?;
    Ok(module)
}

fn contract() -> (Resolve, WorldId, WorldId) {
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("resolver.wit", WIT)
        .expect("the contract of this build parses");
    let base = resolve
        .select_world(&[package], Some("resolver"))
        .expect("the contract has this world");
    let full = resolve
        .select_world(&[package], Some("resolver-full"))
        .expect("the contract has this world");
    (resolve, base, full)
}

/// The module with its exports and its logging import under the names of 0.1.0.
fn rename(binary: &[u8], core: &Core) -> Vec<u8> {
    let taken: BTreeSet<&str> = core.exports.iter().map(String::as_str).collect();
    let mut renamed = binary[..8].to_vec();
    for payload in Parser::new(0).parse_all(binary).map_while(Result::ok) {
        if matches!(
            payload,
            Payload::Version {
                encoding: Encoding::Component,
                ..
            }
        ) {
            unreachable!("only core modules are renamed");
        }
        let Some((id, range)) = payload.as_section() else {
            continue;
        };
        let contents = match &payload {
            Payload::ExportSection(section) => {
                let starts = section
                    .clone()
                    .into_iter_with_offsets()
                    .flatten()
                    .map(|(start, _)| start);
                entries(binary, starts, range.end, |name| export_name(name, &taken)).into()
            }
            Payload::ImportSection(section) => {
                let starts = section
                    .clone()
                    .into_iter_with_offsets()
                    .flatten()
                    .map(|(start, _)| start);
                entries(binary, starts, range.end, import_name).into()
            }
            _ => Cow::Borrowed(&binary[range]),
        };
        renamed.push(id);
        push_length(&mut renamed, contents.len());
        renamed.extend_from_slice(&contents);
    }
    renamed
}

fn export_name<'a>(name: &'a str, taken: &BTreeSet<&str>) -> Cow<'a, str> {
    let (cleanup, function) = match name.strip_prefix(CLEANUP) {
        Some(function) => (CLEANUP, function),
        None => ("", name),
    };
    let plain = PLAIN
        .iter()
        .find(|(plain, _)| *plain == function)
        .map(|(_, full)| (*full).to_owned());
    let full = plain.or_else(|| {
        let (interface, function) = function.split_once('#')?;
        Some(format!("{}#{function}", first_patch(interface)?))
    });
    match full.map(|full| format!("{cleanup}{full}")) {
        Some(full) if !taken.contains(full.as_str()) => full.into(),
        _ => name.into(),
    }
}

fn import_name(module: &str) -> Cow<'_, str> {
    first_patch(module).map_or(module.into(), Cow::from)
}

/// An interface of 0.1.x under the name it has in 0.1.0.
fn first_patch(interface: &str) -> Option<String> {
    match Name::of(interface) {
        Name::Ours(ours) => Some(format!("sibyl:resolver/{ours}@0.1.0")),
        Name::OtherVersion | Name::Foreign => None,
    }
}

/// A section whose entries each begin with a name: the same, with other names.
fn entries<'a>(
    binary: &'a [u8],
    starts: impl Iterator<Item = usize>,
    end: usize,
    name: impl Fn(&'a str) -> Cow<'a, str>,
) -> Vec<u8> {
    let starts: Vec<usize> = starts.collect();
    let ends = starts.iter().copied().skip(1).chain([end]);
    let mut section = Vec::new();
    push_length(&mut section, starts.len());
    for (start, end) in starts.iter().zip(ends) {
        let (old, rest) = split_name(&binary[*start..end]);
        let new = name(old);
        push_length(&mut section, new.len());
        section.extend_from_slice(new.as_bytes());
        section.extend_from_slice(rest);
    }
    section
}

/// The name an entry begins with, and the rest. The module is valid, so the name is.
fn split_name(entry: &[u8]) -> (&str, &[u8]) {
    let mut reader = wasmparser::BinaryReader::new(entry, 0);
    let name = reader.read_unlimited_string().expect("validated before");
    (name, &entry[reader.original_position()..])
}

/// An unsigned LEB128 number. Ends, as every turn takes seven bits away.
fn push_length(to: &mut Vec<u8>, length: usize) {
    let mut rest = length;
    while rest >= 0x80 {
        to.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}
