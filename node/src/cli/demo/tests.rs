//! The scenes' values, without a cluster: edits differ, and the checks accept the right merge and nothing else.

use automerge::AutoCommit;

use super::scene::Scene;
use super::{cart, documents};

struct Played {
    base: Vec<u8>,
    left: Vec<u8>,
    right: Vec<u8>,
}

fn play(scene: &Scene) -> Played {
    let base = (scene.base)().unwrap();
    let (left, right) = (
        (scene.left.1)(&base).unwrap(),
        (scene.right.1)(&base).unwrap(),
    );
    assert!(base != left && base != right && left != right);
    Played { base, left, right }
}

fn check(scene: &Scene, merged: &[u8], accepted: bool) {
    let played = play(scene);
    let result = (scene.check)(merged, &played.left, &played.right);
    assert_eq!(result.is_ok(), accepted, "{result:?}");
}

#[test]
fn the_cart_must_hold_both_edits() {
    let scene = cart::scene();
    let played = play(&scene);
    let merged = br#"{"items":{"book":3,"lamp":1,"mug":2,"pen":{"removed":true}}}"#;
    check(&scene, merged, true);
    check(
        &scene,
        br#"{"items":{"pen":{"removed":true,"qty":2},"mug":{"qty":2},"lamp":1,"book":3}}"#,
        true,
    );
    for wrong in [&played.base, &played.left, &played.right] {
        check(&scene, wrong, false);
    }
    check(
        &scene,
        br#"{"items":{"book":3,"lamp":1,"mug":2,"pen":2}}"#,
        false,
    );
    check(&scene, b"not json", false);
}

#[test]
fn the_document_must_hold_the_changes_of_both_sides() {
    let scene = documents::scene();
    let Played { base, left, right } = play(&scene);
    let mut merged = AutoCommit::load(&left).unwrap();
    merged
        .merge(&mut AutoCommit::load(&right).unwrap())
        .unwrap();
    let merged = merged.save();
    // Each call makes documents by other random actors, so the check gets the sides that belong together.
    assert!((scene.check)(&merged, &left, &right).is_ok());
    for wrong in [base.as_slice(), &left, &right, b"nothing"] {
        assert!((scene.check)(wrong, &left, &right).is_err());
    }
    assert!(
        (scene.show)(&merged)
            .unwrap()
            .contains("Dear friends, we climb to Delphi at dawn. Yours, Pythia")
    );
}
