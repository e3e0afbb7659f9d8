//! An exchange's parcel at the node that takes it: one object that cannot be joined does not hold up the others.

use sibyl_core::codec;
use sibyl_core::flow::exchange::{Delivery, Parcel};
use sibyl_core::id::Partition;
use sibyl_core::merkle::Tree;
use sibyl_core::message::{self, Place, Reply, Request};

use super::*;
use crate::store::{Batch, Space};

#[test]
fn what_cannot_be_joined_is_named_and_the_rest_is_joined() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Running::alone(folder.path());
    let bucket = node.bucket("b");
    let view = node.coordinator().registry().view();
    let place = |key: &str| Place {
        bucket,
        key: Bytes::copy_from_slice(key.as_bytes()),
    };
    let partition = |key: &str| view.ring().partition(bucket, key.as_bytes());
    let wanted = partition("k0");
    let keys: Vec<String> = (0..400).map(|at| format!("k{at}")).collect();
    let same: Vec<&String> = keys.iter().filter(|key| partition(key) == wanted).collect();
    let [damaged, new, asked, ..] = same[..] else {
        panic!("three of four hundred keys lie in one of eight partitions");
    };
    node.put("b", damaged, Some("old"), None);
    node.put("b", asked, Some("asked for"), None);
    node.until("both are there", |node| node.records(bucket) == 2);
    let replica = node.coordinator().replica();
    let mut record = Partition(wanted.0).0.to_be_bytes().to_vec();
    record.extend(bucket.0.to_be_bytes());
    record.extend(damaged.as_bytes());
    let kept = replica.store().get(Space::Objects, &record);
    assert!(kept.expect("readable").is_some(), "the record lies there");
    let mut batch = Batch::new();
    batch.put(Space::Objects, &record, Bytes::from_static(b"no record"));
    replica.store().apply(batch).expect("written");

    let object = codec::encode(&Object::default());
    let parcel = Parcel {
        want: vec![place(asked)],
        give: vec![(place(damaged), object.clone()), (place(new), object)],
    };
    let tree = Tree {
        partition: wanted,
        n: 3,
    };
    let request = Request::MerkleExchange { tree };
    let anti_entropy = node.coordinator().anti_entropy();
    let body = message::encode(&parcel);
    let (reply, body) = node.runtime.block_on(anti_entropy.answer(request, body));
    assert_eq!(reply, Reply::MerkleExchanged);
    let delivery: Delivery = message::decode(&body).expect("a delivery");
    assert_eq!(delivery.without, [place(damaged)], "it is named");
    let got: Vec<&Place> = delivery.objects.iter().map(|(place, _)| place).collect();
    assert_eq!(
        got,
        [&place(asked)],
        "what was asked for comes all the same"
    );
    node.stop();
}
