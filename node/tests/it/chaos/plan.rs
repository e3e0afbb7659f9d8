//! Which faults in which order: a pure function of a seed.
//!
//! Faults come from a deck of all kinds, shuffled again when it is used up, so that every kind comes soon. The plan
//! keeps the promise: at most one disk is lost in a round, what happens beside it loses none, and enough members
//! stay to choose registry documents.

use crate::flips::Draw;

/// The most members, and the least.
const MOST: usize = 6;
const LEAST: usize = 4;

/// Kinds of faults, those that lose a disk twice.
const CARDS: usize = 11;

/// What happens to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A crash.
    Kill(String),
    /// All crash at once, and start again.
    Blackout,
    /// It stands still, and goes on.
    Pause(String),
    /// The link between two, on both sides.
    Cut(String, String),
    /// It crashes and loses its disk.
    Wipe(String),
    /// One bit of its disk flips while it is stopped: a number says where. What was not found of it until the end of
    /// the round could be a second lost disk in a later one, so the disk is then replaced.
    Flip(String, usize),
    /// A node is taken in.
    Join(String),
    /// A member hands over and goes.
    Leave(String),
    /// A member dies and is given up.
    Remove(String),
    /// A node takes the places of a member, which dies first or hands over.
    Replace {
        node: String,
        with: String,
        dead: bool,
    },
}

/// A fault, and one that loses nothing beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) fault: Fault,
    pub(super) beside: Option<Fault>,
}

/// So many rounds for a cluster that begins with members n1, n2, …
pub(super) fn plan(seed: u64, rounds: usize, members: usize) -> Vec<Round> {
    let mut dealer = Dealer {
        // The small generator needs a seed with bits all over.
        draw: Draw(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
        members: (1..=members).map(|at| format!("n{at}")).collect(),
        next: members + 1,
        deck: Vec::new(),
    };
    (0..rounds).map(|_| dealer.round()).collect()
}

struct Dealer {
    draw: Draw,
    members: Vec<String>,
    next: usize,
    deck: Vec<usize>,
}

impl Dealer {
    fn round(&mut self) -> Round {
        if self.deck.is_empty() {
            self.deck = (0..CARDS).collect();
        }
        let card = self.deck.swap_remove(self.draw.below(self.deck.len()));
        let before = self.members.clone();
        let fault = self.fault(card);
        // Who is hit, and who is to come: not again beside.
        let hit: Vec<&String> = match &fault {
            Fault::Cut(a, b) => vec![a, b],
            Fault::Replace { node, with, .. } => vec![node, with],
            Fault::Kill(node)
            | Fault::Pause(node)
            | Fault::Wipe(node)
            | Fault::Flip(node, _)
            | Fault::Join(node)
            | Fault::Leave(node)
            | Fault::Remove(node) => vec![node],
            Fault::Blackout => vec![],
        };
        let others: Vec<&String> = before.iter().filter(|node| !hit.contains(node)).collect();
        // A member that is given up leaves just enough to choose.
        let alone = matches!(
            fault,
            Fault::Blackout | Fault::Remove(_) | Fault::Replace { dead: true, .. }
        );
        let beside = match self.draw.below(4) {
            _ if alone => None,
            0 => Some(Fault::Kill(self.one(&others))),
            1 => Some(Fault::Pause(self.one(&others))),
            2 => Some(Fault::Cut(others[0].clone(), others[1].clone())),
            _ => None,
        };
        Round { fault, beside }
    }

    fn fault(&mut self, card: usize) -> Fault {
        let all: Vec<String> = self.members.clone();
        let node = self.one(&all.iter().collect::<Vec<_>>());
        let few = all.len() <= LEAST;
        match card {
            0 => Fault::Kill(node),
            1 => Fault::Pause(node),
            2 => {
                let others: Vec<&String> = all.iter().filter(|other| **other != node).collect();
                Fault::Cut(node.clone(), self.one(&others))
            }
            3 | 4 => Fault::Wipe(node),
            5 => Fault::Flip(node, self.draw.below(1 << 30)),
            6 | 7 => {
                let with = self.newcomer();
                self.members.retain(|member| *member != node);
                Fault::Replace {
                    node,
                    with,
                    dead: card == 6,
                }
            }
            10 => Fault::Blackout,
            // Comings and goings, as there is room for them.
            8 if all.len() < MOST => Fault::Join(self.newcomer()),
            _ if few => Fault::Join(self.newcomer()),
            _ => {
                self.members.retain(|member| *member != node);
                match self.draw.below(2) {
                    0 => Fault::Leave(node),
                    _ => Fault::Remove(node),
                }
            }
        }
    }

    fn newcomer(&mut self) -> String {
        let name = format!("n{}", self.next);
        self.next += 1;
        self.members.push(name.clone());
        name
    }

    fn one(&mut self, of: &[&String]) -> String {
        of[self.draw.below(of.len())].clone()
    }
}

#[test]
fn a_plan_has_every_kind_and_stays_within_the_promise() {
    for seed in 0..200 {
        let rounds = plan(seed, 40, LEAST);
        assert_eq!(
            rounds,
            plan(seed, 40, LEAST),
            "the same seed, the same plan"
        );
        let mut kinds: Vec<_> = rounds
            .iter()
            .map(|round| std::mem::discriminant(&round.fault))
            .collect();
        let some = |found: &Fault| {
            rounds
                .iter()
                .any(|round| std::mem::discriminant(&round.fault) == std::mem::discriminant(found))
        };
        kinds.dedup();
        assert!(
            some(&Fault::Wipe(String::new()))
                && some(&Fault::Flip(String::new(), 0))
                && kinds.len() > 5
        );
        for round in &rounds {
            let loses = matches!(
                round.beside,
                Some(Fault::Kill(_) | Fault::Pause(_) | Fault::Cut(..)) | None
            );
            assert!(loses, "{round:?}");
        }
    }
}
