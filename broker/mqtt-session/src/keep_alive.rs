use std::time::{Duration, Instant};

/// When silence ends the connection: before CONNACK counted from the accept, after it from the last packet.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    since: Instant,
    /// Zero: never.
    allowed: Duration,
}

impl KeepAlive {
    pub(crate) fn connecting(now: Instant, seconds: u16) -> Self {
        Self { since: now, allowed: Duration::from_secs(u64::from(seconds)) }
    }

    /// One and a half times the keep-alive [MQTT-3.1.2-22]; 0 turns it off.
    pub(crate) fn connected(now: Instant, seconds: u16) -> Self {
        Self { since: now, allowed: Duration::from_millis(u64::from(seconds) * 1500) }
    }

    /// The same, but no silence longer than `max_seconds`, whatever the keep-alive says; 0: no such limit.
    pub(crate) fn capped(self, max_seconds: u32) -> Self {
        let max = Duration::from_secs(u64::from(max_seconds));
        let allowed = match (self.allowed.is_zero(), max.is_zero()) {
            (_, true) => self.allowed,
            (true, false) => max,
            (false, false) => self.allowed.min(max),
        };
        Self { allowed, ..self }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.since = now;
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.allowed.is_zero() { None } else { self.since.checked_add(self.allowed) }
    }

    /// Before CONNACK: by when an answer that is due must be there, if only to be undone.
    pub(crate) fn last_deadline(&self) -> Option<Instant> {
        self.since.checked_add(self.allowed * 3)
    }
}
