//! Latencies in buckets whose width grows with the value: at most 1/128 too high, at any scale.
//!
//! Recording is an index and an addition. Laws, tested: counts add up under merging, and every quantile lies
//! between a recorded value and that value plus 1/128.

/// Buckets per doubling: the relative error of a quantile is at most 1/128.
const STEPS: u64 = 128;

/// log2 of [`STEPS`].
const STEP_BITS: u32 = 7;

/// Longest latency told apart, about 18 minutes in nanoseconds; longer ones count as this.
const MOST: u64 = (1 << 40) - 1;

/// Buckets up to [`MOST`]: one row for values below 128, one for each of the 33 doublings above.
const BUCKETS: usize = (40 - STEP_BITS as usize + 1) * STEPS as usize;

/// A distribution of latencies in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    greatest: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: vec![0; BUCKETS],
            count: 0,
            greatest: 0,
        }
    }
}

impl Histogram {
    /// Adds one latency.
    pub(super) fn record(&mut self, nanoseconds: u64) {
        let value = nanoseconds.min(MOST);
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.greatest = self.greatest.max(value);
    }

    /// Adds all latencies of another.
    pub(super) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.greatest = self.greatest.max(other.greatest);
    }

    /// How many were recorded.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The latency that a share of all does not exceed, in nanoseconds; 0 if nothing was recorded.
    pub(super) fn quantile(&self, share: f64) -> u64 {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut passed = 0;
        for (index, count) in self.counts.iter().enumerate() {
            passed += count;
            if passed >= rank {
                return highest(index).min(self.greatest);
            }
        }
        self.greatest
    }

    /// The greatest latency, in nanoseconds.
    pub(super) fn greatest(&self) -> u64 {
        self.greatest
    }
}

/// The bucket of a value up to [`MOST`].
fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// The greatest value of a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    ((index % STEPS + STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BUCKETS, Histogram, MOST, bucket, highest};

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        assert_eq!(bucket(MOST), BUCKETS - 1);
        for index in 1..BUCKETS {
            let first = highest(index - 1) + 1;
            assert_eq!((bucket(first), bucket(highest(index))), (index, index));
        }
    }

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::default().quantile(0.99), 0);
    }

    fn recorded(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    proptest! {
        #[test]
        fn quantiles_are_at_most_a_128th_too_high(
            mut values in prop::collection::vec(0..MOST, 1..200), share in 0.0..=1.0f64,
        ) {
            let histogram = recorded(&values);
            values.sort_unstable();
            let rank = ((share * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let told = histogram.quantile(share);
            prop_assert!(told >= exact && told <= exact + exact / 128, "{told} for {exact}");
            prop_assert_eq!(histogram.greatest(), *values.last().expect("at least one value"));
        }

        #[test]
        fn merging_is_recording_all(
            a in prop::collection::vec(any::<u64>(), 0..50), b in prop::collection::vec(any::<u64>(), 0..50),
        ) {
            let mut merged = recorded(&a);
            merged.merge(&recorded(&b));
            let all = recorded(&[a, b].concat());
            prop_assert_eq!((&merged.counts, merged.count(), merged.greatest()), (&all.counts, all.count(), all.greatest()));
        }
    }
}
