//! `lww`: the last writer wins. The newest sibling is picked as it is; all others are dropped.
//!
//! Equal times go to the last in the host's order (SHA-256 of the value), which every node shares. A lattice:
//! a pick keeps its time, so any grouping ends at the same write. It loses data on purpose: choose it where
//! only the newest value matters (presence, a cache, a setting with one owner).

use sibyl_resolver_kit::{Context, Failure, Resolution, Resolver, Sibling};

/// The last writer wins.
pub struct Lww;

impl Resolver for Lww {
    const NAME: &'static str = "lww";
    const SUMMARY: &'static str =
        "The last writer wins: picks the newest sibling, drops the others.";
    const MEDIA_TYPES: &'static [&'static str] = &[];

    fn resolve(_: &Context, siblings: &[Sibling]) -> Result<Resolution, Failure> {
        // Of equal maxima `max_by_key` returns the last.
        let newest = (0_u32..)
            .zip(siblings)
            .max_by_key(|(_, sibling)| sibling.modified_at);
        match newest {
            Some((index, sibling)) if sibling.value.is_some() => Ok(Resolution::Pick(index)),
            Some(_) => Ok(Resolution::Delete),
            None => Err(Failure::Other("called without siblings".to_owned())),
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod exported;

#[cfg(test)]
mod tests;
