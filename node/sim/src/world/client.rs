//! Clients: they do one thing at a time, keep the contexts of their answers, and pass them on.
//!
//! What a client has seen is kept as a set of writes beside each sealed context, so that a context which
//! claims more is caught. A request is a client's one question; reading and then writing are two.

use std::collections::BTreeMap;

use sibyl_core::context::Context;
use sibyl_core::id::WriteId;
use sibyl_core::message::{Coordinate, Written};
use sibyl_core::object::Object;
use sibyl_core::seal;

use super::once::Repeats;
use super::{Bytes, VecDeque, World};
use crate::checks::{Violation, deletes, seen, strict};
use crate::draw::{Draw, mix};
use crate::oracle::Writes;
use crate::plan::{Entry, What, Wish};
use crate::sight::Sight;

/// Purpose of the draws of this file.
const PURPOSE: u64 = 5;

/// A client.
pub(crate) struct Client {
    busy: bool,
    waiting: VecDeque<Entry>,
    /// The contexts of its answers, by key, oldest first.
    tokens: Vec<Vec<Token>>,
}

/// A context in a client's hand.
#[derive(Clone)]
pub(crate) struct Token {
    sealed: Vec<u8>,
    seen: Writes,
}

/// One request.
pub(crate) struct RequestRecord {
    client: usize,
    pub(crate) node: usize,
    pub(crate) key: usize,
    wish: Wish,
    entry: u32,
    reads: bool,
    /// What its client had seen.
    pub(crate) seen: Writes,
    /// Whether fallbacks count.
    pub(crate) sloppy: bool,
    /// What owners had acknowledged when it began.
    before: Writes,
    pub(crate) minted: bool,
    pub(crate) answers: usize,
    pub(crate) not_written: bool,
    /// Whether a write was not answered with success.
    unanswered: bool,
    /// Whether a read was answered with success.
    pub(crate) was_read: bool,
    pub(crate) repeats: Repeats,
}

/// What a request comes to.
#[derive(Debug)]
pub(crate) enum Answer {
    Written(Written),
    /// The write may or may not become visible.
    Unknown,
    NotWritten,
    Read {
        node: usize,
        object: Box<Object>,
        fallbacks: usize,
    },
    ReadMissed,
    /// The node is gone, or went while it worked.
    Broken,
}

impl Client {
    pub(crate) fn new(keys: usize) -> Self {
        let tokens = vec![Vec::new(); keys];
        Self {
            busy: false,
            waiting: VecDeque::new(),
            tokens,
        }
    }
}

impl RequestRecord {
    /// Whether this is a write whose client does not know that it was written.
    pub(crate) fn is_open(&self) -> bool {
        !self.reads && self.unanswered
    }

    /// What its repetition says.
    pub(crate) fn to_repeat(&self) -> (usize, usize, Wish, (u32, bool), Repeats) {
        let (entry, repeats) = ((self.entry, self.sloppy), self.repeats.clone());
        (self.client, self.key, self.wish, entry, repeats)
    }
}

impl World {
    /// A client's next wish; it waits for those before.
    pub(crate) fn wish(&mut self, entry: Entry) {
        let What::Ask {
            client,
            node,
            key,
            wish,
            sloppy,
        } = entry.what
        else {
            return;
        };
        if self.clients[client].busy {
            return self.clients[client].waiting.push_back(entry);
        }
        self.clients[client].busy = true;
        match wish {
            Wish::Read | Wish::Modify => {
                self.begin_read(client, node, key, wish, (entry.id, sloppy));
            }
            _ => {
                let tokens = &self.clients[client].tokens[key];
                let token = match wish {
                    Wish::Reuse | Wish::Delete => tokens.last().cloned(),
                    Wish::Stale => {
                        let mut draw = Draw::of(self.plan.seed, PURPOSE, u64::from(entry.id));
                        let at = draw.below(tokens.len() as u64);
                        tokens.get(usize::try_from(at).unwrap_or(0)).cloned()
                    }
                    _ => None,
                };
                self.begin_write(client, node, key, wish, (entry.id, sloppy), token);
            }
        }
    }

    pub(crate) fn request(
        &mut self,
        client: usize,
        node: usize,
        key: usize,
        wish: Wish,
        (entry, sloppy): (u32, bool),
    ) -> usize {
        self.requests.push(RequestRecord {
            client,
            node,
            key,
            wish,
            entry,
            reads: false,
            seen: Writes::default(),
            sloppy,
            before: self.oracle.strict(key),
            minted: false,
            answers: 0,
            not_written: false,
            unanswered: true,
            was_read: false,
            repeats: Repeats::new(self.requests.len()),
        });
        self.requests.len() - 1
    }

    fn serves(&self, node: usize) -> bool {
        let process = self.nodes[node].process.as_ref();
        process.is_some_and(|process| process.held.document.number >= 2)
    }

    fn begin_read(
        &mut self,
        client: usize,
        node: usize,
        key: usize,
        wish: Wish,
        (entry, sloppy): (u32, bool),
    ) {
        let request = self.request(client, node, key, wish, (entry, sloppy));
        self.requests[request].reads = true;
        self.note(&[7, request as u64, node as u64], || {
            format!("c{client} reads k{key} at n{node}, request {request} (#{entry} {wish:?})")
        });
        if self.serves(node) {
            self.get(node, request);
        } else {
            self.answer(request, Answer::Broken);
        }
    }

    /// Sends a write, or sends it once more.
    pub(crate) fn send_write(&mut self, request: usize, token: Option<Token>) {
        let record = &self.requests[request];
        let (client, node, key) = (record.client, record.node, record.key);
        let (wish, entry, sloppy) = (record.wish, record.entry, record.sloppy);
        let (first, once) = (record.repeats.first, record.repeats.keyed);
        let with = if token.is_some() {
            "with its context"
        } else {
            "blindly"
        };
        self.note(&[8, request as u64, node as u64], || {
            format!(
                "c{client} writes k{key} at n{node} {with}, request {request} (#{entry} {wish:?})"
            )
        });
        self.requests[request].seen = token.as_ref().map(|token| token.seen).unwrap_or_default();
        if !self.serves(node) {
            return self.answer(request, Answer::Broken);
        }
        let opened = token.map(|token| self.open(node, key, &token.sealed));
        let context = match opened.transpose() {
            Ok(context) => context,
            Err(violation) => return self.hold(Err(violation)),
        };
        let coordinate = Coordinate {
            place: self.keys[key].place.clone(),
            context,
            tombstones: Context::new(),
            deletes: matches!(wish, Wish::Delete | Wish::DeleteBlind),
            content_type: "text/plain".into(),
            attributes: BTreeMap::new(),
            write_id: self.write_id(first),
            trace: None,
            w: u32::try_from(self.plan.setting.w).unwrap_or(1),
            sloppy,
        };
        let value = Bytes::from(format!("write {first}"));
        self.put(node, request, (coordinate, once), value);
    }

    /// Random, as a node draws it, and ending with the request's number, so that the ledger finds it.
    fn write_id(&self, request: usize) -> WriteId {
        let random = mix(&[self.plan.seed, PURPOSE, request as u64]).to_be_bytes();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random);
        id[12..].copy_from_slice(&u32::try_from(request).unwrap_or(u32::MAX).to_be_bytes());
        WriteId(id)
    }

    fn open(&mut self, node: usize, key: usize, sealed: &[u8]) -> Result<Context, Violation> {
        let place = self.keys[key].place.clone();
        let place = seal::Place {
            bucket: place.bucket,
            key: &place.key,
        };
        let keys = &self.process(node).held.document.context_keys.clone();
        let opened = seal::open(keys, place, sealed).map(|opened| opened.context);
        opened.map_err(|error| Violation {
            check: "contexts open where they were sealed for",
            found: format!("n{node} on k{key}: {error}"),
        })
    }

    fn keep_token(&mut self, node: usize, request: usize, context: &Context, seen: Writes) {
        let (client, key) = (self.requests[request].client, self.requests[request].key);
        self.hold(seen::handed(&self.oracle, key, context, seen));
        let place = self.keys[key].place.clone();
        let place = seal::Place {
            bucket: place.bucket,
            key: &place.key,
        };
        let now_ms = self.scheduler.now_us() / 1000;
        let Some(secret) = self
            .process(node)
            .held
            .document
            .context_keys
            .last()
            .copied()
        else {
            return;
        };
        let sealed = seal::seal(&secret, place, now_ms, context);
        self.clients[client].tokens[key].push(Token { sealed, seen });
    }

    /// A request has its outcome.
    pub(crate) fn answer(&mut self, request: usize, answer: Answer) {
        self.requests[request].answers += 1;
        let text = format_of(&answer);
        self.note(&[10, request as u64, text.len() as u64], || {
            format!("request {request} ends: {text}")
        });
        if self.requests[request].answers > 1 {
            return;
        }
        let record = &self.requests[request];
        let (client, node, key, wish) = (record.client, record.node, record.key, record.wish);
        let entry = (record.entry, record.sloppy);
        let (reads, written) = (record.reads, matches!(answer, Answer::Written(_)));
        let unknown = matches!(answer, Answer::Unknown | Answer::Broken);
        let repeats = !reads && self.will_repeat(request, unknown, written);
        let mut read = false;
        match answer {
            Answer::Written(written) => self.acknowledge(request, &written, repeats),
            Answer::Read {
                node,
                object,
                fallbacks,
            } => {
                read = true;
                self.requests[request].was_read = true;
                self.judge_read(node, request, &object, fallbacks);
            }
            Answer::Unknown => self.sights.met(Sight::WriteUnknown),
            Answer::NotWritten => {
                self.sights.met(Sight::NotWritten);
                let record = &mut self.requests[request];
                (record.not_written, record.unanswered) = (true, false);
            }
            Answer::ReadMissed => self.sights.met(Sight::ReadMissed),
            Answer::Broken => {}
        }
        if read && wish == Wish::Modify && self.violation.is_none() {
            let token = self.clients[client].tokens[key].last().cloned();
            return self.begin_write(client, node, key, Wish::Reuse, entry, token);
        }
        if repeats {
            return;
        }
        self.clients[client].busy = false;
        if let Some(next) = self.clients[client].waiting.pop_front() {
            self.wish(next);
        }
    }

    /// A node promised; `lost` if its client never heard of it.
    fn acknowledge(&mut self, request: usize, written: &Written, lost: bool) {
        self.sights.met(Sight::Written);
        let (node, key, seen) = {
            let record = &mut self.requests[request];
            record.unanswered = lost;
            (record.node, record.key, record.seen)
        };
        let Some(write) = self.oracle.find(written.dot) else {
            return;
        };
        let w = self.plan.setting.w;
        self.oracle.writes[write].promised = Some(w);
        // While a key changes hands the owners that acknowledged may be those to come, and a hint one of those there are.
        let mut running = (0..self.nodes.len()).filter(|at| self.nodes[*at].process.is_some());
        let moves = running.any(|at| !self.also(at, key).is_empty());
        let by_owners = written.fallbacks == 0 || !moves;
        let stays = self.stays(key, write);
        self.oracle.writes[write].strict |= by_owners && stays && written.owners as usize >= w;
        if written.fallbacks > 0 {
            self.sights.met(Sight::SloppyAck);
        }
        if self.oracle.writes[write].payload.is_none() {
            self.sights.met(Sight::Deleted);
        }
        self.check_durable(key);
        if lost {
            return;
        }
        let seen = self.oracle.known(seen.and(Writes::of(write)));
        self.keep_token(node, request, &written.context, seen);
    }

    fn judge_read(&mut self, node: usize, request: usize, object: &Object, fallbacks: usize) {
        let record = &self.requests[request];
        // What a removal took away since need not be found.
        let (key, before) = (record.key, record.before);
        let before = before.common(self.oracle.strict(key));
        let setting = &self.plan.setting;
        if fallbacks > 0 {
            self.sights.met(Sight::FallbackRead);
        } else if setting.r + setting.w > setting.nodes.min(3) && !self.may_be_behind(node) {
            self.hold(strict::check(&self.oracle, key, before, object));
            self.hold(deletes::check(
                &self.oracle,
                before,
                self.oracle.live(object),
            ));
        }
        if object.live().count() > 1 {
            self.sights.met(Sight::Siblings);
        }
        if object
            .siblings()
            .iter()
            .any(|sibling| object.is_outlived(sibling))
        {
            self.sights.met(Sight::TwinHidden);
        }
        self.count_siblings(key, object);
        let seen = self.oracle.known(self.oracle.surviving(object));
        self.keep_token(node, request, object.context(), seen);
    }

    /// A node died: whoever waited for it is told.
    pub(crate) fn break_requests(&mut self, node: usize) {
        let open = self.requests.iter().enumerate();
        let open: Vec<usize> = open
            .filter(|(_, record)| record.node == node && record.answers == 0)
            .map(|(request, _)| request)
            .collect();
        open.into_iter()
            .for_each(|request| self.answer(request, Answer::Broken));
    }
}

fn format_of(answer: &Answer) -> String {
    match answer {
        Answer::Written(written) => {
            let (owners, fallbacks) = (written.owners, written.fallbacks);
            format!(
                "written as {} on {owners} owners and {fallbacks} fallbacks",
                written.dot
            )
        }
        Answer::Read { object, .. } => {
            let dots: Vec<String> = object
                .siblings()
                .iter()
                .map(|sibling| sibling.dot().to_string())
                .collect();
            format!("read {dots:?}")
        }
        Answer::Unknown => "unknown".into(),
        Answer::NotWritten => "not written".into(),
        Answer::ReadMissed => "too few replicas to read".into(),
        Answer::Broken => "the node is gone".into(),
    }
}
