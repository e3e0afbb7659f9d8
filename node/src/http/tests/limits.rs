//! Limits of connections, heads and bodies, over real sockets.

use std::time::Duration;

use axum::body::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::{Limits, Options, Server, Surface, router};
use super::fake::Fake;
use super::setup;

/// Long enough that only a hung test meets it.
const LONG: Duration = Duration::from_secs(60);
/// Short enough to wait for.
const SHORT: Duration = Duration::from_millis(40);

fn patient() -> Limits {
    Limits {
        max_connections: 64,
        header_timeout: LONG,
        body_pause: LONG,
        body_timeout: LONG,
        max_bodies_bytes: 64 << 20,
        drain_timeout: LONG,
    }
}

/// A server on a free port.
struct Running {
    fake: Fake,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<usize>,
}

async fn start(limits: Limits) -> Running {
    let fake = Fake::new();
    let api = std::sync::Arc::new(fake.clone());
    let router = router(&Options {
        api,
        surface: Surface::Whole,
        allow_cuts: false,
        limits,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel();
    let server = Server {
        listener: listener.into(),
        router,
        limits,
    };
    let server = tokio::spawn(server.serve(async { stopped.await.expect("the test stops it") }));
    Running {
        fake,
        address,
        stop,
        server,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("a connection")
    }

    /// Sends bytes as they are and reads until the server closes.
    async fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("sent");
        rest(stream).await
    }
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    stream
        .read_to_end(&mut text)
        .await
        .expect("closed, not reset");
    String::from_utf8_lossy(&text).into_owned()
}

fn check_answer(text: &str, status: &str, says: &str) {
    assert!(
        text.starts_with(&format!("HTTP/1.1 {status} ")),
        "{status}: {text}"
    );
    assert!(text.contains(says), "{says}: {text}");
}

#[tokio::test]
async fn raw_paths_survive_the_wire() {
    let running = start(patient()).await;
    let path = "/v1/buckets/default/keys/a//b/../%00%ff/";
    let put = format!("PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nv");
    let get = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let text = running.talk(format!("{put}{get}").as_bytes()).await;
    check_answer(&text, "204", "sibyl-context");
    assert!(
        text.contains("HTTP/1.1 200 OK") && text.ends_with("\r\n\r\nv"),
        "{text}"
    );
    let get = running.fake.state().last_get.clone().expect("a read");
    assert_eq!(get.key, &b"a//b/../\0\xff/"[..]);
}

#[tokio::test]
async fn a_slow_head_is_cut_off() {
    let running = start(Limits {
        header_timeout: SHORT,
        ..patient()
    })
    .await;
    assert_eq!(running.talk(b"GET /version HTTP/1.1\r\nhost").await, "");
    assert_eq!(running.talk(b"").await, "", "an idle connection too");
}

#[tokio::test]
async fn a_slow_body_is_408() {
    let put = b"PUT /v1/buckets/default/keys/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\nabc";
    let running = start(Limits {
        body_pause: SHORT,
        ..patient()
    })
    .await;
    check_answer(&running.talk(put).await, "408", "body_timeout");
    let running = start(Limits {
        body_timeout: SHORT,
        ..patient()
    })
    .await;
    check_answer(&running.talk(put).await, "408", "body_timeout");
    assert!(running.fake.state().last_put.is_none());
}

#[tokio::test]
async fn a_large_body_is_413_whether_announced_or_not() {
    let running = start(patient()).await;
    let cap = 1 << 20;
    let head = |length: &str| {
        format!(
            "PUT /v1/buckets/default/keys/k HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{length}\r\n\r\n"
        )
    };
    let mut announced = head(&format!("content-length: {}", cap + 1)).into_bytes();
    announced.resize(announced.len() + cap + 1, b'x');
    check_answer(
        &running.talk(&announced).await,
        "413",
        &format!("\"cap\":{cap}"),
    );
    let mut chunked = head("transfer-encoding: chunked").into_bytes();
    for _ in 0..17 {
        chunked.extend(b"10000\r\n");
        chunked.resize(chunked.len() + 0x10000, b'x');
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    check_answer(&running.talk(&chunked).await, "413", "too_large");
    assert!(running.fake.state().last_put.is_none());

    let mut exact = head(&format!("content-length: {cap}")).into_bytes();
    exact.resize(exact.len() + cap, b'x');
    check_answer(&running.talk(&exact).await, "204", "sibyl-context");
    let put = running.fake.state().last_put.clone().expect("a write");
    assert_eq!(put.value.map(|value| value.len()), Some(cap));
}

#[tokio::test]
async fn bodies_share_a_bounded_memory() {
    let limits = Limits {
        max_bodies_bytes: 1 << 20,
        ..patient()
    };
    let running = start(Limits {
        body_pause: SHORT,
        ..limits
    })
    .await;
    running.fake.state().faults.holds = true;
    let put = |bytes: usize| {
        let head = "PUT /v1/buckets/default/keys/k HTTP/1.1\r\nhost: x\r\nconnection: close";
        let mut put = format!("{head}\r\ncontent-length: {bytes}\r\n\r\n").into_bytes();
        put.resize(put.len() + bytes, b'x');
        put
    };
    let mut first = running.connect().await;
    first.write_all(&put(1 << 20)).await.expect("sent");
    running.fake.held().await;
    check_answer(&running.talk(&put(1 << 12)).await, "503", "overloaded");
    running.fake.release();
    check_answer(&rest(first).await, "204", "sibyl-context");
    check_answer(&running.talk(&put(1 << 12)).await, "204", "sibyl-context");
}

#[tokio::test]
async fn other_bodies_have_their_own_limits() {
    let setup = setup();
    let check = async |line: &str, kind: &str, bytes: usize| {
        let header = format!("content-type: {kind}");
        let length = format!("content-length: {}", bytes + 1);
        let reply = setup
            .check(line, &[&header, &length], Body::empty(), (413, "too_large"))
            .await;
        assert_eq!(reply.at("/cap"), bytes.to_string(), "{line}");
    };
    check("PUT /v1/resolvers/r", "application/wasm", 32 << 20).await;
    check(
        "POST /v1/buckets/default/batch",
        "application/json",
        24 << 20,
    )
    .await;
    check("PUT /v1/buckets/b", "application/json", 128 << 10).await;
    check("PUT /v1/trace", "application/json", 4 << 10).await;
    check("PUT /v1/log", "application/json", 4 << 10).await;
    check("POST /key", "application/json", (6 << 20) + (64 << 10)).await;
}

#[tokio::test]
async fn a_large_head_is_431() {
    let running = start(patient()).await;
    let head = |bytes: usize| {
        format!(
            "GET /version HTTP/1.1\r\nconnection: close\r\nx: {}\r\n\r\n",
            "x".repeat(bytes)
        )
    };
    check_answer(
        &running.talk(head(31 << 10).as_bytes()).await,
        "200",
        "sibyl",
    );
    check_answer(
        &running.talk(head(33 << 10).as_bytes()).await,
        "431",
        "headers_too_large",
    );
    check_answer(&running.talk(head(100 << 10).as_bytes()).await, "431", "");
    check_answer(&running.talk(b"nonsense\r\n\r\n").await, "400", "");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let running = start(Limits {
        max_connections: 1,
        ..patient()
    })
    .await;
    let mut first = running.connect().await;
    first
        .write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let mut some = [0; 12];
    first.read_exact(&mut some).await.expect("an answer");
    let mut second = running.connect().await;
    // It may be closed before everything is sent.
    let _ = second.write_all(b"GET /version HTTP/1.1\r\n\r\n").await;
    let mut text = vec![0; 600];
    let mut read = 0;
    while let Ok(bytes @ 1..) = second.read(&mut text[read..]).await {
        read += bytes;
    }
    let text = String::from_utf8_lossy(&text[..read]).into_owned();
    check_answer(&text, "503", "retry-after: 1");
    let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head} {}",
        body.len()
    );
    let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(problem["code"], "too_many_connections");
    drop(first);
}

#[tokio::test]
async fn stopping_lets_requests_finish() {
    let running = start(patient()).await;
    let idle = running.connect().await;
    let mut busy = running.connect().await;
    let head = b"PUT /v1/buckets/default/keys/k HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    busy.write_all(head).await.expect("sent");
    let mut continued = [0; 25];
    busy.read_exact(&mut continued)
        .await
        .expect("the node asks for the body");
    assert_eq!(&continued, b"HTTP/1.1 100 Continue\r\n\r\n");
    running.stop.send(()).expect("it runs");
    assert_eq!(rest(idle).await, "");
    assert!(
        TcpStream::connect(running.address).await.is_err(),
        "no new connections"
    );
    busy.write_all(b"abc").await.expect("sent");
    check_answer(&rest(busy).await, "204", "sibyl-context");
    assert_eq!(running.server.await.expect("it ends"), 0);
}

#[tokio::test]
async fn stopping_is_bounded() {
    let running = start(Limits {
        drain_timeout: SHORT,
        ..patient()
    })
    .await;
    running.fake.state().faults.hangs = true;
    let mut stuck = running.connect().await;
    stuck.write_all(b"PUT /v1/buckets/default/keys/k HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await.expect("sent");
    let mut continued = [0; 25];
    stuck
        .read_exact(&mut continued)
        .await
        .expect("the request is under way");
    running.stop.send(()).expect("it runs");
    assert_eq!(running.server.await.expect("it ends"), 1);
}
