//! What a merge costs: reads of two siblings with the shipped cart resolver against reads of one value.
//!
//! Cold means that every key is read once, so that each read calls the resolver; warm means few keys read again
//! and again, so that each node answers from its view cache.

use serde_json::Map;

use super::cell::{Bench, Subject};
use super::load::{Op, Values, Work};
use super::report::{Cell, Report};
use super::{Args, create_bucket, local};
use crate::cli::client::{Client, bucket_path};
use crate::cli::demo::cart::MODULE;
use crate::cli::failure::Failure;
use crate::cli::local_cluster::LocalCluster;
use crate::cli::{bucket, resolver};

/// Uploading compiles on every node, in a debug build for a long time.
const COMPILE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(240);

/// Keys of the warm reads: few enough for any cache.
const WARM_KEYS: u64 = 64;

const BUCKET: &str = "bench-merged";

/// Adds the cells and their ratios.
pub(super) fn measure(
    args: &Args,
    cluster: &LocalCluster,
    bench: &Bench<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    let client = Client::new(&cluster.nodes()[0].url, COMPILE_TIMEOUT)?;
    create_bucket(&client, BUCKET, Some("buffered"))?;
    let (one, two) = (subject(cluster, "one")?, subject(cluster, "two")?);
    bench.preload(&one)?;
    // Blind writes stand beside each other: two preloads make two siblings of each key.
    bench.preload(&two)?;
    bench.preload(&two)?;
    bind(&client)?;
    let connections = args.connections.iter().max().copied().unwrap_or(1);
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    let steady = |keys| Work::Steady {
        op: Op::Get,
        keys,
        run: 0,
    };
    let cells = [
        bench.work(&one, "get one value", steady(args.keys), connections)?,
        bench.work(
            &two,
            "get two siblings, cold",
            Work::Once { keys: args.keys },
            connections,
        )?,
        bench.work(
            &two,
            "get two siblings, warm",
            steady(WARM_KEYS.min(args.keys)),
            connections,
        )?,
    ];
    let cost = |cell: &Cell| cell.server_cpu_us_per_operation.filter(|cost| *cost > 0.0);
    for cell in &cells[1..] {
        if let (Some(merged), Some(single)) = (cost(cell), cost(&cells[0])) {
            report
                .figures
                .insert(format!("{}: CPU over one value", cell.op), merged / single);
        }
    }
    report.cells.extend(cells);
    Ok(())
}

fn subject(cluster: &LocalCluster, prefix: &str) -> Result<Subject, Failure> {
    let path = format!("{}/keys/{prefix}", bucket_path(BUCKET));
    Ok(Subject {
        values: Values::Carts,
        ..local::subject("cart", cluster, path)?
    })
}

fn bind(client: &Client) -> Result<(), Failure> {
    let version = resolver::upload(client, "cart", "application/wasm", MODULE)?;
    let digest = version
        .get("digest")
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default();
    let fields: Map<_, _> = resolver::binding("cart", digest, None, "active");
    bucket::change(client, BUCKET, &fields)?;
    Ok(())
}
