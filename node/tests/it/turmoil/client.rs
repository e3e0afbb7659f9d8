//! One client of a run: real HTTP over turmoil's network, and what it writes down of it.
//!
//! As the clients of `chaos::load`, but it waits in simulated time, so that the same seed asks the same.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ::turmoil::net::TcpStream;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::HTTP;
use super::trace::{Trace, hash};
use crate::ask::{Answer, Ask, delete, get, key, put};
use crate::chaos::judge::{Record, Saw, StrictRead, Told};
use crate::chaos::load::values;
use crate::flips::Draw;

/// Where all this lies.
pub(super) const BUCKET: &str = "turmoil";
/// A node that is cut off answers nobody; its client gives up and does not know.
const PATIENCE: Duration = Duration::from_secs(3);
/// Keys of its own that a client writes and reads strictly.
const CHAINS: usize = 3;
/// Keys that all clients share.
const SHARED: usize = 3;
/// Blind writes of one key, each a sibling for ever; then another key begins.
const HEAP: usize = 10;
/// The most of them at once.
const MOST_AT_ONCE: usize = 4;
/// How often a write with an `Idempotency-Key` is tried.
const TRIES: usize = 4;
/// Owners only.
const STRICT: &str = "?sloppy=false";

/// What all of a run's clients share.
#[derive(Clone)]
pub(super) struct Field {
    pub(super) nodes: Rc<Vec<String>>,
    pub(super) record: Rc<RefCell<Record>>,
    pub(super) trace: Trace,
    /// Whether clients write.
    pub(super) open: Rc<Cell<bool>>,
    /// Whether they are to end.
    pub(super) over: Rc<Cell<bool>>,
}

/// Sends a request to a node and waits for its answer.
pub(super) async fn ask(field: &Field, node: &str, ask: &Ask) -> Option<Answer> {
    let asking = async {
        let mut stream = TcpStream::connect((node, HTTP)).await?;
        stream.write_all(ask.head().as_bytes()).await?;
        stream.write_all(ask.body()).await?;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).await;
        ask.heard(&bytes, read)
    };
    let heard = timeout(PATIENCE, asking).await;
    let answer = heard.ok().and_then(Result::ok);
    let said = answer
        .as_ref()
        .map(|answer| (answer.status, hash(&answer.body)));
    field.trace.say(format!(
        "{node}: {} -> {said:?}",
        ask.head().lines().next().unwrap_or("")
    ));
    answer
}

/// A client.
pub(super) struct Client {
    name: usize,
    draw: Draw,
    field: Field,
    /// The last acknowledged write of each key of its own: id and context.
    chains: [Option<(usize, String)>; CHAINS],
    /// The last acknowledged write of its key that may be repeated.
    keyed: Option<(usize, String)>,
    turns: usize,
    blind: usize,
}

impl Client {
    pub(super) fn new(name: usize, draw: Draw, field: Field) -> Self {
        Self {
            name,
            draw,
            field,
            chains: Default::default(),
            keyed: None,
            turns: 0,
            blind: 0,
        }
    }

    /// Writes as long as the field is open.
    pub(super) async fn run(&mut self) {
        while !self.field.over.get() {
            let pause = Duration::from_millis(5 + self.draw.below(60) as u64);
            sleep(pause).await;
            if !self.field.open.get() {
                continue;
            }
            self.turns += 1;
            match self.draw.below(20) {
                0..6 => self.replace(false).await,
                6..8 => self.replace(true).await,
                8..12 => self.chain().await,
                12..16 => self.heap().await,
                16..19 => self.keyed().await,
                _ => self.sweep().await,
            }
        }
    }

    /// Reads a shared key and writes with what it saw, or deletes that.
    async fn replace(&mut self, deletes: bool) {
        let name = format!("shared-{}", self.draw.below(SHARED));
        let node = self.node();
        let Some(read) = ask(&self.field, &node, &get(key(BUCKET, &name))).await else {
            return;
        };
        let Some(values) = values(&read) else {
            return;
        };
        let saw = Saw::Writes(self.field.record.borrow().named(&values));
        let value = (!deletes).then(|| self.value());
        let mut asks = match &value {
            Some(value) => put(key(BUCKET, &name), value),
            None => delete(key(BUCKET, &name)),
        };
        if read.has("sibyl-context") {
            asks = asks.with("sibyl-context", read.context());
        } else if deletes {
            // Without a context there is nothing to delete.
            return;
        }
        let id = self.begin(&name, value, saw);
        self.tell(id, &asks).await;
    }

    /// Writes a key of its own with the context of its last acknowledged answer, without reading; owners only. Then
    /// somebody else is asked for one of them, and must show what was acknowledged.
    async fn chain(&mut self) {
        let (at, value) = (self.draw.below(CHAINS), self.value());
        let name = format!("chain-{}-{at}", self.name);
        let asks = put(key(BUCKET, &name) + STRICT, &value);
        let (saw, asks) = seen(asks, self.chains[at].as_ref());
        let id = self.begin(&name, Some(value), saw);
        if let Some(answer) = self.tell(id, &asks).await {
            self.chains[at] = Some((id, answer.context().to_owned()));
        }
        let at = self.draw.below(CHAINS);
        let Some((after, _)) = self.chains[at] else {
            return;
        };
        let (node, path) = (
            self.node(),
            key(BUCKET, &format!("chain-{}-{at}", self.name)),
        );
        let read = ask(&self.field, &node, &get(path + STRICT)).await;
        if let Some(values) = read.as_ref().and_then(values) {
            let mut record = self.field.record.borrow_mut();
            let shown = record.named(&values);
            record.reads.push(StrictRead { after, shown });
        }
    }

    /// Writes without having seen anything, a few at once: nothing ever writes over them, so each of them must be there.
    async fn heap(&mut self) {
        let mut asked = Vec::new();
        for _ in 0..=self.draw.below(MOST_AT_ONCE) {
            let name = format!("heap-{}-{}", self.name, self.blind / HEAP);
            self.blind += 1;
            let (node, value) = (self.node(), self.value());
            // One copy on disk is kept, too, whatever becomes of the power.
            let copies = if self.draw.below(2) == 0 { "?w=1" } else { "" };
            let asks = put(key(BUCKET, &name) + copies, &value);
            let id = self.begin(&name, Some(value), Saw::Writes(BTreeSet::new()));
            asked.push((id, node, asks));
        }
        let this = &*self;
        let telling = asked.iter().map(|(id, node, asks)| async move {
            let answer = ask(&this.field, node, asks).await;
            this.told(*id, answer);
        });
        join_all(telling).await;
    }

    /// Writes over its own last write with an `Idempotency-Key`, and again through others while it does not know.
    async fn keyed(&mut self) {
        let (name, value) = (format!("keyed-{}", self.name), self.value());
        let asks = put(key(BUCKET, &name) + STRICT, &value).with("idempotency-key", &value);
        let (saw, asks) = seen(asks, self.keyed.as_ref());
        let id = self.begin(&name, Some(value), saw);
        for _ in 0..TRIES {
            let node = self.node();
            let answer = ask(&self.field, &node, &asks).await;
            if let Some(answer) = answer.filter(|answer| self.is_acknowledged(answer, id)) {
                self.keyed = Some((id, answer.context().to_owned()));
                return;
            }
        }
        self.field.record.borrow_mut().give_up(id);
    }

    /// Lets a node delete what it reads itself, or writes beside that.
    async fn sweep(&mut self) {
        let deletes = self.draw.below(2) == 0;
        let value = (!deletes).then(|| self.value());
        let (asks, saw) = match &value {
            Some(value) => (
                put(key(BUCKET, "swept"), value),
                Saw::Writes(BTreeSet::new()),
            ),
            None => (delete(key(BUCKET, "swept") + "?blind=true"), Saw::Anything),
        };
        let id = self.begin("swept", value, saw);
        self.tell(id, &asks).await;
    }

    fn begin(&self, name: &str, value: Option<String>, saw: Saw) -> usize {
        self.field.record.borrow_mut().begin(name, value, saw)
    }

    /// Asks once and writes down what came of it; the answer if it was acknowledged.
    async fn tell(&mut self, id: usize, asks: &Ask) -> Option<Answer> {
        let node = self.node();
        let answer = ask(&self.field, &node, asks).await;
        self.told(id, answer)
    }

    /// Writes down what came of a write; the answer if it was acknowledged.
    fn told(&self, id: usize, answer: Option<Answer>) -> Option<Answer> {
        let told = match answer {
            Some(answer) if self.is_acknowledged(&answer, id) => return Some(answer),
            Some(answer) if answer.status == 404 || answer.json()["outcome"] == "not_written" => {
                Told::NotWritten
            }
            _ => Told::Unknown,
        };
        self.field.record.borrow_mut().end(id, told);
        None
    }

    /// Whether a write was acknowledged, which is then written down.
    fn is_acknowledged(&self, answer: &Answer, id: usize) -> bool {
        assert!([204, 404, 503].contains(&answer.status), "{answer}");
        let acknowledged = answer.status == 204;
        if acknowledged {
            let dot = answer.header("sibyl-dot").to_owned();
            assert!(!dot.is_empty(), "{answer}");
            let mut record = self.field.record.borrow_mut();
            record.end(id, Told::Acknowledged(dot));
        }
        acknowledged
    }

    fn node(&mut self) -> String {
        self.field.nodes[self.draw.below(self.field.nodes.len())].clone()
    }

    /// Like no other; it has nothing to do with the id.
    fn value(&mut self) -> String {
        format!("{}.{}.{}", self.name, self.turns, self.draw.below(1 << 20))
    }
}

/// With the context of what was written last, if anything was.
fn seen(asks: Ask, last: Option<&(usize, String)>) -> (Saw, Ask) {
    match last {
        Some((last, context)) => (
            Saw::Writes([*last].into()),
            asks.with("sibyl-context", context),
        ),
        None => (Saw::Writes(BTreeSet::new()), asks),
    }
}
