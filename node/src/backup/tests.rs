//! Backups of real stores: what is in one, what a restored store is and is not.

use std::fs;

use sibyl_core::backup::Part;
use tempfile::TempDir;

use super::*;
use crate::store::{self, Batch, Space, Start};

/// A backup with these records, made by hand.
fn backup(folder: &TempDir, records: &[(Space, &str, &[u8])]) -> std::path::PathBuf {
    let mut bytes = Vec::new();
    let header = sibyl_core::backup::Header {
        cluster_id: "test".into(),
        lineage: None,
        node_id: "n1".parse().unwrap(),
        actor: sibyl_core::id::Actor(7),
        reserved_end: 5 << 20,
        incarnation: 4,
        batch: 9,
        registry: 2,
        members: 1,
        taken_at_ms: 1,
        reap_epoch: 7,
        build: "test".into(),
    };
    let mut writer = sibyl_core::backup::Writer::begin(&header, &mut bytes);
    for (space, key, value) in records {
        let part = Part::Record {
            space: *space as u8,
            key: key.as_bytes().to_vec().into(),
            value: value.to_vec().into(),
        };
        writer.put(&part, &mut bytes);
    }
    writer.end(&mut bytes);
    let path = folder.path().join("a.backup");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn nothing_is_written_of_a_file_that_is_not_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = backup(&folder, &[(Space::Objects, "k", b"v")]);
    let whole = fs::read(&file).unwrap();
    let target = folder.path().join("node");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let refused = restore(&file, &target).unwrap_err();
        assert!(
            matches!(refused, RestoreError::NotWhole(_)),
            "byte {at}: {refused}"
        );
        assert!(refused.to_string().contains("a.backup"), "{refused}");
        assert!(!target.exists());
    }
}

#[test]
fn a_restore_that_stops_half_way_leaves_nothing_that_a_node_starts_on() {
    let folder = tempfile::tempdir().unwrap();
    // Whole, but without a registry document: it fails at its end.
    let file = backup(&folder, &[(Space::Objects, "k", b"v")]);
    let target = folder.path().join("node");
    let refused = restore(&file, &target).unwrap_err();
    assert!(matches!(refused, RestoreError::NoRegistry), "{refused}");
    assert!(target.join(UNFINISHED).exists() && !target.join("data").exists());
    let refused = restore(&file, &target).unwrap_err();
    assert!(matches!(refused, RestoreError::NotEmpty(_)), "{refused}");
}

#[test]
fn a_restored_store_is_amnesia_by_construction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let actor = sibyl_core::id::Actor(8);
    let opened = store::restored(&path, actor, 5 << 20, 4).unwrap();
    let mut batch = Batch::new();
    batch.put(Space::Objects, b"k", "v");
    opened.store.apply(batch).unwrap();
    store::commit(&*opened.store, &opened.watermark).unwrap();
    drop(opened);
    let moved = folder.path().join("data");
    fs::rename(&path, &moved).unwrap();
    let opened = store::open(&moved, || panic!("it has an actor")).unwrap();
    assert!(matches!(opened.start, Start::Restarted));
    assert_eq!(opened.actor, actor);
    assert!(opened.counter >= 6 << 20, "behind every counter of before");
    assert!(opened.watermark.is_rebuilding());
    assert!(opened.watermark.incarnation() > 4);
    assert_eq!(opened.watermark.promised(1), None);
    let kept = opened.store.get(Space::Objects, b"k").unwrap();
    assert_eq!(kept.as_deref(), Some(&b"v"[..]));
}

#[test]
fn the_only_node_of_a_cluster_remembers_until_when_it_may_have_reaped() {
    use std::collections::BTreeMap;

    use crate::tasks::registry::CHOSEN;
    use sibyl_core::id::{Actor, NodeId};
    use sibyl_core::registry::{First, Held, Secret, Secrets, first_document, second_document};

    let folder = tempfile::tempdir().unwrap();
    let me: NodeId = "n1".parse().unwrap();
    let first = First {
        peer_addr: "127.0.0.1:1".into(),
        zone: None,
    };
    let first = first_document("test", &BTreeMap::from([(me.clone(), first)]), 16, 4).unwrap();
    let secret = Secret([1; 32]);
    let secrets = Secrets {
        context_key: secret,
        cluster_key: secret,
    };
    let stores = BTreeMap::from([(me, Actor(7))]);
    let held = Held::first(second_document(&first, &stores, &secrets).unwrap());
    let file = backup(&folder, &[(Space::Meta, CHOSEN, &held.encode())]);
    let target = folder.path().join("node");
    restore(&file, &target).unwrap();
    let opened = store::open(&target.join("data"), || panic!("it has an actor")).unwrap();
    for key in [crate::tasks::reap::EPOCH, crate::replica::FLOOR] {
        let kept = opened.store.get(Space::Meta, key.as_bytes()).unwrap();
        assert_eq!(kept.as_deref(), Some(&7_u64.to_le_bytes()[..]), "{key}");
    }
}
