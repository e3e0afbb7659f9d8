//! What Sibyl's standard resolvers share: the contract's bindings, a heap, panics that leave a line in
//! the log, and JSON with exact numbers and one way to write each value.
//!
//! It is not a framework: a resolver of your own needs only `wit-bindgen` and the `wit/` folder (see
//! `resolvers/README.md`). Nothing here reads a clock, a random number or a global that outlives a call.

#![allow(unsafe_code, reason = "generated bindings and the allocator")]

pub mod extreme;
pub mod json;
pub mod siblings;

#[doc(hidden)]
pub mod bindings;
#[cfg(any(test, target_arch = "wasm32"))]
mod heap;
mod resolver;

pub use bindings::sibyl::resolver::types::{BadSibling, Context, Failure, Resolution, Sibling};
pub use resolver::{Checked, Guest, Resolver, log_panics};

/// Makes a [`Checked`] resolver the component: all interfaces of the contract.
#[macro_export]
macro_rules! export {
    ($resolver:ident) => {
        #[cfg(target_arch = "wasm32")]
        mod exported {
            #![allow(unsafe_code, reason = "the canonical ABI's entry points")]
            type Guest = $crate::Guest<super::$resolver>;
            $crate::bindings::export_full!(Guest);
        }
    };
}
