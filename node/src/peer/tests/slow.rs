//! Lines that carry little, or only one way: who is still heard, and who is not. Time is simulated, and so is the line.
//!
//! A far end of such a line reads a piece of what was sent now and then. What it has not read it cannot answer.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::super::Outgoing;
use super::super::handshake::{self, Hello, Welcome};
use super::super::wire::{self, Kind, Out, Stamp};
use super::node::{Node, id, identity, limited, request};
use crate::outside::{self, Later, Listening, Stand, Stream, Wire};

/// What a line holds that was written and not yet read, and what is read of it at a time.
const LINE: usize = 64 << 10;
/// 16 MiB take 38 s this way, longer than a peer may be silent.
const PAUSE: Duration = Duration::from_millis(150);
const STAMP: Stamp = Stamp {
    version: 1,
    session: 5,
};

/// Whoever dials reaches the test.
struct Lines(mpsc::UnboundedSender<DuplexStream>);

impl Stand for Lines {
    fn connect(&self, _: String) -> Later<'static, io::Result<Box<dyn Wire>>> {
        let (near, far) = duplex(LINE);
        let taken = self.0.send(far).map_err(io::Error::other);
        Box::pin(async move { taken.map(|()| Box::new(near) as Box<dyn Wire>) })
    }

    fn bind(&self, _: SocketAddr) -> Later<'static, io::Result<Box<dyn Listening>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn draw(&self) -> u64 {
        7
    }

    fn sync_takes(&self) -> Duration {
        Duration::ZERO
    }
}

/// The far end of a line, after its handshake as node `b`.
struct Far {
    stream: Stream,
    buf: BytesMut,
}

impl Far {
    async fn greeted(line: DuplexStream) -> Self {
        let (mut stream, mut buf) = (Stream::Other(Box::new(line)), BytesMut::new());
        let frame = handshake::read(&mut stream, &mut buf, &[Kind::Hello]).await;
        let hello: Hello = handshake::parse(&frame.expect("a hello")).expect("a good hello");
        assert_eq!(hello.wanted, id("b"));
        let welcome = Welcome {
            version: STAMP.version,
            session: STAMP.session,
            identity: identity("b"),
        };
        let welcome = handshake::frame(Kind::Welcome, &welcome, 0);
        let written = handshake::write(&mut stream, &welcome).await;
        written.expect("it listens");
        Self { stream, buf }
    }

    /// Reads on; false at the end of the line.
    async fn read(&mut self) -> bool {
        self.buf.reserve(LINE);
        self.stream
            .read_buf(&mut self.buf)
            .await
            .is_ok_and(|read| read > 0)
    }

    /// Answers whatever has arrived as a whole.
    async fn answer(&mut self) {
        while let Some(frame) = wire::decode(&mut self.buf, usize::MAX).expect("a good frame") {
            let kind = match frame.kind {
                Kind::Request => Kind::Answer,
                Kind::Ping => Kind::Pong,
                _ => continue,
            };
            let (out, mut bytes) = (Out::bare(kind, frame.id, 0), BytesMut::new());
            wire::encode(&out, STAMP, Instant::now(), &mut bytes);
            self.stream.write_all(&bytes).await.expect("it listens");
        }
    }
}

/// Has node `a` dial `b` over a line of the test, on a thread whose connections are replaced for good.
fn with_line<F: Future<Output = ()>>(test: impl FnOnce(Node, Far) -> F + Send + 'static) {
    let run = move || {
        let (lines, mut dialled) = mpsc::unbounded_channel();
        outside::replace(Lines(lines));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build();
        runtime.expect("a runtime can be had").block_on(async {
            let a = Node::echo("a").await;
            a.net.set_peer(id("b"), "b:1".to_owned());
            let line = limited(dialled.recv()).await.expect("a dials");
            let far = Far::greeted(line).await;
            test(a, far).await;
        });
    };
    let thread = std::thread::spawn(run);
    thread.join().expect("the test holds");
}

#[test]
fn a_large_body_may_leave_slowly() {
    with_line(|a, mut far| async move {
        let body = Bytes::from(vec![9; 16 << 20]);
        let outgoing = Outgoing {
            body,
            ..request(b"")
        };
        let call = a.net.call(&id("b"), outgoing);
        let reading = async {
            while far.read().await {
                far.answer().await;
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            answer = limited(call) => drop(answer.expect("an answer: what moves is no silence")),
            () = reading => panic!("the connection was closed while a body was leaving"),
        }
    });
}

#[test]
fn who_takes_everything_and_answers_nothing_is_left() {
    with_line(|a, mut far| async move {
        let talking = async {
            let mut calls = Vec::new();
            loop {
                calls.push(a.net.call(&id("b"), request(b"do you hear me?")));
                sleep(PAUSE).await;
            }
        };
        let reading = async {
            while far.read().await {
                far.buf.clear();
            }
        };
        tokio::select! {
            () = limited(reading) => {}
            () = talking => {}
        }
    });
}
