//! Known bugs, switchable: each lost, doubled or resurrected data in a small model, and each must be
//! found here within its budget of seeds, or the simulator has lost an eye.
//!
//! Most live in the simulator's shell; the core stays as it is. Those of the registry and of membership are
//! switches of the core's own zoos. The manual has a table of which entry of the failure catalogue each stands for.
//! Budgets are at least three times the seeds that it took when they were set.

use std::fmt;
use std::str::FromStr;

use sibyl_core::context::Context;
use sibyl_core::id::Dot;
use sibyl_core::membership::Faults;
use sibyl_core::object::Object;

/// A known bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A copy counts once it is applied, not once it is synced.
    AckBeforeSync,
    /// A node that lost its store goes on as the same actor, counting from the start.
    DotReuse,
    /// A dot (actor, n) claims every counter up to n: a plain version vector.
    PlainVectors,
    /// The answer to a write carries the object's context.
    ObjectContextAnswered,
    /// One sibling is shipped with the whole object's context.
    ObjectContextShipped,
    /// A node that restarts does not raise its line: it vouches for copies that may have gone backwards.
    LineNotRaised,
    /// A node that lost its store answers reads as if it had not.
    RebuildingReads,
    /// A node that lost its store counts again after its first exchange.
    RefillAfterOne,
    /// Leaves are written in a batch of their own.
    LeavesApart,
    /// What a write replaces is not taken out of its leaf.
    LeafKeepsOld,
    /// Registry votes are opinions that nobody remembers.
    PolledLayouts,
    /// A fallback that forgets a delivered hint vouches on for what it held.
    ForgetfulFallback,
    /// A hint is forgotten once it is sent.
    HintForgottenEarly,
    /// A fallback that holds nothing of a key counts in a read.
    AbsentFallback,
    /// A hint counts once it is applied, not once it is synced.
    HintAckBeforeSync,
    /// Over the quota a hint that counted makes room for a new one.
    HintEvicted,
    /// A retry is minted although its write is remembered.
    RetryMintsAgain,
    /// What is remembered of a write stays with its coordinator.
    ReceiptNotShipped,
    /// Gossip brings back whom the registry removed: a cut longer than every timer resurrects a member.
    Resurrection,
    /// Silence is measured by the stamps of others.
    StampsBelieved,
    /// A node refutes for another one, by raising its incarnation.
    OthersRaised,
    /// Who drops a suspicion does not tell whom it suspected.
    NobodyTold,
    /// A node that slept takes the silence it slept through for the others'.
    OthersBlamed,
    /// A start does not raise the incarnation.
    IncarnationKept,
    /// While owners change a write needs only those that count.
    OneLayout,
    /// A new owner counts after its first exchange.
    SwitchAfterOne,
    /// What is asked by an older layout is taken.
    StaleTaken,
    /// A record that cannot be read is taken for absent.
    ErrorIsAbsent,
    /// A fenced record counts again after the first other owner was asked.
    HealAfterOne,
    /// Two nodes whose records of a key are both damaged wait for each other.
    FencedWait,
    /// An engine that lost synced batches goes on with what it has.
    WatermarkIgnored,
    /// A restored backup goes on as the store that was backed up.
    BackupGoesOn,
    /// A record that cannot be read does not raise the line of its partition.
    FenceKeepsLine,
    /// A write says of hints that they are owners' copies.
    HintsAsOwners,
    /// A minted write that meets owners of a newer layout is answered as if those had it.
    StaleCounts,
    /// Epochs end although hints, reads or messages of earlier ones are left.
    ReapInFlight,
    /// One owner's seal is enough for all.
    ReapOneSeal,
    /// What a removed node brings is taken over whatever was reaped since.
    SalvageUnjudged,
    /// Nobody minds that a store was removed.
    FencedCounts,
    /// What lies in a restored store is shown whatever was reaped since.
    RestoredUnjudged,
    /// A copy is sealed before it is synced, and its sync is not waited for.
    SealUnsynced,
    /// On a key that was reaped a node counts from the start again.
    Doomstone,
    /// A new owner counts before anything was fetched.
    SwitchUnfilled,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AckBeforeSync,
        Self::DotReuse,
        Self::PlainVectors,
        Self::ObjectContextAnswered,
        Self::ObjectContextShipped,
        Self::LineNotRaised,
        Self::RebuildingReads,
        Self::RefillAfterOne,
        Self::LeavesApart,
        Self::LeafKeepsOld,
        Self::PolledLayouts,
        Self::ForgetfulFallback,
        Self::HintForgottenEarly,
        Self::AbsentFallback,
        Self::HintAckBeforeSync,
        Self::HintEvicted,
        Self::RetryMintsAgain,
        Self::ReceiptNotShipped,
        Self::Resurrection,
        Self::StampsBelieved,
        Self::OthersRaised,
        Self::NobodyTold,
        Self::OthersBlamed,
        Self::IncarnationKept,
        Self::OneLayout,
        Self::SwitchAfterOne,
        Self::StaleTaken,
        Self::ErrorIsAbsent,
        Self::HealAfterOne,
        Self::FencedWait,
        Self::WatermarkIgnored,
        Self::BackupGoesOn,
        Self::FenceKeepsLine,
        Self::HintsAsOwners,
        Self::StaleCounts,
        Self::ReapInFlight,
        Self::ReapOneSeal,
        Self::SalvageUnjudged,
        Self::FencedCounts,
        Self::RestoredUnjudged,
        Self::SealUnsynced,
        Self::Doomstone,
        Self::SwitchUnfilled,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::DotReuse => "dot-reuse",
            Self::PlainVectors => "plain-vectors",
            Self::ObjectContextAnswered => "object-context-answered",
            Self::ObjectContextShipped => "object-context-shipped",
            Self::LineNotRaised => "line-not-raised",
            Self::RebuildingReads => "rebuilding-reads",
            Self::RefillAfterOne => "refill-after-one",
            Self::LeavesApart => "leaves-apart",
            Self::LeafKeepsOld => "leaf-keeps-old",
            Self::PolledLayouts => "polled-layouts",
            Self::ForgetfulFallback => "forgetful-fallback",
            Self::HintForgottenEarly => "hint-forgotten-early",
            Self::AbsentFallback => "absent-fallback",
            Self::HintAckBeforeSync => "hint-ack-before-sync",
            Self::HintEvicted => "hint-evicted",
            Self::RetryMintsAgain => "retry-mints-again",
            Self::ReceiptNotShipped => "receipt-not-shipped",
            Self::Resurrection => "resurrection",
            Self::StampsBelieved => "stamps-believed",
            Self::OthersRaised => "others-raised",
            Self::NobodyTold => "nobody-told",
            Self::OthersBlamed => "others-blamed",
            Self::IncarnationKept => "incarnation-kept",
            Self::OneLayout => "one-layout",
            Self::SwitchAfterOne => "switch-after-one",
            Self::StaleTaken => "stale-taken",
            Self::ErrorIsAbsent => "error-is-absent",
            Self::HealAfterOne => "heal-after-one",
            Self::FencedWait => "fenced-wait",
            Self::WatermarkIgnored => "watermark-ignored",
            Self::BackupGoesOn => "backup-goes-on",
            Self::FenceKeepsLine => "fence-keeps-line",
            Self::HintsAsOwners => "hints-as-owners",
            Self::StaleCounts => "stale-counts",
            Self::ReapInFlight => "reap-in-flight",
            Self::ReapOneSeal => "reap-one-seal",
            Self::SalvageUnjudged => "salvage-unjudged",
            Self::FencedCounts => "fenced-counts",
            Self::RestoredUnjudged => "restored-unjudged",
            Self::SealUnsynced => "seal-unsynced",
            Self::Doomstone => "doomstone",
            Self::SwitchUnfilled => "switch-unfilled",
        }
    }

    /// The rules of membership that it leaves out; `None` if it lives elsewhere.
    pub fn gossip(self) -> Option<Faults> {
        let whole = Faults::default();
        Some(match self {
            Self::Resurrection => Faults {
                resurrects: true,
                ..whole
            },
            Self::StampsBelieved => Faults {
                believes_stamps: true,
                ..whole
            },
            Self::OthersRaised => Faults {
                raises_others: true,
                ..whole
            },
            Self::NobodyTold => Faults {
                tells_nobody: true,
                ..whole
            },
            Self::OthersBlamed => Faults {
                blames_others: true,
                ..whole
            },
            Self::IncarnationKept => whole,
            _ => return None,
        })
    }

    /// Whether it shows only where deleted keys are reaped.
    pub fn is_of_reaping(self) -> bool {
        matches!(
            self,
            Self::ReapInFlight
                | Self::ReapOneSeal
                | Self::SealUnsynced
                | Self::RestoredUnjudged
                | Self::Doomstone
        )
    }

    /// Whether it shows only where members are removed and come back with their stores.
    pub fn is_of_salvage(self) -> bool {
        matches!(self, Self::SalvageUnjudged | Self::FencedCounts)
    }

    /// Whether plans are drawn for it that it needs.
    pub fn has_plans(self) -> bool {
        matches!(self, Self::RestoredUnjudged | Self::SealUnsynced)
    }

    /// The checks that it may break first: what it is known for, and then what else that leads to.
    pub fn breaks(self) -> &'static [&'static str] {
        match self {
            // A look that misses a write mints it again; copies that count too early are read, looked at and minted on.
            Self::RefillAfterOne
            | Self::SwitchAfterOne
            | Self::HealAfterOne
            | Self::WatermarkIgnored
            | Self::SwitchUnfilled
            | Self::HintsAsOwners => &["quorums meet", "a repeated write is one write"],
            Self::ErrorIsAbsent => &[
                "quorums meet",
                "a repeated write is one write",
                "owners have equal roots",
            ],
            _ => std::slice::from_ref(self.known_for()),
        }
    }

    fn known_for(self) -> &'static &'static str {
        match self {
            Self::AckBeforeSync
            | Self::HintForgottenEarly
            | Self::HintAckBeforeSync
            | Self::StaleCounts
            | Self::HintEvicted => &"acknowledged writes are durable",
            Self::DotReuse | Self::BackupGoesOn | Self::Doomstone => &"a dot names one write",
            Self::RebuildingReads
            | Self::RefillAfterOne
            | Self::AbsentFallback
            | Self::OneLayout
            | Self::SwitchAfterOne
            | Self::SwitchUnfilled
            | Self::StaleTaken
            | Self::ErrorIsAbsent
            | Self::HintsAsOwners
            | Self::HealAfterOne
            | Self::WatermarkIgnored => &"quorums meet",
            Self::LeavesApart | Self::LeafKeepsOld => &"leaves are the sums of their objects",
            Self::PlainVectors
            | Self::ObjectContextAnswered
            | Self::ObjectContextShipped
            | Self::LineNotRaised
            | Self::FenceKeepsLine
            | Self::ForgetfulFallback => &"contexts claim what was seen",
            Self::PolledLayouts => &"one document per number",
            Self::RetryMintsAgain | Self::ReceiptNotShipped => &"a repeated write is one write",
            Self::Resurrection => &"gossip removes nobody and brings nobody back",
            Self::StampsBelieved | Self::OthersBlamed => &"silence is judged by one's own clock",
            Self::OthersRaised | Self::IncarnationKept => &"only a member raises its incarnation",
            Self::NobodyTold => &"everybody sees the same in the end",
            Self::FencedWait => &"comes to rest",
            Self::ReapInFlight
            | Self::ReapOneSeal
            | Self::SealUnsynced
            | Self::RestoredUnjudged
            | Self::SalvageUnjudged => &"the dead stay dead",
            Self::FencedCounts => &"a removed store has no say",
        }
    }

    /// Within how many seeds it must be found.
    pub fn budget(self) -> u64 {
        match self {
            Self::AckBeforeSync | Self::ObjectContextAnswered | Self::ObjectContextShipped => 10,
            Self::PlainVectors | Self::LineNotRaised | Self::PolledLayouts => 50,
            Self::DotReuse => 100,
            Self::LeavesApart | Self::LeafKeepsOld => 100,
            Self::RebuildingReads => 700,
            Self::RefillAfterOne => 3_000,
            Self::ForgetfulFallback => 1_000,
            Self::OneLayout => 3_000,
            Self::SwitchAfterOne => 500,
            Self::StaleTaken => 1_000,
            Self::ErrorIsAbsent | Self::FencedWait => 2_000,
            Self::HealAfterOne | Self::HintsAsOwners => 2_000,
            Self::StaleCounts => 10,
            Self::WatermarkIgnored => 1_000,
            Self::BackupGoesOn => 1_000,
            Self::FenceKeepsLine => 6_000,
            Self::HintForgottenEarly
            | Self::AbsentFallback
            | Self::HintAckBeforeSync
            | Self::HintEvicted => 2_000,
            Self::ReapInFlight | Self::ReapOneSeal => 6_000,
            Self::SalvageUnjudged | Self::FencedCounts => 300,
            Self::RestoredUnjudged | Self::Doomstone | Self::SwitchUnfilled => 300,
            Self::SealUnsynced => 700,
            Self::RetryMintsAgain => 50,
            Self::ReceiptNotShipped => 4_000,
            Self::Resurrection
            | Self::StampsBelieved
            | Self::OthersRaised
            | Self::NobodyTold
            | Self::OthersBlamed
            | Self::IncarnationKept => 50,
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|bug| bug.name() == name);
        known.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|bug| bug.name()).collect();
            format!("no such bug in the zoo; there are {}", names.join(", "))
        })
    }
}

/// The object as a store of plain vectors would have it: the new dot claims all of its actor's earlier ones.
pub fn as_vector(object: &Object, dot: Dot) -> Object {
    let mut context: Context = object.context().clone();
    context.insert_interval(dot.actor, 0, dot.counter);
    let vector = Object::from_parts(context, object.siblings().to_vec());
    let receipts = object.receipts().to_vec();
    vector
        .with_receipts(receipts)
        .expect("the context only grew")
}
