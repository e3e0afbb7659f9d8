//! The one integration test binary: each module starts what it needs and stops it.

mod cli;
mod cluster_metrics;
mod cluster_resolvers;
mod cluster_traces;
mod collectors;
mod live;
mod otlp;
mod resolver;
mod standard_resolvers;
mod traces;
