//! A stand-in for the crate `base2histogram`, which openraft counts batch sizes with.
//!
//! The original computes bucket boundaries for all sixteen of its precisions at first use: 26 MB that stay resident in every
//! process with a Raft group, more than the rest of an empty node. We read none of these statistics. This crate has the part of its
//! interface that openraft uses, with one bucket for each power of two.

use std::fmt;
use std::marker::PhantomData;

const BUCKETS: usize = 65;

/// Counts values by their number of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    data: PhantomData<T>,
}

/// What lies below which value, rounded up to the end of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is a percentile")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], data: PhantomData }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts one value many times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        self.counts[(u64::BITS - value.leading_zeros()) as usize] += count;
    }

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.permille(1),
            p1: self.permille(10),
            p5: self.permille(50),
            p10: self.permille(100),
            p50: self.permille(500),
            p90: self.permille(900),
            p99: self.permille(990),
            p99_9: self.permille(999),
        }
    }

    fn permille(&self, permille: u128) -> u64 {
        let wanted = u128::from(self.total()) * permille;
        let mut below = 0;
        for (bits, count) in self.counts.iter().enumerate() {
            below += u128::from(*count) * 1000;
            if below >= wanted && below > 0 {
                return if bits == 0 { 0 } else { u64::MAX >> (64 - bits) };
            }
        }
        0
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "samples={} p50={} p99={} p99.9={}", self.samples, self.p50, self.p99, self.p99_9)
    }
}

/// Histograms under their names, to print.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl AsciiChart {
    /// An empty chart.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more histogram.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "the name is openraft's")]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.0.push((name.into(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0 {
            writeln!(f, "{name}: {}", histogram.percentile_stats())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_ends_of_their_buckets() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        (1..=100).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p50, stats.p99_9), (100, 1, 63, 127));
        histogram.record(u64::MAX);
        assert_eq!(histogram.percentile_stats().p99_9, u64::MAX);
    }
}
