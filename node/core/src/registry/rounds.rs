//! The proposer's side of a [`Machine`]: the queue of wishes, and ballot after ballot for the first one.
//!
//! A wish is tried on the document held until it is chosen, contradicts the registry, or has used up its
//! rounds. Somebody else's document being chosen first is no failure: the wish is applied to that one.
//! Every stage but idle has a timer running, so a wish never hangs on a lost message.

use super::acceptor::Vote;
use super::change::{Change, ChangeError};
use super::document::Document;
use super::event::Effect;
use super::forming::Secrets;
use super::machine::{Machine, send};
use super::message::{Ballot, Message, Proof};
use super::proposer::{Answer, Proposer, Step, Wish};
use crate::id::{Digest, NodeId};

/// Wishes that wait behind the first one. Administration is slow; more than this is a loop gone wild.
pub const MAX_QUEUE: usize = 64;
/// How long a phase waits for answers. A peer answers after one sync, or not at all.
pub const ANSWER_MS: u64 = 1_000;
/// The range of the first pause after a failed ballot; it doubles with each further one.
pub const BACKOFF_MS: u64 = 50;
/// The longest pause.
pub const MAX_BACKOFF_MS: u64 = 2_000;
/// Failed ballots in a row without enough voters answering at all, after which a change is given up:
/// at most 3 phases and 2 pauses, some 3.3 s, within an administrator's patience.
pub const MAX_SILENT_ROUNDS: u32 = 3;
/// Failed ballots after which a change is given up in any case. Ballots fail by another's success or by
/// a duel, and a duel of a few with these pauses ends within a handful.
pub const MAX_ROUNDS: u32 = 32;

/// How a proposed change ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force since this document, at the latest.
    Done {
        /// The document's number.
        number: u64,
    },
    /// It contradicts the registry; nothing was changed.
    Refused(ChangeError),
    /// Too few members answered.
    GaveUp {
        /// How many more had to answer.
        missing: usize,
        /// How many members there are.
        members: usize,
        /// Whether it may still come into force: somebody may have accepted it.
        unknown: bool,
    },
    /// Later documents were learned before it was clear whether this was among them.
    Unknown,
    /// Too many changes wait already; nothing was changed.
    Busy,
}

/// What a node wants of the registry.
#[derive(Debug)]
pub(super) struct Job {
    goal: Goal,
    silent: u32,
    rounds: u32,
    /// The last document that others were asked to accept for it.
    proposed: Option<(u64, Digest)>,
}

#[derive(Debug)]
enum Goal {
    Form(Secrets),
    Change { id: u64, change: Box<Change> },
}

/// Where the first job stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// There is none.
    Idle,
    /// It pauses after a failed ballot.
    Pausing,
    /// Voters are being asked.
    Asking(Box<Proposer>),
}

impl Job {
    fn new(goal: Goal) -> Self {
        Self {
            goal,
            silent: 0,
            rounds: 0,
            proposed: None,
        }
    }
}

impl Machine {
    pub(super) fn form(&mut self, secrets: Secrets, out: &mut Vec<Effect>) {
        let rank = self
            .held
            .document
            .layout
            .members
            .keys()
            .position(|id| *id == self.me);
        let Some(rank) = rank.filter(|_| self.forming() && self.jobs.is_empty()) else {
            return;
        };
        self.jobs.push_back(Job::new(Goal::Form(secrets)));
        if rank == 0 {
            self.next_round(out);
        } else {
            // The first member by name forms the cluster; the others step in if it does not.
            self.stage = Stage::Pausing;
            out.push(self.start_timer(MAX_BACKOFF_MS / 2, MAX_BACKOFF_MS));
        }
    }

    pub(super) fn propose(&mut self, id: u64, change: Change, out: &mut Vec<Effect>) {
        if self.jobs.len() > MAX_QUEUE {
            out.push(Effect::Finished {
                id,
                outcome: Outcome::Busy,
            });
            return;
        }
        self.jobs.push_back(Job::new(Goal::Change {
            id,
            change: Box::new(change),
        }));
        if matches!(self.stage, Stage::Idle) {
            self.next_round(out);
        }
    }

    /// Starts a ballot for the first wish that still needs one. Ends: every turn removes a job or returns.
    pub(super) fn next_round(&mut self, out: &mut Vec<Effect>) {
        self.stage = Stage::Idle;
        while let Some(job) = self.jobs.front() {
            let outcome = match &job.goal {
                Goal::Form(secrets) if self.forming() => {
                    return self.start_ballot(Wish::Form(*secrets), out);
                }
                Goal::Form(_) => Outcome::Done {
                    number: self.held.document.number,
                },
                Goal::Change { change, .. } => match change.apply(&self.held.document) {
                    Ok(Some(next)) => {
                        return self.start_ballot(Wish::Document(Box::new(next)), out);
                    }
                    Ok(None) => Outcome::Done {
                        number: self.held.document.number,
                    },
                    Err(error) => Outcome::Refused(error),
                },
            };
            self.finish(outcome, out);
        }
    }

    /// The own vote comes first: it syncs the ballot's counter before anybody hears of the ballot.
    fn start_ballot(&mut self, wish: Wish, out: &mut Vec<Effect>) {
        let promised = self.acceptor.promised;
        self.counter = self
            .counter
            .max(promised.map_or(0, |ballot| ballot.counter))
            + 1;
        let ballot = Ballot {
            counter: self.counter,
            store: self.store,
        };
        let before = &self.held.document;
        let proposer = Proposer::with_need(before, ballot, wish, self.faults.need(before));
        let yes = Answer::Promise {
            store: self.voting_store(),
            accepted: self.told(),
        };
        let own = self.own_answer(|machine| machine.vote_prepare(ballot), yes);
        out.push(self.persist_promises());
        let (number, previous) = (proposer.number, self.held.digest);
        let message = Message::Prepare {
            number,
            previous,
            ballot,
        };
        self.ask(proposer, &message, own, out);
    }

    fn ask_to_accept(&mut self, document: Box<Document>, out: &mut Vec<Effect>) {
        let Stage::Asking(proposer) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return;
        };
        let ballot = proposer.ballot;
        self.note_own(&document);
        let yes = Answer::Accepted(self.voting_store());
        let own = self.own_answer(|machine| machine.vote_accept(ballot, &document), yes);
        out.push(self.persist_promises());
        let message = Message::Accept { ballot, document };
        self.ask(*proposer, &message, own, out);
    }

    /// The own acceptor may have promised a higher ballot since this one began: it votes like any other.
    fn own_answer(&mut self, vote: impl FnOnce(&mut Self) -> Vote, yes: Answer) -> Answer {
        if self.abstention().is_some() {
            return Answer::No;
        }
        match vote(self) {
            Vote::No { .. } if !self.faults.own_vote_unasked => Answer::Refused,
            Vote::Yes | Vote::No { .. } => yes,
        }
    }

    /// Asks every other voter, starts the timer, and counts the own vote.
    fn ask(&mut self, proposer: Proposer, message: &Message, own: Answer, out: &mut Vec<Effect>) {
        let others = proposer.voters.keys().filter(|id| **id != self.me);
        out.extend(others.map(|id| send(id, message.clone())));
        self.stage = Stage::Asking(Box::new(proposer));
        out.push(self.start_timer(ANSWER_MS, ANSWER_MS));
        let me = self.me.clone();
        self.answered(&me, own, out);
    }

    /// Takes a voter's answer to the present ballot.
    pub(super) fn answered(&mut self, from: &NodeId, answer: Answer, out: &mut Vec<Effect>) {
        let Stage::Asking(proposer) = &mut self.stage else {
            return;
        };
        match proposer.handle(from, answer) {
            Step::Wait => {}
            Step::Propose(document) => self.ask_to_accept(document, out),
            Step::Chosen(document, proof) => self.choose(&document, &proof, out),
            Step::Lost => self.ballot_failed(out),
        }
    }

    /// Tells everybody, old members and new ones, once it is on the own disk.
    fn choose(&mut self, document: &Document, proof: &Proof, out: &mut Vec<Effect>) {
        let mut told = proof.voters.clone();
        told.extend(document.voters());
        told.remove(&self.me);
        let me = self.me.clone();
        if !self.take(&me, document, proof, out) {
            return;
        }
        let message = Message::Chosen {
            document: Box::new(document.clone()),
            proof: proof.clone(),
        };
        out.extend(told.keys().map(|id| send(id, message.clone())));
        self.succeeded(out);
    }

    /// A newer document is held: decides about the first job, and goes on.
    pub(super) fn succeeded(&mut self, out: &mut Vec<Effect>) {
        let (number, digest) = (self.held.document.number, self.held.digest);
        let previous = self.held.document.previous;
        let decided = self.jobs.front_mut().and_then(|job| match job.proposed? {
            (proposed, mine) if proposed == number => {
                job.proposed = None;
                (mine == digest).then_some(Outcome::Done { number })
            }
            (proposed, mine) if proposed + 1 == number => {
                job.proposed = None;
                (previous == Some(mine)).then_some(Outcome::Done { number: proposed })
            }
            _ => Some(Outcome::Unknown),
        });
        if let Some(outcome) = decided {
            self.finish(outcome, out);
        }
        self.next_round(out);
    }

    pub(super) fn run_off(&mut self, token: u64, out: &mut Vec<Effect>) {
        if token != self.timer {
            return;
        }
        match self.stage {
            Stage::Idle => {}
            Stage::Pausing => self.next_round(out),
            Stage::Asking(_) => self.ballot_failed(out),
        }
    }

    /// A peer has come up: what it missed is said again; a cluster that forms need not wait any longer.
    pub(super) fn reached(&mut self, peer: &NodeId, out: &mut Vec<Effect>) {
        let eager = self.held.document.layout.members.keys().next() == Some(&self.me);
        match self.stage {
            Stage::Pausing if self.forming() && eager => self.next_round(out),
            _ => self.ask_again(peer, out),
        }
    }

    /// Repeats the present phase's question to a voter that has not answered it.
    pub(super) fn ask_again(&self, peer: &NodeId, out: &mut Vec<Effect>) {
        let Stage::Asking(proposer) = &self.stage else {
            return;
        };
        if *peer == self.me || !proposer.awaits(peer) {
            return;
        }
        let (number, previous, ballot) = (proposer.number, self.held.digest, proposer.ballot);
        let message = match proposer.proposed() {
            None => Message::Prepare {
                number,
                previous,
                ballot,
            },
            Some(document) => Message::Accept {
                ballot,
                document: Box::new(document.clone()),
            },
        };
        out.push(send(peer, message));
    }

    /// Whether an answer belongs to the present ballot.
    pub(super) fn is_current(&self, number: u64, ballot: Ballot) -> bool {
        matches!(&self.stage, Stage::Asking(p) if p.number == number && p.ballot == ballot)
    }

    fn ballot_failed(&mut self, out: &mut Vec<Effect>) {
        let Stage::Asking(proposer) = std::mem::replace(&mut self.stage, Stage::Pausing) else {
            return;
        };
        let Some(job) = self.jobs.front_mut() else {
            return;
        };
        let missing = proposer.missing();
        job.rounds += 1;
        job.silent = if missing == 0 { 0 } else { job.silent + 1 };
        let patient = matches!(job.goal, Goal::Form(_));
        if !patient && (job.silent >= MAX_SILENT_ROUNDS || job.rounds >= MAX_ROUNDS) {
            let (members, unknown) = (proposer.voters.len(), job.proposed.is_some());
            self.finish(
                Outcome::GaveUp {
                    missing,
                    members,
                    unknown,
                },
                out,
            );
            return self.next_round(out);
        }
        let most = (BACKOFF_MS << job.rounds.min(6)).min(MAX_BACKOFF_MS);
        out.push(self.start_timer(BACKOFF_MS / 10, most));
    }

    /// Remembers that others may come to accept this wish's own document.
    fn note_own(&mut self, document: &Document) {
        let Some(job) = self.jobs.front_mut() else {
            return;
        };
        let Goal::Change { change, .. } = &job.goal else {
            return;
        };
        let own = change.apply(&self.held.document);
        if matches!(own, Ok(Some(own)) if own == *document) {
            job.proposed = Some((document.number, document.digest()));
        }
    }

    fn finish(&mut self, outcome: Outcome, out: &mut Vec<Effect>) {
        let job = self.jobs.pop_front();
        if let Some(Goal::Change { id, .. }) = job.map(|job| job.goal) {
            out.push(Effect::Finished { id, outcome });
        }
    }

    fn start_timer(&mut self, min_ms: u64, max_ms: u64) -> Effect {
        self.timer += 1;
        Effect::Timer {
            token: self.timer,
            min_ms,
            max_ms,
        }
    }
}
