//! Whether a store that was made of an older state may show a partition of it, by what the other owners say.
//!
//! What was deleted and forgotten since that state was taken must not come back by it. Owners that have their data
//! say when they reaped there last. If none has (all lost theirs, and are made of older states, or are empty), nobody
//! will ever say more: then these states are all there is, and waiting would keep what was acknowledged from everybody
//! for ever. They are shown, and an operator is told that deleted keys may be among them.

use crate::salvage::SLACK;

/// What becomes of a partition of an older state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Nothing in it was forgotten since: it joins as anything else.
    Fresh,
    /// Something may have been: it is set aside and fetched anew.
    Old,
    /// Nobody knows, and nobody will: it is all there is.
    Unknown,
}

/// Judges a partition whose state was taken in this epoch. `said`: what every other owner says, the epoch of its last
/// reap there (0: never), or `None` if it lost its own data, too. All must have answered.
pub fn judge(image: u64, said: &[Option<u64>]) -> Image {
    let last = said.iter().flatten().max();
    match last {
        None => Image::Unknown,
        Some(0) => Image::Fresh,
        Some(last) if last.saturating_add(SLACK) >= image => Image::Old,
        Some(_) => Image::Fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_owner_that_remembers_decides_and_without_any_nobody_waits_for_ever() {
        let check = |image, said: &[Option<u64>], expected| {
            assert_eq!(judge(image, said), expected, "{image} {said:?}");
        };
        check(9, &[], Image::Unknown);
        check(9, &[Some(0), None], Image::Fresh);
        check(9, &[Some(6), None], Image::Fresh);
        check(9, &[Some(7), None], Image::Old);
        check(9, &[Some(3), Some(12)], Image::Old);
        check(0, &[Some(1)], Image::Old);
        check(9, &[None, None], Image::Unknown);
        check(0, &[None], Image::Unknown);
    }
}
