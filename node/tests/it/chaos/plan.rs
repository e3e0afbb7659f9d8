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

/// A fault, and others that lose nothing: one before it, over just when it begins, and one beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) before: Option<Fault>,
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

impl Fault {
    /// Who is hit, and who is to come.
    fn hits(&self) -> Vec<&String> {
        match self {
            Self::Cut(a, b) => vec![a, b],
            Self::Replace { node, with, .. } => vec![node, with],
            Self::Kill(node)
            | Self::Pause(node)
            | Self::Wipe(node)
            | Self::Flip(node, _)
            | Self::Join(node)
            | Self::Leave(node)
            | Self::Remove(node) => vec![node],
            Self::Blackout => vec![],
        }
    }
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
        let mut others = self.members.clone();
        let fault = self.fault(card);
        // Nobody is hit twice.
        others.retain(|node| !fault.hits().contains(&node));
        let before = self.calm(&others);
        let hit = before.as_ref().map_or(Vec::new(), Fault::hits);
        others.retain(|node| !hit.contains(&node));
        // A member that is given up leaves just enough to choose.
        let alone = matches!(
            fault,
            Fault::Blackout | Fault::Remove(_) | Fault::Replace { dead: true, .. }
        );
        let beside = self.calm(&others).filter(|_| !alone);
        Round {
            before,
            fault,
            beside,
        }
    }

    /// Something that loses no disk, or nothing.
    fn calm(&mut self, nodes: &[String]) -> Option<Fault> {
        match (self.draw.below(4), nodes) {
            (0, [_, ..]) => Some(Fault::Kill(self.one(nodes))),
            (1, [_, ..]) => Some(Fault::Pause(self.one(nodes))),
            (2, [a, b, ..]) => Some(Fault::Cut(a.clone(), b.clone())),
            _ => None,
        }
    }

    fn fault(&mut self, card: usize) -> Fault {
        let all: Vec<String> = self.members.clone();
        let node = self.one(&all);
        let few = all.len() <= LEAST;
        match card {
            0 => Fault::Kill(node),
            1 => Fault::Pause(node),
            2 => {
                let mut others = all.clone();
                others.retain(|other| *other != node);
                Fault::Cut(node, self.one(&others))
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

    fn one(&mut self, of: &[String]) -> String {
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
        for Round {
            before,
            fault,
            beside,
        } in &rounds
        {
            let mut hit = fault.hits();
            for calm in [before, beside].into_iter().flatten() {
                assert!(matches!(
                    calm,
                    Fault::Kill(_) | Fault::Pause(_) | Fault::Cut(..)
                ));
                hit.extend(calm.hits());
            }
            let hits = hit.len();
            hit.sort();
            hit.dedup();
            assert_eq!(hit.len(), hits, "{before:?}, {fault:?}, {beside:?}");
        }
    }
}
