//! The one integration test binary: each module starts what it needs and stops it.

mod cli;
mod collectors;
mod otlp;
mod resolver;
mod tidy;
mod traces;
