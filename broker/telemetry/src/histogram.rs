//! How long something takes.

use crate::counter::Measure;
use crate::samples::Samples;
use crate::table::Metric;
use crate::{Family, Label};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, from a quick fsync to a stuck disk; what takes longer is in `+Inf` alone.
const BOUNDS: [u64; 18] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// Durations by size. Any thread observes.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last one is for what is above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// What a histogram holds, ready to be written: cumulative counts by bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Durations {
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
    pub(crate) seconds: f64,
}

impl Histogram {
    /// Counts a duration.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| bound * 1_000 < nanos);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    fn durations(&self) -> Durations {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            count += bucket.load(Ordering::Relaxed);
            buckets.push((*bound as f64 / 1e6, count));
        }
        count += self.buckets[BOUNDS.len()].load(Ordering::Relaxed);
        Durations { buckets, count, seconds: self.nanos.load(Ordering::Relaxed) as f64 / 1e9 }
    }
}

impl Measure for Histogram {
    const LABELS: &'static [&'static str] = &[];

    fn read(&self, metric: &'static Metric, out: &mut Samples) {
        out.durations(metric, &[], self.durations());
    }
}

/// Histograms by label; a type of its own, because a family reads numbers.
#[derive(Debug)]
pub struct Histograms<L>(Family<L, Histogram>);

impl<L> Default for Histograms<L> {
    fn default() -> Self {
        Self(Family::default())
    }
}

impl<L: Label> Histograms<L> {
    /// The histogram for a value of the label by its text.
    pub fn named(&self, value: &str) -> Option<&Histogram> {
        self.0.iter().find(|(known, _)| *known == value).map(|(_, histogram)| histogram)
    }
}

impl<L: Label> std::ops::Index<L> for Histograms<L> {
    type Output = Histogram;

    fn index(&self, label: L) -> &Histogram {
        &self.0[label]
    }
}

impl<L: Label> Measure for Histograms<L> {
    const LABELS: &'static [&'static str] = &[L::NAME];

    fn read(&self, metric: &'static Metric, out: &mut Samples) {
        for (value, histogram) in self.0.iter() {
            out.durations(metric, &[value], histogram.durations());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_name() {
        let histograms = Histograms::<crate::Store>::default();
        histograms.named("inbox").unwrap().observe(Duration::from_millis(1));
        assert_eq!(histograms[crate::Store::Inbox].count(), 1);
        assert!(histograms.named("other").is_none());
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it_and_in_all_above() {
        let histogram = Histogram::default();
        for micros in [50, 51, 1_000, 40_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let read = histogram.durations();
        assert_eq!(read.buckets[..2], [(0.000_05, 1), (0.000_1, 2)]);
        assert_eq!(read.buckets[4], (0.001, 3));
        assert_eq!(read.buckets.last(), Some(&(30.0, 3)));
        assert_eq!((read.count, histogram.count()), (4, 4));
        assert!((read.seconds - 40.001_101).abs() < 1e-9);
    }
}
