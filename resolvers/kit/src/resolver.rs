//! A resolver as one trait, and its translation into the contract's interfaces.
//!
//! The pure function stays free of the boundary: it borrows its input and is tested natively. [`Guest`]
//! adds what only the boundary needs: every entry first makes panics leave a line in the node's log.

use std::marker::PhantomData;

use crate::bindings::exports::sibyl::resolver::{
    check_config, check_value, describe, merge, sampling,
};
use crate::{Context, Failure, Resolution, Sibling};

/// What every standard resolver says and does.
pub trait Resolver {
    /// The name it is bound by.
    const NAME: &'static str;
    /// One sentence for a list of resolvers.
    const SUMMARY: &'static str;
    /// Content types whose values it understands; empty: any.
    const MEDIA_TYPES: &'static [&'static str];
    /// JSON Schema of the bucket's `resolver.config`; none: it takes no configuration.
    const CONFIG_SCHEMA: Option<&'static str> = None;

    /// Folds two or more siblings, sorted by the host. Pure.
    fn resolve(ctx: &Context, siblings: &[Sibling]) -> Result<Resolution, Failure>;

    /// Refuses a wrong bucket configuration, saying what to do. The default takes only an empty one.
    fn check_config(config: &str) -> Result<(), String> {
        match config.trim() {
            "" | "{}" | "null" => Ok(()),
            _ => Err(format!(
                "{} takes no configuration: leave resolver.config out",
                Self::NAME
            )),
        }
    }
}

/// A resolver that also looks at values when they are written, and makes values for the law check.
pub trait Checked: Resolver {
    /// Refuses a value that `resolve` would call malformed, saying why.
    fn check_value(ctx: &Context, value: &[u8]) -> Result<(), String>;

    /// A value out of bytes; fewer bytes, a smaller value. Always one that `check_value` accepts.
    fn sample(entropy: &[u8]) -> Vec<u8>;
}

/// A resolver behind the contract's exported interfaces.
pub struct Guest<R>(PhantomData<R>);

impl<R: Resolver> merge::Guest for Guest<R> {
    fn resolve(ctx: Context, siblings: Vec<Sibling>) -> Result<Resolution, Failure> {
        log_panics();
        R::resolve(&ctx, &siblings)
    }
}

impl<R: Resolver> describe::Guest for Guest<R> {
    fn describe() -> describe::Description {
        describe::Description {
            name: R::NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: R::SUMMARY.to_owned(),
            media_types: R::MEDIA_TYPES.iter().map(|&m| m.to_owned()).collect(),
            config_schema: R::CONFIG_SCHEMA.map(str::to_owned),
        }
    }
}

impl<R: Resolver> check_config::Guest for Guest<R> {
    fn check(config: String) -> Result<(), String> {
        log_panics();
        R::check_config(&config)
    }
}

impl<R: Checked> check_value::Guest for Guest<R> {
    fn check(ctx: Context, value: Vec<u8>) -> Result<(), String> {
        log_panics();
        R::check_value(&ctx, &value)
    }
}

impl<R: Checked> sampling::Guest for Guest<R> {
    fn sample(entropy: Vec<u8>) -> Vec<u8> {
        log_panics();
        R::sample(&entropy)
    }
}

/// Makes panics write their message to the node's log; a trap itself shows only function numbers.
///
/// [`Guest`] calls it at every entry. Outside of a module it does nothing.
pub fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    {
        use crate::bindings::sibyl::resolver::logging::{Level, log};
        std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
    }
}
