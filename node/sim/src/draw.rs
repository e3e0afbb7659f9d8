//! Small seeded numbers for what happens during a run: delays, losses, kept batches.
//!
//! Each is a hash of the seed and of what it is for (this link's seventh message, this node's third sync),
//! never the next value of one stream: dropping an entry of a plan leaves all other draws as they were,
//! which is what makes shrinking work. Plans themselves come from ChaCha, see `plan`.

/// Mixes words into one number (splitmix64, chained).
pub fn mix(words: &[u64]) -> u64 {
    let step = |state: u64, word: &u64| {
        let mut mixed = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    words.iter().fold(0x5169_6279_6c00_0000, step)
}

/// A short stream of draws for one purpose.
#[derive(Clone, Debug)]
pub struct Draw {
    words: [u64; 4],
}

impl Draw {
    /// Draws for this purpose; equal words give equal draws.
    pub fn of(seed: u64, purpose: u64, which: u64) -> Self {
        Self {
            words: [seed, purpose, which, 0],
        }
    }

    /// The next draw: any number.
    pub fn word(&mut self) -> u64 {
        self.words[3] += 1;
        mix(&self.words)
    }

    /// A number below `bound`, or 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound.max(1)
    }

    /// True in so many of 1,000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// About exponentially distributed around `mean`, at most eight times as much.
    pub fn around(&mut self, mean: u64) -> u64 {
        let doublings = self.word().trailing_ones().min(3);
        self.below(mean + 1) << doublings
    }
}
