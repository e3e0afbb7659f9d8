//! The options that every command shares which speaks to a node.
//!
//! Not the client itself, only how a person names the node, the bucket and the form of the answer.

use std::time::Duration;

use super::client::Client;
use super::failure::Failure;
use super::output::Format;

/// Which node, for how long, and how to print.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// A node's base URL; any node of the cluster will do.
    #[arg(
        long,
        env = "SIBYL_URL",
        default_value = "http://127.0.0.1:7070",
        value_name = "URL"
    )]
    pub(super) url: String,
    /// How to print.
    #[arg(long, env = "SIBYL_OUTPUT", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(super) output: Format,
    /// Give up on a request after this time.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(super) timeout: Duration,
}

impl Connection {
    /// A client for the named node.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.url, self.timeout)?)
    }

    /// Whether to print JSON.
    pub(super) fn json(&self) -> bool {
        self.output == Format::Json
    }
}

/// Which bucket.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Bucket {
    /// The bucket.
    #[arg(
        long,
        short,
        env = "SIBYL_BUCKET",
        default_value = "default",
        value_name = "BUCKET"
    )]
    pub(super) bucket: String,
}
