//! The contract of `wit/`, as Rust: the world with everything a resolver may export.
//!
//! Generated code; nothing is written by hand, and nothing here decides anything.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::cast_lossless,
    clippy::semicolon_if_nothing_returned,
    clippy::wildcard_imports,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

wit_bindgen::generate!({
    world: "resolver-full",
    path: "../../wit",
    pub_export_macro: true,
    export_macro_name: "export_full",
    default_bindings_module: "sibyl_resolver_kit::bindings",
});
