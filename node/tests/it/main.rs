//! The one integration test binary: each module starts what it needs and stops it.

mod ask;
mod cli;
mod collectors;
mod data;
mod keys;
mod nodes;
mod otlp;
mod quorum;
mod registry;
mod resolver;
mod traces;
