//! Two questions about the store, asked of the real one with its watermark, on this machine's disk.
//!
//! Goal 7: how much faster is one sync for 64 writes than a sync for each? (must 4x, aim 6x)
//! Of that sync, how much is the watermark's? ("engine only" leaves it out; no node may.)
//! Goal 8: how many bytes of disk does a key of 1 KiB take after 100,000? (must 1.25 KiB, aim 1.1)
//!
//! `cargo bench -p sibyl --bench store`; values are random bytes, so that compression cannot flatter.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group};
use rand::SeedableRng as _;
use sibyl::store::{Batch, Opened, Space, commit, open};

const VALUE_BYTES: usize = 1024;
const GROUP: u64 = 64;
const KEYS: u64 = 100_000;

fn opened(folder: &Path) -> Opened {
    open(folder, || 1).expect("an empty folder opens")
}

fn put(batch: &mut Batch, random: &mut impl rand::Rng) {
    let mut key = [0; 16];
    let mut value = vec![0; VALUE_BYTES];
    random.fill_bytes(&mut key);
    random.fill_bytes(&mut value);
    batch.put(Space::Objects, &key, value);
}

#[derive(Clone, Copy)]
enum Sync {
    Both,
    EngineOnly,
}

fn write(opened: &Opened, random: &mut impl rand::Rng, batches: u64, writes_each: u64, sync: Sync) {
    for _ in 0..batches {
        let mut batch = Batch::new();
        (0..writes_each).for_each(|_| put(&mut batch, random));
        opened.store.apply(batch).expect("a healthy disk");
        let synced = match sync {
            Sync::Both => commit(&*opened.store, &opened.watermark),
            Sync::EngineOnly => opened.store.sync(),
        };
        synced.expect("a healthy disk");
    }
}

fn group_commit(criterion: &mut Criterion) {
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut group = criterion.benchmark_group("64 writes of 1 KiB");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(GROUP));
    let ways = [
        ("one sync", 1, GROUP, Sync::Both),
        ("one sync, engine only", 1, GROUP, Sync::EngineOnly),
        ("a sync each", GROUP, 1, Sync::Both),
    ];
    for (name, batches, writes_each, sync) in ways {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = opened(folder.path());
        group.bench_function(name, |bencher| {
            bencher.iter(|| write(black_box(&store), &mut random, batches, writes_each, sync));
        });
    }
    group.finish();
}

fn bytes_per_key() {
    let mut random = rand::rngs::StdRng::seed_from_u64(8);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = opened(folder.path());
    let (mut most, mut written) = (0, 0);
    while written < KEYS {
        write(&store, &mut random, 10, GROUP, Sync::Both);
        written += 10 * GROUP;
        most = most.max(store.store.size().bytes);
    }
    let kib = |bytes: u64| bytes as f64 / written as f64 / 1024.0;
    let size = store.store.size();
    println!(
        "goal 8: {written} keys of 1 KiB take {:.3} KiB each at the end, {:.3} at most on the way",
        kib(size.bytes),
        kib(most)
    );
}

criterion_group!(benches, group_commit);

fn main() {
    bytes_per_key();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
