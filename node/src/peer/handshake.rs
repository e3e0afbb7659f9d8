//! The handshake: each side proves who it is before anything else is said.
//!
//! The dialler says hello with its identity and whom it wants; the listener judges, answers with its own
//! identity and a new session number, or refuses with a named reason; the dialler judges in turn. The header
//! of a frame and the hello's leading fields never change; later fields are appended (postcard readers
//! ignore what follows), so neighbouring versions understand at least each other's refusal.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sibyl_core::id::{Digest, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::limits::{MAX_HELLO_BYTES, MAX_REFUSAL_BYTES};
use super::pump::Close;
use super::wire::{self, BadFrame, Frame, Kind, Out, Stamp};
use crate::outside::Stream;

/// The protocol versions this build speaks.
pub(super) const VERSIONS: Versions = Versions { least: 1, most: 1 };

/// The stamp of handshake frames: no session yet, and the oldest version.
const STAMP: Stamp = Stamp {
    version: 1,
    session: 0,
};

/// Who a node is. Proved by both sides of every connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's name (`--cluster-id`).
    pub cluster_id: String,
    /// The node's name.
    pub node_id: NodeId,
    /// Its store: 64 random bits.
    pub store: u64,
    /// Its incarnation, raised by the node alone.
    pub incarnation: u64,
    /// Hash of registry document 2, once known: tells two clusters of one name apart.
    pub lineage: Option<Digest>,
    /// Where its HTTP API is.
    pub url: String,
}

/// A range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Versions {
    pub(super) least: u8,
    pub(super) most: u8,
}

impl Versions {
    /// The newest version both speak.
    pub(super) fn common(self, theirs: Self) -> Option<u8> {
        let most = self.most.min(theirs.most);
        (most >= self.least.max(theirs.least)).then_some(most)
    }
}

/// Why a handshake was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("wrong_version: we speak {}..={}, the peer {}..={}", .ours.least, .ours.most, .theirs.least, .theirs.most)]
    Version { ours: Versions, theirs: Versions },
    #[error("wrong_cluster: we are in {ours:?}, the peer in {theirs:?}")]
    Cluster { ours: String, theirs: String },
    #[error("wrong_node: wanted {wanted}, reached {reached}; check its peer address")]
    Node { wanted: NodeId, reached: NodeId },
    #[error("duplicate_node: both sides are called {0}; give each node its own --node-id")]
    Duplicate(NodeId),
    #[error(
        "wrong_lineage: clusters of one name, formed or recovered apart: ours is {ours}, the peer's {theirs}"
    )]
    Lineage { ours: Digest, theirs: Digest },
    #[error("cut: the link between the two is cut")]
    Cut,
    #[error("full: too many peers are connected")]
    Full,
    #[error("busy: a knock was not answered in time; ask again")]
    Busy,
    #[error("closing: the node shuts down")]
    Closing,
    #[error("not_admitted: {0}")]
    Admission(String),
    #[error("malformed: {0}")]
    Malformed(String),
    /// The other side's words; they begin with its code.
    #[error("{0} (said by the peer)")]
    Told(String),
}

impl Refusal {
    /// Whether either side says that the link is cut.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Cut) || matches!(self, Self::Told(text) if text.starts_with("cut:"))
    }

    /// Whether either side shuts down: not worth a warning.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self, Self::Closing)
            || matches!(self, Self::Told(text) if text.starts_with("closing:"))
    }
}

/// The dialler's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) versions: Versions,
    pub(super) wanted: NodeId,
    pub(super) identity: Identity,
}

/// The listener's consent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) version: u8,
    pub(super) session: u64,
    pub(super) identity: Identity,
}

/// What both sides check of the other, whoever dialled.
pub(super) fn judge(ours: &Identity, theirs: &Identity) -> Result<(), Refusal> {
    if ours.cluster_id != theirs.cluster_id {
        return Err(Refusal::Cluster {
            ours: ours.cluster_id.clone(),
            theirs: theirs.cluster_id.clone(),
        });
    }
    match (ours.lineage, theirs.lineage) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            return Err(Refusal::Lineage { ours, theirs });
        }
        _ => {}
    }
    if ours.node_id == theirs.node_id {
        return Err(Refusal::Duplicate(ours.node_id.clone()));
    }
    Ok(())
}

/// What the listener checks of a hello; the version to speak.
pub(super) fn judge_hello(ours: &Identity, hello: &Hello) -> Result<u8, Refusal> {
    let version = VERSIONS.common(hello.versions).ok_or(Refusal::Version {
        ours: VERSIONS,
        theirs: hello.versions,
    })?;
    judge(ours, &hello.identity)?;
    expect_node(&hello.wanted, &ours.node_id)?;
    Ok(version)
}

/// What the dialler checks of a welcome.
pub(super) fn judge_welcome(
    ours: &Identity,
    wanted: &NodeId,
    welcome: &Welcome,
) -> Result<(), Refusal> {
    let version = welcome.version;
    if !(VERSIONS.least..=VERSIONS.most).contains(&version) {
        return Err(Refusal::Version {
            ours: VERSIONS,
            theirs: Versions {
                least: version,
                most: version,
            },
        });
    }
    expect_node(wanted, &welcome.identity.node_id)?;
    judge(ours, &welcome.identity)
}

fn expect_node(wanted: &NodeId, reached: &NodeId) -> Result<(), Refusal> {
    if wanted == reached {
        return Ok(());
    }
    let (wanted, reached) = (wanted.clone(), reached.clone());
    Err(Refusal::Node { wanted, reached })
}

/// A handshake or identity frame.
pub(super) fn frame(kind: Kind, what: &impl Serialize, registry: u64) -> Out {
    let head = postcard::to_stdvec(what).expect("plain values always serialise");
    Out {
        head: Bytes::from(head),
        ..Out::bare(kind, 0, registry)
    }
}

/// A refusal as a frame.
pub(super) fn refusal(why: &Refusal, registry: u64) -> Out {
    let mut text = why.to_string();
    text.truncate(text.floor_char_boundary(MAX_REFUSAL_BYTES));
    frame(Kind::Refuse, &text, registry)
}

/// Reads what [`frame`] made; what follows the known fields is ignored.
pub(super) fn parse<T: DeserializeOwned>(frame: &Frame) -> Result<T, Refusal> {
    postcard::take_from_bytes(&frame.head)
        .map(|(what, _)| what)
        .map_err(|err| Refusal::Malformed(format!("{:?} frame: {err}", frame.kind)))
}

/// Writes one handshake frame.
pub(super) async fn write(stream: &mut Stream, out: &Out) -> Result<(), Close> {
    let mut bytes = BytesMut::new();
    wire::encode(out, STAMP, Instant::now(), &mut bytes);
    stream.write_all(&bytes).await?;
    Ok(())
}

/// Reads one handshake frame of the wanted kind. A refusal in its place is the error.
pub(super) async fn read(
    stream: &mut Stream,
    buf: &mut BytesMut,
    want: &[Kind],
) -> Result<Frame, Close> {
    // Ends: every round reads at least a byte, and a frame is at most MAX_HELLO_BYTES long.
    let frame = loop {
        if let Some(frame) = wire::decode(buf, MAX_HELLO_BYTES)? {
            break frame;
        }
        if stream.read_buf(buf).await? == 0 {
            return Err(Close::Ended);
        }
    };
    match frame.kind {
        kind if want.contains(&kind) => Ok(frame),
        Kind::Refuse => Err(Refusal::Told(parse(&frame)?).into()),
        kind => Err(BadFrame::Misplaced(kind).into()),
    }
}
