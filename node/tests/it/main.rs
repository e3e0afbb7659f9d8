//! The one integration test binary: each module starts what it needs and stops it.

mod ask;
mod cli;
mod collectors;
mod commands;
mod data;
mod keys;
mod limits;
mod nodes;
mod otlp;
mod quorum;
mod registry;
mod resolver;
mod restart;
mod traces;
