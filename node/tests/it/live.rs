//! A real cluster for tests: `sibyl serve` processes on loopback, asked over HTTP.
//!
//! Everything waits by looking again within [`PATIENCE`], never for a fixed time. The processes end with the
//! value, however the test ends.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use rustix::process::Signal;
use serde_json::Value;
use sibyl::cli::local_cluster::{LocalCluster, Plan};
use tempfile::TempDir;

/// Far beyond what a loaded machine needs: running out means it never happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// The node under test.
pub(crate) const SIBYL: &str = env!("CARGO_BIN_EXE_sibyl");

/// Processes called n1, n2, …; indices begin at 1 as their names do.
pub(crate) struct Live {
    cluster: LocalCluster,
    /// Nodes that were started again, with their new addresses.
    again: Vec<(usize, LocalCluster)>,
    folder: TempDir,
    http: reqwest::Client,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What goes with a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct With {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl With {
    pub(crate) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self {
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// WebAssembly or WAT, said so.
    pub(crate) fn module(module: impl Into<Vec<u8>>) -> Self {
        let module = module.into();
        let kind = if module.starts_with(b"\0asm") {
            "application/wasm"
        } else {
            "text/plain"
        };
        Self::body(module).header("content-type", kind)
    }

    pub(crate) fn json(value: &Value) -> Self {
        Self::body(value.to_string()).header("content-type", "application/json")
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl Said {
    /// A header's text; empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| {
            value.to_str().expect("headers of ours are text")
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Panics with the whole answer unless it has this status.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
}

impl Live {
    /// Starts a cluster and waits until every node serves.
    pub(crate) async fn start(nodes: usize, flags: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let plan = Plan {
            executable: SIBYL.into(),
            nodes,
            folder: folder.path().to_owned(),
            ports: None,
            cluster_id: "test".to_owned(),
            flags: flags.to_vec(),
            outlive: false,
        };
        let cluster = blocking(move || {
            let mut cluster = LocalCluster::start(&plan).expect("the nodes start");
            cluster
                .wait_ready(PATIENCE, || false)
                .expect("the nodes get ready");
            cluster
        });
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build();
        let live = Self {
            cluster: cluster.await,
            again: Vec::new(),
            folder,
            http: http.expect("a client"),
        };
        live.whole().await;
        live
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.cluster.nodes().len()
    }

    fn url(&self, node: usize) -> &str {
        let again = self.again.iter().rev().find(|(of, _)| *of == node);
        match again {
            Some((_, cluster)) => &cluster.nodes()[0].url,
            None => &self.cluster.nodes()[node - 1].url,
        }
    }

    pub(crate) async fn send(&self, node: usize, method: Method, path: &str, with: With) -> Said {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url(node)));
        for (name, value) in with.headers {
            request = request.header(name, value);
        }
        let answer = request.body(with.body).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("n{node} {path}: {error:?}"));
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.expect("a whole answer").to_vec();
        Said {
            status,
            headers,
            body,
        }
    }

    pub(crate) async fn get(&self, node: usize, path: &str) -> Said {
        self.send(node, Method::GET, path, With::default()).await
    }

    pub(crate) async fn put(&self, node: usize, path: &str, with: With) -> Said {
        self.send(node, Method::PUT, path, with).await
    }

    pub(crate) async fn post(&self, node: usize, path: &str, body: &Value) -> Said {
        self.send(node, Method::POST, path, With::json(body)).await
    }

    /// Creates or changes a bucket; it is in force on every node afterwards.
    pub(crate) async fn bucket(&self, name: &str, config: &Value) {
        let path = format!("/v1/buckets/{name}");
        let said = self.put(1, &path, With::json(config)).await;
        assert!(
            matches!(said.status, 200 | 201),
            "{} {}",
            said.status,
            said.text()
        );
        self.agreed().await;
    }

    /// Uploads a module through n1, unchecked; the version's digest. To be bound with `laws: off`.
    pub(crate) async fn upload(&self, name: &str, module: impl Into<Vec<u8>>) -> String {
        let path = format!("/v1/resolvers/{name}?check=off");
        let said = self.put(1, &path, With::module(module)).await;
        assert!(
            matches!(said.status, 200 | 201),
            "{} {}",
            said.status,
            said.text()
        );
        self.agreed().await;
        said.json()["digest"]
            .as_str()
            .expect("a version has a digest")
            .to_owned()
    }

    /// The same while a node is down, which learns of it later.
    pub(crate) async fn upload_alone(&self, name: &str, module: impl Into<Vec<u8>>) -> String {
        let with = With::body(module).header("content-type", "text/plain");
        let said = self
            .put(1, &format!("/v1/resolvers/{name}?check=off"), with)
            .await
            .expect(201);
        said.json()["digest"]
            .as_str()
            .expect("a version has a digest")
            .to_owned()
    }

    /// Waits until all nodes act on the registry document that n1 acts on now, or a later one.
    pub(crate) async fn agreed(&self) {
        let number = self.number(1).await;
        for node in 2..=self.nodes() {
            let what = format!("n{node} acts on registry document {number}");
            until(&what, async || self.number(node).await >= number).await;
        }
    }

    async fn number(&self, node: usize) -> u64 {
        let registry = self.get(node, "/v1/registry").await.expect(200).json();
        registry["number"].as_u64().expect("a number")
    }

    /// Waits until every node sees every other.
    pub(crate) async fn whole(&self) {
        for node in 1..=self.nodes() {
            let what = format!("n{node} sees everyone");
            until(&what, async || {
                self.get(node, "/v1/cluster").await.json()["healthy"] == true
            })
            .await;
        }
    }

    /// Cuts or heals the links between a node and all others.
    pub(crate) async fn isolate(&self, node: usize, cut: bool) {
        for peer in (1..=self.nodes()).filter(|peer| *peer != node) {
            let body = serde_json::json!({"peer": format!("n{peer}"), "cut": cut});
            let said = self.post(node, "/v1/cluster/cut", &body).await;
            assert!(said.status < 300, "{} {}", said.status, said.text());
        }
        if !cut {
            self.whole().await;
        }
    }

    /// Sends a signal to a node.
    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        self.cluster.nodes()[node - 1].signal(signal);
    }

    pub(crate) fn data_dir(&self, node: usize) -> PathBuf {
        self.cluster.nodes()[node - 1].data_dir.clone()
    }

    /// Stops one node in order.
    pub(crate) async fn stop(&mut self, node: usize) {
        let stopped = &mut self.cluster.nodes_mut()[node - 1];
        stopped.signal(Signal::TERM);
        let what = format!("n{node} stops");
        until(&what, async || !stopped.is_running()).await;
    }

    /// Starts a stopped node again on its folder; its address for clients is a new one.
    pub(crate) async fn start_again(&mut self, node: usize) {
        let nodes = self.cluster.nodes().iter();
        let members: Vec<_> = nodes
            .map(|node| format!("{}={}", node.node_id, node.peer_listen))
            .collect();
        let stopped = &self.cluster.nodes()[node - 1];
        let (id, peers) = (stopped.node_id.clone(), stopped.peer_listen.to_string());
        let (data, folder) = (stopped.data_dir.clone(), self.folder.path().to_owned());
        let cluster = blocking(move || {
            let data = data.to_str().expect("a path of ours");
            let args = [
                "serve",
                "--node-id",
                &id,
                "--cluster-id",
                "test",
                "--peer-listen",
                &peers,
            ];
            let more = ["--data-dir", data, "--members", &members.join(",")];
            let args = [&args[..], &more].concat();
            let mut again = LocalCluster::start_other(Path::new(SIBYL), &folder, &id, &args)
                .expect("it starts");
            again.wait_ready(PATIENCE, || false).expect("it gets ready");
            again
        });
        self.again.push((node, cluster.await));
        self.whole().await;
    }

    /// Stops every node; all end by themselves.
    pub(crate) async fn end(mut self) {
        blocking(move || {
            for (_, cluster) in &mut self.again {
                assert_eq!(cluster.stop(), Vec::<String>::new());
            }
            assert_eq!(self.cluster.stop(), Vec::<String>::new());
        })
        .await;
    }
}

/// Starting and stopping processes blocks, and the blocking HTTP client refuses to live in a runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("it does not panic")
}

/// Looks again until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(
            began.elapsed() < PATIENCE,
            "it never came about that {what}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// A module that comes with the repository.
pub(crate) fn prebuilt(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../resolvers/prebuilt/{name}.wasm",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
