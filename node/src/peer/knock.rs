//! A knock: one question of a node that is no peer, one answer, and the connection is over.
//!
//! Who knocks proves nothing and gets no session: it cannot ask anything else on this connection, and nothing it says
//! is taken for a peer's. Only if the service says that a knock begins a *visit* more questions may follow, one after
//! the other, each with its answer. All of them are opaque here. The invariants: a knock is as small as a hello, few
//! are answered at a time, fewer visits are made, and everything is within a limit of time.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::handshake::{self, Refusal, VERSIONS, Versions};
use super::limits::{
    CONNECT_TIMEOUT, FAREWELL, HANDSHAKE_TIMEOUT, KNOCK_TIMEOUT, MAX_BODY_BYTES, MAX_FRAME_BYTES,
    MAX_HEAD_BYTES, MAX_HELLO_BYTES, MAX_KNOCK_ANSWER_BYTES, VISIT_PAUSE,
};
use super::pump::Close;
use super::service::Knocked;
use super::shared::Shared;
use super::wire::{self, BadFrame, Frame, Kind, Out};
use crate::outside::{self, Stream};

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
    #[error("a question of {0} bytes is over its limit")]
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
    let (answer, _over) = visit(address, ask).await?;
    Ok(answer)
}

/// As [`knock`], and more may be asked if the answer says so.
///
/// # Errors
/// [`KnockError`].
pub async fn visit(address: &str, ask: Bytes) -> Result<((Bytes, Bytes), Visit), KnockError> {
    if ask.len() > MAX_KNOCK_BYTES {
        return Err(KnockError::TooLong(ask.len()));
    }
    let connecting = timeout(CONNECT_TIMEOUT, outside::connect(address));
    let stream = connecting.await.map_err(late)?.map_err(Close::from)?;
    stream.set_nodelay(true).map_err(Close::from)?;
    let mut visit = Visit {
        stream,
        buf: BytesMut::new(),
        asked: 0,
    };
    let ask = Ask {
        versions: VERSIONS,
        ask: ask.to_vec(),
    };
    let knock = handshake::frame(Kind::Knock, &ask, 0);
    let answer = visit.talk(knock, MAX_KNOCK_ANSWER_BYTES).await?;
    Ok((answer, visit))
}

fn late(_: Elapsed) -> KnockError {
    KnockError::Silent("no answer in time".to_owned())
}

/// The asking side of a visit.
#[derive(Debug)]
pub struct Visit {
    stream: Stream,
    buf: BytesMut,
    asked: u64,
}

impl Visit {
    /// Asks one more question. A visit whose question failed is over.
    ///
    /// # Errors
    /// [`KnockError`].
    pub async fn ask(&mut self, head: Bytes, body: Bytes) -> Result<(Bytes, Bytes), KnockError> {
        let size = head.len() + body.len();
        if head.len() > MAX_HEAD_BYTES || body.len() > MAX_BODY_BYTES {
            return Err(KnockError::TooLong(size));
        }
        self.asked += 1;
        let out = Out {
            head,
            body,
            ..Out::bare(Kind::Request, self.asked, 0)
        };
        self.talk(out, MAX_FRAME_BYTES).await
    }

    async fn talk(&mut self, out: Out, most: usize) -> Result<(Bytes, Bytes), KnockError> {
        let talking = async {
            send(&mut self.stream, out).await?;
            let frame = receive(&mut self.stream, &mut self.buf, most).await?;
            match frame.kind {
                Kind::Answer => Ok((frame.head, frame.body)),
                Kind::Refuse => Err(Refusal::Told(handshake::parse(&frame)?).into()),
                kind => Err(BadFrame::Misplaced(kind).into()),
            }
        };
        let talked = timeout(KNOCK_TIMEOUT + HANDSHAKE_TIMEOUT, talking).await;
        talked.map_err(late)?.map_err(|why: Close| why.into())
    }
}

async fn send(stream: &mut Stream, out: Out) -> Result<(), Close> {
    let body = out.body.clone();
    handshake::write(stream, &out).await?;
    stream.write_all(&body).await?;
    Ok(())
}

async fn receive(stream: &mut Stream, buf: &mut BytesMut, most: usize) -> Result<Frame, Close> {
    // Ends: every round reads at least a byte, and a frame has a limit.
    loop {
        if let Some(frame) = wire::decode(buf, most)? {
            return Ok(frame);
        }
        if stream.read_buf(buf).await? == 0 {
            return Err(Close::Ended);
        }
    }
}

/// The listener's side: hands the question on, and closes the connection behind the answer, or behind the visit that
/// the question begins.
pub(super) async fn answer(
    mut stream: Stream,
    frame: &Frame,
    shared: &Shared,
) -> Result<(), Close> {
    let answered = async {
        let ask = question(frame)?;
        let visits = shared.service.visits(&ask);
        let room = visits.then(|| shared.visits.try_acquire()).transpose();
        let room = room.map_err(|_| Refusal::Full)?;
        let answer = asked(shared, shared.service.knocked(ask.clone())).await?;
        Ok::<_, Refusal>((ask, room, answer))
    };
    let (ask, room, answer) = match answered.await {
        Ok(answered) => answered,
        Err(why) => return Err(refuse(&mut stream, why, shared).await),
    };
    reply(&mut stream, frame.id, answer, shared).await?;
    if let Some(_room) = room {
        serve_visit(&mut stream, &ask, shared).await?;
    }
    // The answer is written; who asked may be gone.
    let _gone = timeout(FAREWELL, stream.shutdown()).await;
    Ok(())
}

/// Answers one question after the other until the visitor goes, says nothing for too long, or this node closes.
async fn serve_visit(stream: &mut Stream, ask: &Bytes, shared: &Shared) -> Result<(), Close> {
    let mut buf = BytesMut::new();
    loop {
        let receiving = timeout(VISIT_PAUSE, receive(stream, &mut buf, MAX_FRAME_BYTES));
        let frame = match receiving.await {
            Ok(Err(Close::Ended)) => return Ok(()),
            Ok(received) => received?,
            Err(_) => return Err(Close::Silent),
        };
        if frame.kind != Kind::Request {
            return Err(BadFrame::Misplaced(frame.kind).into());
        }
        let answering = shared
            .service
            .visited(ask.clone(), frame.head.clone(), frame.body.clone());
        match asked(shared, answering).await {
            Ok(answer) => reply(stream, frame.id, answer, shared).await?,
            Err(why) => return Err(refuse(stream, why, shared).await),
        }
    }
}

async fn reply(
    stream: &mut Stream,
    id: u64,
    (head, body): (Bytes, Bytes),
    shared: &Shared,
) -> Result<(), Close> {
    let out = Out {
        head,
        body,
        ..Out::bare(Kind::Answer, id, shared.registry())
    };
    let written = timeout(KNOCK_TIMEOUT, send(stream, out)).await;
    written.map_err(|_| Close::Silent)?
}

async fn refuse(stream: &mut Stream, why: Refusal, shared: &Shared) -> Close {
    let out = handshake::refusal(&why, shared.registry());
    // The node that knocked may be gone already; the refusal is what counts.
    let _told = timeout(FAREWELL, handshake::write(stream, &out)).await;
    why.into()
}

fn question(frame: &Frame) -> Result<Bytes, Refusal> {
    let Ask { versions, ask } = handshake::parse(frame)?;
    if VERSIONS.common(versions).is_none() {
        return Err(Refusal::Version {
            ours: VERSIONS,
            theirs: versions,
        });
    }
    Ok(ask.into())
}

async fn asked(shared: &Shared, answering: Knocked) -> Result<(Bytes, Bytes), Refusal> {
    if shared.is_closing() {
        return Err(Refusal::Closing);
    }
    let Ok(_room) = shared.knocks.try_acquire() else {
        return Err(Refusal::Full);
    };
    let answered = timeout(KNOCK_TIMEOUT, answering).await;
    answered.map_err(|_| Refusal::Busy)
}
