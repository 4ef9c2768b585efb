use std::time::Instant;

/// A token bucket: a steady rate, with bursts of one second.
#[derive(Debug)]
pub(crate) struct Rate {
    tokens: f64,
    at: Instant,
}

impl Rate {
    pub(crate) fn new(now: Instant, per_second: u32) -> Self {
        Self { tokens: f64::from(per_second), at: now }
    }

    pub(crate) fn take(&mut self, now: Instant, per_second: u32) -> bool {
        let rate = f64::from(per_second);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + elapsed * rate).min(rate);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}
