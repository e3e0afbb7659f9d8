//! What an owner decides, what travels, and whole conversations of a node that gives, with owners that forget.

use proptest::prelude::*;

use super::*;
use crate::codec;
use crate::context::Context;
use crate::id::{Dot, Incarnation, WriteId};
use crate::object::{Caps, Content, Mint, Write};

const CAPS: Caps = Caps {
    siblings: 100,
    object_bytes: 1 << 20,
    context_intervals: 1000,
};

fn dot(actor: u64, counter: u64) -> Dot {
    let actor = Actor(actor);
    Dot { actor, counter }
}

/// Writes to a copy, having seen all of it.
fn write(object: &mut Object, actor: u64, counter: u64, value: Option<&str>) {
    let content = Content {
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        content_type: "text/plain".into(),
        attributes: std::collections::BTreeMap::new(),
        modified_at: counter,
        write_id: WriteId([counter as u8; 16]),
        trace: None,
    };
    let write = Write {
        context: Some(object.context().clone()),
        tombstones: Context::new(),
        content,
    };
    let mint = Mint {
        dot: dot(actor, counter),
        line: counter - 1,
    };
    object.write(mint, write, CAPS).expect("within all caps");
}

fn written(actor: u64, counter: u64, value: &str) -> Object {
    let mut object = Object::default();
    write(&mut object, actor, counter, Some(value));
    object
}

fn place(key: &str) -> Place {
    Place {
        bucket: Incarnation(2),
        key: Bytes::copy_from_slice(key.as_bytes()),
    }
}

#[test]
fn an_owner_remembers_what_it_has_forgotten_nothing_of() {
    assert!(remembers(Some(0), 0), "nobody ever reaped");
    assert!(!remembers(None, 9), "it does not know");
    assert!(!remembers(Some(1), 0), "the store was never in an epoch");
    assert!(remembers(Some(4), 7));
    for horizon in 5..12 {
        assert!(!remembers(Some(horizon), 7), "{horizon}");
    }
}

#[test]
fn whoever_recovered_remembers_since_then_what_members_to_the_end_hold() {
    let members = |count| {
        let first = |number: usize| crate::registry::First {
            peer_addr: format!("127.0.0.1:{number}"),
            zone: None,
        };
        let name = |number: usize| format!("n{number}").parse::<NodeId>().unwrap();
        let firsts = (1..=count).map(|number| (name(number), first(number)));
        crate::registry::first_document("shop", &firsts.collect(), 16, 4).unwrap()
    };
    let formed = {
        let first = members(3);
        let stores = first.layout.members.keys().cloned().zip((1..).map(Actor));
        let secret = crate::registry::Secret([1; 32]);
        let secrets = crate::registry::Secrets {
            context_key: secret,
            cluster_key: secret,
        };
        crate::registry::second_document(&first, &stores.collect(), &secrets).unwrap()
    };
    let by: NodeId = "n1".parse().unwrap();
    let document = formed.recovered(&by, Actor(1), 20).unwrap();
    let lost = document.layout.former[&Actor(2)].clone();
    let check = |former: &Former, owner: u64, epoch: u64, expected: Option<u64>| {
        let memory = recovered_memory(&document, former, Actor(owner), epoch);
        assert_eq!(memory, expected, "{former:?} at {owner} with {epoch}");
    };
    check(&lost, 1, 19, Some(21));
    check(&lost, 1, 21, Some(21));
    // An older state of a member: what was forgotten since may be in it.
    check(&lost, 1, 18, None);
    // Whoever joined later remembers nothing of before.
    check(&lost, 7, 20, None);
    // Whoever was removed before agreed to nothing that was forgotten since.
    let removed = Former {
        why: Farewell::Removed,
        ..lost.clone()
    };
    check(&removed, 1, 20, None);
    let earlier = Former { number: 9, ..lost };
    check(&earlier, 1, 20, None);
    // Epochs of another lineage say nothing here: not that of a store that was removed before, either.
    assert_eq!(claimed(&document, &earlier, 500), 20);
    assert_eq!(claimed(&document, &earlier, 7), 7);
    let later = Former {
        number: document.number + 1,
        ..earlier.clone()
    };
    assert_eq!(claimed(&document, &later, 500), 500);
    assert_eq!(claimed(&formed, &earlier, 500), 500);
    // Buckets that the lost majority made are not deleted ones.
    assert!(!document.is_unheard(2) && document.is_unheard(3));
    assert!(!document.is_unheard(document.number) && !formed.is_unheard(3));
    assert_eq!(recovered_memory(&formed, &earlier, Actor(1), 20), None);
}

#[test]
fn what_is_known_is_never_joined_and_what_may_be_forgotten_neither() {
    let brought = written(9, 1, "only here");
    let mut held = Object::default();
    assert_eq!(decide(&mut held, &brought, false), Verdict::Older);
    assert!(held.is_empty());
    assert_eq!(decide(&mut held, &brought, true), Verdict::Imported);
    assert_eq!(held, brought);
    assert_eq!(
        decide(&mut held, &brought, false),
        Verdict::Known,
        "twice is once"
    );
    // Deleted by somebody who saw it: it stays so, whoever remembers what.
    write(&mut held, 1, 1, None);
    let deleted = held.clone();
    for remembers in [false, true] {
        assert_eq!(decide(&mut held, &brought, remembers), Verdict::Known);
        assert_eq!(held, deleted);
    }
    // Forgotten, and written again: what was deleted does not come back beside it.
    let mut again = written(1, 2, "new");
    assert_eq!(decide(&mut again, &brought, false), Verdict::Older);
    assert_eq!(again, written(1, 2, "new"));
}

#[test]
fn a_note_is_read_as_it_was_written_or_not_at_all() {
    let fenced = Fenced {
        node: "n4".parse().expect("a name"),
        cluster_id: "shop".into(),
        lineage: Some(Digest([7; 32])),
        store: Actor(4),
        number: 12,
        members: vec!["127.0.0.1:7170".into()],
        done: [Partition(3)].into_iter().collect(),
        tally: Tally {
            imported: 2,
            ..Tally::default()
        },
        over: false,
    };
    let bytes = fenced.encode();
    assert_eq!(Fenced::decode(&bytes), Ok(fenced));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(Fenced::decode(&damaged), Err(Malformed), "byte {at}");
        assert_eq!(Fenced::decode(&bytes[..at]), Err(Malformed));
    }
}

#[test]
fn a_question_that_says_more_than_it_brings_is_refused() {
    let objects = vec![(place("a"), Bytes::from_static(b"object"))];
    let ask = Ask::Take(Batch {
        epoch: 3,
        all: false,
        objects,
    });
    let (head, body) = ask.encode();
    assert_eq!(Ask::decode(&head, &body), Ok(ask));
    assert_eq!(Ask::decode(&head, &body.slice(1..)), Err(Malformed));
    let longer = Bytes::from([&body[..], b"x"].concat());
    assert_eq!(Ask::decode(&head, &longer), Err(Malformed));
    assert_eq!(Ask::decode(&body, &head), Err(Malformed));
}

proptest! {
    #[test]
    fn questions_are_read_as_they_were_asked(
        epoch: u64,
        all: bool,
        objects in proptest::collection::vec(("[a-z]{1,40}", proptest::collection::vec(any::<u8>(), 0..200)), 0..MAX_BATCH),
    ) {
        let objects = objects.into_iter().map(|(key, object)| (place(&key), object.into())).collect();
        let ask = Ask::Take(Batch { epoch, all, objects });
        let (head, body) = ask.encode();
        prop_assert_eq!(Ask::decode(&head, &body), Ok(ask));
    }
}

/// An owner of one partition.
#[derive(Clone, Debug, Default)]
struct Owner {
    horizon: u64,
    held: std::collections::BTreeMap<Bytes, Object>,
    /// How often it answers "later" first.
    busy: usize,
    gone: bool,
}

impl Owner {
    fn answer(&mut self, ask: &Ask, owners: &[String]) -> Option<Answer> {
        if self.gone {
            return None;
        }
        let Ask::Take(batch) = ask else {
            return Some(Answer::Owners(owners.to_vec()));
        };
        if self.busy > 0 {
            self.busy -= 1;
            return Some(Answer::Later("a reason".into()));
        }
        let remembers = batch.all || remembers(Some(self.horizon), batch.epoch);
        let mut one = |(place, object): &(Place, Bytes)| {
            let object = codec::decode(object).expect("an object");
            let held = self.held.entry(place.key.clone()).or_default();
            decide(held, &object, remembers)
        };
        Some(Answer::Took(batch.objects.iter().map(&mut one).collect()))
    }
}

/// A store that is given away, and what became of it.
struct Given {
    tally: Tally,
    aside: Vec<Bytes>,
    pauses: usize,
    done: Vec<Partition>,
}

/// Gives batches of two to owners until everything was given. `heals`: who is gone is back after the first pause.
fn give(epoch: u64, all: bool, store: &[(Partition, &str, Object)], owners: &mut [Owner]) -> Given {
    let names: Vec<String> = (0..owners.len()).map(|at| at.to_string()).collect();
    let mut left: Vec<Partition> = store.iter().map(|(at, ..)| *at).collect();
    left.dedup();
    let mut flow = Giving::new(epoch, all, names.clone(), left);
    let mut given = Given {
        tally: Tally::default(),
        aside: Vec::new(),
        pauses: 0,
        done: Vec::new(),
    };
    let mut event = Event::Woken;
    for _ in 0..10_000 {
        event = match flow.handle(event) {
            Effect::End => return given,
            Effect::Pause(..) => {
                given.pauses += 1;
                owners.iter_mut().for_each(|owner| owner.gone = false);
                Event::Woken
            }
            Effect::Read(at, after) => {
                let of = store.iter().filter(|(partition, ..)| *partition == at);
                let behind = |id: &str| {
                    after
                        .as_ref()
                        .is_none_or(|after| id.as_bytes() > &after[..])
                };
                let records = of.filter(|(_, key, _)| behind(key)).take(2);
                let record = |(_, key, object): &(Partition, &str, Object)| Record {
                    id: Bytes::copy_from_slice(key.as_bytes()),
                    place: place(key),
                    object: codec::encode(object),
                };
                let records: Vec<Record> = records.map(record).collect();
                let next = records.last().map(|last| last.id.clone());
                let damaged = 0;
                Event::Read {
                    records,
                    damaged,
                    next,
                }
            }
            Effect::SetAside(ids) => {
                given.aside.extend(ids);
                Event::Kept
            }
            Effect::Done(at, tally) => {
                given.done.push(at);
                given.tally.add(&tally);
                Event::Kept
            }
            Effect::Ask(address, ask) => {
                let at: usize = address.parse().expect("a number");
                match owners[at].answer(&ask, &names) {
                    Some(answer) => Event::Answered(answer),
                    None => Event::Failed("gone".into()),
                }
            }
        };
    }
    panic!("it never ends");
}

fn three() -> Vec<(Partition, &'static str, Object)> {
    vec![
        (Partition(1), "a", written(9, 1, "a")),
        (Partition(1), "b", written(9, 2, "b")),
        (Partition(1), "c", written(9, 3, "c")),
        (Partition(4), "d", written(9, 4, "d")),
    ]
}

#[test]
fn one_owner_that_remembers_takes_all() {
    let forgetful = Owner {
        horizon: 8,
        ..Owner::default()
    };
    let mut owners = vec![forgetful.clone(), Owner::default(), forgetful];
    let given = give(9, false, &three(), &mut owners);
    assert_eq!((given.tally.imported, given.tally.quarantined), (4, 0));
    assert_eq!((given.aside.len(), given.pauses), (0, 0));
    assert_eq!(given.done, [Partition(1), Partition(4)]);
    assert_eq!(owners[1].held.len(), 4);
}

#[test]
fn what_all_refuse_is_set_aside_unless_the_operator_wants_everything() {
    let mut owners = vec![
        Owner {
            horizon: 8,
            ..Owner::default()
        };
        3
    ];
    owners[2]
        .held
        .insert(Bytes::from_static(b"b"), written(9, 2, "b"));
    let given = give(9, false, &three(), &mut owners);
    let (tally, aside) = (given.tally, given.aside);
    assert_eq!((tally.known, tally.quarantined, tally.imported), (1, 3, 0));
    assert_eq!(aside, [&b"a"[..], b"c", b"d"]);
    let given = give(9, true, &three(), &mut owners);
    assert_eq!((given.tally.imported, given.aside.len()), (4, 0));
}

#[test]
fn an_owner_that_is_away_or_busy_holds_up_its_own_and_nothing_is_set_aside_without_it() {
    let mut owners = vec![
        Owner {
            horizon: 8,
            ..Owner::default()
        };
        2
    ];
    // The only one that remembers is away, and busy when it is back.
    owners.push(Owner {
        gone: true,
        busy: 1,
        ..Owner::default()
    });
    let given = give(9, false, &three(), &mut owners);
    assert_eq!((given.tally.imported, given.aside.len()), (4, 0));
    assert!(given.pauses > 0);
}

#[test]
fn a_partition_that_is_given_twice_is_counted_once() {
    let mut owners = [
        Owner::default(),
        Owner {
            gone: true,
            ..Owner::default()
        },
    ];
    // A batch of two is taken by the first; the third object finds it busy.
    owners[0].held.clear();
    let mut store = three();
    store.truncate(3);
    let names = || ["0".to_owned()];
    let mut flow = Giving::new(9, false, names(), [Partition(1)]);
    let ask = |effect: Effect| match effect {
        Effect::Ask(_, ask) => ask,
        other => panic!("{other:?}"),
    };
    let read = |records: &[(Partition, &str, Object)], next: Option<&str>| Event::Read {
        records: records
            .iter()
            .map(|(_, key, object)| Record {
                id: Bytes::copy_from_slice(key.as_bytes()),
                place: place(key),
                object: codec::encode(object),
            })
            .collect(),
        damaged: 0,
        next: next.map(|key| Bytes::copy_from_slice(key.as_bytes())),
    };
    assert_eq!(ask(flow.handle(Event::Woken)), Ask::Owners(Partition(1)));
    let owned = Event::Answered(Answer::Owners(names().into()));
    flow.handle(owned.clone());
    flow.handle(read(&store[..2], Some("b")));
    flow.handle(Event::Answered(Answer::Took(vec![Verdict::Imported; 2])));
    flow.handle(read(&store[2..], None));
    let paused = flow.handle(Event::Answered(Answer::Later("busy".into())));
    assert!(matches!(paused, Effect::Pause(..)), "{paused:?}");
    assert_eq!(flow.waits_for(), Some("busy"));
    flow.handle(Event::Woken);
    flow.handle(owned);
    flow.handle(read(&store, None));
    let verdicts = vec![Verdict::Known, Verdict::Known, Verdict::Imported];
    let done = flow.handle(Event::Answered(Answer::Took(verdicts)));
    let tally = Tally {
        imported: 3,
        ..Tally::default()
    };
    assert_eq!(done, Effect::Done(Partition(1), tally));
    assert_eq!(flow.handle(Event::Kept), Effect::End);
    assert_eq!(flow.waits_for(), None);
}

/// A member that is behind, or does not serve, names no owners or the wrong ones: another one is asked.
#[test]
fn a_member_that_cannot_say_who_owns_what_does_not_hold_up_the_rest() {
    let members = || ["left", "stale", "good"].map(str::to_owned);
    let mut flow = Giving::new(9, false, members(), [Partition(1)]);
    let asked = |effect: Effect| match effect {
        Effect::Ask(address, _) => address,
        other => panic!("{other:?}"),
    };
    assert_eq!(asked(flow.handle(Event::Woken)), "left");
    let later = Event::Answered(Answer::Later("it is no member".into()));
    assert_eq!(asked(flow.handle(later)), "stale");
    let owned = Event::Answered(Answer::Owners(vec!["former".into()]));
    assert_eq!(flow.handle(owned), Effect::Read(Partition(1), None));
    let record = Record {
        id: Bytes::from_static(b"a"),
        place: place("a"),
        object: codec::encode(&Object::default()),
    };
    let read = Event::Read {
        records: vec![record],
        damaged: 0,
        next: None,
    };
    assert_eq!(asked(flow.handle(read)), "former");
    let not_mine = Event::Answered(Answer::Took(vec![Verdict::NotMine]));
    assert!(matches!(flow.handle(not_mine), Effect::Pause(..)));
    assert_eq!(asked(flow.handle(Event::Woken)), "good");
}

/// One key over time: owners and a node that is away write and delete; what all owners have deleted is forgotten.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An owner writes, having seen its copy; the others get it.
    Write(usize),
    /// It deletes.
    Delete(usize),
    /// All owners forget it, if it is deleted everywhere.
    Reap,
    /// The node that will be removed hears of the present state.
    Hear,
    /// It writes alone.
    Alone,
    /// It is removed.
    Remove,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize).prop_map(Step::Write),
        (0..3_usize).prop_map(Step::Delete),
        Just(Step::Reap),
        Just(Step::Hear),
        Just(Step::Alone),
        Just(Step::Remove),
    ]
}

proptest! {
    /// Salvage brings back nothing that was deleted, and loses nothing that was not: it is imported or set aside.
    /// While the node is a member nothing is forgotten that it has not seen deleted; a new owner comes when it goes.
    #[test]
    fn nothing_deleted_comes_back_and_nothing_else_is_lost(steps in proptest::collection::vec(step(), 1..40)) {
        let mut owners = vec![Owner::default(); 2];
        let mut away = Object::default();
        let key = Bytes::from_static(b"k");
        let (mut epoch, mut removed, mut counter) = (10, None, 0);
        // Dots that somebody deleted, having seen them.
        let mut deleted = Context::new();
        for step in steps {
            counter += 1;
            let is_member = removed.is_none();
            let mut now = owners[0].held.get(&key).cloned().unwrap_or_default();
            match step {
                Step::Write(at) => write(&mut now, 1 + at as u64, counter, Some("v")),
                Step::Delete(at) => {
                    deleted.join(now.context());
                    write(&mut now, 1 + at as u64, counter, None);
                    deleted.insert(dot(1 + at as u64, counter));
                }
                Step::Reap => {
                    let dead = !now.is_empty() && now.live().next().is_none();
                    if dead && (!is_member || away == now) {
                        epoch += 5;
                        now = Object::default();
                        owners.iter_mut().for_each(|owner| owner.horizon = epoch);
                        if is_member {
                            away = Object::default();
                        }
                    }
                }
                Step::Hear if is_member => {
                    away.join(&now);
                    now.join(&away);
                }
                Step::Alone => write(&mut away, 9, counter, Some("alone")),
                Step::Remove if is_member => {
                    removed = Some(epoch);
                    owners.push(Owner { horizon: epoch, ..Owner::default() });
                }
                Step::Hear | Step::Remove => {}
            }
            owners.iter_mut().for_each(|owner| {
                owner.held.insert(key.clone(), now.clone());
            });
        }
        let confirmed = removed.unwrap_or(epoch);
        let store = [(Partition(0), "k", away.clone())];
        let given = give(confirmed, false, &store, &mut owners);
        let mut after = Object::default();
        owners.iter().for_each(|owner| {
            after.join(&owner.held[&key]);
        });
        for sibling in after.live() {
            prop_assert!(!deleted.contains(sibling.dot()), "{:?} came back", sibling.dot());
        }
        for sibling in away.live().filter(|sibling| !deleted.contains(sibling.dot())) {
            let is_there = after.context().contains(sibling.dot());
            prop_assert!(is_there || !given.aside.is_empty(), "{:?} is lost", sibling.dot());
        }
    }
}
