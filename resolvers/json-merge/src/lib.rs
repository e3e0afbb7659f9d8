//! `json-merge`: merges JSON documents member by member, with a rule per path from the bucket's config.
//!
//! Objects are merged member by member, so edits of different members are all kept. Where siblings hold
//! something else, the rule of the path decides, or the default. Which rules make a lattice, and which are
//! only deterministic, is said at [`rules::Rule`] and in `resolvers/README.md`.

mod config;
mod merge;
mod rules;

use sibyl_resolver_kit::json::{Object, Value};
use sibyl_resolver_kit::{Checked, Context, Failure, Resolution, Resolver, Sibling, siblings};

use merge::Input;
use rules::Rules;

/// Merges JSON documents by declared rules.
pub struct JsonMerge;

impl Resolver for JsonMerge {
    const NAME: &'static str = "json-merge";
    const SUMMARY: &'static str = "JSON documents, merged member by member with a rule per path.";
    const MEDIA_TYPES: &'static [&'static str] = &["application/json"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("config.schema.json"));

    fn resolve(ctx: &Context, input: &[Sibling]) -> Result<Resolution, Failure> {
        let rules = rules_of(ctx).map_err(Failure::BadConfig)?;
        if let Some(done) = siblings::alike(input) {
            return Ok(done);
        }
        let documents = siblings::read_all(input, Ok)?;
        let mut documents_left = documents.iter();
        let inputs: Vec<_> = input
            .iter()
            .enumerate()
            .map(|(index, sibling)| Input {
                index,
                modified_at: sibling.modified_at,
                // A tombstone is a sibling whose document is absent.
                value: sibling.value.as_ref().and_then(|_| documents_left.next()),
            })
            .collect();
        match merge::document(&rules, &inputs) {
            Ok(Some(merged)) => Ok(Resolution::Merged(merged.to_bytes())),
            Ok(None) => Ok(Resolution::Delete),
            Err(mismatch) => Err(siblings::malformed(mismatch.index, mismatch.to_string())),
        }
    }

    fn check_config(config: &str) -> Result<(), String> {
        config::read(config).map(drop)
    }
}

impl Checked for JsonMerge {
    fn check_value(ctx: &Context, value: &[u8]) -> Result<(), String> {
        let rules = rules_of(ctx)?;
        let document = siblings::read_json(value, Ok)?;
        let alone = Input {
            index: 0,
            modified_at: 0,
            value: Some(&document),
        };
        // Merged with nothing, a document meets every rule that would refuse it beside others.
        merge::document(&rules, &[alone])
            .map(drop)
            .map_err(|mismatch| mismatch.to_string())
    }

    fn sample(entropy: &[u8]) -> Vec<u8> {
        let members = entropy.iter().enumerate().map(|(depth, &byte)| {
            let name = ["a", "b", "c", "d"][usize::from(byte % 4)];
            (name.into(), sample_member(byte / 4, depth))
        });
        Value::Object(members.collect()).to_bytes()
    }
}

fn rules_of(ctx: &Context) -> Result<Rules, String> {
    config::read(ctx.config.as_deref().unwrap_or("{}"))
}

fn sample_member(byte: u8, depth: usize) -> Value<'static> {
    let number = Value::Number(u64::from(byte % 8).into());
    match byte / 8 % 4 {
        0 => number,
        1 => Value::String(format!("s{}", byte % 8).into()),
        2 => Value::Array(vec![number]),
        _ => Value::Object(Object::from_iter([(["x", "y"][depth % 2].into(), number)])),
    }
}

sibyl_resolver_kit::export!(JsonMerge);

#[cfg(test)]
mod tests;
