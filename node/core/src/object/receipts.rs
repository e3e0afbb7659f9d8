//! Receipts: what an object remembers of the writes that clients may repeat, also once they are superseded.
//!
//! A receipt names a write id and the dot it was minted as. It is made with the write, travels in the same
//! shipment, and is joined like everything else, so any replica that took the write recognises its retry. An
//! object keeps the newest [`MAX_RECEIPTS`]: of a union the newest are the newest of each side's newest, so
//! keeping so many is a join of its own. No clock drops a receipt.
//! Invariants: ascending, no two equal, at most so many, every dot in the object's context.

use serde::{Deserialize, Serialize};

use super::{Context, Object, Sibling, Written};
use crate::id::{Dot, WriteId};
use crate::retry;

/// The most receipts of one object: 64 of at most 45 bytes are 2.9 KiB of a record, and a client that repeats
/// after 5 s is recognised on a key that takes a dozen keyed writes a second.
pub const MAX_RECEIPTS: usize = 64;

/// A write that its client may repeat. Ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Receipt {
    /// The write's modified-at.
    pub at: u64,
    /// The client request.
    pub write_id: WriteId,
    /// What it was minted as.
    pub dot: Dot,
}

/// What an object knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// It was written: under this dot, the lowest if under several, at this time.
    Written {
        /// The dot.
        dot: Dot,
        /// Its modified-at.
        at: u64,
    },
    /// The client used its key for something else.
    Reused,
}

impl Object {
    /// What is remembered, oldest first.
    pub fn receipts(&self) -> &[Receipt] {
        &self.receipts
    }

    /// The same object with receipts that come from outside; `None` if they break the invariants.
    pub fn with_receipts(mut self, receipts: Vec<Receipt>) -> Option<Self> {
        self.receipts = receipts;
        self.remembers_soundly().then_some(self)
    }

    pub(super) fn remembers_soundly(&self) -> bool {
        let ordered = self.receipts.windows(2).all(|pair| pair[0] < pair[1]);
        let known = |receipt: &Receipt| self.context.contains(receipt.dot);
        ordered && self.receipts.len() <= MAX_RECEIPTS && self.receipts.iter().all(known)
    }

    /// Remembers a write of this object that its client may repeat.
    ///
    /// # Panics
    /// If the object does not know the dot.
    pub fn remember(&mut self, receipt: Receipt) {
        assert!(self.context.contains(receipt.dot), "a write that is here");
        self.receipts = newest(&self.receipts, &[receipt]);
    }

    /// What this object knows of a request: by its siblings, by what was folded into them, by its receipts.
    pub fn recall(&self, write_id: WriteId) -> Option<Recall> {
        let known = self.siblings.iter().flat_map(writes);
        let known = known.chain(self.receipts.iter().copied());
        let of_it = known.filter(|write| retry::is_same_request(write.write_id, write_id));
        let of_it: Vec<Receipt> = of_it.collect();
        let same = of_it.iter().filter(|write| write.write_id == write_id);
        match same.min_by_key(|write| write.dot) {
            Some(Receipt { dot, at, .. }) => Some(Recall::Written { dot: *dot, at: *at }),
            None => of_it.first().map(|_| Recall::Reused),
        }
    }

    /// The answer to a write that was recognised: nothing is minted, the whole object is shipped, and the client
    /// gets its own context and the dot it would have had before.
    pub fn repeat(&self, dot: Dot, context: Option<Context>) -> Written {
        let mut answer = context.unwrap_or_default();
        answer.insert(dot);
        Written {
            shipment: self.clone(),
            answer,
            covered: 0,
        }
    }

    /// Whether a sibling is a retry's twin of a write that was superseded: somebody saw one of the two and wrote
    /// over it, so the other one is over, too. Views leave it out; join never drops it.
    pub fn is_outlived(&self, sibling: &Sibling) -> bool {
        let id = sibling.content.write_id;
        let survives = |dot: Dot| {
            self.siblings
                .iter()
                .flat_map(Sibling::dots)
                .any(|d| d == dot)
        };
        let twins = self
            .receipts
            .iter()
            .filter(|receipt| receipt.write_id == id);
        sibling.fold.is_none() && twins.into_iter().any(|twin| !survives(twin.dot))
    }
}

/// The newest of both.
pub(super) fn newest(ours: &[Receipt], theirs: &[Receipt]) -> Vec<Receipt> {
    let mut all = [ours, theirs].concat();
    all.sort_unstable();
    all.dedup();
    let surplus = all.len().saturating_sub(MAX_RECEIPTS);
    all.drain(..surplus);
    all
}

/// The writes that a sibling stands for.
fn writes(sibling: &Sibling) -> Vec<Receipt> {
    let actor = sibling.actor;
    let inputs = sibling.fold.iter().flat_map(|fold| &fold.inputs);
    let mut writes: Vec<Receipt> = inputs
        .map(|input| Receipt {
            at: input.modified_at,
            write_id: input.write_id,
            dot: Dot {
                actor,
                counter: input.counter,
            },
        })
        .collect();
    if sibling.fold.is_none() {
        writes.push(Receipt {
            at: sibling.content.modified_at,
            write_id: sibling.content.write_id,
            dot: sibling.dot(),
        });
    }
    writes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::id::Actor;
    use crate::object::{Caps, Content, Mint, Write};

    const UNCAPPED: Caps = Caps {
        siblings: usize::MAX,
        object_bytes: usize::MAX,
        context_intervals: usize::MAX,
    };

    fn dot(actor: u64, counter: u64) -> Dot {
        let actor = Actor(actor);
        Dot { actor, counter }
    }

    fn receipts() -> impl Strategy<Value = Vec<Receipt>> {
        let receipt = (0..60u64, 0..3u8, 0..3u64).prop_map(|(at, id, actor)| Receipt {
            at,
            write_id: WriteId([id; 16]),
            dot: dot(actor, at),
        });
        proptest::collection::vec(receipt, 0..150).prop_map(|list| newest(&list, &[]))
    }

    proptest! {
        #[test]
        fn keeping_the_newest_is_a_join(a in receipts(), b in receipts(), c in receipts()) {
            prop_assert_eq!(newest(&a, &b), newest(&b, &a));
            prop_assert_eq!(&newest(&a, &a), &a);
            prop_assert_eq!(newest(&newest(&a, &b), &c), newest(&a, &newest(&b, &c)));
            prop_assert!(newest(&a, &b).len() <= MAX_RECEIPTS);
        }
    }

    fn id(request: u8, payload: u8) -> WriteId {
        let mut id = [request; 16];
        id[12..].fill(payload);
        WriteId(id)
    }

    fn write(write_id: WriteId, context: Option<Context>) -> Write {
        Write {
            context,
            tombstones: Context::new(),
            content: Content {
                value: Some(Bytes::from_static(b"v")),
                content_type: "t/t".into(),
                attributes: BTreeMap::new(),
                modified_at: 9,
                write_id,
                trace: None,
            },
        }
    }

    /// Mints a write and remembers it on both sides, as a writer does.
    fn mint(object: &mut Object, at: Dot, write_id: WriteId, context: Option<Context>) -> Written {
        let mint = Mint { dot: at, line: 0 };
        let mut written = object
            .write(mint, write(write_id, context), UNCAPPED)
            .expect("no caps");
        let at = written.shipment.siblings()[0].content.modified_at;
        let receipt = Receipt {
            at,
            write_id,
            dot: mint.dot,
        };
        object.remember(receipt);
        written.shipment.remember(receipt);
        written
    }

    #[test]
    fn a_write_is_recalled_wherever_it_went_and_after_it_was_superseded() {
        let (mut minter, mut other, mut late) =
            (Object::default(), Object::default(), Object::default());
        let first = mint(&mut minter, dot(1, 1), id(7, 1), None);
        other.join(&first.shipment);
        let over = mint(&mut minter, dot(1, 2), id(8, 1), Some(first.answer));
        other.join(&over.shipment);
        late.join(&over.shipment);
        let written = |dot| Some(Recall::Written { dot, at: 9 });
        for copy in [&minter, &other] {
            assert_eq!(copy.recall(id(7, 1)), written(dot(1, 1)));
            assert_eq!(copy.recall(id(7, 2)), Some(Recall::Reused));
            assert_eq!(copy.recall(id(9, 1)), None);
        }
        assert_eq!(late.recall(id(7, 1)), None, "it never met that write");
        late.join(&other);
        assert_eq!(late.recall(id(7, 1)), written(dot(1, 1)));
    }

    #[test]
    fn of_two_twins_the_lowest_is_recalled_and_a_repeat_answers_with_it() {
        let (mut a, mut b) = (Object::default(), Object::default());
        let mine = Context::of(dot(5, 5));
        mint(&mut a, dot(1, 8), id(7, 1), None);
        mint(&mut b, dot(2, 3), id(7, 1), None);
        a.join(&b);
        let Some(Recall::Written { dot: lowest, .. }) = a.recall(id(7, 1)) else {
            panic!("both are there");
        };
        assert_eq!(lowest, dot(1, 8));
        let repeated = a.repeat(lowest, Some(mine));
        assert_eq!(
            repeated.shipment, a,
            "W copies are made certain of all of it"
        );
        let expected: Context = [dot(1, 8), dot(5, 5)].into_iter().collect();
        assert_eq!(
            repeated.answer, expected,
            "the request's context and the dot"
        );
    }

    #[test]
    fn a_write_without_a_receipt_is_recalled_as_long_as_it_is_there() {
        let mut object = Object::default();
        let mint = Mint {
            dot: dot(1, 1),
            line: 0,
        };
        let written = object.write(mint, write(id(7, 1), None), UNCAPPED);
        let expected = Recall::Written {
            dot: dot(1, 1),
            at: 9,
        };
        assert_eq!(object.recall(id(7, 1)), Some(expected));
        let context = Some(written.expect("no caps").answer);
        self::mint(&mut object, dot(1, 2), id(8, 1), context);
        assert_eq!(object.recall(id(7, 1)), None);
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut object = Object::default();
        let mut context = None;
        for counter in 1..=MAX_RECEIPTS as u64 + 1 {
            let request = u8::try_from(counter).expect("few");
            let written = mint(&mut object, dot(1, counter), id(request, 1), context);
            context = Some(written.answer);
        }
        assert_eq!(object.receipts().len(), MAX_RECEIPTS);
        assert_eq!(object.recall(id(1, 1)), None);
        assert!(object.recall(id(2, 1)).is_some());
    }

    #[test]
    fn receipts_from_outside_are_checked() {
        let check = |dots: &[u64], sound: bool| {
            let receipt = |counter: &u64| Receipt {
                at: *counter,
                write_id: id(1, 1),
                dot: dot(1, *counter),
            };
            let mut context = Context::new();
            context.insert_interval(Actor(1), 0, 100);
            let object = Object::from_parts(context, Vec::new());
            let object = object.with_receipts(dots.iter().map(receipt).collect());
            assert_eq!(object.is_some(), sound, "{dots:?}");
        };
        check(&[], true);
        check(&[1, 2], true);
        check(&[2, 1], false);
        check(&[1, 1], false);
        check(&[101], false);
        check(&(1..=64).collect::<Vec<u64>>(), true);
        check(&(1..=65).collect::<Vec<u64>>(), false);
    }
}
