//! `sibyl bench baseline`: the server that stores nothing, as a process of its own so that its CPU can be told.
//!
//! Only the command; the server is in `http/baseline.rs`.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::cli::failure::Failure;
use crate::cli::{output, serve};

/// Serve HTTP and store nothing, to compare with
#[derive(clap::Args)]
#[command(after_help = "Example:\n  sibyl bench baseline --listen 127.0.0.1:7999")]
pub(super) struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:7999", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Size of the answer to a GET.
    #[arg(long, default_value_t = 1024, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=16 << 20))]
    value_bytes: u32,
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Serves until a signal ends the process.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.stop_with_stdin {
        serve::stop_with_stdin()?;
    }
    let listening = |source| Failure::File {
        doing: "listen on",
        path: args.listen.to_string().into(),
        source,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(listening)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen)
            .await
            .map_err(listening)?;
        output::print(format!("stores nothing at http://{}\n", args.listen))?;
        crate::http::baseline::serve(listener, Bytes::from(vec![b'x'; args.value_bytes as usize]))
            .await
            .map_err(listening)
    })
}
