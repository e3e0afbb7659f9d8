//! The one integration binary.

mod collectors;
mod otlp;
mod traces;
