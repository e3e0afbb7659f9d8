//! What a replica that was asked to take a write did.
//!
//! A write that meets a newer registry document begins again by it, while answers of before are still on their way:
//! each says by which document it was asked, and those that came too late to mean anything are known by that.

use sibyl_core::id::NodeId;

/// What one replica did; a stable word if it failed.
pub(super) struct Done {
    pub(super) by: NodeId,
    /// The owner it stands in for.
    pub(super) target: Option<NodeId>,
    pub(super) acked: Result<(), &'static str>,
    /// The registry document by which it was asked.
    pub(super) number: u64,
}

impl Done {
    /// Whether it says nothing any more: a replica that could not by an older document has been asked again by the
    /// one of now, and is waited for. This node's own copy is asked for only once.
    pub(super) fn is_overtaken(&self, number: u64, me: &NodeId) -> bool {
        self.acked.is_err() && self.number < number && self.by != *me
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::remote::{REFUSED, STALE, TIMEOUT};
    use super::*;

    #[test]
    fn what_failed_by_an_older_document_says_nothing_of_the_round_by_a_newer_one() {
        let id = |name: &str| name.parse::<NodeId>().expect("a node id");
        let check = |by: &str, acked: Result<(), &'static str>, number: u64, expected: bool| {
            let (by, target) = (id(by), None);
            let done = Done {
                by,
                target,
                acked,
                number,
            };
            let overtaken = done.is_overtaken(7, &id("n1"));
            assert_eq!(overtaken, expected, "{} {acked:?} {number}", done.by);
        };
        check("n2", Err(STALE), 6, true);
        check("n2", Err(TIMEOUT), 6, true);
        check("n2", Err(STALE), 7, false);
        // A copy is a copy, and nobody asks for the own one again.
        check("n2", Ok(()), 6, false);
        check("n1", Err(REFUSED), 6, false);
    }
}
