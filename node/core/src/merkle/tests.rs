//! The laws of leaf sums and trees.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const BUCKET: Incarnation = Incarnation(3);

type Objects = BTreeMap<Vec<u8>, Vec<u8>>;

fn tagger() -> Tagger {
    Tagger::new(&Secret([9; 32]))
}

fn sum() -> impl Strategy<Value = Sum> {
    // Edges too: carries through all limbs.
    let limb = prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
    [limb.clone(), limb.clone(), limb.clone(), limb].prop_map(Sum)
}

fn objects() -> impl Strategy<Value = Objects> {
    let key = proptest::collection::vec(any::<u8>(), 1..4);
    let object = proptest::collection::vec(any::<u8>(), 0..40);
    proptest::collection::btree_map(key, object, 0..40)
}

fn tree<'a>(objects: impl IntoIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>) -> Leaves {
    let (tagger, mut leaves) = (tagger(), Leaves::default());
    for (key, object) in objects {
        leaves.change(
            leaf(BUCKET, key),
            Sum::ZERO,
            tagger.tag(BUCKET, key, object),
        );
    }
    leaves
}

fn differing(a: &Leaves, b: &Leaves) -> BTreeSet<u16> {
    (0..LEAVES).filter(|at| a.get(*at) != b.get(*at)).collect()
}

proptest! {
    #[test]
    fn sums_are_a_commutative_group(a in sum(), b in sum(), c in sum()) {
        prop_assert_eq!(a.plus(b), b.plus(a));
        prop_assert_eq!(a.plus(b).plus(c), a.plus(b.plus(c)));
        prop_assert_eq!(a.plus(b).minus(b), a);
        prop_assert_eq!(a.plus(Sum::ZERO), a);
        prop_assert_eq!(Sum::from_bytes(a.to_bytes()), a);
    }

    #[test]
    fn order_does_not_matter(objects in objects()) {
        let (forth, back) = (tree(&objects), tree(objects.iter().rev()));
        prop_assert_eq!(&forth, &back);
        prop_assert_eq!(forth.root(), back.root());
    }

    #[test]
    fn an_object_that_came_and_went_leaves_nothing(objects in objects(), object: Vec<u8>) {
        let (before, key) = (tree(&objects), b"one more".as_slice());
        let (tag, mut after) = (tagger().tag(BUCKET, key, &object), before.clone());
        after.change(leaf(BUCKET, key), Sum::ZERO, tag);
        prop_assert_ne!(after.root(), before.root());
        after.change(leaf(BUCKET, key), tag, Sum::ZERO);
        prop_assert_eq!(after, before);
    }

    #[test]
    fn one_differing_key_changes_its_leaf_and_no_other(objects in objects(), at: prop::sample::Index) {
        prop_assume!(!objects.is_empty());
        let key = at.get(&objects.keys().cloned().collect::<Vec<_>>()).clone();
        let mut other = objects.clone();
        other.get_mut(&key).unwrap().push(0);
        let (a, b) = (tree(&objects), tree(&other));
        prop_assert_eq!(differing(&a, &b), BTreeSet::from([leaf(BUCKET, &key)]));
        prop_assert_ne!(a.root(), b.root());
        other.remove(&key);
        prop_assert_eq!(differing(&a, &tree(&other)), BTreeSet::from([leaf(BUCKET, &key)]));
    }

    #[test]
    fn duplicates_do_not_cancel_each_other(object: Vec<u8>, times in 1..9_u32) {
        let tag = tagger().tag(BUCKET, b"key", &object);
        let sum = (0..times).fold(Sum::ZERO, |sum, _| sum.plus(tag));
        prop_assert_ne!(sum, Sum::ZERO);
        prop_assert_ne!(sum.plus(tag), sum);
    }
}

#[test]
fn children_lead_from_the_root_to_exactly_the_differing_leaf() {
    let (a, mut b) = (tree(&Objects::new()), Leaves::default());
    b.set(2741, Sum([1, 0, 0, 0]));
    let mut parents = vec![0];
    for level in 1..=DEPTH {
        let (ours, theirs) = (a.children(level, &parents), b.children(level, &parents));
        let nodes: Vec<u16> = parents
            .iter()
            .flat_map(|parent| children(*parent))
            .collect();
        let pairs = nodes.iter().zip(ours.iter().zip(&theirs));
        parents = pairs
            .filter(|(_, (x, y))| x != y)
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(parents.len(), 1, "level {level}");
    }
    assert_eq!(parents, [2741]);
    assert_eq!(a.children(3, &[256, u16::MAX]), [] as [Node; 0]);
}

#[test]
fn a_tag_is_bound_to_bucket_key_and_cluster() {
    let tag = tagger().tag(BUCKET, b"key", b"object");
    assert_ne!(tag, tagger().tag(Incarnation(4), b"key", b"object"));
    assert_ne!(tag, tagger().tag(BUCKET, b"keyo", b"bject"));
    assert_ne!(
        tag,
        Tagger::new(&Secret([8; 32])).tag(BUCKET, b"key", b"object")
    );
}

#[test]
fn tags_and_roots_are_golden() {
    // Stores hold sums of these: another tag means that every tree of every node is rebuilt.
    let tag = tagger().tag(BUCKET, b"key", b"object");
    assert_eq!(format!("{tag:?}"), GOLDEN_TAG);
    assert_eq!(leaf(BUCKET, b"key"), GOLDEN_LEAF);
    let root: String = tree(&Objects::from([(b"key".to_vec(), b"object".to_vec())]))
        .root()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(root, GOLDEN_ROOT);
}

const GOLDEN_TAG: &str = "3cb92a82115f625308dcdfeae17e2177343aa324f2f60471215876c217ef38ee";
const GOLDEN_LEAF: u16 = 1955;
const GOLDEN_ROOT: &str = "25d1cf919afd77b9391c00d35b8fc6c3";
