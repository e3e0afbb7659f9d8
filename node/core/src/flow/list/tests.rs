//! Coverage, horizons and disagreement.

use proptest::prelude::*;

use super::*;

fn node(at: usize) -> NodeId {
    format!("n{at}").parse().expect("a node id")
}

/// Partition of a key in these tests: its first byte modulo the number of partitions.
fn partition_of(key: &[u8]) -> Partition {
    Partition(u32::from(key[0] % 4))
}

/// Four partitions on four nodes, n = 3.
fn owners() -> Vec<Vec<NodeId>> {
    (0..4)
        .map(|at| (0..3).map(|next| node((at + next) % 4)).collect())
        .collect()
}

/// What a node of a healthy cluster answers when it holds every key of its partitions.
fn page(at: usize, keys: &BTreeMap<Vec<u8>, bool>, after: Option<&[u8]>, limit: usize) -> Page {
    let mine = |key: &[u8]| owners()[partition_of(key).0 as usize].contains(&node(at));
    let mut entries: Vec<Entry> = keys
        .iter()
        .filter(|(key, _)| mine(key) && after.is_none_or(|after| key.as_slice() > after))
        .map(|(key, live)| Entry {
            key: Bytes::copy_from_slice(key),
            live: *live,
        })
        .collect();
    let more = entries.len() > limit;
    entries.truncate(limit);
    Page { entries, more }
}

proptest! {
    #[test]
    fn pages_add_up_to_every_living_key(
        keys in proptest::collection::btree_map(proptest::collection::vec(0..6u8, 1..3), any::<bool>(), 0..30),
        limit in 1..6usize,
        away in proptest::option::of(0..4usize),
    ) {
        let (mut listed, mut after, mut rounds) = (Vec::new(), None::<Bytes>, 0);
        loop {
            let nodes = (0..4).filter(|at| Some(*at) != away);
            let pages = nodes.map(|at| (node(at), page(at, &keys, after.as_deref(), limit))).collect();
            let listing = merge(&pages, &owners(), 2, limit, partition_of).expect("covered");
            prop_assert!(listing.keys.len() <= limit);
            listed.extend(listing.keys.into_iter().map(|(key, _)| key.to_vec()));
            rounds += 1;
            prop_assert!(rounds < 64, "a listing ends");
            match listing.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let living: Vec<Vec<u8>> = keys.into_iter().filter(|(_, live)| *live).map(|(key, _)| key).collect();
        prop_assert_eq!(listed, living);
    }
}

#[test]
fn an_uncovered_partition_is_an_error() {
    let pages = (0..2).map(|at| (node(at), Page::default())).collect();
    let uncovered = merge(&pages, &owners(), 2, 10, partition_of).expect_err("n2 and n3 are away");
    assert_eq!(
        uncovered,
        Uncovered {
            partition: Partition(1),
            answered: 1,
            need: 2
        }
    );
}

#[test]
fn a_key_its_owners_disagree_on_is_left_to_a_read() {
    let entry = |key: &'static [u8], live| Entry {
        key: Bytes::from_static(key),
        live,
    };
    let says = |entries: Vec<Entry>| Page {
        entries,
        more: false,
    };
    let pages = BTreeMap::from([
        (
            node(0),
            says(vec![
                entry(b"\0a", true),
                entry(b"\0b", true),
                entry(b"\0c", false),
            ]),
        ),
        (
            node(1),
            says(vec![
                entry(b"\0a", true),
                entry(b"\0b", false),
                entry(b"\0c", false),
            ]),
        ),
        (
            node(2),
            says(vec![entry(b"\0a", true), entry(b"\0b", true)]),
        ),
        (node(3), Page::default()),
    ]);
    let listing = merge(&pages, &owners(), 2, 10, partition_of).expect("covered");
    let expected = [
        (&b"\0a"[..], Agreement::Lives),
        (b"\0b", Agreement::Differs),
    ];
    let expected = expected.map(|(key, agreement)| (Bytes::from_static(key), agreement));
    assert_eq!(
        listing,
        Listing {
            keys: expected.to_vec(),
            next: None
        }
    );
}
