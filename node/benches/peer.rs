//! Question: what does one request over the peer transport cost, and how does that compare with nothing
//! but sockets?
//!
//! Echo of 1 KiB with 1, 16 and 64 requests in flight, both nodes on one thread, as in
//! `design/performance.md`, goal 9. The baseline is the same echo without frames, checksums, deadlines or
//! multiplexing: one bare socket per request in flight. CPU time of the whole process (both sides) is the
//! figure to trust; it is printed and written beside criterion's wall times. Run `cargo bench --bench peer`.
#![allow(
    missing_docs,
    reason = "criterion's macros make public items without documentation"
)]

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sibyl::peer::{
    Identity, Incoming, Knocked, Net, Options, Outgoing, Remote, Responder, Service,
};
use sibyl_core::id::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

const BODY_BYTES: usize = 1024;
const IN_FLIGHT: [u64; 3] = [1, 16, 64];

/// Requests per figure of CPU time: a second or so, for the kernel counts in steps of 10 ms.
const REQUESTS: u64 = 100_000;

struct Echo;

impl Service for Echo {
    fn handle(&self, _: &Remote, incoming: Incoming, reply: Responder) {
        reply.answer(incoming.head, incoming.body, 0);
    }

    fn admit(&self, _: &Identity) -> Result<(), String> {
        Ok(())
    }

    fn knocked(&self, ask: Bytes) -> Knocked {
        Box::pin(std::future::ready((ask, Bytes::new())))
    }
}

fn id(name: &str) -> NodeId {
    name.parse().expect("a good node id")
}

async fn node(name: &str, seed: u64) -> (Net, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound").to_string();
    let identity = Identity {
        cluster_id: "bench".to_owned(),
        node_id: id(name),
        store: seed,
        incarnation: 1,
        lineage: None,
        url: String::new(),
    };
    let options = Options::new(StdRng::seed_from_u64(seed));
    let net = Net::start(identity, listener, Arc::new(Echo), options).expect("it starts");
    (net, addr)
}

/// Two nodes of which the first knows the second.
async fn pair() -> (Net, Net) {
    let ((a, _), (b, addr)) = (node("a", 1).await, node("b", 2).await);
    a.set_peer(id("b"), addr);
    call(&a, &id("b")).await;
    (a, b)
}

async fn call(net: &Net, peer: &NodeId) {
    let outgoing = Outgoing {
        head: Bytes::from_static(&[7; 24]),
        body: Bytes::from_static(&[9; BODY_BYTES]),
        timeout: Duration::from_secs(5),
        registry: 1,
        span: None,
    };
    let answer = net.call(peer, outgoing).await.expect("an answer");
    assert_eq!(answer.body.len(), BODY_BYTES);
}

async fn transport(net: &Net, requests: u64, in_flight: u64) {
    let peer = id("b");
    let callers = (0..in_flight).map(|_| {
        let (net, peer) = (net.clone(), peer.clone());
        tokio::spawn(async move {
            for _ in 0..requests.div_ceil(in_flight) {
                call(&net, &peer).await;
            }
        })
    });
    for caller in join_all(callers).await {
        caller.expect("no caller panics");
    }
}

/// The baseline's server: 1 KiB comes back as it came.
async fn bare_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buf = [0; BODY_BYTES];
                while stream.read_exact(&mut buf).await.is_ok() {
                    stream.write_all(&buf).await.expect("the client reads");
                }
            });
        }
    });
    addr
}

async fn bare(addr: &str, requests: u64, in_flight: u64) {
    let callers = (0..in_flight).map(|_| {
        let addr = addr.to_owned();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(addr).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket option");
            let mut buf = [9; BODY_BYTES];
            for _ in 0..requests.div_ceil(in_flight) {
                stream.write_all(&buf).await.expect("the server reads");
                stream
                    .read_exact(&mut buf)
                    .await
                    .expect("the server answers");
            }
        })
    });
    for caller in join_all(callers).await {
        caller.expect("no caller panics");
    }
}

/// CPU time of this process so far, user and system: fields 14 and 15 of its stat file, in 10 ms.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().expect("it names the program");
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Microseconds of CPU, and of wall time, per request.
fn figures(runtime: &Runtime, work: impl Future<Output = ()>) -> (f64, f64) {
    let (cpu_before, began) = (cpu(), Instant::now());
    runtime.block_on(work);
    let per = |spent: Duration| spent.as_secs_f64() * 1e6 / REQUESTS as f64;
    (per(cpu().saturating_sub(cpu_before)), per(began.elapsed()))
}

fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn report(runtime: &Runtime, net: &Net, addr: &str) {
    let mut text = format!(
        "question: CPU per echo of 1 KiB over the peer transport, both sides, one thread\n\
         command: cargo bench --bench peer; commit {}; {} cores; {}\n",
        output("git", &["rev-parse", "--short", "HEAD"]),
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        output("uname", &["-srm"]),
    );
    for in_flight in IN_FLIGHT {
        let (cpu, wall) = figures(runtime, transport(net, REQUESTS, in_flight));
        let (bare_cpu, bare_wall) = figures(runtime, bare(addr, REQUESTS, in_flight));
        let ratio = cpu / bare_cpu;
        writeln!(
            text,
            "in flight {in_flight:3}: transport {cpu:6.2} us cpu {wall:6.2} us wall; \
             bare sockets {bare_cpu:6.2} us cpu {bare_wall:6.2} us wall; ratio {ratio:.2}"
        )
        .expect("a string takes any text");
    }
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench-peer.txt");
    fs::write(file, &text).expect("the target folder is writable");
    println!("{text}figures written to {file}");
}

fn echo(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (net, _peer) = runtime.block_on(pair());
    let addr = runtime.block_on(bare_server());
    report(&runtime, &net, &addr);
    let mut group = criterion.benchmark_group("peer echo of 1 KiB");
    group.throughput(Throughput::Elements(1));
    for in_flight in IN_FLIGHT {
        let name = BenchmarkId::new("transport", in_flight);
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter_custom(|requests| {
                let net = net.clone();
                async move {
                    let began = Instant::now();
                    transport(&net, requests, in_flight).await;
                    began.elapsed()
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, echo);
criterion_main!(benches);
