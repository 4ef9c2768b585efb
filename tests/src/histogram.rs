use std::time::Duration;

const SUB_BITS: u32 = 5;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) << SUB_BITS;

/// Durations in logarithmic buckets, each within 3 % of what it holds. Recording costs an addition.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    /// Counts one duration, in nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// The duration that the share `p` (0 to 1) of what was recorded does not exceed; zero when nothing was.
    #[must_use]
    pub fn quantile(&self, p: f64) -> Duration {
        let rank = (self.total as f64 * p).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                return Duration::from_nanos(value(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    let magnitude = (nanos | 1 << SUB_BITS).ilog2() - SUB_BITS;
    ((magnitude as usize) << SUB_BITS) + (nanos >> magnitude) as usize
}

fn value(index: usize) -> u64 {
    let magnitude = (index >> SUB_BITS).saturating_sub(1);
    ((index - (magnitude << SUB_BITS)) as u64) << magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_four_percent() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|n| histogram.record(n * 1_000));
        for (p, expected) in [(0.5, 50_000_000.0), (0.99, 99_000_000.0)] {
            let found = histogram.quantile(p).as_nanos() as f64;
            assert!((found / expected - 1.0).abs() < 0.04, "{p}: {found}");
        }
        histogram.record(u64::MAX);
        assert!(histogram.quantile(1.0).as_nanos() > u128::from(u64::MAX / 2));
    }
}
