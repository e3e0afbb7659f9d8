//! The one integration test binary: each module starts what it needs and stops it.

mod cli;
mod cluster_metrics;
mod cluster_traces;
mod collectors;
mod live;
mod otlp;
mod resolver;
mod tidy;
mod traces;
