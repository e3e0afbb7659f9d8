//! The one integration test binary: each module starts what it needs and stops it.

mod anti_entropy;
mod ask;
mod cli;
mod cluster_metrics;
mod cluster_resolvers;
mod cluster_traces;
mod collectors;
mod commands;
mod data;
mod handoff;
mod handoff_traces;
mod keys;
mod limits;
mod live;
mod members;
mod membership;
mod nodes;
mod otlp;
mod quorum;
mod registry;
mod resolver;
mod restart;
mod standard_resolvers;
mod tidy;
mod traces;
