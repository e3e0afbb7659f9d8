//! What a merge costs: reads of two siblings with a shipped resolver against reads of one value.
//!
//! Cold means that every key is read once, so that each read calls the resolver; warm means few keys read again
//! and again, so that each node answers from its view cache. Either stands against keys with one value that are
//! read the same way, or the store's caches and the first moments of the connections would be counted too. `lww` shows what
//! the platform costs, `cart` what reading and writing JSON in the guest adds to it.

use serde_json::Map;

use super::cell::{Bench, Subject};
use super::load::{Op, Values, Work};
use super::report::{Cell, Report};
use super::{Args, create_bucket, local};
use crate::cli::client::{Client, bucket_path};
use crate::cli::demo::cart;
use crate::cli::failure::Failure;
use crate::cli::local_cluster::LocalCluster;
use crate::cli::{bucket, resolver};

/// Uploading compiles on every node, in a debug build for a long time.
const COMPILE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(240);

/// Keys of the warm reads: few enough for any cache.
const WARM_KEYS: u64 = 64;

/// A shipped resolver, and values it merges.
struct Guest {
    name: &'static str,
    module: &'static [u8],
    values: Values,
}

const GUESTS: [Guest; 2] = [
    Guest {
        name: "lww",
        module: include_bytes!("../../../../resolvers/prebuilt/lww.wasm"),
        values: Values::Random,
    },
    Guest {
        name: "cart",
        module: cart::MODULE,
        values: Values::Carts,
    },
];

/// Adds the cells and their ratios.
pub(super) fn measure(
    args: &Args,
    cluster: &LocalCluster,
    bench: &Bench<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
    for guest in &GUESTS {
        guest.measure(args, cluster, bench, report)?;
    }
    Ok(())
}

impl Guest {
    fn measure(
        &self,
        args: &Args,
        cluster: &LocalCluster,
        bench: &Bench<'_>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let client = Client::new(&cluster.nodes()[0].url, COMPILE_TIMEOUT)?;
        create_bucket(&client, &self.bucket(), Some("buffered"))?;
        let (one, two) = (self.subject(cluster, "one")?, self.subject(cluster, "two")?);
        bench.preload(&one)?;
        // Blind writes stand beside each other: two preloads make two siblings of each key.
        bench.preload(&two)?;
        bench.preload(&two)?;
        self.bind(&client)?;
        let connections = args.connections.iter().max().copied().unwrap_or(1);
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        let steady = |keys| Work::Steady {
            op: Op::Get,
            keys,
            run: 0,
        };
        let once = || Work::Once { keys: args.keys };
        let few = WARM_KEYS.min(args.keys);
        let pairs = [
            (("one value, once", once()), ("two siblings, cold", once())),
            (
                ("one value of few keys", steady(few)),
                ("two siblings, warm", steady(few)),
            ),
        ];
        for ((single, of_one), (merged, of_two)) in pairs {
            let single = bench.work(&one, &format!("get {single}"), of_one, connections)?;
            let merged = bench.work(&two, &format!("get {merged}"), of_two, connections)?;
            if let (Some(merged_cost), Some(single_cost)) = (cost(&merged), cost(&single)) {
                let name = format!("{} {}: CPU over {}", self.name, merged.op, single.op);
                report.figures.insert(name, merged_cost / single_cost);
            }
            report.cells.extend([single, merged]);
        }
        Ok(())
    }

    fn bucket(&self) -> String {
        format!("bench-{}", self.name)
    }

    fn subject(&self, cluster: &LocalCluster, prefix: &str) -> Result<Subject, Failure> {
        let path = format!("{}/keys/{prefix}", bucket_path(&self.bucket()));
        Ok(Subject {
            values: self.values,
            ..local::subject(self.name, cluster, path)?
        })
    }

    fn bind(&self, client: &Client) -> Result<(), Failure> {
        let version = resolver::upload(client, self.name, "application/wasm", self.module, "off")?;
        let digest = version
            .get("digest")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        let fields: Map<_, _> = resolver::binding(self.name, digest, None, "active", "off");
        bucket::change(client, &self.bucket(), &fields)?;
        Ok(())
    }
}

fn cost(cell: &Cell) -> Option<f64> {
    cell.server_cpu_us_per_operation.filter(|cost| *cost > 0.0)
}
