//! Durations, counted in buckets of 1/64 relative width: small to send between processes, exact enough for percentiles.

use serde::{Deserialize, Serialize};

const SUB_BITS: u32 = 6;

/// How many of which duration, in nanoseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    pub(super) fn record(&mut self, ns: u64) {
        let bucket = bucket(ns);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
    }

    pub(super) fn add(&mut self, other: &Histogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration that `percent` of all do not exceed, in nanoseconds; 0 if there is none.
    pub(super) fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map_or(0, upper)
    }
}

/// Below 64 every number has its own bucket; above, every power of two has 64.
fn bucket(ns: u64) -> usize {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(SUB_BITS + 1);
    let bucket = (u64::from(shift) << SUB_BITS) + (ns >> shift);
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// The largest number in a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    ((bucket - (shift << SUB_BITS) + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lies_in_a_bucket_that_is_narrow_and_ends_at_or_above_it() {
        for ns in (0..2_000).chain((11..40).flat_map(|p| [(1 << p) - 1, 1 << p, (1 << p) + 77])) {
            let top = upper(bucket(ns));
            assert!(top >= ns && top - ns <= ns / 64, "{ns} {top}");
            assert_eq!(bucket(top), bucket(ns));
            assert_eq!(bucket(top + 1), bucket(ns) + 1);
        }
    }

    #[test]
    fn percentiles_are_those_of_the_recorded() {
        let mut all = Histogram::default();
        (1..=50).for_each(|ns| all.record(ns));
        assert_eq!(
            (all.percentile(50), all.percentile(98), all.percentile(100)),
            (25, 49, 50)
        );
        assert_eq!(Histogram::default().percentile(99), 0);
    }
}
