//! The laws once more, on siblings that clients really wrote.
//!
//! A certificate says what drawn values could not break. What a bucket really holds may, so a node tries some of its
//! conflicts in another grouping, beside the read that met them.

use sibyl_core::id::Digest;
use sibyl_core::object::Content;
use sibyl_core::registry::Law;

use super::host::Subject;
use super::{Finding, judge};

/// The most siblings of one look: some three dozen merges.
const MOST_SIBLINGS: usize = 8;

/// Tries each of `laws` on these siblings of one key. Which groups are made depends on the siblings alone.
///
/// Answers the laws that do not hold.
pub fn recheck(subject: &dyn Subject, siblings: &[Content], laws: &[Law]) -> Vec<Finding> {
    let siblings = &siblings[..siblings.len().min(MOST_SIBLINGS)];
    let written: Vec<Content> = siblings
        .iter()
        .filter(|content| !content.is_tombstone())
        .cloned()
        .collect();
    let mut groups = Vec::new();
    for content in siblings {
        let hash = Digest::of(content.value.as_deref().unwrap_or_default());
        groups.push(hash.0[0] % 3);
    }
    let tried = laws.iter().filter_map(|law| {
        let shown = if *law == Law::Deletes {
            siblings
        } else {
            &written
        };
        if shown.len() < 2 {
            return None;
        }
        let broken = judge::of_real(*law, shown, &groups, subject)?;
        Some(Finding {
            law: *law,
            cases: 1,
            broken: Some(broken),
        })
    });
    tried.collect()
}
