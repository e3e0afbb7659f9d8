//! From uploaded bytes to a component: sniff, validate, inspect, wrap.
//!
//! Runs in the compile child only: the bytes are hostile until it is through, and `wit-component` panics on
//! some that are merely truncated. Validation comes first and uses the features of the compiling engine, so
//! nothing reaches the encoder or the compiler that they would choke on unannounced.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use wasmparser::{Parser, Validator, WasmFeatures, types::Types};

use super::call::bounded;
use super::refusal::Refusal;
use super::{inspect, wrap};

/// In which form a resolver was uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A WebAssembly component.
    Component,
    /// A core module, made a component by the node.
    Core,
    /// WebAssembly text of either.
    Wat,
}

impl Kind {
    /// The name as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Core => "core",
            Self::Wat => "wat",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Component => "component",
            Self::Core => "core module",
            Self::Wat => "WAT text",
        })
    }
}

/// The component that `bytes` are, or are made into.
pub(super) fn component(bytes: &[u8], features: WasmFeatures) -> Result<(Kind, Vec<u8>), Refusal> {
    let (kind, binary) = sniff(bytes)?;
    let types = validate(kind, &binary, features)?;
    if Parser::is_component(&binary) {
        inspect::component(&binary, &types)?;
        return Ok((kind, binary.into_owned()));
    }
    let component = wrap::core(&binary)?;
    let types = validate(kind, &component, features)?;
    inspect::component(&component, &types)?;
    Ok((kind, component))
}

const MAGIC: &[u8] = b"\0asm";

/// Which form the bytes have, and the binary that they are or stand for.
fn sniff(bytes: &[u8]) -> Result<(Kind, Cow<'_, [u8]>), Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Empty);
    }
    if Parser::is_component(bytes) {
        return Ok((Kind::Component, bytes.into()));
    }
    if Parser::is_core_wasm(bytes) {
        return Ok((Kind::Core, bytes.into()));
    }
    if bytes.starts_with(MAGIC) || MAGIC.starts_with(bytes) {
        return Err(bad_header(bytes));
    }
    text(bytes)
}

fn bad_header(bytes: &[u8]) -> Refusal {
    match bytes.get(MAGIC.len()..MAGIC.len() + 4) {
        None => Refusal::Truncated {
            kind: Kind::Core,
            offset: bytes.len() as u64,
        },
        Some(version) => Refusal::Invalid {
            kind: Kind::Core,
            detail: format!("its header names the unknown binary version {version:02x?}"),
        },
    }
}

fn text(bytes: &[u8]) -> Result<(Kind, Cow<'_, [u8]>), Refusal> {
    let not_wasm = |text: String| Refusal::NotWasm {
        binary: "it does not begin with the bytes 00 61 73 6d (\\0asm)".to_owned(),
        text,
    };
    let source = std::str::from_utf8(bytes)
        .map_err(|error| not_wasm(format!("it is not UTF-8 from byte {}", error.valid_up_to())))?;
    match wat::parse_str(source) {
        Ok(binary) => Ok((Kind::Wat, binary.into())),
        Err(error) => {
            let error = bounded(&error.to_string());
            let looks_like_wat = source.trim_start().starts_with(['(', ';']);
            Err(if looks_like_wat {
                Refusal::Wat(error)
            } else {
                not_wasm(error)
            })
        }
    }
}

/// Validates with the node's features; what only fails for them is told apart from what is broken.
fn validate(kind: Kind, binary: &[u8], features: WasmFeatures) -> Result<Types, Refusal> {
    let error = match Validator::new_with_features(features).validate_all(binary) {
        Ok(types) => return Ok(types),
        Err(error) => error,
    };
    let detail = bounded(&format!(
        "{} (at offset {:#x})",
        error.message(),
        error.offset()
    ));
    if error.message().contains("unexpected end") {
        return Err(Refusal::Truncated {
            kind,
            offset: binary.len() as u64,
        });
    }
    if Validator::new_with_features(WasmFeatures::all())
        .validate_all(binary)
        .is_err()
    {
        return Err(Refusal::Invalid { kind, detail });
    }
    Err(if error.message().contains("async") {
        Refusal::Async { detail }
    } else {
        Refusal::Feature { detail }
    })
}
