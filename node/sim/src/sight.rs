//! What a batch of runs must have met at least once: a simulator that never sees a forward tests none.
//!
//! The idea is FoundationDB's and Antithesis' sometimes-assertions. A batch that misses one of these
//! fails, so a change that quietly makes the faults tame is noticed.

use std::fmt;

macro_rules! sights {
    ($($(#[doc = $text:literal])+ $name:ident => $words:literal,)+) => {
        /// Something worth having met.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Sight { $($(#[doc = $text])+ $name,)+ }

        impl Sight {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// In words.
            pub fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)+ }
            }
        }
    };
}

sights! {
    /// A write went to the owners of two layouts.
    BothLayouts => "a write while its key changed hands",
    /// A node heard that partitions were switched.
    Switched => "a partition switched to its new owners",
    /// A question went by owners that are not those of now.
    Stale => "a question by an older layout refused",
    /// A minted write went to the owners of a newer document.
    BegunAgain => "a minted write begun again on a newer layout",
    /// A read asked the owners of a newer document.
    ReadAgain => "a read begun again on a newer layout",
    /// A hint was given to other targets.
    Rerouted => "a hint re-routed to the owners of now",
    /// A node forgot a key that it owned.
    LetGo => "a former owner that let go of a key",
    /// A write was answered.
    Written => "a write answered at W",
    /// A write was minted and W was not met.
    WriteUnknown => "a write whose quorum was missed",
    /// A write was certainly not minted.
    NotWritten => "a write refused before it was minted",
    /// A write met the caps of its bucket.
    Capped => "a write refused by the bucket's caps",
    /// A read could not be answered at R.
    ReadMissed => "a read whose quorum was missed",
    /// A node gave a write to another one.
    Forwarded => "a write forwarded to an owner",
    /// A forward was tried elsewhere.
    Retried => "a forward tried at a second owner",
    /// A forward got no answer.
    ForwardLost => "a forward whose answer never came",
    /// A client repeated a write.
    AskedAgain => "a write repeated by its client",
    /// A retry was recognised.
    Recognised => "a retry recognised, and not minted again",
    /// A write that may be repeated was handed on although it may have been minted.
    HandedOnUnsure => "a repeatable write tried elsewhere after an unknown outcome",
    /// A strict write could not be looked for.
    Unsure => "a strict repeatable write refused because too few answered the look",
    /// A read met the twin of a superseded write.
    TwinHidden => "a retry's twin left out, since the write was superseded",
    /// Digests differed and the object was fetched.
    Fetched => "an object fetched after differing digests",
    /// A read asked another replica for the object.
    Hedged => "a hedged read",
    /// A replica was repaired by a read.
    Repaired => "a read repair that changed a copy",
    /// A read found siblings.
    Siblings => "a read that found siblings",
    /// A node crashed and lost unsynced batches.
    UnsyncedLost => "a crash that lost unsynced data",
    /// A node crashed between its mint and its sync.
    MintLost => "a crash that lost a minted write of its coordinator",
    /// A sync failed.
    SyncFailed => "a sync that failed and stopped its node",
    /// Two commands shared a sync.
    Grouped => "a group commit of several commands",
    /// A node lost its store.
    Wiped => "a wipe",
    /// A wipe was not done, because a promise could not have been kept.
    WipeSpared => "a wipe spared by the budget",
    /// A node found its engine behind its watermark.
    Behindhand => "an engine behind its watermark, found out at start",
    /// An engine refused to open.
    Refused => "an engine that refuses to open",
    /// A backup was restored.
    Restored => "a backup restored",
    /// A node met a record that fails its checksum.
    Fenced => "a record that fails its checksum, fenced",
    /// A join of what cannot be read was refused.
    FencedJoin => "a join refused at a fenced record",
    /// A mint on what cannot be read was refused.
    FencedMint => "a mint refused at a fenced record",
    /// What other owners hold took its place.
    Healed => "a fenced record replaced by what other owners hold",
    /// A node took nothing because its disk was full.
    DiskFull => "a write refused by a full disk",
    /// A delete was taken all the same.
    DeletedWhenFull => "a delete coordinated on a full disk",
    /// A node stood still.
    Stood => "a node that stood still",
    /// A message waited in a clogged link.
    Clogged => "a message that waited in a clogged link",
    /// Reads alone brought owners together.
    MendedByReads => "owners brought together by reads alone",
    /// A node without data was filled again.
    Refilled => "a refill after a wipe",
    /// An exchange found nothing.
    ExchangedEqual => "an exchange between equal copies",
    /// An exchange found something and finished.
    ExchangedDifferent => "an exchange that brought copies together",
    /// An exchange was broken off.
    ExchangeBroken => "an exchange that was broken off",
    /// A node whose reads do not count answered.
    Uncounted => "a read answered by a rebuilding replica",
    /// A link was cut in one direction only.
    OneWay => "a message lost to a one-way cut",
    /// A message was lost.
    Lost => "a lost message",
    /// A message came twice.
    Doubled => "a doubled message",
    /// A message overtook another one on its link.
    Overtaken => "a message overtaken by a later one",
    /// A deleted value was known somewhere and superseded.
    Deleted => "an acknowledged delete",
    /// A blind write covered a tombstone.
    Buried => "a blind write over a tombstone",
    /// A write was acknowledged with hints.
    SloppyAck => "a write acknowledged with the help of fallbacks",
    /// A write was minted by a node that owns nothing of it.
    StoodIn => "a write coordinated by a fallback",
    /// A stand-in minted again on what it kept.
    StoodInAgain => "a fallback that mints again on its hint",
    /// An owner was silent for too long.
    Impatient => "a hint for an owner that was silent",
    /// A hint was delivered and forgotten.
    HintDelivered => "a hint delivered",
    /// A hint grew while it was delivered, and stayed.
    HintGrew => "an acknowledgement that names too little, and a hint that stays",
    /// A delivery got no answer.
    HintFailed => "a delivery that failed",
    /// A hint was refused.
    HintRefused => "a hint refused over the quota",
    /// A returned node asked for its hints.
    Collected => "a returned node that asks for what is kept for it",
    /// A hint counted in a read.
    FallbackRead => "a read answered with the help of a fallback",
    /// An owner forgot what all had sealed.
    Reaped => "a deleted key reaped",
    /// A restored partition was older than no reap.
    RestoredShown => "a restored partition that nothing was reaped of since",
    /// One may have been reaped since.
    RestoredAside => "a restored partition set aside, for it may have been reaped",
    /// A store was removed, and found it out.
    FoundOut => "a removed node that finds out",
    /// What a removed store said was refused.
    RefusedRemoved => "a word of a removed store refused",
    /// An owner took over what only a removed store held.
    SalvageImported => "salvage: an object imported",
    /// Nobody may take what may have been reaped.
    SalvageAside => "salvage: an object set aside",
    /// A process that gave died, and the next one went on.
    SalvageResumed => "salvage: resumed after a crash",
    /// A member could not take something now.
    SalvageWaits => "salvage: put off and tried again",
    /// Everything was given.
    Emptied => "salvage: everything given, and the store put aside",
    /// A registry ballot was refused for a higher one.
    Outvoted => "a registry round lost to a higher ballot",
    /// A change came into force.
    Changed => "a registry change made",
    /// A change was given up.
    ChangeFailed => "a registry change given up",
    /// An amnesiac's new store was named.
    Renamed => "an amnesiac's new store named",
    /// Gossip: a running member was suspected by somebody who could not reach it.
    FalselySuspected => "a running member suspected",
    /// Gossip: it heard of that.
    Refuted => "a suspicion refuted",
    /// Gossip: a member that was away is there again.
    CameBack => "a member that returned",
    /// Gossip: a member was removed while some could not hear of it.
    RemovedUnheard => "a removal that not everybody heard of",
    /// Gossip: a removed member spoke to somebody who knew.
    RemovedSpoke => "a removed member that spoke up",
    /// Gossip: a node slept longer than every timer.
    Slept => "a pause longer than every timer",
    /// Gossip: a steady clock jumped.
    ClockJumped => "a steady clock that jumped",
    /// Gossip: an older disk was noticed by what others remembered.
    Forgot => "an older disk found out by its peers",
    /// Gossip: a store that was lost went on above the old one's incarnation.
    GoneAbove => "a new store that went on above the old one",
    /// Gossip: all agreed on a change.
    Agreed => "a change that all agreed on",
    /// A frame carried a higher registry number.
    Behind => "a frame with a higher registry number",
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// How often each was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sights {
    counts: Vec<u64>,
}

impl Default for Sights {
    fn default() -> Self {
        Self {
            counts: vec![0; Sight::ALL.len()],
        }
    }
}

impl Sights {
    /// Met once more.
    pub fn met(&mut self, sight: Sight) {
        self.counts[sight as usize] += 1;
    }

    /// How often this was met.
    pub fn count(&self, sight: Sight) -> u64 {
        self.counts[sight as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        let pairs = self.counts.iter_mut().zip(&other.counts);
        pairs.for_each(|(mine, theirs)| *mine += theirs);
    }

    /// What was never met.
    pub fn missing(&self) -> Vec<Sight> {
        let never = |sight: &&Sight| self.count(**sight) == 0;
        Sight::ALL.iter().filter(never).copied().collect()
    }
}
