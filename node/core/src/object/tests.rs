//! The laws of join over generated histories, folds, partial reopening and undo included, and the rules of
//! minting. A history is what a few nodes, clients with old contexts, cuts and folders do to one key; see
//! `reference/models/m13.py`, whose rules these are.

use proptest::prelude::*;

use super::*;

const NODES: usize = 4;

/// One thing that happens to the key.
#[derive(Clone, Debug)]
enum Step {
    /// A client writes or deletes at a node, blind or with a context it got earlier.
    Write {
        node: usize,
        token: Option<usize>,
        deletes: bool,
    },
    /// A client reads at a node and keeps the context.
    Read { node: usize },
    /// A node joins another's copy.
    Exchange { from: usize, to: usize },
    /// A node joins only what the last write shipped.
    Ship { to: usize },
    /// A node folds the live siblings it minted.
    Fold { node: usize },
    /// A node stores the surviving inputs of a broken fold as a new fold.
    Reopen { node: usize },
    /// Somebody undoes the first fold a node holds.
    Undo { node: usize },
    /// A node loses its copy back to what it had at its last sync.
    Crash { node: usize },
    /// A node's copy reaches its disk.
    Sync { node: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        6 => (node.clone(), proptest::option::of(0..64usize), proptest::bool::weighted(0.2))
            .prop_map(|(node, token, deletes)| Step::Write { node, token, deletes }),
        2 => node.clone().prop_map(|node| Step::Read { node }),
        4 => (node.clone(), node.clone()).prop_map(|(from, to)| Step::Exchange { from, to }),
        3 => node.clone().prop_map(|to| Step::Ship { to }),
        3 => node.clone().prop_map(|node| Step::Fold { node }),
        1 => node.clone().prop_map(|node| Step::Reopen { node }),
        1 => node.clone().prop_map(|node| Step::Undo { node }),
        1 => node.clone().prop_map(|node| Step::Crash { node }),
        2 => node.prop_map(|node| Step::Sync { node }),
    ]
}

/// Everything a history leaves behind.
struct World {
    copies: Vec<Object>,
    synced: Vec<Object>,
    counters: Vec<u64>,
    lines: Vec<u64>,
    tokens: Vec<Context>,
    shipped: Object,
    /// Every copy at every step: what laws are checked on.
    seen: Vec<Object>,
    /// Every minted dot, and the union of contexts its writer knew: what it may cover.
    written: BTreeMap<Dot, Context>,
}

impl World {
    fn new() -> Self {
        Self {
            copies: vec![Object::default(); NODES],
            synced: vec![Object::default(); NODES],
            counters: vec![0; NODES],
            lines: vec![0; NODES],
            tokens: Vec::new(),
            shipped: Object::default(),
            seen: vec![Object::default()],
            written: BTreeMap::new(),
        }
    }

    fn run(steps: &[Step]) -> Self {
        let mut world = Self::new();
        for step in steps {
            world.apply(step);
            world
                .copies
                .iter()
                .for_each(|copy| assert!(copy.is_sound(), "{copy:?}"));
            let changed: Vec<_> = world
                .copies
                .iter()
                .filter(|copy| !world.seen.contains(copy))
                .cloned()
                .collect();
            world.seen.extend(changed);
        }
        world
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Write {
                node,
                token,
                deletes,
            } => self.write(node, token, deletes),
            Step::Read { node } => self.tokens.push(self.copies[node].context.clone()),
            Step::Exchange { from, to } => {
                let copy = self.copies[from].clone();
                self.copies[to].join(&copy);
            }
            Step::Ship { to } => {
                let shipped = self.shipped.clone();
                self.copies[to].join(&shipped);
            }
            Step::Fold { node } => self.fold(node),
            Step::Reopen { node } => self.reopen(node),
            Step::Undo { node } => {
                let fold = self.copies[node]
                    .siblings
                    .iter_mut()
                    .find(|sibling| sibling.fold.is_some());
                if let Some(fold) = fold {
                    fold.undone = true;
                }
            }
            Step::Crash { node } => {
                self.copies[node] = self.synced[node].clone();
                self.counters[node] += 100;
                self.lines[node] = self.counters[node];
            }
            Step::Sync { node } => self.synced[node] = self.copies[node].clone(),
        }
    }

    fn write(&mut self, node: usize, token: Option<usize>, deletes: bool) {
        let context = token
            .and_then(|at| self.tokens.get(at % self.tokens.len().max(1)))
            .cloned();
        self.counters[node] += 1 + (self.counters[node] % 3);
        let dot = Dot {
            actor: Actor(node as u64),
            counter: self.counters[node],
        };
        let write = Write {
            context: context.clone(),
            tombstones: Context::new(),
            content: content(dot, deletes),
        };
        let known = {
            let mut known = context.unwrap_or_default();
            known.join(&self.copies[node].tombstones());
            known
        };
        let mint = Mint {
            dot,
            line: self.lines[node],
        };
        let written = self.copies[node]
            .write(mint, write, UNCAPPED)
            .expect("no caps");
        self.written.insert(dot, known);
        self.shipped = written.shipment;
        if dot.counter.is_multiple_of(2) {
            // Every second client may repeat its write.
            let receipt = receipt(dot);
            self.copies[node].remember(receipt);
            self.shipped.remember(receipt);
        }
        self.tokens.push(written.answer);
    }

    fn fold(&mut self, node: usize) {
        let actor = Actor(node as u64);
        let mine: Vec<Sibling> = self.copies[node]
            .live()
            .filter(|sibling| sibling.actor == actor && sibling.is_whole())
            .cloned()
            .collect();
        if mine.len() >= 2 {
            let counters = mine
                .iter()
                .flat_map(|sibling| sibling.counters.clone())
                .collect();
            self.replace(node, &mine, counters);
        }
    }

    fn reopen(&mut self, node: usize) {
        let actor = Actor(node as u64);
        let broken = |sibling: &&Sibling| sibling.actor == actor && !sibling.is_whole();
        let broken = self.copies[node].siblings.iter().find(broken).cloned();
        if let Some(broken) = broken {
            let counters = broken.counters.clone();
            self.replace(node, &[broken], counters);
        }
    }

    /// One sibling with a fresh group takes the place of these, and is on disk before anyone sees it.
    fn replace(&mut self, node: usize, old: &[Sibling], mut counters: Vec<u64>) {
        self.counters[node] += 1;
        counters.sort_unstable();
        let inputs = counters.iter().map(|counter| input(*counter)).collect();
        let fold = Fold {
            resolver: Digest([1; 32]),
            config: Digest([2; 32]),
            epoch: 1,
            inputs,
        };
        let sibling = Sibling {
            actor: Actor(node as u64),
            group: self.counters[node],
            undone: false,
            counters,
            content: old[0].content.clone(),
            fold: Some(fold),
        };
        let siblings = &mut self.copies[node].siblings;
        siblings.retain(|kept| !old.iter().any(|gone| gone.key() == kept.key()));
        let at = siblings.partition_point(|kept| kept.key() < sibling.key());
        siblings.insert(at, sibling);
        self.synced[node] = self.copies[node].clone();
    }
}

const UNCAPPED: Caps = Caps {
    siblings: usize::MAX,
    object_bytes: usize::MAX,
    context_intervals: usize::MAX,
};

fn content(dot: Dot, deletes: bool) -> Content {
    Content {
        value: (!deletes).then(|| Bytes::from(format!("{dot}"))),
        content_type: "text/plain".into(),
        attributes: BTreeMap::new(),
        modified_at: 0,
        write_id: WriteId(
            Digest::of(format!("{dot}").as_bytes()).0[..16]
                .try_into()
                .expect("16 bytes"),
        ),
        trace: None,
    }
}

fn receipt(dot: Dot) -> Receipt {
    Receipt {
        at: dot.counter / 4,
        write_id: content(dot, false).write_id,
        dot,
    }
}

fn input(counter: u64) -> Input {
    Input {
        counter,
        write_id: WriteId([0; 16]),
        payload: Digest([0; 32]),
        modified_at: counter,
    }
}

fn joined(a: &Object, b: &Object) -> Object {
    let mut a = a.clone();
    a.join(b);
    a
}

fn alive(object: &Object) -> BTreeSet<Dot> {
    object.siblings.iter().flat_map(Sibling::dots).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn join_is_associative_commutative_idempotent(
        steps in proptest::collection::vec(step(), 1..60),
        picks in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(),
                                            any::<prop::sample::Index>()), 12),
    ) {
        let world = World::run(&steps);
        for (a, b, c) in picks {
            let [a, b, c] = [a, b, c].map(|at| at.get(&world.seen));
            prop_assert_eq!(joined(a, b), joined(b, a));
            prop_assert_eq!(&joined(a, a), a);
            prop_assert_eq!(joined(&joined(a, b), c), joined(a, &joined(b, c)));
            let both = joined(a, b);
            prop_assert_eq!(&joined(&both, a), &both);
            prop_assert!(both.is_sound());
        }
    }

    #[test]
    fn join_keeps_every_dot_that_neither_side_superseded(
        steps in proptest::collection::vec(step(), 1..60),
        a in any::<prop::sample::Index>(),
        b in any::<prop::sample::Index>(),
    ) {
        let world = World::run(&steps);
        let (a, b) = (a.get(&world.seen), b.get(&world.seen));
        let both = alive(&joined(a, b));
        for dot in alive(a).union(&alive(b)) {
            let gone = !alive(a).contains(dot) && a.context.contains(*dot)
                || !alive(b).contains(dot) && b.context.contains(*dot);
            prop_assert_eq!(both.contains(dot), !gone, "{}", dot);
        }
    }

    #[test]
    fn a_write_goes_only_if_some_writer_knew_it(steps in proptest::collection::vec(step(), 1..80)) {
        let world = World::run(&steps);
        let mut all = Object::default();
        world.copies.iter().for_each(|copy| { all.join(copy); });
        let alive = alive(&all);
        for dot in world.written.keys().filter(|dot| all.context.contains(**dot)) {
            let covered = world.written.values().any(|known| known.contains(*dot));
            prop_assert!(alive.contains(dot) || covered, "{} is gone and nobody knew it", dot);
        }
    }

    #[test]
    fn no_context_claims_a_write_that_its_copy_never_met(steps in proptest::collection::vec(step(), 1..80)) {
        let world = World::run(&steps);
        for object in &world.seen {
            for dot in world.written.keys().filter(|dot| object.context.contains(**dot)) {
                let met = alive(object).contains(dot)
                    || world.written.iter().any(|(by, known)| object.context.contains(*by) && known.contains(*dot));
                prop_assert!(met, "{} is in the context of {:?}", dot, object);
            }
        }
    }

    #[test]
    fn interleaved_writers_make_no_more_siblings_than_there_are_writers(
        turns in proptest::collection::vec((0..3usize, 0..NODES), 1..60),
    ) {
        let mut world = World::new();
        let mut contexts = vec![None::<Context>; 3];
        for (client, node) in turns {
            world.counters[node] += 1;
            let dot = Dot { actor: Actor(node as u64), counter: world.counters[node] };
            let write = Write {
                context: Some(contexts[client].clone().unwrap_or_default()),
                tombstones: Context::new(),
                content: content(dot, false),
            };
            let mint = Mint { dot, line: 0 };
            let written = world.copies[node].write(mint, write, UNCAPPED).expect("no caps");
            contexts[client] = Some(written.answer);
            let copy = world.copies[node].clone();
            world.copies.iter_mut().for_each(|other| { other.join(&copy); });
            prop_assert!(world.copies[0].siblings().len() <= 3);
        }
    }
}

fn write_at(object: &mut Object, counter: u64, context: Option<Context>, deletes: bool) -> Written {
    let dot = Dot {
        actor: Actor(1),
        counter,
    };
    let write = Write {
        context,
        tombstones: Context::new(),
        content: content(dot, deletes),
    };
    object
        .write(Mint { dot, line: 0 }, write, UNCAPPED)
        .expect("no caps")
}

#[test]
fn an_answer_carries_what_its_client_knew_and_nothing_more() {
    let mut object = Object::default();
    let first = write_at(&mut object, 1, None, false);
    let second = write_at(&mut object, 2, None, false);
    assert_eq!(object.siblings().len(), 2, "blind writes are concurrent");
    let third = write_at(&mut object, 3, Some(second.answer), false);
    assert_eq!(
        object.siblings().len(),
        2,
        "the first write was never seen by the third"
    );
    assert!(
        object
            .live()
            .any(|sibling| first.answer.contains(sibling.dot()))
    );
    let dots: Context = [2, 3]
        .map(|counter| Dot {
            actor: Actor(1),
            counter,
        })
        .into_iter()
        .collect();
    assert_eq!(third.answer, dots);
}

#[test]
fn a_blind_write_covers_tombstones_and_says_so_to_the_replicas_only() {
    let mut object = Object::default();
    let first = write_at(&mut object, 1, None, false);
    write_at(&mut object, 5, Some(first.answer), true);
    let again = write_at(&mut object, 9, None, false);
    assert_eq!(object.siblings().len(), 1);
    assert!(again.shipment.context().contains(Dot {
        actor: Actor(1),
        counter: 5
    }));
    assert!(!again.answer.contains(Dot {
        actor: Actor(1),
        counter: 5
    }));
}

#[test]
fn modified_at_rises_above_what_is_covered() {
    let mut object = Object::default();
    let dot = Dot {
        actor: Actor(1),
        counter: 1,
    };
    let mut ahead = content(dot, false);
    ahead.modified_at = 5_000;
    let write = Write {
        context: None,
        tombstones: Context::new(),
        content: ahead,
    };
    let first = object
        .write(Mint { dot, line: 0 }, write, UNCAPPED)
        .expect("no caps");
    write_at(&mut object, 2, Some(first.answer), false);
    assert_eq!(object.siblings()[0].content.modified_at, 5_001);
    write_at(&mut object, 3, None, false);
    assert_eq!(
        object.siblings()[1].content.modified_at,
        0,
        "a blind write covers nothing"
    );
}

fn check_caps(caps: Caps, siblings: u64, context: Option<&[u64]>, expected: Result<(), Refused>) {
    let mut object = Object::default();
    (1..=siblings).for_each(|counter| drop(write_at(&mut object, counter, None, false)));
    let before = object.clone();
    let dot = Dot {
        actor: Actor(1),
        counter: siblings + 2,
    };
    let knows = |counters: &[u64]| {
        counters
            .iter()
            .map(|counter| Dot {
                actor: Actor(1),
                counter: *counter,
            })
            .collect()
    };
    let write = Write {
        context: context.map(knows),
        tombstones: Context::new(),
        content: content(dot, false),
    };
    let result = object
        .write(
            Mint {
                dot,
                line: siblings + 1,
            },
            write,
            caps,
        )
        .map(drop);
    assert_eq!(result, expected);
    assert_eq!(
        object == before,
        expected.is_err(),
        "a refusal changes nothing"
    );
}

#[test]
fn caps_refuse_what_does_not_help() {
    let two = Caps {
        siblings: 2,
        ..UNCAPPED
    };
    check_caps(two, 1, None, Ok(()));
    check_caps(
        two,
        2,
        None,
        Err(Refused::Siblings {
            siblings: 3,
            cap: 2,
        }),
    );
    check_caps(two, 3, Some(&[1]), Ok(()));
    let small = Caps {
        object_bytes: 40,
        ..UNCAPPED
    };
    check_caps(small, 1, None, Ok(()));
    check_caps(
        small,
        2,
        None,
        Err(Refused::ObjectBytes { bytes: 54, cap: 40 }),
    );
    check_caps(small, 3, Some(&[1, 2]), Ok(()));
    let narrow = Caps {
        context_intervals: 1,
        ..UNCAPPED
    };
    check_caps(
        narrow,
        1,
        None,
        Err(Refused::Context {
            intervals: 2,
            cap: 1,
        }),
    );
}

#[test]
fn deletes_repeated_with_one_context_do_not_pile_up() {
    let mut object = Object::default();
    let seen = write_at(&mut object, 1, None, false).answer;
    let caps = Caps {
        siblings: 3,
        ..UNCAPPED
    };
    let mut delete = |counter| {
        let dot = Dot {
            actor: Actor(1),
            counter,
        };
        let write = Write {
            context: Some(seen.clone()),
            tombstones: Context::new(),
            content: content(dot, true),
        };
        object.write(Mint { dot, line: 0 }, write, caps).map(drop)
    };
    let refused = Err(Refused::Siblings {
        siblings: 4,
        cap: 3,
    });
    let results: Vec<_> = (2..=5).map(&mut delete).collect();
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), refused]);
}
