//! The shell of Sibyl: sockets, disks, clocks and sandboxes around the decisions of `sibyl-core`.
//!
//! `main -> node -> http -> coordinator -> replica -> store`; nothing imports upwards. Each library has one
//! door: axum in `http`, fjall in `store/fjall.rs`, wasmtime in `resolver`, OpenTelemetry in `telemetry`,
//! clap in `cli`.

pub mod answers;
pub mod backup;
pub mod cli;
pub mod config;
pub mod coordinator;
pub mod door;
pub mod http;
pub mod laws;
pub mod node;
pub mod outside;
pub mod peer;
pub mod replica;
pub mod resolver;
pub mod store;
pub mod tasks;
pub mod telemetry;
