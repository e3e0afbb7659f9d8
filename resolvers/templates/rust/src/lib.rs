//! my-resolver: text as a set of lines. Its merge has every line that any sibling has, once, sorted.
//!
//! A lattice: a union does not care about grouping, order and repetition. Taking a line away holds only if nobody who
//! writes at the same time still has it.

use std::collections::BTreeSet;

wit_bindgen::generate!({ world: "project", path: "wit" });

use exports::sibyl::resolver::{check_value, describe, merge};
use sibyl::resolver::types::{BadSibling, Context, Failure, Resolution, Sibling};

struct MyResolver;

impl merge::Guest for MyResolver {
    fn resolve(_: Context, siblings: Vec<Sibling>) -> Result<Resolution, Failure> {
        log_panics();
        let values: Vec<&[u8]> = siblings.iter().filter_map(|s| s.value.as_deref()).collect();
        if values.is_empty() {
            return Ok(Resolution::Delete);
        }
        if values.len() == siblings.len() && values.iter().all(|value| *value == values[0]) {
            // A merge of equal values is that value, byte for byte.
            return Ok(Resolution::Pick(siblings.len() as u32 - 1));
        }
        let mut union = BTreeSet::new();
        for (index, sibling) in siblings.iter().enumerate() {
            let value = sibling.value.as_deref().unwrap_or_default();
            let lines = lines(value).map_err(|message| {
                Failure::Malformed(BadSibling { index: index as u32, message })
            })?;
            union.extend(lines);
        }
        Ok(Resolution::Merged(text(&union)))
    }
}

impl check_value::Guest for MyResolver {
    fn check(_: Context, value: Vec<u8>) -> Result<(), String> {
        lines(&value).map(drop)
    }
}

impl describe::Guest for MyResolver {
    fn describe() -> describe::Description {
        describe::Description {
            name: "my-resolver".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            summary: "Text as a set of lines: keeps every line of every sibling, once, sorted.".into(),
            media_types: vec!["text/plain".into()],
            config_schema: None,
        }
    }
}

fn lines(value: &[u8]) -> Result<BTreeSet<&[u8]>, String> {
    if value.contains(&0) {
        return Err("a zero byte: these are not lines of text".into());
    }
    Ok(value.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect())
}

fn text(lines: &BTreeSet<&[u8]>) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text
}

/// A panic stops the merge, and the siblings stay; its message goes to the node's log.
fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| {
        use sibyl::resolver::logging::{Level, log};
        log(Level::Error, &panic.to_string());
    }));
}

// A host's linker does not take the export names, and `cargo test` runs on the host.
#[cfg(target_arch = "wasm32")]
export!(MyResolver);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_is_sorted() {
        let union = &lines(b"b\n\nc").unwrap() | &lines(b"a\nb\n").unwrap();
        assert_eq!(text(&union), b"a\nb\nc\n");
    }
}
