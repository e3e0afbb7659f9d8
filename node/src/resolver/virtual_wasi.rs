//! WASI preview 1 for core modules whose toolchain insists on it: part of the guest, never of the host.
//!
//! `preview1.wat` answers with constants and is linked into the component when a core module is wrapped. The host
//! learns no new function, the calls cost the guest's own fuel, and nothing in them can differ between two nodes.
//! Files and sockets are not among them: a module that names those is refused, and so is any other WASI, since
//! toolchains for components can stub it themselves.

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::bindings::WIT;

/// The module that such imports name.
pub(super) const MODULE: &str = "wasi_snapshot_preview1";

/// What the adapter itself imports.
const WORLD: &str =
    "package sibyl:virtual; world preview1 { import sibyl:resolver/logging@0.1.0; }";

/// Whether the adapter answers an import of a core module. A function that WASI does not have is found by the encoder.
pub(super) fn offers(module: &str, field: &str) -> bool {
    let kinds = ["args_", "clock_", "environ_", "fd_", "proc_"];
    let others = ["poll_oneoff", "random_get", "sched_yield"];
    module == MODULE
        && (others.contains(&field) || kinds.iter().any(|kind| field.starts_with(kind)))
}

/// The adapter, with the metadata that the encoder wants; it drops the functions that a module does not call.
pub(super) fn adapter() -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve
        .push_str("resolver.wit", WIT)
        .expect("the contract of this build parses");
    let package = resolve
        .push_str("virtual.wit", WORLD)
        .expect("a constant that names what the contract has");
    let world = resolve
        .select_world(&[package], Some("preview1"))
        .expect("the package has this world");
    let mut adapter =
        wat::parse_str(include_str!("preview1.wat")).expect("a constant that a test parses");
    embed_component_metadata(&mut adapter, &resolve, world, StringEncoding::UTF8)
        .expect("the module is valid, and so is the world");
    adapter
}
