use std::time::{Duration, Instant};

/// A bandwidth: after each transfer the next one waits until the rate is kept again. One transfer is never cut, so a burst is
/// what one read or write brings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Throttle {
    until: Option<Instant>,
}

impl Throttle {
    /// Notes a transfer and tells how much later the next one may start for it. `bytes_per_sec` 0: no limit.
    pub(super) fn moved(&mut self, now: Instant, bytes: usize, bytes_per_sec: u64) -> Duration {
        if bytes_per_sec == 0 || bytes == 0 {
            return Duration::ZERO;
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_sec as f64);
        self.until = Some(self.until.map_or(now, |until| until.max(now)) + takes);
        takes
    }

    /// Whether there is a limit and something was moved.
    pub(super) fn is_used(&self) -> bool {
        self.until.is_some()
    }

    /// When the next transfer may start, if not now.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_many_transfers() {
        let start = Instant::now();
        let (mut throttle, mut now) = (Throttle::default(), start);
        for _ in 0..10 {
            throttle.moved(now, 500, 1000);
            now = throttle.wait(now).unwrap();
        }
        assert_eq!(now - start, Duration::from_secs(5));
        assert_eq!(throttle.wait(now), None);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut throttle = Throttle::default();
        throttle.moved(Instant::now(), 1 << 30, 0);
        assert_eq!(throttle.wait(Instant::now()), None);
    }
}
