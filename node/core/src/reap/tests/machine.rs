//! The machine alone: whose words it hears, when it may speak and seal itself, and what it names as its reasons.
//!
//! What these rules are for shows in the histories beside this file; here each is looked at by itself. No test
//! here knows objects but the last, which is about what may be sealed.

use super::*;

fn two(number: u64, store_of_b: u64) -> (u64, BTreeMap<NodeId, Option<Actor>>) {
    let members = [
        (name(0), Some(Actor(0))),
        (name(1), Some(Actor(store_of_b))),
    ];
    (number, members.into())
}

fn goes_by(machine: &mut Machine, (number, members): &(u64, BTreeMap<NodeId, Option<Actor>>)) {
    let number = *number;
    assert_eq!(machine.handle(Event::Layout { number, members }), []);
}

fn word(number: u64, store: u64, epoch: u64, cleared: u64) -> Word {
    Word {
        number,
        store: Actor(store),
        epoch,
        cleared,
        relayed: 0,
    }
}

#[test]
fn words_are_about_one_document_and_one_store() {
    let mut machine = Machine::new(name(0), Actor(0), Some(7));
    let from = &name(1);
    goes_by(&mut machine, &two(2, 1));
    machine.handle(Event::Own(Own::default()));
    assert!(!machine.may_seal(), "nobody was heard");
    for strange in [word(3, 1, 7, 7), word(1, 1, 7, 7), word(2, 9, 7, 7)] {
        assert_eq!(
            machine.handle(Event::Heard {
                from,
                word: strange
            }),
            []
        );
        assert_eq!(machine.holds(), [Hold::Silent(name(1))]);
    }
    let heard = machine.handle(Event::Heard {
        from,
        word: word(2, 1, 7, 6),
    });
    assert_eq!(
        (heard, machine.may_seal(), machine.word().cleared),
        (vec![], true, 7)
    );
    assert_eq!(machine.holds(), [Hold::Busy(name(1))]);
    // A document that names another store of it takes its word back.
    goes_by(&mut machine, &two(4, 8));
    assert_eq!(
        (machine.may_seal(), machine.holds()),
        (false, vec![Hold::Silent(name(1))])
    );
    let said = word(4, 8, 7, 7);
    assert_eq!(
        machine.handle(Event::Heard { from, word: said }),
        [Effect::Keep(8)]
    );
    assert_eq!(machine.word().epoch, 7, "not before it is on disk");
    machine.handle(Event::Kept(8));
    assert_eq!((machine.epoch(), machine.word().cleared), (8, 7));
}

#[test]
fn who_comes_later_is_where_the_others_are_before_it_says_or_seals_anything() {
    let mut machine = Machine::new(name(0), Actor(0), None);
    let from = &name(1);
    goes_by(&mut machine, &two(2, 1));
    machine.handle(Event::Own(Own::default()));
    let heard = machine.handle(Event::Heard {
        from,
        word: word(2, 1, 57, 57),
    });
    assert_eq!(
        (heard, machine.may_seal(), machine.word().cleared),
        (vec![Effect::Keep(57)], false, 0)
    );
    machine.handle(Event::Kept(57));
    assert!(machine.may_seal());
    assert_eq!(
        machine.handle(Event::Own(Own::default())),
        [Effect::Keep(58)]
    );
    // What it may have done in another life counts as done now.
    machine.handle(Event::Kept(58));
    assert!(!machine.is_ripe(40), "57 and its five epochs are not over");
}

#[test]
fn each_thing_that_is_left_holds_the_epoch_and_is_named() {
    let unsettled = |epoch| BTreeMap::from([(name(1), epoch)]);
    let check = |own: Own, held: &[Hold]| {
        let mut machine = Machine::new(name(0), Actor(0), Some(7));
        goes_by(&mut machine, &(2, [(name(0), Some(Actor(0)))].into()));
        let entered = machine.handle(Event::Own(own.clone()));
        assert_eq!(entered.is_empty(), !held.is_empty(), "{own:?}");
        assert_eq!(machine.holds(), held, "{own:?}");
    };
    let clear = Own::default;
    check(clear(), &[]);
    check(
        Own {
            oldest: Some(7),
            unsettled: unsettled(7),
            ..clear()
        },
        &[],
    );
    check(
        Own {
            oldest: Some(6),
            ..clear()
        },
        &[Hold::UnderWay],
    );
    check(
        Own {
            unsettled: unsettled(0),
            ..clear()
        },
        &[Hold::Unsettled(name(1))],
    );
    check(
        Own {
            hints: true,
            ..clear()
        },
        &[Hold::Hints],
    );
    check(
        Own {
            moving: true,
            ..clear()
        },
        &[Hold::Moving],
    );
    check(
        Own {
            rebuilding: true,
            ..clear()
        },
        &[Hold::Rebuilding],
    );
    let strangers = [name(4)].into();
    check(
        Own {
            strangers,
            ..clear()
        },
        &[Hold::Stranger(name(4))],
    );
}

#[test]
fn a_receipt_keeps_its_tombstones_until_nobody_repeats_its_write() {
    let mut object = Object::default();
    let dot = Dot {
        actor: Actor(1),
        counter: 1,
    };
    let content = Content {
        value: None,
        content_type: "t/t".into(),
        attributes: BTreeMap::new(),
        modified_at: 1,
        write_id: WriteId([1; 16]),
        trace: None,
    };
    let write = Write {
        context: None,
        tombstones: Context::new(),
        content,
    };
    assert!(
        !may_be_sealed(&object, 10_000, 0),
        "there is nothing to forget"
    );
    object
        .write(Mint { dot, line: 0 }, write, UNCAPPED)
        .expect("no caps");
    assert!(may_be_sealed(&object, 0, RETRY_WINDOW_MS));
    let write_id = WriteId([1; 16]);
    object.remember(crate::object::Receipt {
        at: 500,
        write_id,
        dot,
    });
    for (now_ms, may) in [(400, false), (1499, false), (1500, true)] {
        assert_eq!(may_be_sealed(&object, now_ms, 1000), may, "at {now_ms}");
    }
}
