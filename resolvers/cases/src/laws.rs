//! The laws of `design/resolvers.md`, checked on a resolver as the host would call it.
//!
//! On a few versions all groupings are tried, so nothing is left to chance; generated histories are the business of
//! each resolver's own tests.

use sha2::{Digest, Sha256};
use sibyl_resolver_kit::{Context, Failure, Resolution, Resolver, Sibling};

/// A value and the time it inherits; no value: deleted.
pub type Version = (Option<Vec<u8>>, u64);

/// Checks determinism, regrouping, repetition and absorption on `versions`: every way to merge them in two
/// groups (overlapping ones too) and then the results, in any order, gives what merging them at once gives.
///
/// # Panics
/// If one differs, with the grouping; or if the resolver fails.
pub fn lattice<R: Resolver>(ctx: &Context, versions: &[Version]) {
    let all = merge::<R>(ctx, versions);
    let mut reversed = versions.to_vec();
    reversed.reverse();
    assert_same(&merge::<R>(ctx, &reversed), &all, "another order");
    let twice: Vec<_> = versions.iter().chain(versions).cloned().collect();
    assert_same(&merge::<R>(ctx, &twice), &all, "every version twice");
    for version in versions {
        let absorbed = merge::<R>(ctx, &[all.clone(), version.clone()]);
        assert_same(&absorbed, &all, "merged again with one of its own");
        let alone = merge::<R>(ctx, &[version.clone(), version.clone()]);
        assert_same(&alone, version, "one version twice");
    }
    let count = u32::try_from(versions.len()).expect("few versions");
    for left in 1..(1_u32 << count) - 1 {
        for overlap in [0, left & left.wrapping_neg()] {
            let pick = |mask: u32| -> Vec<_> {
                let chosen = versions
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| mask >> i & 1 == 1);
                chosen.map(|(_, version)| version.clone()).collect()
            };
            let groups = [pick(left), pick(!left | overlap)];
            let merged = groups.map(|group| merge::<R>(ctx, &group));
            let regrouped = merge::<R>(ctx, &merged);
            assert_same(
                &regrouped,
                &all,
                &format!("grouping {left:b}, overlap {overlap:b}"),
            );
        }
    }
}

/// Checks determinism, order and regrouping: merging each of two groups that share no version, and then the
/// results, gives what merging all at once gives. Nothing is merged twice, so a sum passes.
///
/// # Panics
/// If one differs, with the grouping; or if the resolver fails.
pub fn foldable<R: Resolver>(ctx: &Context, versions: &[Version]) {
    let all = merge::<R>(ctx, versions);
    let mut reversed = versions.to_vec();
    reversed.reverse();
    assert_same(&merge::<R>(ctx, &reversed), &all, "another order");
    let count = u32::try_from(versions.len()).expect("few versions");
    for left in 1..(1_u32 << count) - 1 {
        let side = |taken: u32| -> Vec<_> {
            let chosen = (0..).zip(versions).filter(|(i, _)| left >> i & 1 == taken);
            chosen.map(|(_, version)| version.clone()).collect()
        };
        let merged = [side(1), side(0)].map(|group| merge::<R>(ctx, &group));
        let regrouped = merge::<R>(ctx, &merged);
        assert_same(&regrouped, &all, &format!("grouping {left:b}"));
    }
}

/// Merges as the host does: sorted, never for a single version, and the result inherits its time.
///
/// # Panics
/// If the resolver fails, or points outside of its input.
#[must_use]
pub fn merge<R: Resolver>(ctx: &Context, versions: &[Version]) -> Version {
    if let [single] = versions {
        return single.clone();
    }
    let siblings = sorted(versions);
    let newest = siblings.last().map_or(0, |sibling| sibling.modified_at);
    match call::<R>(ctx, &siblings) {
        Ok(Resolution::Merged(bytes)) => (Some(bytes), newest),
        Ok(Resolution::Pick(index)) => {
            let picked = &siblings[usize::try_from(index).expect("a small index")];
            (picked.value.clone(), picked.modified_at)
        }
        Ok(Resolution::Delete) => (None, newest),
        other => panic!("{versions:?}: {other:?}"),
    }
}

/// Calls twice and compares, since the same input must give the same bytes.
fn call<R: Resolver>(ctx: &Context, siblings: &[Sibling]) -> Result<Resolution, Failure> {
    let first = R::resolve(ctx, siblings);
    let second = R::resolve(ctx, siblings);
    assert_eq!(format!("{first:?}"), format!("{second:?}"), "determinism");
    first
}

/// In the host's order, as far as a resolver can see it.
#[must_use]
pub fn sorted(versions: &[Version]) -> Vec<Sibling> {
    let mut keyed: Vec<_> = versions
        .iter()
        .map(|(value, at)| {
            (
                (*at, Sha256::digest(value.as_deref().unwrap_or_default())),
                value,
            )
        })
        .collect();
    keyed.sort();
    keyed
        .into_iter()
        .map(|((modified_at, _), value)| Sibling {
            value: value.clone(),
            modified_at,
            attributes: Vec::new(),
        })
        .collect()
}

fn assert_same(found: &Version, expected: &Version, how: &str) {
    let text = |version: &Version| {
        let value = version.0.as_deref().map(String::from_utf8_lossy);
        format!("{value:?} at {}", version.1)
    };
    assert!(
        found == expected,
        "{how}: {} instead of {}",
        text(found),
        text(expected)
    );
}
