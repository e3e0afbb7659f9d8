//! The asking side: knock at one address after the other until a document names this node, or it is refused.
//!
//! Who wants to be taken in asks one member at a time and pauses longer and longer; who waits for an operator knocks
//! at everybody it knows, round after round, so that any member can name it. Ends with [`Effect::Start`] or
//! [`Effect::GiveUp`]; until then there is always one knock or one pause under way.

use std::collections::{BTreeMap, BTreeSet};

use super::knock::{Told, Wish};
use crate::id::{Digest, NodeId};
use crate::registry::{BadDocument, BadProof, Held};

/// The shortest and the longest pause of a node that wants to be taken in: another change of owners may take hours,
/// and one question every few seconds is nothing.
const PAUSE_MS: (u64, u64) = (200, 4_000);
/// The pause between the rounds of a node that waits: a few of them fit the time after which it is forgotten.
const ROUND_MS: u64 = 2_000;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is time to begin, or a pause is over.
    Woken,
    /// The address asked last answered, with this body.
    Answered(Told, Vec<u8>),
    /// It did not, for this reason.
    Failed(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Knock there.
    Knock(String),
    /// Do nothing for a drawn time in this range of milliseconds.
    Pause(u64, u64),
    /// Keep this and start with it: it names this node.
    Start(Box<Held>),
    /// End, saying this.
    GiveUp(String),
}

/// Bytes that a node cannot start from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStart {
    /// No document.
    #[error(transparent)]
    Document(#[from] BadDocument),
    /// Not proven.
    #[error(transparent)]
    Proof(#[from] BadProof),
    /// Without any proof.
    #[error("document {0} comes without a proof that it was chosen")]
    NoProof(u64),
    /// Of another cluster.
    #[error("document {number} is of cluster {theirs:?}, not {ours:?}")]
    Cluster {
        /// Its number.
        number: u64,
        /// What this node was told.
        ours: String,
        /// What it says.
        theirs: String,
    },
    /// Of another lineage than was told before.
    #[error(
        "the addresses of --join belong to clusters of one name that were formed apart: name members of one of them"
    )]
    Lineage,
    /// It does not name the node.
    #[error("document {0} does not name this node")]
    NotNamed(u64),
}

/// Reads and checks what a member hands over for this node to start from. The first document that a node holds
/// cannot be checked against an earlier one: that the members it was sent to are the right ones is its operator's word.
///
/// # Errors
/// [`BadStart`].
pub fn check_start(me: &NodeId, cluster_id: Option<&str>, bytes: &[u8]) -> Result<Held, BadStart> {
    let held = Held::decode(bytes)?;
    let document = &held.document;
    let number = document.number;
    let proof = held.proof.as_ref().ok_or(BadStart::NoProof(number))?;
    proof.check(number, None)?;
    if let Some(ours) = cluster_id.filter(|ours| *ours != document.cluster_id) {
        return Err(BadStart::Cluster {
            number,
            ours: ours.to_owned(),
            theirs: document.cluster_id.clone(),
        });
    }
    if !document.layout.members.contains_key(me) {
        return Err(BadStart::NotNamed(number));
    }
    Ok(held)
}

/// A node that asks.
#[derive(Clone, Debug)]
pub struct Asking {
    me: NodeId,
    cluster_id: Option<String>,
    wish: Wish,
    /// What the operator named.
    named: Vec<String>,
    /// Whom this round asks: those, and behind them whom members told of in the round before.
    addresses: Vec<String>,
    next: usize,
    /// Whom members told of in this round.
    met: BTreeSet<String>,
    /// Whether somebody in this round said to wait.
    told_to_wait: bool,
    pause_ms: u64,
    lineage: Option<Digest>,
    /// What each address said last.
    said: BTreeMap<String, String>,
}

impl Asking {
    /// A node that was given these addresses, at least one.
    pub fn new(me: NodeId, cluster_id: Option<String>, wish: Wish, addresses: Vec<String>) -> Self {
        Self {
            me,
            cluster_id,
            wish,
            named: addresses.clone(),
            addresses,
            next: 0,
            met: BTreeSet::new(),
            told_to_wait: false,
            pause_ms: PAUSE_MS.0,
            lineage: None,
            said: BTreeMap::new(),
        }
    }

    /// Takes an event; what to do then.
    pub fn handle(&mut self, event: Event) -> Effect {
        match event {
            Event::Woken => self.knock(),
            Event::Failed(why) => {
                self.say(why);
                self.go_on()
            }
            Event::Answered(Told::Refused(why), _) => Effect::GiveUp(why),
            Event::Answered(Told::Named, body) => self.start(&body),
            Event::Answered(Told::Bring { .. }, _) => {
                self.say("it takes what a removed node brings, which nobody asked it to".into());
                self.go_on()
            }
            Event::Answered(
                Told::Wait {
                    cluster_id,
                    lineage,
                    why,
                    members,
                },
                _,
            ) => {
                if let Err(error) = self.same_cluster(lineage) {
                    return Effect::GiveUp(error.to_string());
                }
                self.say(format!("{cluster_id}: {why}"));
                self.met.extend(members);
                self.told_to_wait = true;
                self.go_on()
            }
        }
    }

    /// Why it is not in yet, for whoever asks: what each address said last.
    pub fn reasons(&self) -> Vec<String> {
        let said = self.said.iter();
        said.map(|(address, said)| format!("joining: {address} says: {said}"))
            .collect()
    }

    fn knock(&self) -> Effect {
        let address = self.addresses.get(self.next).cloned().unwrap_or_default();
        Effect::Knock(address)
    }

    fn say(&mut self, what: String) {
        if let Some(address) = self.addresses.get(self.next) {
            self.said.insert(address.clone(), what);
        }
    }

    /// The next address, after a pause if this was the last one, or if asking others now would be of no use.
    fn go_on(&mut self) -> Effect {
        self.next = (self.next + 1) % self.addresses.len().max(1);
        let again = self.next == 0;
        if again {
            self.meet();
        }
        match self.wish {
            Wish::Join if again || self.told_to_wait => {
                self.told_to_wait = false;
                let most = self.pause_ms;
                self.pause_ms = (most * 2).min(PAUSE_MS.1);
                Effect::Pause(most / 2, most)
            }
            Wish::Wait | Wish::Salvage | Wish::Return(_) if again => {
                Effect::Pause(ROUND_MS / 2, ROUND_MS)
            }
            Wish::Join | Wish::Wait | Wish::Salvage | Wish::Return(_) => self.knock(),
        }
    }

    /// A round ends. Who waits asks, beside those that the operator named, whom it was told of meanwhile.
    fn meet(&mut self) {
        let met = std::mem::take(&mut self.met);
        if self.wish == Wish::Join {
            return;
        }
        self.addresses.clone_from(&self.named);
        let new = met.into_iter().filter(|at| !self.named.contains(at));
        self.addresses.extend(new);
        self.said.retain(|at, _| self.addresses.contains(at));
    }

    fn same_cluster(&mut self, lineage: Option<Digest>) -> Result<(), BadStart> {
        match (self.lineage, lineage) {
            (Some(ours), Some(theirs)) if ours != theirs => Err(BadStart::Lineage),
            (ours, theirs) => {
                self.lineage = ours.or(theirs);
                Ok(())
            }
        }
    }

    fn start(&mut self, body: &[u8]) -> Effect {
        let checked = check_start(&self.me, self.cluster_id.as_deref(), body);
        let checked = checked.and_then(|held| {
            self.same_cluster(held.document.lineage())?;
            Ok(held)
        });
        match checked {
            Ok(held) => Effect::Start(Box::new(held)),
            // Another member may hold it with its proof.
            Err(error @ (BadStart::NoProof(_) | BadStart::NotNamed(_))) => {
                self.say(error.to_string());
                self.go_on()
            }
            Err(error) => Effect::GiveUp(error.to_string()),
        }
    }
}
