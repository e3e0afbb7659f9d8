//! Round trip, golden files, hostile bytes.

use proptest::prelude::*;

use super::*;
use crate::id::Dot;
use crate::object::Input;

fn content() -> impl Strategy<Value = Content> {
    (
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
        "[a-z/]{0,12}",
        proptest::collection::btree_map("[a-z]{1,6}", ".{0,8}", 0..4),
        any::<u64>(),
        any::<[u8; 16]>(),
        proptest::option::of(any::<[u8; 26]>()),
    )
        .prop_map(
            |(value, content_type, attributes, modified_at, write_id, trace)| Content {
                value: value.map(Bytes::from),
                content_type,
                attributes,
                modified_at,
                write_id: WriteId(write_id),
                trace: trace.map(Trace),
            },
        )
}

fn object() -> impl Strategy<Value = Object> {
    let sibling = (0..3u64, 1..1_000u64, any::<bool>(), 1..4u64, content());
    let known = proptest::collection::vec((0..4u64, 1..5_000u64), 0..8);
    let receipts =
        proptest::collection::btree_set((any::<u64>(), any::<[u8; 16]>(), 0..4u64), 0..4);
    let siblings = proptest::collection::vec(sibling, 0..5);
    (siblings, known, receipts).prop_map(|(siblings, known, receipts)| {
        let mut context: Context = known
            .into_iter()
            .map(|(actor, counter)| Dot {
                actor: Actor(actor),
                counter,
            })
            .collect();
        let mut kept = BTreeMap::new();
        for (at, (actor, group, undone, width, content)) in (0u64..).zip(siblings) {
            let first = 10 * at + 1;
            let counters: Vec<u64> = (first..first + width).collect();
            let fold = (width > 1).then(|| fold(&counters));
            let sibling = Sibling {
                actor: Actor(actor),
                group,
                undone,
                counters,
                content,
                fold,
            };
            context.extend(sibling.dots());
            kept.entry((actor, group)).or_insert(sibling);
        }
        let receipt = |(at, write_id, actor): (u64, [u8; 16], u64)| Receipt {
            at,
            write_id: WriteId(write_id),
            dot: Dot {
                actor: Actor(actor),
                counter: 6_000,
            },
        };
        let receipts: Vec<Receipt> = receipts.into_iter().map(receipt).collect();
        context.extend(receipts.iter().map(|receipt| receipt.dot));
        let object = Object::from_parts(context, kept.into_values().collect());
        object.with_receipts(receipts).expect("ascending and known")
    })
}

fn fold(counters: &[u64]) -> Fold {
    let input = |counter: &u64| Input {
        counter: *counter,
        write_id: WriteId([9; 16]),
        payload: Digest([8; 32]),
        modified_at: 7,
    };
    Fold {
        resolver: Digest([1; 32]),
        config: Digest([2; 32]),
        epoch: 3,
        inputs: counters.iter().map(input).collect(),
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(object in object()) {
        let bytes = encode(&object);
        prop_assert_eq!(decode(&bytes), Ok(object.clone()));
        prop_assert_eq!(digest(&object), Digest::of(&bytes));
    }

    #[test]
    fn every_flipped_bit_is_seen(object in object(), at in any::<prop::sample::Index>()) {
        let mut bytes = encode(&object).to_vec();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode(&bytes.into()).is_err());
    }

    #[test]
    fn siblings_are_counted_without_their_values(object in object()) {
        let count = sibling_count(&encode(&object));
        prop_assert_eq!(count.map(|count| count as usize), Ok(object.siblings().len()));
    }

    #[test]
    fn hostile_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200), sealed in any::<bool>(), version in PLAIN..=REMEMBERING) {
        let mut bytes = body;
        if sealed {
            bytes.insert(0, version);
            let checksum = crc32c::crc32c(&bytes);
            bytes.extend(checksum.to_le_bytes());
        }
        let _ = decode(&bytes.into());
    }

    #[test]
    fn hostile_heads_never_panic(object in object(), junk in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = encode(&object).to_vec();
        let end = bytes.len() - 4;
        for (at, byte) in junk {
            bytes[1 + at.index(end - 1)] = byte;
        }
        let checksum = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(object) = decode(&bytes.into()) {
            prop_assert_eq!(decode(&encode(&object)), Ok(object));
        }
    }
}

/// The object in the golden file of version 1. Never change either: nodes in the field hold such bytes.
fn golden() -> Object {
    let plain = Content {
        value: Some(Bytes::from_static(b"{\"items\":{\"book\":1}}")),
        content_type: "application/json".into(),
        attributes: [("device".to_owned(), "phone".to_owned())].into(),
        modified_at: 1_790_000_000_000,
        write_id: WriteId([0xab; 16]),
        trace: Some(Trace([0x11; 26])),
    };
    let dead = Content {
        value: None,
        content_type: String::new(),
        attributes: BTreeMap::new(),
        ..plain.clone()
    };
    let folded = Sibling {
        actor: Actor(0xfeed),
        group: 12,
        undone: true,
        counters: vec![4, 9],
        content: plain.clone(),
        fold: Some(fold(&[4, 9])),
    };
    let siblings = vec![
        Sibling::written(
            Dot {
                actor: Actor(1),
                counter: 300,
            },
            plain,
        ),
        Sibling::written(
            Dot {
                actor: Actor(2),
                counter: 1,
            },
            dead,
        ),
        folded,
    ];
    let mut context: Context = siblings.iter().flat_map(Sibling::dots).collect();
    context.insert_interval(Actor(1), 250, 300);
    Object::from_parts(context, siblings)
}

#[test]
fn version_1_is_read_and_written_as_it_always_was() {
    let bytes = include_bytes!("golden/object-1.bin");
    assert_eq!(decode(&Bytes::from_static(bytes)), Ok(golden()));
    assert_eq!(encode(&golden()), Bytes::from_static(bytes));
}

#[test]
fn version_2_is_read_and_written_as_it_always_was() {
    let mut object = golden();
    object.remember(Receipt {
        at: 1_790_000_000_000,
        write_id: WriteId([0xcd; 16]),
        dot: Dot {
            actor: Actor(1),
            counter: 299,
        },
    });
    let bytes = include_bytes!("golden/object-2.bin");
    assert_eq!(decode(&Bytes::from_static(bytes)), Ok(object.clone()));
    assert_eq!(encode(&object), Bytes::from_static(bytes));
}

#[test]
fn equal_objects_have_equal_bytes_whatever_the_version_says() {
    let mut bytes = encode(&golden()).to_vec();
    // An empty list of receipts behind the head, under the version that has one.
    let length = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    bytes[0] = REMEMBERING;
    bytes[1..5].copy_from_slice(&(length + 1).to_le_bytes());
    bytes.insert(5 + length as usize, 0);
    let end = bytes.len() - 4;
    let checksum = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(decode(&bytes.into()), Err(Malformed::Head));
}

#[test]
fn values_are_slices_of_what_was_read() {
    let bytes = encode(&golden());
    let object = decode(&bytes).expect("just encoded");
    let value = object.siblings()[0].content.value.clone().expect("a value");
    assert!(
        bytes.as_ptr_range().contains(&value.as_ptr()),
        "decoding copies no value"
    );
}
