//! A real OTLP receiver in the test process, and checks on the traces it got.
//!
//! It receives by gRPC (`fake-opentelemetry-collector`) or by HTTP, and keeps every span. A test waits until
//! what it looks for has arrived, bounded by [`PATIENCE`], and compares whole trees as indented text.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
pub(crate) use fake_opentelemetry_collector::ExportedSpan;
use fake_opentelemetry_collector::FakeCollectorServer;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use sibyl::telemetry::settings::Protocol;
use sibyl::telemetry::{Collector, Settings, Telemetry};
use sibyl_core::id::NodeId;
use tokio::sync::watch;

/// Longest wait for spans: far beyond what a loaded machine needs, so running out means they never came.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything received so far.
type Spans = watch::Sender<Vec<ExportedSpan>>;

/// A collector on a free port of this machine. Ends with the test's runtime.
pub(crate) struct Receiver {
    /// Where to send: for `Settings::collector`.
    pub(crate) endpoint: String,
    spans: watch::Receiver<Vec<ExportedSpan>>,
    /// What came over HTTP, as it came.
    bodies: Arc<Mutex<Vec<u8>>>,
}

impl Receiver {
    /// OTLP over gRPC.
    pub(crate) async fn grpc() -> Self {
        let mut server = FakeCollectorServer::start().await.expect("a free port");
        let endpoint = server.endpoint();
        let (sender, spans) = watch::channel(Vec::new());
        // It holds 64 spans and stalls the exporter then, so they are taken out all the time.
        tokio::spawn(async move {
            while !sender.is_closed() {
                let some = server.exported_spans(1, Duration::from_millis(100)).await;
                keep(&sender, some);
            }
        });
        Self {
            endpoint,
            spans,
            bodies: Arc::default(),
        }
    }

    /// OTLP as protobuf over HTTP.
    pub(crate) async fn http() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (sender, spans) = watch::channel(Vec::new());
        let bodies: Arc<Mutex<Vec<u8>>> = Arc::default();
        let raw = Arc::clone(&bodies);
        let receive = move |body: Bytes| async move {
            raw.lock()
                .expect("nobody panics while holding it")
                .extend(&body);
            let Ok(request) = ExportTraceServiceRequest::decode(body) else {
                return StatusCode::BAD_REQUEST;
            };
            let batches = request
                .resource_spans
                .into_iter()
                .flat_map(|one| one.scope_spans);
            let some = batches.flat_map(|one| one.spans).map(ExportedSpan::from);
            keep(&sender, some.collect());
            StatusCode::OK
        };
        let router = Router::new().route("/v1/traces", post(receive));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            endpoint: format!("http://{address}/v1/traces"),
            spans,
            bodies,
        }
    }

    /// Whether a text was anywhere in what was received: names, attributes, events, messages.
    pub(crate) fn has(&self, text: &str) -> bool {
        let bodies = self.bodies.lock().expect("nobody panics while holding it");
        bodies
            .windows(text.len())
            .any(|part| part == text.as_bytes())
            || format!("{:?}", self.spans.borrow()).contains(text)
    }

    /// Waits until the spans received so far satisfy `enough`, and gives them all.
    pub(crate) async fn wait(&self, enough: impl Fn(&[ExportedSpan]) -> bool) -> Vec<ExportedSpan> {
        let mut spans = self.spans.clone();
        let waited = tokio::time::timeout(PATIENCE, spans.wait_for(|spans| enough(spans))).await;
        match waited {
            Ok(found) => found
                .expect("the receiver lives as long as the test")
                .clone(),
            Err(_) => panic!(
                "the spans never came; there are only {:#?}",
                names(&self.spans.borrow())
            ),
        }
    }

    /// Waits for so many spans.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<ExportedSpan> {
        self.wait(|spans| spans.len() >= count).await
    }
}

fn keep(to: &Spans, some: Vec<ExportedSpan>) {
    if !some.is_empty() {
        to.send_modify(|spans| spans.extend(some));
    }
}

fn names(spans: &[ExportedSpan]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// The only span of that name.
pub(crate) fn only<'a>(spans: &'a [ExportedSpan], name: &str) -> &'a ExportedSpan {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(
        found.len(),
        1,
        "spans called {name} among {:?}",
        names(spans)
    );
    found[0]
}

/// An attribute of a span, an event or a link, as plain text.
pub(crate) fn attribute(attributes: &BTreeMap<String, String>, name: &str) -> Option<String> {
    // The collector keeps them as `Some(AnyValue { value: Some(StringValue("text")) })`.
    let (_, value) = attributes.get(name)?.split_once("Value(")?;
    let inner = value.rsplit_once(")) })").map_or(value, |(inner, _)| inner);
    Some(inner.trim_matches('"').to_owned())
}

/// Compares one trace with a tree drawn as indented lines of `name KIND node`, two blanks a level; the order
/// of sisters does not matter. `storage.read` is left out on both sides: it appears only when slow.
pub(crate) fn check_tree(spans: &[ExportedSpan], trace_id: &str, expected: &str) {
    let trace: Vec<_> = spans
        .iter()
        .filter(|span| span.trace_id == trace_id && span.name != "storage.read")
        .collect();
    let known = |id: &str| trace.iter().any(|span| span.span_id == id);
    let mut roots: Vec<_> = trace
        .iter()
        .filter(|span| !known(&span.parent_span_id))
        .map(|span| node(&trace, span))
        .collect();
    let mut wanted = parse(expected);
    sort(&mut roots);
    sort(&mut wanted);
    assert_eq!(draw(&roots), draw(&wanted), "trace {trace_id}");
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    label: String,
    children: Vec<Node>,
}

fn node(trace: &[&ExportedSpan], span: &ExportedSpan) -> Node {
    let kind = span.kind.trim_start_matches("SPAN_KIND_");
    let at = attribute(&span.attributes, "sibyl.node.id").unwrap_or_default();
    let below = trace
        .iter()
        .filter(|other| other.parent_span_id == span.span_id);
    Node {
        label: format!("{} {kind} {at}", span.name),
        children: below.map(|child| node(trace, child)).collect(),
    }
}

fn parse(drawing: &str) -> Vec<Node> {
    let lines: Vec<_> = drawing
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let Some(first) = lines.first().map(|line| indent(line)) else {
        return Vec::new();
    };
    let mut nodes = Vec::new();
    let mut rest = lines.as_slice();
    while let Some((head, tail)) = rest.split_first() {
        let end = tail
            .iter()
            .position(|line| indent(line) <= first)
            .unwrap_or(tail.len());
        let (below, after) = tail.split_at(end);
        nodes.push(Node {
            label: head.trim().to_owned(),
            children: parse(&below.join("\n")),
        });
        rest = after;
    }
    nodes
}

fn sort(nodes: &mut [Node]) {
    nodes.iter_mut().for_each(|node| sort(&mut node.children));
    nodes.sort();
}

fn draw(nodes: &[Node]) -> String {
    let below = |node: &Node| draw(&node.children).replace('\n', "\n  ");
    nodes
        .iter()
        .map(|node| format!("\n{}{}", node.label, below(node)))
        .collect()
}

/// A node id.
pub(crate) fn id(name: &str) -> NodeId {
    name.parse().expect("a good node id")
}

/// A node that records every request.
pub(crate) fn settings(name: &str, collector: Option<Collector>) -> Settings {
    Settings {
        collector,
        node_id: id(name),
        cluster_id: "test".to_owned(),
        service_name: None,
        ratio: 1.0,
        trust_client_sampling: false,
    }
}

/// A collector that is sent to soon and often.
pub(crate) fn collector(endpoint: &str, protocol: Protocol) -> Collector {
    Collector {
        endpoint: endpoint.to_owned(),
        protocol,
        timeout: Duration::from_secs(2),
        queue_spans: 8192,
        interval: Duration::from_millis(20),
    }
}

/// The telemetry of a node that sends to this receiver.
pub(crate) fn start(name: &str, receiver: &Receiver) -> Telemetry {
    let protocol = match receiver.endpoint.ends_with("/v1/traces") {
        true => Protocol::Http,
        false => Protocol::Grpc,
    };
    let collector = collector(&receiver.endpoint, protocol);
    Telemetry::start(settings(name, Some(collector))).expect("good settings")
}
