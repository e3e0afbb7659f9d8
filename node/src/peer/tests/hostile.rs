//! A peer that speaks the protocol wrongly: raw sockets against a real node.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::super::handshake::{self, Hello, VERSIONS, Versions, Welcome};
use super::super::wire::{self, Frame, Kind, Out, Stamp};
use super::node::{Node, id, identity, limited};

/// A raw connection to a node.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
    buf: BytesMut,
    pub(super) stamp: Stamp,
}

impl Raw {
    async fn connect(node: &Node) -> Self {
        Self::over(TcpStream::connect(&node.addr).await.expect("it listens"))
    }

    fn over(stream: TcpStream) -> Self {
        let stamp = Stamp {
            version: 1,
            session: 0,
        };
        Self {
            stream,
            buf: BytesMut::new(),
            stamp,
        }
    }

    /// A connection that has shaken hands as node `name`.
    pub(super) async fn greeted(name: &str, node: &Node) -> Self {
        let mut raw = Self::connect(node).await;
        raw.send(&hello(name, VERSIONS)).await;
        let frame = raw.frame().await.expect("a welcome");
        let welcome: Welcome = handshake::parse(&frame).expect("a good welcome");
        assert_eq!(welcome.identity.node_id, node.net.identity().node_id);
        raw.stamp = Stamp {
            version: welcome.version,
            session: welcome.session,
        };
        raw
    }

    pub(super) fn encode(&self, out: &Out) -> BytesMut {
        let mut bytes = BytesMut::new();
        wire::encode(out, self.stamp, Instant::now(), &mut bytes);
        bytes.extend_from_slice(&out.body);
        bytes
    }

    pub(super) async fn send(&mut self, out: &Out) {
        let bytes = self.encode(out);
        self.stream.write_all(&bytes).await.expect("it reads");
    }

    /// The next frame; none if the node closed the connection.
    pub(super) async fn frame(&mut self) -> Option<Frame> {
        limited(async {
            loop {
                if let Some(frame) = wire::decode(&mut self.buf, usize::MAX).expect("a good frame")
                {
                    return Some(frame);
                }
                match self.stream.read_buf(&mut self.buf).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        })
        .await
    }
}

fn hello(wanted_by: &str, versions: Versions) -> Out {
    let hello = Hello {
        versions,
        wanted: id("b"),
        identity: identity(wanted_by),
    };
    handshake::frame(Kind::Hello, &hello, 0)
}

pub(super) fn ask(id: u64, body: &[u8]) -> Out {
    Out {
        body: Bytes::copy_from_slice(body),
        ..Out::bare(Kind::Request, id, 0)
    }
}

/// After these bytes the node closes the connection, having answered nothing.
async fn check_closed(spoil: impl FnOnce(&Raw) -> Vec<u8>) {
    let b = Node::echo("b").await;
    let mut raw = Raw::greeted("a", &b).await;
    let bytes = spoil(&raw);
    raw.stream.write_all(&bytes).await.expect("it reads");
    assert_eq!(raw.frame().await, None);
}

#[tokio::test]
async fn a_flipped_bit_closes_the_connection() {
    check_closed(|raw| {
        let mut bytes = raw.encode(&ask(1, b"value")).to_vec();
        *bytes.last_mut().expect("not empty") ^= 4;
        bytes
    })
    .await;
}

#[tokio::test]
async fn an_oversized_frame_closes_the_connection() {
    check_closed(|raw| {
        let mut bytes = raw.encode(&ask(1, b"value")).to_vec();
        bytes[0..4].copy_from_slice(&(40_u32 << 20).to_le_bytes());
        bytes
    })
    .await;
}

#[tokio::test]
async fn a_misplaced_frame_closes_the_connection() {
    check_closed(|raw| raw.encode(&Out::bare(Kind::Answer, 1, 0)).to_vec()).await;
}

#[tokio::test]
async fn another_version_closes_the_connection() {
    check_closed(|raw| {
        let stamp = Stamp {
            version: 2,
            ..raw.stamp
        };
        let mut bytes = BytesMut::new();
        wire::encode(
            &Out::bare(Kind::Ping, 1, 0),
            stamp,
            Instant::now(),
            &mut bytes,
        );
        bytes.to_vec()
    })
    .await;
}

#[tokio::test]
async fn noise_closes_the_connection() {
    check_closed(|_| vec![0xa5; 4096]).await;
}

#[tokio::test]
async fn frames_of_another_session_are_discarded() {
    let b = Node::echo("b").await;
    let mut raw = Raw::greeted("a", &b).await;
    let right = raw.stamp;
    raw.stamp.session ^= 1;
    raw.send(&ask(1, b"old")).await;
    raw.stamp = right;
    raw.send(&ask(2, b"new")).await;
    let frame = raw.frame().await.expect("an answer");
    assert_eq!((frame.id, &frame.body[..]), (2, &b"new"[..]));
}

#[tokio::test]
async fn an_expired_request_is_not_handled() {
    let b = Node::echo("b").await;
    let mut raw = Raw::greeted("a", &b).await;
    raw.send(&Out {
        deadline: Some(Instant::now()),
        ..ask(1, b"late")
    })
    .await;
    let frame = raw.frame().await.expect("a reply");
    assert_eq!((frame.kind, &frame.head[..]), (Kind::Error, &[3][..]));
}

#[tokio::test]
async fn without_a_handshake_nothing_is_served() {
    let b = Node::echo("b").await;
    let mut raw = Raw::connect(&b).await;
    raw.send(&ask(1, b"value")).await;
    assert_eq!(raw.frame().await, None);
    // Nor may a stranger make the node hold more than a hello.
    let mut raw = Raw::connect(&b).await;
    raw.send(&Out {
        body: Bytes::from(vec![0; 5000]),
        ..hello("a", VERSIONS)
    })
    .await;
    assert_eq!(raw.frame().await, None);
}

#[tokio::test]
async fn a_version_nobody_speaks_is_refused_by_name() {
    let b = Node::echo("b").await;
    let mut raw = Raw::connect(&b).await;
    raw.send(&hello("a", Versions { least: 7, most: 9 })).await;
    let frame = raw.frame().await.expect("a refusal");
    let text: String = handshake::parse(&frame).expect("a text");
    assert_eq!(text, "wrong_version: we speak 1..=1, the peer 7..=9");
    assert_eq!(raw.frame().await, None);
}

#[tokio::test]
async fn a_garbled_hello_is_refused_by_name() {
    let b = Node::echo("b").await;
    let mut raw = Raw::connect(&b).await;
    let head = Bytes::from_static(&[1, 1, 200]);
    raw.send(&Out {
        head,
        ..Out::bare(Kind::Hello, 0, 0)
    })
    .await;
    let frame = raw.frame().await.expect("a refusal");
    let text: String = handshake::parse(&frame).expect("a text");
    assert!(text.starts_with("malformed: Hello frame"), "{text}");
}

#[tokio::test]
async fn a_listener_that_answers_as_another_node_is_refused() {
    let a = Node::echo("a").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound").to_string();
    a.net.set_peer(id("b"), addr);
    let (stream, _) = limited(listener.accept()).await.expect("a dials");
    let mut raw = Raw::over(stream);
    let frame = raw.frame().await.expect("a hello");
    let hello: Hello = handshake::parse(&frame).expect("a good hello");
    assert_eq!((hello.wanted, hello.identity), (id("b"), identity("a")));
    let (version, session, identity) = (1, 5, identity("c"));
    let welcome = Welcome {
        version,
        session,
        identity,
    };
    raw.send(&handshake::frame(Kind::Welcome, &welcome, 0))
        .await;
    let told = raw.frame().await.expect("a refusal");
    let text: String = handshake::parse(&told).expect("a text");
    assert!(
        text.starts_with("wrong_node: wanted b, reached c"),
        "{text}"
    );
    a.until("b", |peer| peer.refused.as_deref() == Some(text.as_str()))
        .await;
}
