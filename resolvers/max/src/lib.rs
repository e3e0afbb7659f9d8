//! `max`: keeps the value with the greatest number, whole: at a configured JSON Pointer, or the value itself.
//!
//! A lattice: the end of a total order (see `kit/src/extreme.rs`, which says what ties do). The other members
//! are those of the value that is kept; to merge them too, use `json-merge` with the rule `max`.

use std::cmp::Ordering;

use sibyl_resolver_kit::{Checked, Context, Failure, Resolution, Resolver, Sibling, extreme};

/// The value with the greatest number.
pub struct Max;

impl Resolver for Max {
    const NAME: &'static str = "max";
    const SUMMARY: &'static str =
        "JSON values: keeps the one with the greatest number at a path, whole.";
    const MEDIA_TYPES: &'static [&'static str] = &["application/json"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(extreme::CONFIG_SCHEMA);

    fn resolve(ctx: &Context, input: &[Sibling]) -> Result<Resolution, Failure> {
        extreme::pick(ctx, input, Ordering::Greater)
    }

    fn check_config(config: &str) -> Result<(), String> {
        extreme::check_config(config)
    }
}

impl Checked for Max {
    fn check_value(ctx: &Context, value: &[u8]) -> Result<(), String> {
        extreme::check_value(ctx, value)
    }

    fn sample(entropy: &[u8]) -> Vec<u8> {
        extreme::sample(entropy)
    }
}

sibyl_resolver_kit::export!(Max);

#[cfg(test)]
mod tests;
