//! One client: what it writes, through whom, and what it writes down of it.
//!
//! Values name their write, so whoever reads one knows which write that was. Only what a read showed, or the client's
//! own answer covers, is noted as seen. Durability is the default, `synced`: what was acknowledged `buffered` may go
//! with a machine's power, and has no place in this record.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::judge::{Record, Saw, StrictRead, Told};
use crate::ask::{Answer, Ask, delete, get, key, put};
use crate::flips::Draw;

/// Where all this lies.
pub(super) const BUCKET: &str = "chaos";
/// A node that stands still answers nobody; its client gives up and does not know.
const PATIENCE: Duration = Duration::from_secs(4);
/// After nobody answered.
const PAUSE: Duration = Duration::from_millis(20);
/// Turns in which a client leaves a node alone that did not answer.
const AVOID: usize = 30;
/// Blind writes of one key, each a sibling for ever; then another key begins.
const HEAP: usize = 20;
/// Writes of one key with an `Idempotency-Key`: well below the 64 that an object remembers, retries included.
const KEYED: usize = 20;
/// Keys of its own that a client writes and reads strictly: enough to lie with all owners.
const CHAINS: usize = 8;
/// Owners only.
const STRICT: &str = "?sloppy=false";
/// Keys that all clients share.
const SHARED: usize = 5;
/// How often a write with an `Idempotency-Key` is tried.
const TRIES: usize = 4;

/// A client, from round to round.
pub(super) struct Client {
    name: usize,
    draw: Draw,
    /// The last acknowledged write of each key of its own: id and context.
    chains: [Option<(usize, String)>; CHAINS],
    turns: usize,
    keyed: usize,
    /// The acknowledged writes of its key of now that may be repeated: id, context, request.
    repeatable: Vec<(usize, String, Ask)>,
    blind: usize,
    avoided: Option<(SocketAddr, usize)>,
}

/// What a read showed: the writes, and a context that covers them.
struct Read {
    saw: Saw,
    context: Option<String>,
}

impl Client {
    pub(super) fn new(name: usize, seed: u64) -> Self {
        let seed = (seed + 1).wrapping_mul(0xD1B5_4A32_D192_ED03) ^ ((name as u64 + 1) << 32);
        Self {
            name,
            draw: Draw(seed | 1),
            chains: Default::default(),
            turns: 0,
            keyed: 0,
            repeatable: Vec::new(),
            blind: 0,
            avoided: None,
        }
    }

    /// Writes until it is told to stop.
    pub(super) fn run(&mut self, nodes: &[SocketAddr], stop: &AtomicBool, record: &Mutex<Record>) {
        while !stop.load(Ordering::Relaxed) {
            self.turns += 1;
            match self.draw.below(20) {
                0..8 => self.replace(nodes, record, false),
                8..10 => self.replace(nodes, record, true),
                10..14 => self.chain(nodes, record),
                14..16 => self.heap(nodes, record),
                16..18 => self.keyed(nodes, record, stop),
                18 => self.sweep(nodes, record, false),
                _ => self.sweep(nodes, record, true),
            }
        }
    }

    /// Reads a shared key and writes with what it saw, or deletes that.
    fn replace(&mut self, nodes: &[SocketAddr], record: &Mutex<Record>, deletes: bool) {
        let name = format!("shared-{}", self.draw.below(SHARED));
        let Some(read) = self.read(nodes, &name, record) else {
            return;
        };
        // Without a context there is nothing to delete.
        let (value, ask) = match (&read.context, deletes) {
            (None, true) => return,
            (_, true) => (None, delete(key(BUCKET, &name))),
            (_, false) => {
                let value = self.value();
                (Some(value.clone()), put(key(BUCKET, &name), value))
            }
        };
        let ask = match &read.context {
            Some(context) => ask.with("sibyl-context", context),
            None => ask,
        };
        let id = record.lock().unwrap().begin(&name, value, read.saw);
        let node = self.node(nodes);
        self.tell(id, node, &ask, record);
    }

    /// Writes a key of its own with the context of its last acknowledged answer, without reading; owners only. Then
    /// somebody else is asked for one of them, and must show what was acknowledged.
    fn chain(&mut self, nodes: &[SocketAddr], record: &Mutex<Record>) {
        let (at, value) = (self.draw.below(CHAINS), self.value());
        let name = format!("chain-{}-{at}", self.name);
        let ask = put(key(BUCKET, &name) + STRICT, &value);
        let (saw, ask) = match &self.chains[at] {
            Some((last, context)) => ([*last].into(), ask.with("sibyl-context", context)),
            None => (BTreeSet::new(), ask),
        };
        let saw = Saw::Writes(saw);
        let id = record.lock().unwrap().begin(&name, Some(value), saw);
        let node = self.node(nodes);
        if let Some(answer) = self.tell(id, node, &ask, record) {
            self.chains[at] = Some((id, answer.context().to_owned()));
        }
        self.read_strictly(nodes, record);
    }

    fn read_strictly(&mut self, nodes: &[SocketAddr], record: &Mutex<Record>) {
        let at = self.draw.below(CHAINS);
        let Some((after, _)) = self.chains[at] else {
            return;
        };
        let path = key(BUCKET, &format!("chain-{}-{at}", self.name)) + STRICT;
        let node = self.node(nodes);
        let read = self.ask(node, &get(path));
        if let Some(values) = read.and_then(|read| values(&read)) {
            let mut record = record.lock().unwrap();
            let shown = record.named(&values);
            record.reads.push(StrictRead { after, shown });
        }
    }

    /// Writes without having seen anything.
    fn heap(&mut self, nodes: &[SocketAddr], record: &Mutex<Record>) {
        let name = format!("heap-{}-{}", self.name, self.blind / HEAP);
        self.blind += 1;
        let value = self.value();
        let ask = put(key(BUCKET, &name), &value);
        let id = record
            .lock()
            .unwrap()
            .begin(&name, Some(value), Saw::Writes(BTreeSet::new()));
        let node = self.node(nodes);
        self.tell(id, node, &ask, record);
    }

    /// Writes over its own last write with an `Idempotency-Key`, and again through others while it does not know.
    /// At times it repeats what it wrote over long ago, which must not come back by it.
    fn keyed(&mut self, nodes: &[SocketAddr], record: &Mutex<Record>, stop: &AtomicBool) {
        let name = format!("keyed-{}-{}", self.name, self.keyed / KEYED);
        if self.keyed.is_multiple_of(KEYED) {
            self.repeatable.clear();
        }
        self.keyed += 1;
        let value = self.value();
        let ask = put(key(BUCKET, &name) + STRICT, &value).with("idempotency-key", &value);
        let (saw, ask) = match self.repeatable.last() {
            Some((last, context, _)) => ([*last].into(), ask.with("sibyl-context", context)),
            None => (BTreeSet::new(), ask),
        };
        let saw = Saw::Writes(saw);
        let id = record.lock().unwrap().begin(&name, Some(value), saw);
        for _ in 0..TRIES {
            let node = self.node(nodes);
            let answer = self.ask(node, &ask);
            if let Some(answer) = answer.filter(|answer| told(answer, id, record)) {
                self.repeatable.push((id, answer.context().to_owned(), ask));
                break;
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        record.lock().unwrap().give_up(id);
        let over = self.repeatable.len().saturating_sub(1);
        if over > 0 && self.draw.below(2) == 0 {
            let (_, _, again) = self.repeatable[self.draw.below(over)].clone();
            let node = self.node(nodes);
            self.ask(node, &again);
        }
    }

    /// Writes a shared key blindly, or lets a node delete what it reads itself.
    fn sweep(&mut self, nodes: &[SocketAddr], record: &Mutex<Record>, deletes: bool) {
        let name = format!("swept-{}", self.draw.below(2));
        let (value, saw, ask) = if deletes {
            let blind = key(BUCKET, &name) + "?blind=true";
            (None, Saw::Anything, delete(blind))
        } else {
            let value = self.value();
            let ask = put(key(BUCKET, &name), &value);
            (Some(value), Saw::Writes(BTreeSet::new()), ask)
        };
        let id = record.lock().unwrap().begin(&name, value, saw);
        let node = self.node(nodes);
        self.tell(id, node, &ask, record);
    }

    fn read(&mut self, nodes: &[SocketAddr], name: &str, record: &Mutex<Record>) -> Option<Read> {
        let node = self.node(nodes);
        let answer = self.ask(node, &get(key(BUCKET, name)))?;
        let values = values(&answer)?;
        let record = record.lock().unwrap();
        let strange = values
            .iter()
            .find(|value| !record.by_value.contains_key(*value));
        assert!(strange.is_none(), "nobody wrote {strange:?}: {answer}");
        let context = answer
            .has("sibyl-context")
            .then(|| answer.context().to_owned());
        Some(Read {
            saw: Saw::Writes(record.named(&values)),
            context,
        })
    }

    /// Asks once and writes down what came of it; the answer if it was acknowledged.
    fn tell(
        &mut self,
        id: usize,
        node: SocketAddr,
        ask: &Ask,
        record: &Mutex<Record>,
    ) -> Option<Answer> {
        let answer = self.ask(node, ask);
        match answer {
            Some(answer) if told(&answer, id, record) => Some(answer),
            Some(answer) => {
                let refused = answer.status == 404 || answer.json()["outcome"] == "not_written";
                let told = if refused {
                    Told::NotWritten
                } else {
                    Told::Unknown
                };
                record.lock().unwrap().end(id, told);
                None
            }
            None => {
                record.lock().unwrap().end(id, Told::Unknown);
                None
            }
        }
    }

    fn ask(&mut self, node: SocketAddr, ask: &Ask) -> Option<Answer> {
        let answer = ask.send_within(node, PATIENCE).ok();
        if answer.is_none() {
            self.avoided = Some((node, self.turns + AVOID));
            // Nobody may be there for a while.
            std::thread::park_timeout(PAUSE);
        }
        answer
    }

    /// One that it does not avoid.
    fn node(&mut self, nodes: &[SocketAddr]) -> SocketAddr {
        loop {
            let node = nodes[self.draw.below(nodes.len())];
            match self.avoided {
                Some((avoided, until)) if avoided == node && self.turns < until => {}
                _ => return node,
            }
        }
    }

    /// Like no other; it has nothing to do with the id.
    fn value(&mut self) -> String {
        format!("{}.{}.{}", self.name, self.turns, self.draw.below(1 << 20))
    }
}

/// Whether a write was acknowledged, which is then written down.
fn told(answer: &Answer, id: usize, record: &Mutex<Record>) -> bool {
    // A delete may find nothing, and a node that was just taken in no bucket.
    assert!([204, 404, 503].contains(&answer.status), "{answer}");
    let acknowledged = answer.status == 204;
    if acknowledged {
        let dot = answer.header("sibyl-dot").to_owned();
        assert!(!dot.is_empty(), "{answer}");
        record.lock().unwrap().end(id, Told::Acknowledged(dot));
    }
    acknowledged
}

/// What a read shows; none if it could not be made.
pub(crate) fn values(read: &Answer) -> Option<Vec<String>> {
    match read.status {
        200 => Some(vec![read.text()]),
        300 => Some(read.values()),
        404 if read.code() == "no_value" => Some(Vec::new()),
        404 | 503 => None,
        _ => panic!("{read}"),
    }
}
