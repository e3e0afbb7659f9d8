//! A knock: one question of a node that is no peer, one answer, and the connection is over.
//!
//! Who knocks proves nothing and gets no session: it cannot ask anything else on this connection, and nothing it says
//! is taken for a peer's. Question and answer are opaque here. The invariants: a knock is as small as a hello, few
//! are answered at a time, and each within a limit of time.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshake::{self, Refusal, VERSIONS, Versions};
use super::limits::{
    CONNECT_TIMEOUT, FAREWELL, HANDSHAKE_TIMEOUT, KNOCK_TIMEOUT, MAX_HELLO_BYTES,
    MAX_KNOCK_ANSWER_BYTES,
};
use super::pump::Close;
use super::shared::Shared;
use super::wire::{self, BadFrame, Frame, Kind};

/// The longest question: half of a hello, as an identity.
pub const MAX_KNOCK_BYTES: usize = MAX_HELLO_BYTES / 2;

/// Why a knock was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KnockError {
    /// Nobody is there, or it did not answer in time.
    #[error("{0}")]
    Silent(String),
    /// The node there answers no knocks now; `code: explanation`.
    #[error("{0}")]
    Refused(String),
    /// The question is over its limit.
    #[error("a question of {0} bytes is over the limit of {MAX_KNOCK_BYTES}")]
    TooLong(usize),
}

impl From<Close> for KnockError {
    fn from(why: Close) -> Self {
        match why {
            Close::Refused(why) => Self::Refused(why.to_string()),
            why => Self::Silent(why.to_string()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Ask {
    versions: Versions,
    ask: Vec<u8>,
}

/// Asks the node at `HOST:PORT`, whoever it is. Head and body of its answer.
///
/// # Errors
/// [`KnockError`].
pub async fn knock(address: &str, ask: Bytes) -> Result<(Bytes, Bytes), KnockError> {
    if ask.len() > MAX_KNOCK_BYTES {
        return Err(KnockError::TooLong(ask.len()));
    }
    let late = |_| KnockError::Silent("no answer in time".to_owned());
    let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
    let mut stream = connecting.await.map_err(late)?.map_err(Close::from)?;
    timeout(KNOCK_TIMEOUT + HANDSHAKE_TIMEOUT, talk(&mut stream, ask))
        .await
        .map_err(late)?
        .map_err(KnockError::from)
}

async fn talk(stream: &mut TcpStream, ask: Bytes) -> Result<(Bytes, Bytes), Close> {
    stream.set_nodelay(true)?;
    let ask = Ask {
        versions: VERSIONS,
        ask: ask.to_vec(),
    };
    handshake::write(stream, &handshake::frame(Kind::Knock, &ask, 0)).await?;
    let mut buf = BytesMut::new();
    // Ends: every round reads at least a byte, and the answer has a limit.
    let frame = loop {
        if let Some(frame) = wire::decode(&mut buf, MAX_KNOCK_ANSWER_BYTES)? {
            break frame;
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(Close::Ended);
        }
    };
    match frame.kind {
        Kind::Answer => Ok((frame.head, frame.body)),
        Kind::Refuse => Err(Refusal::Told(handshake::parse(&frame)?).into()),
        kind => Err(BadFrame::Misplaced(kind).into()),
    }
}

/// The listener's side: hands the question on, and closes the connection behind the answer.
pub(super) async fn answer(
    mut stream: TcpStream,
    frame: &Frame,
    shared: &Shared,
) -> Result<(), Close> {
    match asked(frame, shared).await {
        Ok((head, body)) => {
            let out = wire::Out {
                head,
                body: body.clone(),
                ..wire::Out::bare(Kind::Answer, frame.id, shared.registry())
            };
            let writing = async {
                handshake::write(&mut stream, &out).await?;
                stream.write_all(&body).await?;
                stream.shutdown().await.map_err(Close::from)
            };
            let written = timeout(KNOCK_TIMEOUT, writing).await;
            written.map_err(|_| Close::Silent)?
        }
        Err(why) => {
            let out = handshake::refusal(&why, shared.registry());
            // The node that knocked may be gone already; the refusal is what counts.
            let _told = timeout(FAREWELL, handshake::write(&mut stream, &out)).await;
            Err(why.into())
        }
    }
}

async fn asked(frame: &Frame, shared: &Shared) -> Result<(Bytes, Bytes), Refusal> {
    let Ask { versions, ask } = handshake::parse(frame)?;
    if VERSIONS.common(versions).is_none() {
        return Err(Refusal::Version {
            ours: VERSIONS,
            theirs: versions,
        });
    }
    if shared.is_closing() {
        return Err(Refusal::Closing);
    }
    let Ok(_room) = shared.knocks.try_acquire() else {
        return Err(Refusal::Full);
    };
    let answering = shared.service.knocked(ask.into());
    let answered = timeout(KNOCK_TIMEOUT, answering).await;
    answered.map_err(|_| Refusal::Busy)
}
