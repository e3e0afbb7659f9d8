//! The module's exports: `merge`, `describe` and `check-config`, and no more.
//!
//! Not `check-value`, since any value will do and a write shall not pay for hearing that. Nor does it log
//! panics as the others do: nothing in it can panic, and a module that imports nothing is one core instance
//! instead of three, which saves a third of what a call costs.

#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated bindings"
)]

use sibyl_resolver_kit::{Context, Failure, Resolution, Resolver, Sibling};

use crate::Lww;
use exports::sibyl::resolver::{check_config, describe, merge};

wit_bindgen::generate!({
    world: "sibyl:lww/lww",
    path: "../../wit",
    inline: "
        package sibyl:lww;
        world lww {
            include sibyl:resolver/resolver@0.1.0;
            export sibyl:resolver/describe@0.1.0;
            export sibyl:resolver/check-config@0.1.0;
        }
    ",
    with: {
        "sibyl:resolver/types@0.1.0": sibyl_resolver_kit::bindings::sibyl::resolver::types,
        "sibyl:resolver/logging@0.1.0": sibyl_resolver_kit::bindings::sibyl::resolver::logging,
    },
    generate_all,
});

impl merge::Guest for Lww {
    fn resolve(ctx: Context, siblings: Vec<Sibling>) -> Result<Resolution, Failure> {
        <Self as Resolver>::resolve(&ctx, &siblings)
    }
}

impl describe::Guest for Lww {
    fn describe() -> describe::Description {
        describe::Description {
            name: Self::NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: Self::SUMMARY.to_owned(),
            media_types: Vec::new(),
            config_schema: None,
        }
    }
}

impl check_config::Guest for Lww {
    fn check(config: String) -> Result<(), String> {
        <Self as Resolver>::check_config(&config)
    }
}

export!(Lww);
